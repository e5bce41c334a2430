"""Axes of files to ``(c, [z,] y, x)``; where a file leaves a choice, the user makes it and not this module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from biounet.core import InputError, SettingsError, as_spacing, is_integer
from biounet.files.formats.raw import LIMIT, RawImage

_KNOWN = "TZCYXS"
_WHAT = {"T": "times", "Z": "planes"}
_FEW = 4  # pages without a name that are more likely channels than planes


@dataclass(frozen=True)
class ReadOptions:
    """What the user knows better than the file.

    Attributes
    ----------
    axes
        One letter for each axis of the file, such as ``"ZCYX"``; axes of length 1 may be left out.
    spacing
        Pixel size, ``(y, x)`` or ``(z, y, x)``, or one number for all axes: in µm, in mm for NIfTI.
    channel
        The one channel to use, by number from 0 or by its name in OME-XML or ImageJ; None: all.
    dims
        2 or 3 spatial axes.
    plane
        Number from 0 of the plane, time or page to use of an image that has one axis more than `dims` and channels.
    limit
        Bytes that one image may take in memory.

    Raises
    ------
    SettingsError
        If a value cannot be one for any file.
    """

    axes: str | None = None
    spacing: tuple[float, ...] | None = None
    channel: int | str | None = None
    dims: Literal[2, 3] | int = 2
    plane: int | None = None
    limit: int = LIMIT

    def __post_init__(self) -> None:
        if not is_integer(self.dims) or self.dims not in (2, 3):
            raise SettingsError(f"an image has 2 or 3 dimensions, not {self.dims}")
        if self.axes is not None:
            given = self.axes.upper() if isinstance(self.axes, str) else ""
            if len(set(given)) != len(given) or not {"Y", "X"} <= set(given) <= set(_KNOWN):
                cause = f"axes {self.axes!r}: Y and X, and those of {', '.join('TZCS')} that there are, once each"
                raise SettingsError(cause, hint="for example ZCYX")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", as_spacing(self.spacing, self.dims))
        if self.channel is not None and not (is_integer(self.channel) or isinstance(self.channel, str)):
            raise SettingsError(f"channel {self.channel!r}: a number from 0, or a name")
        if self.plane is not None and not is_integer(self.plane):
            raise SettingsError(f"plane {self.plane!r}: a number from 0")


def arrange(
    array: NDArray[Any], raw: RawImage, path: Path, options: ReadOptions
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Bring the axes to ``(c, [z,] y, x)`` and drop what the options leave out, as a view; return it with remarks.

    Raises
    ------
    InputError
        If more than one image could be meant.
    """
    axes = named_axes(raw, options.axes, path)
    notes: tuple[str, ...] = ()
    if raw.alpha and axes[raw.axes.index("S")] == "S":
        array, notes = _without_alpha(array, raw), ("the alpha channel is left out",)
    keep = "ZYX"[-options.dims :]
    array, axes = _drop_single(array, axes, keep)
    if "S" in axes and "C" in axes:
        raise InputError(f"both colours and channels (axes {axes})", path=path, hint="save the channels in grey")
    axes = axes.replace("S", "C")
    array, axes = _pick_plane(array, axes, raw, path, options)
    if options.dims == 3 and "Z" not in axes:
        hint = "take a model or a recipe for images, such as nuclei or nuclei_2d"
        raise InputError(f"an image, not a volume ({_seen(raw)})", path=path, hint=hint)
    if "C" not in axes:
        array, axes = array[None], "C" + axes
    array = array.transpose([axes.index(letter) for letter in "C" + keep])
    return _pick_channel(array, raw, path, options), notes


def named_axes(raw: RawImage, given: str | None, path: Path) -> str:
    """Return one letter for each axis of the array: the given ones, or those of the file."""
    if given is None:
        return raw.axes
    given = given.upper()
    if len(given) == len(raw.shape):
        if raw.axes.endswith("S") and given[-1] in "YX":
            cause = f"axes {given} do not fit the shape {_shape(raw)}, whose last axis holds colours"
            raise InputError(cause, path=path)
        return _spatial_last(given, raw, path)
    if len(given) == sum(length > 1 for length in raw.shape):
        letters = iter(given)
        return _spatial_last("".join(next(letters) if length > 1 else "?" for length in raw.shape), raw, path)
    raise InputError(f"axes {given} do not fit the shape {_shape(raw)}", path=path)


def _spatial_last(axes: str, raw: RawImage, path: Path) -> str:
    """Return the axes; refuse those that turn a NIfTI volume, whose header says where its axes lead."""
    if raw.header is None:
        return axes
    if any(letter not in (own, "?") for letter, own in zip(axes[-3:], "ZYX", strict=True)):
        raise InputError(f"axes {axes}: those of a NIfTI end in ZYX", path=path, hint="for example CZYX")
    return axes[:-3] + "ZYX"


def _without_alpha(array: NDArray[Any], raw: RawImage) -> NDArray[Any]:
    at = raw.axes.index("S")
    first = min(raw.alpha)  # slicing gives a view, and alpha comes last in all formats
    return array[(slice(None),) * at + (slice(0, first),)]


def _drop_single(array: NDArray[Any], axes: str, keep: str) -> tuple[NDArray[Any], str]:
    sizes = zip(axes, array.shape, strict=True)
    gone = tuple(n for n, (letter, length) in enumerate(sizes) if length == 1 and letter not in keep)
    return array.squeeze(gone), "".join(letter for n, letter in enumerate(axes) if n not in gone)


def _pick_plane(
    array: NDArray[Any], axes: str, raw: RawImage, path: Path, options: ReadOptions
) -> tuple[NDArray[Any], str]:
    keep = "ZYX"[-options.dims :] + "C"
    left = [letter for letter in axes if letter not in keep]
    if not left:
        if options.plane:
            raise InputError(f"no plane {options.plane}: there is one, with number 0", path=path)
        return array, axes
    if len(left) > 1:
        cause = f"more than one image along {' and '.join(left)} ({_seen(raw)})"
        hint = "save the images you want as files of their own"
        if set(left) - {*_WHAT} and "S" not in raw.axes:
            hint = "name the axes with --axes, for example ZCYX"
        raise InputError(cause, path=path, hint=hint)
    at = axes.index(left[0])
    length = array.shape[at]
    needs_z = options.dims == 3 and "Z" not in axes
    if options.plane is None or needs_z:
        raise _ambiguous(left[0], length, needs_z, raw, path)
    if not 0 <= options.plane < length:
        raise InputError(f"no plane {options.plane}: there are {length}, from 0 to {length - 1}", path=path)
    return array[(slice(None),) * at + (options.plane,)], axes.replace(left[0], "")


def _ambiguous(letter: str, length: int, needs_z: bool, raw: RawImage, path: Path) -> InputError:
    if letter in _WHAT:
        hint = "it has no axis Z: name the axes with --axes if that is wrong" if needs_z else "choose one with --plane"
        if letter == "Z":
            hint += ", or take a model or a recipe for volumes, such as nuclei3d or nuclei_3d"
        if letter == "T" and raw.header is not None:
            hint += ", or say --axes CZYX if they are channels"
        return InputError(f"{length} {_WHAT[letter]} ({_seen(raw)})", path=path, hint=hint)
    guess = "Z" if needs_z or length > _FEW else "C"
    others = ", ".join(raw.axes.replace(letter, other) for other in "ZCT" if other != guess)
    hint = f"probably --axes {raw.axes.replace(letter, guess)}; it could be {others}"
    hint += "" if needs_z else "; --plane chooses one"
    cause = f"{length} pages, and the file does not say whether they are planes, channels or times ({_seen(raw)})"
    return InputError(cause, path=path, hint=hint)


def _pick_channel(array: NDArray[Any], raw: RawImage, path: Path, options: ReadOptions) -> NDArray[Any]:
    if options.channel is None:
        return array
    names = list(raw.channels) if len(raw.channels) == array.shape[0] else []
    number = options.channel
    if isinstance(number, str):
        if number not in names:
            known = f"the channels are {', '.join(names)}" if names else "the channels of this file have no names"
            raise InputError(f"no channel is called '{number}'", path=path, hint=f"{known}: give a number from 0")
        if names.count(number) > 1:
            cause = f"{names.count(number)} channels are called '{number}'"
            raise InputError(cause, path=path, hint="give the number of one, from 0")
        number = names.index(number)
    if not 0 <= number < array.shape[0]:
        there = (
            "there is one, with number 0" if len(array) == 1 else f"there are {len(array)}, from 0 to {len(array) - 1}"
        )
        raise InputError(f"no channel {number}: {there}", path=path)
    return array[number : number + 1]


def _seen(raw: RawImage) -> str:
    return f"axes {raw.axes}, shape {_shape(raw)}"


def _shape(raw: RawImage) -> str:
    return " x ".join(map(str, raw.shape))
