"""What each format module returns: the array as stored, and what the file states about its axes and pixel size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import BiounetError, InputError, Unit
from biounet.files.lazy.changed_arrays import PaletteArray, TurnedArray, take_colours
from biounet.files.lazy.stored_array import StoredArray
from biounet.files.retry import retry_on_io_error

DEFAULT_LIMIT = 16 * 2**30  # bytes that one image may take in memory: a damaged header can ask for any number
_MAX_COMPRESSION = 100_000  # no codec compresses further: deflate reaches 1 032, zstd about 32 000
# A file may be this many times larger than its image, plus a constant: it can hold other things as well.
_MAX_FILE_FACTOR, _MAX_FILE_EXTRA = 1000, 2**33

# Values of the orientation tag by which rows are columns, rows run backwards, and columns run backwards
_TRANSPOSED, _FLIPPED_Y, _FLIPPED_X = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)

COLOURS = ("red", "green", "blue")
"""Names of the channels of a picture in colours."""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class RawImage:
    """An image as it is stored, which `load` reads in native byte order; `affine`, `header` and `frame` as in `Grid`.

    Attributes
    ----------
    axes
        One letter per axis: X Y Z, C channel, S sample of a pixel, T time; Q or I where the file does not say.
    spacing, unit
        Pixel size of those axes for which the file states one; `unit` is also that of lengths that a user states.
    geometry_error
        Cause and hint if what the file states about lengths cannot be right.
    palette
        Shape ``(n, 3)``, or ``(n,)`` where all of it is grey, if the values of the array are indices into it.
    orientation
        How the array must be turned to be seen as it was taken, 1 to 8 as in TIFF and EXIF; 1: as stored.
    channel_names
        As the file states them, `COLOURS` for a picture; they may be more or fewer than the channels.
    alpha
        Indices along axis S of transparency, which is no intensity.
    interval
        Seconds between two times; None where the file does not say.
    shares_file
        Whether the file holds other images as well.
    stored
        Bytes of its files, where these are several; None: those of its path.
    regions
        The same array as `load` gives, region by region; None where the file can only be read as a whole.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]
    axes_source: str
    spacing: Mapping[str, float] = field(default_factory=dict)
    unit: Unit = "um"
    affine: tuple[tuple[float, ...], ...] | None = None
    header: bytes | None = None
    frame: str = ""
    geometry_error: tuple[str, str] | None = None
    channel_names: tuple[str, ...] = ()
    palette: NDArray[np.uint8] | None = None
    orientation: int = 1
    alpha: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    interval: float | None = None
    shares_file: bool = False
    stored: int | None = None
    regions: StoredArray | None = None


def remove_alpha(array: NDArray[Any], raw: RawImage) -> NDArray[Any]:
    """Return a view of an array with the axes of `raw` without its transparency, which is last in all formats."""
    return array[(slice(None),) * raw.axes.index("S") + (slice(0, min(raw.alpha)),)] if raw.alpha else array


def apply_palette(raw: RawImage, path: Path) -> RawImage:
    """Replace the indices of an image with a palette by its colours or greys; other images stay as they are."""
    palette = raw.palette
    if palette is None:
        return raw

    def load() -> NDArray[Any]:
        return take_colours(raw.load(), palette, path)

    regions = None if raw.regions is None else PaletteArray(raw.regions, palette, path)
    raw = replace(raw, regions=regions)
    if palette.ndim == 1:
        return replace(raw, dtype=palette.dtype, load=load, palette=None)
    colours = {"axes": raw.axes + "S", "shape": (*raw.shape, 3), "channel_names": COLOURS}
    return replace(raw, dtype=palette.dtype, load=load, palette=None, **colours)  # type: ignore[arg-type]


def apply_orientation(raw: RawImage) -> RawImage:
    """Turn an image as its orientation tag asks, so that an annotation drawn on what people see fits it."""
    kind = raw.orientation
    if kind not in range(2, 9) or not {"Y", "X"} <= set(raw.axes):
        return raw
    y, x = raw.axes.index("Y"), raw.axes.index("X")
    transposed = kind in _TRANSPOSED
    flips = tuple(axis for axis, kinds in ((y, _FLIPPED_Y), (x, _FLIPPED_X)) if kind in kinds)

    def load() -> NDArray[Any]:
        array = raw.load()
        return np.ascontiguousarray(np.flip(array.swapaxes(y, x) if transposed else array, flips))

    order = [*range(len(raw.shape))]
    if transposed:
        order[y], order[x] = x, y
    raw = replace(raw, regions=None if raw.regions is None else TurnedArray(raw.regions, tuple(order), flips))
    if not transposed:
        return replace(raw, load=load, orientation=1)
    shape = list(raw.shape)
    shape[y], shape[x] = shape[x], shape[y]
    other = {"X": "Y", "Y": "X"}
    spacing = {other.get(axis, axis): size for axis, size in raw.spacing.items()}
    return replace(raw, shape=tuple(shape), load=load, spacing=spacing, orientation=1)


def check_on_load(raw: RawImage, path: Path) -> RawImage:
    """Return the image with a `load` that refuses an array of another shape or type than the header declares."""
    return replace(raw, load=functools.partial(_load_checked, path, raw))


def check_size(raw: RawImage, path: Path, limit: int = DEFAULT_LIMIT) -> None:
    """Refuse, before any memory is taken, an image that declares more than the limit or than its file can hold."""
    needed, stored = int(np.prod(raw.shape, dtype=object)) * raw.dtype.itemsize, raw.stored
    stored = path.stat().st_size if stored is None else stored
    declared = f"declares {format_shape(raw.shape)} {raw.dtype}, {needed / 2**30:.3g} GiB"
    if needed > limit:
        raise InputError(f"{declared}; the limit is {limit / 2**30:.3g} GiB", path=path)
    if not raw.shares_file and stored > _MAX_FILE_FACTOR * needed + _MAX_FILE_EXTRA:
        cause = f"{declared}, in a file of {stored / 1e9:.3g} GB"
        raise InputError(cause, path=path, hint="the file is damaged, or a part of it is missing")
    if needed > _MAX_COMPRESSION * max(stored, 1):
        raise InputError(f"{declared}, in a file of {stored} bytes", path=path, hint="the file is damaged")


def format_shape(shape: tuple[int, ...]) -> str:
    """Return a shape for messages, such as ``4 x 512 x 512``."""
    return " x ".join(map(str, shape))


def translate_errors(read: Callable[P, R]) -> Callable[P, R]:
    """Turn whatever a format library raises into an `InputError` that names the file, the first argument of `read`.

    After errors that may pass, `read` is called again.
    """

    @functools.wraps(read)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
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
            text = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            hint = "the file is damaged, or stored in a way that is not supported"
            raise InputError(f"cannot be read: {text}", path=path, hint=hint) from error

    return wrapper


@translate_errors
def _load_checked(path: Path, raw: RawImage) -> NDArray[Any]:
    array = raw.load()
    if (array.shape, array.dtype) != (raw.shape, raw.dtype):
        cause = f"damaged: declares {raw.shape} {raw.dtype}, holds {array.shape} {array.dtype}"
        raise InputError(cause, path=path)
    return array
