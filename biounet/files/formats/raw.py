"""What a format module gives: the array as stored, and what the file says about its axes and pixel size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import BiounetError, InputError, Unit
from biounet.files.retry import retry_on_io_error

LIMIT = 16 * 2**30
"""Bytes that one image may take in memory: a damaged header can ask for any number."""

_DENSEST = 100_000  # no codec packs more bytes into one: deflate reaches 1 032, zstd about 32 000

# Kinds of orientation: with rows for columns, and then those whose rows or columns run backwards
_EXCHANGED, _UPSIDE_DOWN, _MIRRORED = 5, (3, 4, 7, 8), (2, 3, 6, 7)
_EMPTIEST = 1000  # times the size of its image that a file may have, beside other things that it may hold
_OTHER = 2**33

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class RawImage:
    """An image as its file has it.

    Attributes
    ----------
    axes
        One letter for each axis: X Y Z, C channel, S sample of a pixel, T time; Q or I where the file does not say.
    shape, dtype
        Of the array.
    load
        Reads the array, in native byte order.
    axes_from
        Where `axes` is known from.
    spacing
        Pixel size in `unit` of the axes for which the file states one.
    spacing_from
        Where `spacing` is known from; empty where there is none.
    unit
        Of lengths in files of this format, also of those that a user states.
    affine, header, frame
        Of a NIfTI volume, as in `Grid`.
    fault
        What is wrong with what the file says about lengths, and what to do; None where nothing is.
    channels
        Names of the channels, where the file has them.
    colours
        Palette, shape ``(n, 3)``, or ``(n,)`` where all of it is grey, to which the values of the array are indices;
        None where they are intensities.
    orientation
        How the array is to be turned to be seen as it was taken, 1 to 8 as in TIFF and EXIF; 1 is as it is stored.
    alpha
        Which samples of axis S are transparency and no intensity.
    notes
        Remarks for the user.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]
    axes_from: str
    spacing: Mapping[str, float] = field(default_factory=dict)
    spacing_from: str = ""
    unit: Unit = "um"
    affine: tuple[tuple[float, ...], ...] | None = None
    header: bytes | None = None
    frame: str = ""
    fault: tuple[str, str] | None = None
    channels: tuple[str, ...] = ()
    colours: NDArray[np.uint8] | None = None
    orientation: int = 1
    alpha: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def in_colour(raw: RawImage, path: Path) -> RawImage:
    """Look the values of an image with a palette up in it: what people see. Other images stay as they are."""
    colours = raw.colours
    if colours is None:
        return raw

    def load() -> NDArray[Any]:
        values = raw.load()
        if values.max() >= len(colours):
            raise InputError(f"damaged: value {values.max()} in a palette of {len(colours)} colours", path=path)
        seen = np.empty((*values.shape, *colours.shape[1:]), colours.dtype)
        for row, target in zip(values, seen, strict=True):  # as one, the indices would take 8 bytes a pixel
            np.take(colours, row.astype(np.intp), axis=0, out=target)  # of 1 bit they are bool, and would be a mask
        return seen

    if colours.ndim == 1:
        return replace(raw, dtype=colours.dtype, load=load, colours=None)
    return replace(raw, axes=raw.axes + "S", shape=(*raw.shape, 3), dtype=colours.dtype, load=load, colours=None)


def upright(raw: RawImage) -> RawImage:
    """Turn an image as its file asks, so that an annotation drawn on what people see fits it."""
    kind = raw.orientation
    if kind not in range(2, 9) or not {"Y", "X"} <= set(raw.axes):
        return raw
    y, x = raw.axes.index("Y"), raw.axes.index("X")
    turned = kind >= _EXCHANGED
    flips = tuple(axis for axis, kinds in ((y, _UPSIDE_DOWN), (x, _MIRRORED)) if kind in kinds)

    def load() -> NDArray[Any]:
        array = raw.load()
        return np.ascontiguousarray(np.flip(array.swapaxes(y, x) if turned else array, flips))

    if not turned:
        return replace(raw, load=load, orientation=1)
    shape = list(raw.shape)
    shape[y], shape[x] = shape[x], shape[y]
    other = {"X": "Y", "Y": "X"}
    spacing = {other.get(axis, axis): size for axis, size in raw.spacing.items()}
    return replace(raw, shape=tuple(shape), load=load, spacing=spacing, orientation=1)


def as_declared(raw: RawImage, path: Path) -> RawImage:
    """Return the image with a `load` that refuses pixels of another shape or type than the header declares."""

    def load() -> NDArray[Any]:
        array = raw.load()
        if (array.shape, array.dtype) != (raw.shape, raw.dtype):
            cause = f"damaged: declares {raw.shape} {raw.dtype}, holds {array.shape} {array.dtype}"
            raise InputError(cause, path=path)
        return array

    return replace(raw, load=load)


def refuse_size(raw: RawImage, path: Path, limit: int = LIMIT) -> None:
    """Refuse, before any memory is taken, an image that declares more than the limit or than its file can hold."""
    needed, stored = int(np.prod(raw.shape, dtype=object)) * raw.dtype.itemsize, path.stat().st_size
    what = f"declares {' x '.join(map(str, raw.shape))} {raw.dtype}, {needed / 2**30:.3g} GiB"
    if needed > limit:
        raise InputError(f"{what}; the limit is {limit / 2**30:.3g} GiB", path=path)
    if stored > _EMPTIEST * needed + _OTHER:
        cause = f"{what}, in a file of {stored / 1e9:.3g} GB"
        raise InputError(cause, path=path, hint="the file is damaged, or a part of it is missing")
    if needed > _DENSEST * max(stored, 1):
        raise InputError(f"{what}, in a file of {stored} bytes", path=path, hint="the file is damaged")


def own_errors(read: Callable[P, R]) -> Callable[P, R]:
    """Turn whatever a format library raises into an `InputError` that names the file, its first argument."""

    @functools.wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        """Read, and name the file in every error."""
        path = Path(str(args[0]))
        try:
            return retry_on_io_error(functools.partial(read, *args, **kwargs))
        except BiounetError:
            raise
        except FileNotFoundError:
            raise InputError("no such file", path=path) from None
        except PermissionError:
            raise InputError("no permission to read it", path=path) from None
        except MemoryError as error:
            raise InputError("does not fit in memory", path=path) from error
        # Damaged files raise more than twenty kinds of exceptions out of the libraries, TypeError among them.
        except Exception as error:
            hint = "the file is damaged, or stored in a way that is not supported"
            raise InputError(f"cannot be read: {_words(error)}", path=path, hint=hint) from error

    return guarded


def _words(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
