"""What a format module gives: the array as stored, and what the file says about its axes and pixel size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.errors import BiounetError, InputError
from biounet.files.patience import patiently
from biounet.volume import Unit

LIMIT = 16 * 2**30
"""Bytes that one image may take in memory: a damaged header can ask for any number."""

_DENSEST = 100_000  # no codec packs more bytes into one: deflate reaches 1 032, zstd about 32 000

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
    affine, header
        Of a NIfTI volume, as in `Grid`.
    fault
        What is wrong with what the file says about lengths, and what to do; None where nothing is.
    channels
        Names of the channels, where the file has them.
    colours
        Palette, shape ``(n, 3)``, to which the values of the array are indices; None where they are intensities.
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
    fault: tuple[str, str] | None = None
    channels: tuple[str, ...] = ()
    colours: NDArray[np.uint8] | None = None
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
        return np.asarray(colours[values.astype(np.intp)])  # pixels of 1 bit are bool, and would be a mask

    return replace(raw, axes=raw.axes + "S", shape=(*raw.shape, 3), dtype=np.dtype(np.uint8), load=load, colours=None)


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
    if needed > _DENSEST * max(stored, 1):
        raise InputError(f"{what}, in a file of {stored} bytes", path=path, hint="the file is damaged")


def own_errors(read: Callable[P, R]) -> Callable[P, R]:
    """Turn whatever a format library raises into an `InputError` that names the file, its first argument."""

    @functools.wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        """Read, and name the file in every error."""
        path = Path(str(args[0]))
        try:
            return patiently(functools.partial(read, *args, **kwargs))
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
