"""Read any file as a `Volume` ``(c, [z,] y, x)``, calibrated if the file or the user states a pixel size."""

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
    Note,
    NoteCode,
    Volume,
    as_path,
    as_paths,
    canonical_grid,
    canonical_transform,
    drop_notes,
    grid_mismatch,
    nearest_axcodes,
    note_code,
)
from biounet.files.axes import Paths, ReadOptions, to_channel_first
from biounet.files.formats.nifti import GZIP_MAGIC, NIFTI_MAGIC, read_nifti
from biounet.files.formats.png_jpeg import read_jpeg, read_png
from biounet.files.formats.raw import (
    DEFAULT_LIMIT,
    RawImage,
    apply_orientation,
    apply_palette,
    check_on_load,
    check_size,
    format_shape,
    translate_errors,
)
from biounet.files.formats.tiff import read_tiff
from biounet.files.formats.unsupported import check_supported
from biounet.files.stacks import focused_planes, project_planes, projected_type

# A new format is a line here: how its files begin, and what reads their headers.
_FORMATS: tuple[tuple[tuple[bytes, ...], Callable[[Path], RawImage]], ...] = (
    ((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), read_tiff),
    ((b"\x89PNG\r\n\x1a\n",), read_png),
    ((b"\xff\xd8\xff",), read_jpeg),
    ((GZIP_MAGIC, *NIFTI_MAGIC), read_nifti),
)
_SUPPORTED_TYPES = {"bool": "uint8", "float16": "float32"}  # of types that later steps do not support
_MAX_MM = 100.0  # of a voxel: no scanner has longer ones
_SQUARE = 1e-3  # relative difference of x and y up to which pixels are square
_ARRAY = Path("the array")  # what errors call an image that is no file
_FIRST_PIXELS = 4096  # which show of most images that they are not constant


@dataclass(frozen=True)
class ImageInfo:
    """What `read_volume` would read: axes of the array in the file; type, grid, channels and frames of the image."""

    axes: str
    axes_source: str  # "OME-XML", "ImageJ tags", … or "given"
    dtype: str
    grid: Grid
    channels: int
    notes: tuple[str, ...]
    times: tuple[int, ...] = ()
    interval: float | None = None  # seconds


def read_volume(path: Paths, options: ReadOptions | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    path
        A TIFF, NIfTI, PNG or JPEG; the content decides, not the name. Or several, one for each channel.
    options
        Axes, pixel size, channel and plane, where the file does not say them or there is a choice.

    Returns
    -------
    Array ``(c, y, x)`` or ``(c, z, y, x)`` in the file's type, in native byte order; with frames, t follows c.

    Raises
    ------
    InputError
        If a file is damaged, its axes are ambiguous, pixels are not finite numbers, or channels lie on other grids.
    """
    options = options or ReadOptions()
    files = as_paths(path, "the image")
    planes: list[NDArray[np.intp]] = []  # in focus in the first file, and taken of all
    volumes = [_read_file(file, options, planes) for file in files]
    return _merge_channels(volumes, np.concatenate)


def read_header(path: Paths, options: ReadOptions | None = None) -> tuple[Volume, ImageInfo]:
    """Return what `read_volume` would, with pixels that are all 0 and take no memory, and more on the first file."""
    infos, volumes = [], []
    for file in as_paths(path, "the image"):
        info = inspect_volume(file, options)
        shape = (info.channels, *((len(info.times),) if info.times else ()), *info.grid.shape)
        array = _zeros(shape, _SUPPORTED_TYPES.get(info.dtype, info.dtype))
        infos.append(info)
        volumes.append(Volume(array, info.grid, file, info.notes, times=info.times, interval=info.interval))
    return _merge_channels(volumes, _concatenate_zeros), infos[0]


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - as of numpy.zeros
    """Return an array of zeros that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _concatenate_zeros(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return _zeros((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)


def _read_file(path: Path, options: ReadOptions, planes: list[NDArray[np.intp]]) -> Volume:
    raw = _open_image(path, options)
    array, notes, times = to_channel_first(raw.load(), raw, path, options)
    array = _project(array, options, planes)
    array = np.ascontiguousarray(array, _SUPPORTED_TYPES.get(str(array.dtype)))
    if array.dtype.kind == "f" and (bad := array.size - int(np.count_nonzero(np.isfinite(array)))):
        hint = "replace them in the program that made the image"
        raise InputError(f"{bad} of {array.size} pixels are NaN or infinite", path=path, hint=hint)
    grid, grid_notes = resolve_grid(array.shape[-options.dims :], raw, path, options)
    flat = array.reshape(-1)
    if (flat[:_FIRST_PIXELS] == flat[0]).all() and (flat == flat[0]).all():
        notes += (f"constant image: every pixel is {flat[0]}",)
    interval = raw.interval if times else None
    return Volume(array, grid, path, (*grid_notes, *notes), times=times, interval=interval)


def _project(array: NDArray[Any], options: ReadOptions, planes: list[NDArray[np.intp]]) -> NDArray[Any]:
    """Make one image of the planes, if the options say so; those in focus are added to `planes` or taken from there."""
    if options.project is None:
        return array
    if options.project == "focus" and not planes:
        planes.append(focused_planes(array))
    return project_planes(array, options.project, planes[0] if planes else None)


def _match_orientation(volume: Volume, grid: Grid) -> Volume:
    """Reorder a volume that stores the voxels of this grid in another order, its axes exchanged or flipped."""
    if (
        grid.axcodes is None
        or volume.grid.axcodes in (None, grid.axcodes)
        or not grid_mismatch(grid, volume.grid)
        or grid_mismatch(canonical_grid(grid), canonical_grid(volume.grid))
    ):
        return volume
    array = canonical_transform(grid).undo(canonical_transform(volume.grid).apply(volume.array))
    return replace(volume, array=array, grid=grid)


def _merge_channels(volumes: list[Volume], join: Callable[[list[NDArray[Any]]], NDArray[Any]]) -> Volume:
    """Return files that are one channel each as one volume, with the source of the first and the notes on all."""
    first = volumes[0]
    if len(volumes) == 1:
        return first
    volumes = [_match_orientation(volume, first.grid) for volume in volumes]
    for volume in volumes:
        if volume.channels > 1:
            cause = f"{volume.channels} channels, where each file is one"
            raise InputError(cause, path=volume.source, hint="choose one with --channel")
        difference = grid_mismatch(first.grid, volume.grid)
        if not difference and (first.grid.affine is None) != (volume.grid.affine is None):
            difference = "only one of the two says where its voxels are"
        if difference:
            raise InputError(f"not on the grid of {first.source}: {difference}", path=volume.source)
    notes = tuple(dict.fromkeys(note for volume in volumes for note in volume.notes))
    return replace(first, array=join([volume.array for volume in volumes]), notes=notes)


def arrange_axes(array: NDArray[Any], options: ReadOptions) -> NDArray[Any]:
    """Bring an array of the caller to ``(c, [z,] y, x)`` by the axes of `options`; errors as for a file."""
    raw = RawImage("Q" * array.ndim, array.shape, array.dtype, lambda: array, "given")
    return _project(to_channel_first(array, raw, _ARRAY, options)[0], options, [])


def rearrange_volume(volume: Volume, axes: str, options: ReadOptions) -> Volume:
    """Apply the channel and the pixel size of `options` to a volume with these axes, as if it were read again."""
    path, array, grid = volume.source or _ARRAY, volume.array, volume.grid
    raw = RawImage(axes, array.shape, array.dtype, lambda: array, "given", notes=volume.notes)
    if options.channel is not None:
        array = to_channel_first(array, raw, path, options)[0]
    if options.spacing is None:
        return replace(volume, array=array)
    raw = replace(raw, unit=grid.unit or "um", header=grid.header)
    grid, notes = resolve_grid(grid.shape, raw, path, options)
    return Volume(array, grid, volume.source, notes)


def inspect_volume(path: str | Path, options: ReadOptions | None = None) -> ImageInfo:
    """Return what `read_volume` would read, from the header alone; errors that headers show are the same."""
    path, options = as_path(path, "the image"), options or ReadOptions()
    raw = _open_image(path, options)
    array, notes, times = to_channel_first(_zeros(raw.shape, raw.dtype), raw, path, options)
    dtype = projected_type(raw.dtype, options.project) if options.project else raw.dtype
    grid, grid_notes = resolve_grid(array.shape[-options.dims :], raw, path, options)
    interval = raw.interval if times else None
    axes, axes_source = (options.axes.upper(), "given") if options.axes else (raw.axes, raw.axes_source)
    return ImageInfo(axes, axes_source, str(dtype), grid, len(array), (*grid_notes, *notes), times, interval)


@translate_errors
def open_raw(path: Path, limit: int = DEFAULT_LIMIT) -> RawImage:
    """Open a file by its content; one that declares more than `limit` bytes of pixels is an error."""
    if path.is_dir():
        check_supported(path)
        raise InputError("a folder, not an image", path=path)
    if path.exists() and not path.is_file():
        raise InputError("not a file", path=path)  # to read from a pipe could wait for ever
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise InputError("empty file", path=path)
    if path.name.lower().endswith(".mgz"):  # gzipped, but no NIfTI
        check_supported(path)
    read = next((read for magics, read in _FORMATS if head.startswith(magics)), None)
    if read is None:
        check_supported(path)
        shown = head.decode("ascii", "replace").replace("\ufffd", "?")
        raise InputError(f"not a TIFF, NIfTI, PNG or JPEG (begins with {shown!r})", path=path)
    raw = read(path)
    if 0 in raw.shape:
        raise InputError(f"an image without pixels, shape {format_shape(raw.shape)}", path=path)
    check_size(raw, path, limit)
    return apply_orientation(check_on_load(raw, path))


def _open_image(path: Path, options: ReadOptions) -> RawImage:
    raw = apply_palette(open_raw(path, options.limit), path)
    if raw.dtype.kind not in "biuf":
        raise InputError(f"pixels of type {raw.dtype} are not supported", path=path)
    return raw


def resolve_grid(
    shape: tuple[int, ...], raw: RawImage, path: Path, options: ReadOptions
) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid of an image of this shape in the file, and the notes that apply to it."""
    letters = "ZYX"[-len(shape) :]
    is_whole = [n for n in raw.shape[-3:] if n > 1] == [n for n in shape if n > 1]  # not one plane of many
    header = raw.header if is_whole else None
    axcodes = None if raw.affine is None else nearest_axcodes(raw.affine, len(shape))
    if options.spacing is not None:
        grid = Grid(shape, options.spacing, raw.unit, header=header, axcodes=axcodes)
        return grid, drop_notes(raw.notes, {NoteCode.VOXEL_SIZE_UNKNOWN, NoteCode.VOXEL_SIZE_CONFLICT})
    if raw.geometry_error is not None:
        cause, hint = raw.geometry_error
        raise InputError(cause, path=path, hint=hint)
    stated = [raw.spacing[letter] for letter in letters if letter in raw.spacing]
    if len(stated) == len(letters):
        affine, frame = (raw.affine, raw.frame) if is_whole else (None, "")
        grid = Grid(shape, tuple(stated), raw.unit, affine, header, axcodes, frame)
        notes = drop_notes(raw.notes, {NoteCode.VOXEL_SIZE_UNKNOWN})  # of an axis that is left out
        return grid, (*notes, *_size_notes(grid))
    grid = Grid(shape, header=header, axcodes=axcodes)
    if not stated or NoteCode.VOXEL_SIZE_UNKNOWN in map(note_code, raw.notes):
        return grid, raw.notes
    text = "pixel size unknown: the distance of the planes is missing"
    return grid, (*raw.notes, Note(text, NoteCode.VOXEL_SIZE_UNKNOWN))


def _size_notes(grid: Grid) -> list[str]:
    """Return a note on pixels that are not square or voxels of decimetres, as of a header with the wrong unit."""
    y, x = grid.steps[-2:]
    if grid.unit == "um" and abs(x - y) > _SQUARE * x:
        return [Note(f"pixels are not square: x {x:.6g} µm, y {y:.6g} µm", NoteCode.NOT_SQUARE)]
    if grid.unit == "mm" and max(grid.steps) > _MAX_MM:
        sizes = " x ".join(f"{size:g}" for size in grid.steps)
        text = f"the header gives voxels of {sizes} mm, which no scanner has: its unit may be wrong (see --spacing)"
        return [Note(text, NoteCode.VOXEL_SIZE_CONFLICT)]
    return []
