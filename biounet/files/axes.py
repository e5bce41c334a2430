"""The axes of a file to ``(c, [z,] y, x)``. Where a file leaves a choice, the user makes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from biounet.core import InputError, Note, NoteCode, SettingsError, as_spacing, is_integer
from biounet.files.channels import as_names, as_selection, check_number
from biounet.files.formats.raw import DEFAULT_LIMIT, RawImage, format_shape, remove_alpha
from biounet.files.formats.scenes import as_scene
from biounet.files.stacks import Projection, as_frames, check_projection, select_frames

Paths = str | Path | Sequence[str | Path]

_UID = re.compile(r"[0-9.]{20,}")
_SCENES = "|"  # between the scenes of files
_LETTERS = "TZCYXS"
_PLURALS = {"T": "times", "Z": "planes"}
_MAX_CHANNELS = 4  # pages of a file without axes that are more likely channels than planes


@dataclass(frozen=True)
class ReadOptions:
    """What the user states about files, which has precedence over what they state themselves.

    A value that is invalid for any file is a `SettingsError`.

    Attributes
    ----------
    axes
        One letter for each axis of the file, such as ``"ZCYX"``; axes of length 1 may be left out.
    spacing
        Pixel size, ``(y, x)`` or ``(z, y, x)``, or one number for all axes: in µm, in mm for NIfTI.
    channel
        The one channel to segment, by number from 0 or by name; None: all.
    plane
        Number from 0 of the plane, time or page to use of an image that has one axis more than `dims` and channels.
    limit
        Bytes that one image may take in memory.
    channels
        Names of all channels of the file, or one for each file of an image, instead of those in OME-XML or ImageJ.
    measure
        Further channels to measure, by number or name, or ``"all"``; the segmented one is measured anyway.
    inputs
        Number of channels that the model takes: for one, colours that hold only grey are read as that. None: unknown.
    project
        How an image is made of the planes of a stack, ``max``, ``mean`` or ``focus``, as by
        `biounet.files.stacks.project_planes`; None: it is not.
    frames
        Frames of a time series, ``all``, a number from 0 or ``start:stop`` without the last; None: files have one.
    scene
        Which image of a path that holds several: the number from 0, or the name, of a scene or position in a file of a
        microscope; or the SeriesInstanceUID of a series in a folder of DICOM files, with what chooses one of its
        volumes, such as ``1.2.3 b=1000``. Of an image with a file for each channel, one for each by `join_scenes`.
        Empty: the path holds one. For many images it may name several, with commas between them.
    series
        Which series of a folder of DICOM files are images: patterns of their description, their numbers or UIDs, such
        as ``T1*`` or, with a volume of the series, ``DWI* b=1000``. For models of several channels, one for each:
        ``t1c=*MPRAGE*,flair=*FLAIR*``. Empty: all but localisers, captures and the like.
    """

    axes: str | None = None
    spacing: tuple[float, ...] | None = None
    channel: int | str | None = None
    dims: Literal[2, 3] | int = 2
    plane: int | None = None
    limit: int = DEFAULT_LIMIT
    channels: tuple[str, ...] | None = None
    measure: tuple[int | str, ...] = ()
    inputs: int | None = None
    project: Projection | None = None
    frames: str | int | None = None
    scene: str = ""
    series: str = ""

    def __post_init__(self) -> None:
        check_projection(self.project)
        if self.frames is not None:
            object.__setattr__(self, "frames", as_frames(self.frames))
        object.__setattr__(self, "scene", as_scene(self.scene))
        if not is_integer(self.dims) or self.dims not in (2, 3):
            raise SettingsError(f"an image has 2 or 3 dimensions, not {self.dims}")
        if self.axes is not None:
            letters = self.axes.upper() if isinstance(self.axes, str) else ""
            if len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters) <= set(_LETTERS):
                cause = f"axes {self.axes!r}: Y and X, and those of {', '.join('TZCS')} that there are, once each"
                raise SettingsError(cause, hint="for example ZCYX")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", as_spacing(self.spacing, self.dims))
        if self.channel is not None and not (is_integer(self.channel) or isinstance(self.channel, str)):
            raise SettingsError(f"channel {self.channel!r}: a number from 0, or a name")
        if self.plane is not None and not is_integer(self.plane):
            raise SettingsError(f"plane {self.plane!r}: a number from 0")
        if self.channels is not None:
            object.__setattr__(self, "channels", as_names(self.channels))
        object.__setattr__(self, "measure", as_selection(self.measure))
        if self.project is not None and self.dims == 3:
            hint = "take a model for images, such as nuclei, or leave it out"
            raise SettingsError(f"project {self.project!r} makes images, and this model is for volumes", hint=hint)
        if self.project is not None and self.plane is not None:
            raise SettingsError(f"plane {self.plane} is one of the planes that project {self.project!r} makes one of")

    @property
    def chooses_channels(self) -> bool:
        """Whether channels are chosen or named, and not all used as they are."""
        return self.channel is not None or self.channels is not None or bool(self.measure)


def join_scenes(scenes: Sequence[str]) -> str:
    """Return the scenes of the files of one image as one text; empty if none is."""
    return _SCENES.join(scenes) if any(scenes) else ""


def split_scenes(scene: str, count: int) -> list[str]:
    """Return the scene of each of the files of an image."""
    scenes = scene.split(_SCENES)
    return scenes if len(scenes) == count else [scene] * count


def shorten_scene(scene: str) -> str:
    """Return a scene for messages, of each UID its end."""
    return _UID.sub(lambda match: f"…{match[0][-6:]}", scene.replace(_SCENES, ", "))


def to_channel_first(
    array: NDArray[Any], raw: RawImage, path: Path, options: ReadOptions
) -> tuple[NDArray[Any], tuple[str, ...], tuple[int, ...]]:
    """Return a view ``(c, [t,] [z,] y, x)`` of all channels, notes, and the numbers of the frames.

    Frames and planes that the options leave out are not in it; planes to project still are.
    """
    axes = _as_channels(resolve_axes(raw, options.axes, path), raw, options)
    notes: tuple[str, ...] = ()
    if raw.alpha and axes[raw.axes.index("S")] == "S":
        array, notes = remove_alpha(array, raw), (Note("the alpha channel is left out", NoteCode.ALPHA_LEFT_OUT),)
    kept = ("" if options.frames is None else "T") + ("Z" if options.project else "") + "ZYX"[-options.dims :]
    array, axes = squeeze(array, axes, kept)
    if "S" in axes and "C" in axes:
        raise InputError(f"both colours and channels (axes {axes})", path=path, hint="save the channels in grey")
    array, axes = _select_plane(array, axes.replace("S", "C"), kept, raw, path, options)
    if options.dims == 3 and "Z" not in axes:
        hint = "take a model or a recipe for images, such as nuclei or nuclei_2d"
        if raw.axes_source == "DICOM":
            hint = "name the folder of its series instead of a slice"
        raise InputError(f"an image, not a volume ({_describe(raw)})", path=path, hint=hint)
    if "C" not in axes:
        array, axes = array[None], "C" + axes
    array = array.transpose([axes.index(letter) for letter in "C" + kept])
    if options.frames is None:
        return array, notes, ()
    times = select_frames(str(options.frames), array.shape[1], path)
    return array[:, times.start : times.stop], notes, tuple(times)


def _as_channels(axes: str, raw: RawImage, options: ReadOptions) -> str:
    """Return axes of which one without a meaning is that of the channels, if the user gave a name for each of them."""
    unclear = [
        letter for letter in axes if letter in ("QIT" if raw.header is not None and options.frames is None else "QI")
    ]
    count = len(options.channels or ())
    if "C" in axes or "S" in axes or len(unclear) != 1 or raw.shape[axes.index(unclear[0])] != count:
        return axes
    return axes.replace(unclear[0], "C")


def resolve_axes(raw: RawImage, stated: str | None, path: Path) -> str:
    """Return one letter for each axis of the array, those that the user states or else those of the file."""
    if stated is None:
        if not {"Y", "X"} <= {*raw.axes}:
            guess = re.sub("[^TCSX]", "Y", raw.axes)
            hint = f"name the axes with --axes, such as {guess}"
            raise InputError(f"no image along y and x ({_describe(raw)})", path=path, hint=hint)
        return raw.axes
    axes = stated.upper()
    if len(axes) == len(raw.shape):
        if raw.axes.endswith("S") and axes[-1] in "YX":
            cause = f"axes {axes} do not fit the shape {format_shape(raw.shape)}, whose last axis holds colours"
            raise InputError(cause, path=path)
    elif len(axes) == sum(length > 1 for length in raw.shape):
        letters = iter(axes)
        axes = "".join(next(letters) if length > 1 else "?" for length in raw.shape)
    else:
        raise InputError(f"axes {axes} do not fit the shape {format_shape(raw.shape)}", path=path)
    if raw.header is None:
        return axes
    # The header of a NIfTI defines its spatial axes.
    if any(letter not in (own, "?") for letter, own in zip(axes[-3:], "ZYX", strict=True)):
        raise InputError(f"axes {axes}: those of a NIfTI end in ZYX", path=path, hint="for example CZYX")
    return axes[:-3] + "ZYX"


def squeeze(array: NDArray[Any], axes: str, spatial: str) -> tuple[NDArray[Any], str]:
    """Remove axes of length 1 that are not spatial."""
    removed = tuple(n for n, letter in enumerate(axes) if array.shape[n] == 1 and letter not in spatial)
    return array.squeeze(removed), "".join(letter for n, letter in enumerate(axes) if n not in removed)


def _select_plane(
    array: NDArray[Any], axes: str, kept: str, raw: RawImage, path: Path, options: ReadOptions
) -> tuple[NDArray[Any], str]:
    extra = [letter for letter in axes if letter not in kept + "C"]
    _check_stack(axes, extra, raw, path, options)
    if not extra:
        check_number("plane", options.plane or 0, 1, path)
        return array, axes
    if len(extra) > 1:
        cause = f"more than one image along {' and '.join(extra)} ({_describe(raw)})"
        hint = "segment has --frames all for times, and --project max or --plane for planes"
        if set(extra) - {*_PLURALS} and "S" not in raw.axes:
            hint = "name the axes with --axes, for example ZCYX"
        raise InputError(cause, path=path, hint=hint)
    at = axes.index(extra[0])
    length = array.shape[at]
    needs_z = options.dims == 3 and "Z" not in axes
    if options.plane is None or needs_z:
        raise _ambiguity_error(extra[0], length, needs_z, raw, path)
    check_number("plane", options.plane, length, path)
    return array[(slice(None),) * at + (options.plane,)], axes.replace(extra[0], "")


def _check_stack(axes: str, extra: Sequence[str], raw: RawImage, path: Path, options: ReadOptions) -> None:
    """Raise `InputError` if there are no times or no planes where the options are about them."""
    wanted = [("T", f"frames {options.frames}", "a time series", options.frames is not None)]
    wanted += [("Z", f"project {options.project!r}", "a stack", options.project is not None)]
    for letter, option, what, applies in wanted:
        if applies and letter not in axes:
            guess = (options.axes or raw.axes).upper().replace(extra[0], letter) if extra else ""
            hint = (
                f"if its pages are {_PLURALS[letter]}, say --axes {guess}"
                if guess
                else f"leave {option.split()[0]} out"
            )
            raise InputError(f"{option}: this is not {what} ({_describe(raw)})", path=path, hint=hint)


def _ambiguity_error(letter: str, length: int, needs_z: bool, raw: RawImage, path: Path) -> InputError:
    if letter in _PLURALS:
        hint = "it has no axis Z: name the axes with --axes if that is wrong" if needs_z else "choose one with --plane"
        if letter == "Z":
            hint += ", or take a model or a recipe for volumes, such as nuclei3d or nuclei_3d"
        if letter == "T" and raw.header is not None:
            hint += ", or say --axes CZYX if they are channels"
        if letter == "T" and not needs_z:
            hint += "; segment counts in each with --frames all"
        if letter == "Z" and not needs_z:
            hint += "; segment makes one image of them with --project max"
        return InputError(f"{length} {_PLURALS[letter]} ({_describe(raw)})", path=path, hint=hint)
    guess = "Z" if needs_z or length > _MAX_CHANNELS else "C"
    others = ", ".join(raw.axes.replace(letter, other) for other in "ZCT" if other != guess)
    hint = f"probably --axes {raw.axes.replace(letter, guess)}; it could be {others}"
    hint += "" if needs_z else "; --plane chooses one"
    cause = f"{length} pages, and the file does not say whether they are planes, channels or times ({_describe(raw)})"
    return InputError(cause, path=path, hint=hint)


def _describe(raw: RawImage) -> str:
    return f"axes {raw.axes}, shape {format_shape(raw.shape)}"
