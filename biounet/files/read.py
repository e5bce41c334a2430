"""Any file to a `Volume`: (c, [z,] y, x), calibrated where the file, or the user, says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.errors import InputError, SettingsError
from biounet.files.picture import read_picture
from biounet.files.raw import RawImage, own_errors
from biounet.files.tiff import read_tiff
from biounet.volume import Grid, Volume

_FORMATS: tuple[tuple[bytes, Callable[[Path], RawImage]], ...] = (
    (b"II*\x00", read_tiff),
    (b"MM\x00*", read_tiff),
    (b"II+\x00", read_tiff),
    (b"MM\x00+", read_tiff),
    (b"\x89PNG", read_picture),
    (b"\xff\xd8\xff", read_picture),
)
_WHAT = {"T": "times", "Z": "planes", "I": "pages", "Q": "pages", "P": "positions", "R": "positions", "M": "tiles"}


@dataclass(frozen=True)
class ReadOptions:
    """What the user knows better than the file.

    Attributes
    ----------
    axes
        One letter for each axis of the file, such as ``"ZCYX"``; axes of length 1 may be left out.
    spacing
        Pixel size in µm, ``(y, x)`` or ``(z, y, x)``.
    channel
        The one channel to use, by number from 0 or by name; None: all.
    dims
        2 or 3 spatial axes.
    plane
        Number from 0 of the plane, time or page to use of an image that has more than `dims` axes.
    """

    axes: str | None = None
    spacing: tuple[float, ...] | None = None
    channel: int | str | None = None
    dims: Literal[2, 3] | int = 2
    plane: int | None = None


@dataclass(frozen=True)
class Description:
    """What would be read of a file.

    Attributes
    ----------
    axes, shape, dtype
        Of the array in the file.
    grid
        Of the image that comes of it.
    channels
        Number of channels that come of it.
    notes
        Remarks for the user.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: str
    grid: Grid
    channels: int
    notes: tuple[str, ...]


def read_volume(path: str | Path, options: ReadOptions | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    path
        A TIFF, PNG or JPEG; the content decides, not the name.
    options
        Axes, pixel size, channel and plane, where the file does not say them or there is a choice.

    Returns
    -------
    Array ``(c, y, x)`` or ``(c, z, y, x)`` in the file's type.

    Raises
    ------
    InputError
        If the file is damaged, its axes are ambiguous, or pixels are not finite numbers.
    """
    path, options = Path(path), options or ReadOptions()
    raw = open_raw(path)
    return _as_volume(raw, raw.load(), path, options)


def describe(path: str | Path, options: ReadOptions | None = None) -> Description:
    """Say what `read_volume` would read, from the headers alone; the errors are the same where headers show them."""
    path, options = Path(path), options or ReadOptions()
    raw = open_raw(path)
    blank = np.broadcast_to(np.zeros((), raw.dtype), raw.shape)
    array, notes = _arrange(blank, raw, path, options)
    grid = _grid(array.shape[1:], raw, options, path)
    notes = tuple(note for note in (*raw.notes, *notes) if grid.spacing is None or "pixel size" not in note)
    return Description(raw.axes, raw.shape, str(raw.dtype), grid, array.shape[0], notes)


@own_errors
def open_raw(path: Path) -> RawImage:
    """Open a file by its content."""
    if path.is_dir():
        raise InputError("a folder, not an image", path=path)
    with path.open("rb") as file:
        begin = file.read(16)
    if not begin:
        raise InputError("empty file", path=path)
    for magic, read in _FORMATS:
        if begin.startswith(magic):
            return read(path)
    shown = begin.decode("ascii", "replace").replace("\ufffd", "?")
    raise InputError(f"not a TIFF, PNG or JPEG (begins with {shown!r})", path=path)


def _as_volume(raw: RawImage, array: NDArray[Any], path: Path, options: ReadOptions) -> Volume:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InputError(f"pixels of type {array.dtype} are not supported", path=path)
    array, notes = _arrange(array, raw, path, options)
    if array.dtype.kind == "f":
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise InputError(f"{bad} of {array.size} pixels are NaN or infinite", path=path)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    grid = _grid(array.shape[1:], raw, options, path)
    notes = [note for note in (*raw.notes, *notes) if grid.spacing is None or "pixel size" not in note]
    if array.min() == array.max():
        notes.append(f"constant image: every pixel is {array.flat[0]}")
    return Volume(np.ascontiguousarray(array), grid, path, tuple(notes))


def _arrange(
    array: NDArray[Any], raw: RawImage, path: Path, options: ReadOptions
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Bring the axes to ``(c, [z,] y, x)``."""
    axes = _named_axes(raw, options.axes, path)
    notes: list[str] = []
    keep = "ZYX" if options.dims == 3 else "YX"
    array, axes = _drop_single(array, axes, keep)
    if "S" in axes and "C" in axes:
        raise InputError(f"both colours and channels (axes {axes})", path=path, hint="save channels in grey")
    if "S" in axes and array.shape[axes.index("S")] == 4:
        array = array.take(range(3), axes.index("S"))
        notes.append("the alpha channel is left out")
    axes = axes.replace("S", "C")
    if options.dims == 3 and "Z" not in axes:
        raise InputError(f"not a volume: axes {raw.axes}, shape {raw.shape}", path=path, hint="name them with --axes")
    array, axes = _pick_plane(array, axes, keep, raw, path, options)
    if "C" not in axes:
        array, axes = array[None], "C" + axes
    array = array.transpose([axes.index(letter) for letter in "C" + keep])
    return _pick_channel(array, raw, path, options), tuple(notes)


def _named_axes(raw: RawImage, given: str | None, path: Path) -> str:
    if given is None:
        return raw.axes
    given = given.upper()
    if len(set(given)) != len(given) or not set(given) <= set("XYZCTS") or not {"X", "Y"} <= set(given):
        raise SettingsError(f"--axes {given}: each of X, Y and, if there, Z, C, S, T once")
    if len(given) == len(raw.shape):
        return given
    if len(given) == sum(length > 1 for length in raw.shape):
        letters = iter(given)
        return "".join(next(letters) if length > 1 else "?" for length in raw.shape)
    raise InputError(f"--axes {given} does not fit shape {raw.shape}", path=path)


def _drop_single(array: NDArray[Any], axes: str, keep: str) -> tuple[NDArray[Any], str]:
    gone = tuple(n for n, (letter, length) in enumerate(zip(axes, array.shape, strict=True)) if length == 1 and letter not in keep)
    return array.squeeze(gone), "".join(letter for n, letter in enumerate(axes) if n not in gone)


def _pick_plane(
    array: NDArray[Any], axes: str, keep: str, raw: RawImage, path: Path, options: ReadOptions
) -> tuple[NDArray[Any], str]:
    left = [letter for letter in axes if letter not in keep + "C"]
    if not left:
        return array, axes
    letter, at = left[0], axes.index(left[0])
    length = array.shape[at]
    if len(left) > 1:
        raise InputError(f"axes {raw.axes} of shape {raw.shape} are more than one image", path=path, hint="split it")
    if options.plane is not None:
        if not 0 <= options.plane < length:
            raise InputError(f"--plane {options.plane}, but there are {length} (0 to {length - 1})", path=path)
        return array.take(options.plane, at), axes.replace(letter, "")
    known = letter in "TZ"
    cause = f"{length} {_WHAT.get(letter, 'pages')}" + ("" if known else " whose meaning the file does not say")
    guess = "C" if length <= 4 else "Z" if options.dims == 2 else "T"
    ways = "choose one with --plane" + ("" if known else f", or name them with --axes (probably {guess}YX)")
    raise InputError(f"{cause} (axes {raw.axes}, shape {' x '.join(map(str, raw.shape))})", path=path, hint=ways)


def _pick_channel(array: NDArray[Any], raw: RawImage, path: Path, options: ReadOptions) -> NDArray[Any]:
    if options.channel is None:
        return array
    names = list(raw.channels) if len(raw.channels) == array.shape[0] else []
    if isinstance(options.channel, int):
        number = options.channel
    elif options.channel in names:
        number = names.index(options.channel)
    else:
        known = ", ".join(names) or "none has a name"
        raise InputError(f"no channel is called '{options.channel}'", path=path, hint=f"channels: {known}")
    if not 0 <= number < array.shape[0]:
        raise InputError(f"--channel {number}, but there are {array.shape[0]} (from 0)", path=path)
    return array[number : number + 1]


def _grid(shape: tuple[int, ...], raw: RawImage, options: ReadOptions, path: Path) -> Grid:
    if options.spacing is not None:
        if len(options.spacing) != len(shape):
            raise SettingsError(f"--spacing {options.spacing} does not fit {len(shape)} axes", path=path)
        return Grid(shape, options.spacing, "um")
    letters = "ZYX"[-len(shape) :]
    if all(letter in raw.spacing_um for letter in letters):
        return Grid(shape, tuple(raw.spacing_um[letter] for letter in letters), "um")
    return Grid(shape)
