"""Any file to a `Volume`: ``(c, [z,] y, x)``, calibrated where the file, or the user, says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    Grid,
    InputError,
    Volume,
    as_path,
    as_paths,
    canonical_grid,
    canonical_transform,
    grid_mismatch,
    nearest_axcodes,
)
from biounet.files.axes import ReadOptions, arrange
from biounet.files.formats.foreign import refuse_foreign
from biounet.files.formats.nifti import BEGINNINGS, GZIP, read_nifti
from biounet.files.formats.nifti_affines import CONFLICT
from biounet.files.formats.png_jpeg import read_jpeg, read_png
from biounet.files.formats.raw import LIMIT, RawImage, as_declared, in_colour, own_errors, refuse_size, upright
from biounet.files.formats.tiff import read_tiff

# A new format is a line here: how its files begin, and what reads their headers.
_FORMATS: tuple[tuple[bytes, Callable[[Path], RawImage]], ...] = (
    (b"II*\x00", read_tiff),
    (b"MM\x00*", read_tiff),
    (b"II+\x00", read_tiff),
    (b"MM\x00+", read_tiff),
    (b"\x89PNG\r\n\x1a\n", read_png),
    (b"\xff\xd8\xff", read_jpeg),
    (GZIP, read_nifti),
    *((beginning, read_nifti) for beginning in BEGINNINGS),
)
_NO_NIFTI = (".mgz",)  # gzip files that hold another format
_UNKNOWN = "pixel size unknown"
_LARGEST_MM = 100.0  # no scanner has voxels that are longer
_SQUARE = 1e-3  # relative difference of x and y up to which pixels are square
_ARRAY = Path("the array")  # what errors call an image that is no file
_PEEK = 4096  # pixels that show that most images are not constant


@dataclass(frozen=True)
class Description:
    """What would be read of a file.

    Attributes
    ----------
    axes, shape, dtype
        Of the array in the file.
    axes_from
        How the axes are known: ``"OME-XML"``, ``"ImageJ tags"``, …, or ``"given"``.
    grid
        Of the image that comes of it, with its spacing.
    spacing_from
        How the spacing is known; empty where it is not.
    channels
        Number of channels that come of it.
    names
        Names of the channels in the file, where it has them.
    notes
        Remarks for the user.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: str
    axes_from: str
    grid: Grid
    spacing_from: str
    channels: int
    names: tuple[str, ...]
    notes: tuple[str, ...]


def read_volume(path: str | Path | Sequence[str | Path], options: ReadOptions | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    path
        A TIFF, NIfTI, PNG or JPEG; the content decides, not the name. Or several, one for each channel.
    options
        Axes, pixel size, channel and plane, where the file does not say them or there is a choice.

    Returns
    -------
    Array ``(c, y, x)`` or ``(c, z, y, x)`` in the file's type, in native byte order.

    Raises
    ------
    InputError
        If a file is damaged, its axes are ambiguous, pixels are not finite numbers, or channels lie on other grids.
    """
    options = options or ReadOptions()
    return _stack([_read_one(file, options) for file in as_paths(path, "the image")])


def _read_one(path: Path, options: ReadOptions) -> Volume:
    raw = _open_image(path, options)
    array, remarks = arrange(raw.load(), raw, path, options)
    array = np.ascontiguousarray(_plain(array))
    _refuse_nan(array, path)
    grid, notes = calibrate(array.shape[1:], raw, path, options)
    if _is_constant(array):
        remarks += (f"constant image: every pixel is {array.flat[0]}",)
    return Volume(array, grid, path, (*notes, *remarks))


def describe_volume(path: str | Path | Sequence[str | Path], options: ReadOptions | None = None) -> Volume:
    """Return what `read_volume` would, from the headers alone: all pixels are 0 and take no memory."""
    options = options or ReadOptions()
    volumes = []
    for file in as_paths(path, "the image"):
        found = inspect_volume(file, options)
        kind = _plain(np.zeros((), found.dtype)).dtype
        blank = np.broadcast_to(np.zeros((), kind), (found.channels, *found.grid.shape))
        volumes.append(Volume(blank, found.grid, file, found.notes))
    volumes = _in_one_order(volumes)
    shape, kind = (sum(volume.channels for volume in volumes), *volumes[0].grid.shape), volumes[0].array.dtype
    return replace(_joined(volumes), array=np.broadcast_to(np.zeros((), kind), shape))


def _stack(volumes: Sequence[Volume]) -> Volume:
    """Return one image of the channels of several files."""
    if len(volumes) == 1:
        return volumes[0]
    volumes = _in_one_order(volumes)
    return replace(_joined(volumes), array=np.concatenate([volume.array for volume in volumes]))


def _in_one_order(volumes: Sequence[Volume]) -> list[Volume]:
    """Return volumes that have the voxels of the first in another order, axes exchanged or flipped, in its order."""
    first, ordered = volumes[0].grid, [*volumes]
    for n, volume in enumerate(volumes):
        other = first.axcodes is not None and volume.grid.axcodes not in (None, first.axcodes)
        if (
            other
            and grid_mismatch(first, volume.grid)
            and not grid_mismatch(canonical_grid(first), canonical_grid(volume.grid))
        ):
            turned = canonical_transform(first).undo(canonical_transform(volume.grid).apply(volume.array))
            ordered[n] = replace(volume, array=turned, grid=first)
    return ordered


def _joined(volumes: Sequence[Volume]) -> Volume:
    """Return the first of several files that are channels of one image, with the remarks on all.

    Raises
    ------
    InputError
        If one holds several channels, or lies on another grid.
    """
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for volume in volumes:
        if volume.channels > 1:
            cause = f"{volume.channels} channels, where each file is one"
            raise InputError(cause, path=volume.source, hint="choose one with --channel")
        difference = grid_mismatch(first.grid, volume.grid)
        if not difference and (first.grid.affine is None) != (volume.grid.affine is None):
            difference = "only one of the two says where its voxels are"
        if difference:
            raise InputError(f"not on the grid of {first.source}: {difference}", path=volume.source)
    notes = dict.fromkeys(note for volume in volumes for note in volume.notes)
    return replace(first, notes=tuple(notes))


def arrange_axes(array: NDArray[Any], options: ReadOptions) -> NDArray[Any]:
    """Bring an array of the caller to ``(c, [z,] y, x)`` by the axes of `options`, as that of a file would be.

    Raises
    ------
    InputError
        If they do not fit, more than one image could be meant, or there is no such channel.
    """
    raw = RawImage("Q" * array.ndim, array.shape, array.dtype, lambda: array, "given")
    return arrange(array, raw, _ARRAY, options)[0]


def rearrange_volume(volume: Volume, axes: str, options: ReadOptions) -> Volume:
    """Apply to a volume with these axes what `options` say about channel and pixel size, as if it were read again.

    Raises
    ------
    InputError
        If there is no such channel.
    """
    path, array, grid = volume.source or _ARRAY, volume.array, volume.grid
    raw = RawImage(axes, array.shape, array.dtype, lambda: array, "given", notes=volume.notes)
    if options.channel is not None:
        array = arrange(array, raw, path, options)[0]
    if options.spacing is None:
        return replace(volume, array=array)
    said = replace(raw, unit=grid.unit or "um", header=grid.header)
    grid, notes = calibrate(grid.shape, said, path, options)
    return Volume(array, grid, volume.source, notes)


def inspect_volume(path: str | Path, options: ReadOptions | None = None) -> Description:
    """Say what `read_volume` would read, from the headers alone; the errors are the same where headers show them."""
    path, options = as_path(path, "the image"), options or ReadOptions()
    raw = _open_image(path, options)
    blank = np.broadcast_to(np.zeros((), raw.dtype), raw.shape)  # takes no memory
    array, remarks = arrange(blank, raw, path, options)
    grid, notes = calibrate(array.shape[1:], raw, path, options)
    return Description(
        axes=options.axes.upper() if options.axes else raw.axes,
        shape=raw.shape,
        dtype=str(raw.dtype),
        axes_from="given" if options.axes else raw.axes_from,
        grid=grid,
        spacing_from="given" if options.spacing else raw.spacing_from if grid.calibrated else "",
        channels=array.shape[0],
        names=raw.channels,
        notes=(*notes, *remarks),
    )


@own_errors
def open_raw(path: Path, limit: int = LIMIT) -> RawImage:
    """Open a file by its content.

    Raises
    ------
    InputError
        If it is of no known format, or declares more than `limit` bytes of pixels.
    """
    if path.is_dir():
        refuse_foreign(path)
        raise InputError("a folder, not an image", path=path)
    if path.exists() and not path.is_file():
        raise InputError("not a file", path=path)  # to read from a pipe could wait for ever
    with path.open("rb") as file:
        begin = file.read(16)
    if not begin:
        raise InputError("empty file", path=path)
    if path.name.lower().endswith(_NO_NIFTI):
        refuse_foreign(path)
    for magic, read in _FORMATS:
        if begin.startswith(magic):
            raw = read(path)
            if 0 in raw.shape:
                raise InputError(f"an image without pixels, shape {' x '.join(map(str, raw.shape))}", path=path)
            refuse_size(raw, path, limit)
            return upright(as_declared(raw, path))
    refuse_foreign(path)
    shown = begin.decode("ascii", "replace").replace("\ufffd", "?")
    raise InputError(f"not a TIFF, NIfTI, PNG or JPEG (begins with {shown!r})", path=path)


def _open_image(path: Path, options: ReadOptions) -> RawImage:
    raw = in_colour(open_raw(path, options.limit), path)
    if raw.dtype.kind not in "biuf":
        raise InputError(f"pixels of type {raw.dtype} are not supported", path=path)
    return raw


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return types that no later step knows as ones that all do, without a change of value."""
    exact = {np.dtype(np.bool_): np.uint8, np.dtype(np.float16): np.float32}.get(array.dtype)
    return array if exact is None else array.astype(exact)


def _refuse_nan(array: NDArray[Any], path: Path) -> None:
    if array.dtype.kind != "f":
        return
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        hint = "replace them in the program that made the image"
        raise InputError(f"{bad} of {array.size} pixels are NaN or infinite", path=path, hint=hint)


def _is_constant(array: NDArray[Any]) -> bool:
    flat = array.reshape(-1)
    first = flat[0]
    return bool((flat[:_PEEK] == first).all() and (flat == first).all())


def calibrate(shape: tuple[int, ...], raw: RawImage, path: Path, options: ReadOptions) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid of an image of this shape in the file, and the remarks that hold with it.

    Raises
    ------
    InputError
        If what the file says about lengths cannot be, and the options do not say it.
    """
    letters = "ZYX"[-len(shape) :]
    whole = tuple(n for n in raw.shape[-3:] if n > 1) == tuple(n for n in shape if n > 1)  # not one plane of many
    header = raw.header if whole else None
    axcodes = None if raw.affine is None else nearest_axcodes(raw.affine, len(shape))
    if options.spacing is not None:
        about_size = ("pixel size", "voxel size", "the header gives", f"{CONFLICT} differ")
        grid = Grid(shape, options.spacing, raw.unit, header=header, axcodes=axcodes)
        return grid, tuple(note for note in raw.notes if not note.startswith(about_size))
    if raw.fault is not None:
        raise InputError(raw.fault[0], path=path, hint=raw.fault[1])
    known = [letter for letter in letters if letter in raw.spacing]
    unknown = any(note.startswith(_UNKNOWN) for note in raw.notes)
    if len(known) == len(letters):
        spacing = tuple(raw.spacing[letter] for letter in letters)
        notes = tuple(note for note in raw.notes if not note.startswith(_UNKNOWN))  # of an axis that is left out
        affine, frame = (raw.affine, raw.frame) if whole else (None, "")
        grid = Grid(shape, spacing, raw.unit, affine, header, axcodes, frame)
        return grid, (*notes, *_not_square(raw), *_too_large(grid))
    missing = (f"{_UNKNOWN}: the distance of the planes is missing",) if known and not unknown else ()
    return Grid(shape, header=header, axcodes=axcodes), (*raw.notes, *missing)


def _not_square(raw: RawImage) -> tuple[str, ...]:
    x, y = raw.spacing["X"], raw.spacing["Y"]
    if raw.unit != "um" or abs(x - y) <= _SQUARE * x:
        return ()
    return (f"pixels are not square: x {x:.6g} µm, y {y:.6g} µm",)


def _too_large(grid: Grid) -> tuple[str, ...]:
    """Say so where voxels are in metres, as when numbers in mm stand under a code of another unit."""
    if grid.unit != "mm" or max(grid.steps) <= _LARGEST_MM:
        return ()
    sizes = " x ".join(f"{size:g}" for size in grid.steps)
    return (f"the header gives voxels of {sizes} mm, which no scanner has: its unit may be wrong (see --spacing)",)
