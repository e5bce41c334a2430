"""Channels of an image: what they are called, which are segmented and which are measured; colours that hold grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, SettingsError, is_integer
from biounet.files.formats.raw import COLOURS

if TYPE_CHECKING:
    from biounet.files.axes import ReadOptions

MEASURE_ALL = "all"
"""Stands for all channels but the segmented one."""
_NAME_THEM = "segment and measure take names of the channels with --channels"
_LONGEST_NAME = 100  # characters of the name of a channel


def as_names(value: object) -> tuple[str, ...]:
    """Return names of channels as a tuple of different ones; `SettingsError` for anything else."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise SettingsError(f"channels {value!r}: a list of names")
    names = tuple(clean_name(name) for name in value)
    folded = [name.casefold() for name in names]
    if not names or "" in names:
        raise SettingsError(f"channels {', '.join(names)!r}: an empty name", hint="one name for each channel")
    if twice := next((name for name in names if folded.count(name.casefold()) > 1), None):
        raise SettingsError(f"channels: '{twice}' stands there more than once")
    if MEASURE_ALL in folded:
        raise SettingsError(f"channels: none can be called '{MEASURE_ALL}', which stands for all of them")
    return names


def as_selection(value: object) -> tuple[int | str, ...]:
    """Return channels to measure as a tuple, ``("all",)`` for all; `SettingsError` if they are none."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    chosen: tuple[Any, ...] = tuple(value) if several else (value,)  # type: ignore[arg-type]
    if not all(is_integer(one) or (isinstance(one, str) and one.strip()) for one in chosen):
        shown = ", ".join(map(str, chosen)) or "nothing"
        raise SettingsError(f"measure '{shown}': numbers from 0 or names of channels, or '{MEASURE_ALL}'")
    chosen = tuple(clean_name(one) if isinstance(one, str) else int(one) for one in chosen)
    if len(set(chosen)) < len(chosen):
        raise SettingsError(f"measure {', '.join(map(str, chosen))}: a channel stands there more than once")
    is_all = any(isinstance(one, str) and one.casefold() == MEASURE_ALL for one in chosen)
    return (MEASURE_ALL,) if is_all else chosen


def clean_name(name: str) -> str:
    """Return the name of a channel without what no table should hold: control characters, and spaces around it."""
    return _as_line(name)[:_LONGEST_NAME].rstrip()


def is_clean_name(name: object) -> bool:
    """Whether this can be the name of a channel that was read: a short line, maybe with a number at its end."""
    return isinstance(name, str) and 0 < len(name) <= 2 * _LONGEST_NAME and _as_line(name) == name


def _as_line(name: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())


@dataclass(frozen=True)
class ChannelChoice:
    """The numbers of the channels that are segmented, with their names or none, and of those that are measured."""

    segmented: tuple[int, ...]
    names: tuple[str, ...] = ()
    measured: dict[str, int] = field(default_factory=dict)

    @property
    def used(self) -> tuple[int, ...]:
        """The numbers of all of them."""
        return (*self.segmented, *self.measured.values())

    def as_index(self) -> slice:
        """Return the segmented channels as an index: all of them, or one."""
        return slice(self.segmented[0], self.segmented[-1] + 1)


def choose_channels(count: int, stated: Sequence[str], path: Path, options: ReadOptions) -> ChannelChoice:
    """Return which of `count` channels the options choose.

    Parameters
    ----------
    stated
        The names in the file; not used if they are not as many as the channels, or if the options name the channels.

    Raises
    ------
    InputError
        If the options name more or fewer channels, or choose one that is not there.
    """
    names = tuple(clean_name(name) or f"channel_{n}" for n, name in enumerate(stated)) if len(stated) == count else ()
    if options.channels is not None:
        names = options.channels
        if len(names) != count:
            cause = f"{count} channel{'s' if count > 1 else ''}, and {len(names)} names ({', '.join(names)})"
            raise InputError(cause, path=path, hint="give one name for each channel of the file")
    segmented = tuple(range(count))
    if options.channel is not None:
        segmented = (_find_channel(options.channel, names, count, path),)
    measured: list[int] = []
    for one in options.measure:
        measured += range(count) if one == MEASURE_ALL else [_find_channel(one, names, count, path)]
    labels = _distinct(names) or tuple(f"channel_{number}" for number in range(count))
    further = {labels[number]: number for number in measured if number not in segmented}
    return ChannelChoice(segmented, tuple(names[number] for number in segmented) if names else (), further)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return different names: those that occur more than once get their number; none if that is not enough."""
    numbered = tuple(f"{name}_{n}" if names.count(name) > 1 else name for n, name in enumerate(names))
    return numbered if len(set(numbered)) == len(numbered) else ()


def _find_channel(wanted: int | str, names: Sequence[str], count: int, path: Path) -> int:
    """Return the number of a channel; capitals of its name only matter where several names differ in nothing else."""
    if not isinstance(wanted, str):
        text = str(wanted)
        if text not in names or (wanted < count and names[wanted] == text):
            if not 0 <= wanted < count and names:
                hint = f"the channels are {', '.join(names)}, counted from 0"
                raise InputError(f"no channel {wanted}: there are {count}", path=path, hint=hint)
            check_number("channel", wanted, count, path)
            return wanted
        if 0 <= wanted < count:
            cause = f"channel {wanted} is called '{names[wanted]}', and '{wanted}' is another channel"
            raise InputError(cause, path=path, hint=_NAME_THEM)
        wanted = text
    exact = [n for n, name in enumerate(names) if name == wanted]
    found = exact or [n for n, name in enumerate(names) if name.casefold() == wanted.casefold()]
    if not found:
        known = f"the channels are {', '.join(names)}" if names else "the channels of this file have no names"
        more = "" if names else f"; {_NAME_THEM}"
        raise InputError(f"no channel is called '{wanted}'", path=path, hint=f"{known}: give a number from 0{more}")
    if len(found) > 1:
        cause = f"{len(found)} channels are called '{wanted}'"
        raise InputError(cause, path=path, hint="give the number of one, from 0")
    return found[0]


def grey_of_colours(colours: NDArray[Any]) -> tuple[int, str] | None:
    """Return the channel that holds all of a picture in colours, and what was found; None if there is none.

    Parameters
    ----------
    colours
        Red, green and blue, shape ``(3, [z,] y, x)``.
    """
    first = colours[0]
    if (colours[1] == first).all() and (colours[2] == first).all():
        return 0, "red, green and blue are equal: read as grey"
    varied = [n for n, channel in enumerate(colours) if (channel != channel.flat[0]).any()]
    if len(varied) > 1:
        return None
    number = varied[0] if varied else int(np.argmax([channel.flat[0] for channel in colours]))
    return number, f"only {COLOURS[number]} holds an image: read as grey"


def check_number(name: str, number: int, count: int, path: Path) -> None:
    """Raise an `InputError` unless a number is that of one of `count` planes or channels."""
    if not 0 <= number < count:
        there = "there is one, with number 0" if count == 1 else f"there are {count}, from 0 to {count - 1}"
        raise InputError(f"no {name} {number}: {there}", path=path)
