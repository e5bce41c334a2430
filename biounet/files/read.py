"""Read any file as a `Volume` ``(c, [z,] y, x)``, calibrated if the file or the user states a pixel size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    Grid,
    InputError,
    Note,
    NoteCode,
    Unit,
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
from biounet.files.axes import Paths, ReadOptions, resolve_axes, split_scenes, to_channel_first
from biounet.files.channels import ChannelChoice, choose_channels, grey_of_colours
from biounet.files.formats.opening import open_raw
from biounet.files.formats.raw import COLOURS, RawImage, apply_palette
from biounet.files.stacks import focused_planes, project_planes, projected_type

_SUPPORTED_TYPES = {"bool": "uint8", "float16": "float32"}  # of types that later steps do not support
_MAX_MM = 100.0  # of a voxel: no scanner has longer ones
_SQUARE = 1e-3  # relative difference of x and y up to which pixels are square
_ARRAY = Path("the array")  # what errors call an image that is no file
_FIRST_PIXELS = 4096  # which show of most images that they are not constant


_Read = Callable[[Path, ReadOptions], Volume]
_Join = Callable[[list[NDArray[Any]]], NDArray[Any]]
FindGrey = Callable[[NDArray[Any]], tuple[NDArray[Any], str] | None]


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
    channel_names: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()  # names of the further channels to measure


def read_volume(path: Paths, options: ReadOptions | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    path
        A TIFF, NIfTI, PNG, JPEG, ND2, LIF or CZI; the content decides, not the name. Or several, one for each channel.
    options
        Axes, pixel size, channels and plane, where the file does not say them or there is a choice. If they name the
        channels of several files, only those files are read that are segmented or measured.

    Returns
    -------
    Array ``(c, y, x)`` or ``(c, z, y, x)`` in the file's type, in native byte order, and channels to measure; with
    frames, t follows c.

    Raises
    ------
    InputError
        If a file is damaged, its axes are ambiguous, pixels are not finite numbers, channels lie on other grids or are
        not there.
    """
    planes: list[NDArray[np.intp]] = []  # in focus in the first file, and taken of all
    read = partial(_read_file, planes=planes)
    return read_files(as_paths(path, "the image"), options or ReadOptions(), read, np.concatenate)


def read_header(path: Paths, options: ReadOptions | None = None) -> tuple[Volume, ImageInfo]:
    """Return what `read_volume` would, with pixels that are all 0 and take no memory, and more on the first file."""
    infos = []

    def read(file: Path, options: ReadOptions) -> Volume:
        info = inspect_volume(file, options)
        infos.append(info)
        shape = (info.channels, *((len(info.times),) if info.times else ()), *info.grid.shape)
        blank = _zeros(shape, supported_type(np.dtype(info.dtype)))
        measured = dict.fromkeys(info.measured, blank[0])
        names, times = info.channel_names, info.times
        return Volume(blank, info.grid, file, info.notes, names, measured, times, info.interval, options.scene)

    return read_files(as_paths(path, "the image"), options or ReadOptions(), read, _concatenate_zeros), infos[0]


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - as of numpy.zeros
    """Return an array of zeros that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _concatenate_zeros(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return _zeros((sum(map(len, arrays)), *arrays[0].shape[1:]), np.result_type(*arrays))


def read_files(files: list[Path], options: ReadOptions, read: _Read, join: _Join) -> Volume:
    """Read one file with all channels, or several that are one channel each, by `read`; `join` is `numpy.concatenate`.

    Their arrays may be views that are read later, of which nothing but the shape is asked here.
    """
    if len(files) == 1:
        return read(files[0], options)
    scenes = split_scenes(options.scene, len(files))
    if options.channels is None:
        one_each = replace(options, inputs=1 if options.channel is None else None, measure=())
        pairs = zip(files, scenes, strict=True)
        volumes = _on_one_grid([read(file, replace(one_each, scene=scene)) for file, scene in pairs])
        choice = choose_channels(len(files), (), files[0], replace(options, channel=None))
    else:
        choice = choose_channels(len(files), (), files[0], options)
        one_each = replace(options, channel=None, channels=None, measure=(), inputs=1)
        volumes = _on_one_grid([read(files[n], replace(one_each, scene=scenes[n])) for n in choice.used])
    return replace(_join_channels(volumes, choice, join), source=files[0], scene=scenes[0])


def join_channels(volumes: Mapping[str, Volume], options: ReadOptions) -> Volume:
    """Return images of one channel each, by the names of the channels, as one image with those that are chosen.

    Raise `InputError` if a channel that is chosen is not there or one lies on another grid.
    """
    options, path = replace(options, channels=tuple(volumes)), next(iter(volumes.values())).source or _ARRAY
    choice = choose_channels(len(volumes), (), path, options)
    aligned = _on_one_grid(list(volumes.values()))
    return _join_channels([aligned[number] for number in choice.used], choice, np.concatenate)


def _read_file(path: Path, options: ReadOptions, planes: list[NDArray[np.intp]]) -> Volume:
    return _read_raw(open_image(path, options), path, options, planes)


def _read_raw(raw: RawImage, path: Path, options: ReadOptions, planes: list[NDArray[np.intp]]) -> Volume:
    array, choice, notes, times = select_channels(raw.load(), raw, path, options)
    channels = supported(_project(array[choice.as_index()], options, planes), path)
    measured = {
        name: supported(_project(array[number : number + 1], options, planes)[0], path, name)
        for name, number in choice.measured.items()
    }
    if options.project == "focus":
        notes += (_focus_note(planes[0], array.shape[-3]),)
    grid, grid_notes = resolve_grid(channels.shape[-options.dims :], raw, path, options)
    flat = channels.reshape(-1)
    if (flat[:_FIRST_PIXELS] == flat[0]).all() and (flat == flat[0]).all():
        notes += (Note(f"constant image: every pixel is {flat[0]}", NoteCode.CONSTANT),)
    interval = raw.interval if times else None
    return Volume(channels, grid, path, (*grid_notes, *notes), choice.names, measured, times, interval, options.scene)


def select_channels(
    array: NDArray[Any], raw: RawImage, path: Path, options: ReadOptions, find_grey: FindGrey | None = None
) -> tuple[NDArray[Any], ChannelChoice, tuple[str, ...], tuple[int, ...]]:
    """Return all channels as ``(c, [t,] [z,] y, x)``, which of them the options choose, notes, and frames.

    Of an array that is read region by region, `find_grey` returns the channel that holds all of a picture in colours,
    ``(1, …)``, and what was found, as `_find_grey` does for arrays in memory.
    """
    array, notes, times = to_channel_first(array, raw, path, options)
    is_picture = _may_be_grey(raw, options) and len(array) == len(COLOURS)
    if is_picture and (found := (find_grey or _find_grey)(array)) is not None:
        grey, text = found
        choice, notes = choose_channels(1, (), path, options), (*notes, Note(text, NoteCode.READ_AS_GREY))
        return grey, choice, notes, times
    return array, choose_channels(len(array), raw.channel_names, path, options), notes, times


def _find_grey(colours: NDArray[Any]) -> tuple[NDArray[Any], str] | None:
    found = grey_of_colours(colours)
    return None if found is None else (colours[found[0] : found[0] + 1], found[1])


def _may_be_grey(raw: RawImage, options: ReadOptions) -> bool:
    """Whether it is a picture in colours, for a model of one channel, and no channel of it was chosen."""
    is_one = not options.chooses_channels or len(options.channels or ()) == 1
    return options.inputs == 1 and raw.channel_names == COLOURS and "S" in raw.axes and is_one


def supported_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which later steps get pixels of a type."""
    return np.dtype(_SUPPORTED_TYPES.get(str(dtype), dtype))


def supported(array: NDArray[Any], path: Path, name: str = "") -> NDArray[Any]:
    """Return an array in a type that later steps support, all of it finite numbers; `name` is that of a channel."""
    array = np.ascontiguousarray(array, supported_type(array.dtype))
    if array.dtype.kind == "f" and (bad := array.size - int(np.count_nonzero(np.isfinite(array)))):
        of = f" of channel '{name}'" if name else ""
        hint = "replace them in the program that made the image"
        raise InputError(f"{bad} of {array.size} pixels{of} are NaN or infinite", path=path, hint=hint)
    return array


def _project(array: NDArray[Any], options: ReadOptions, planes: list[NDArray[np.intp]]) -> NDArray[Any]:
    """Make one image of the planes, if the options say so; those in focus are added to `planes` or taken from there."""
    if options.project is None:
        return array
    if options.project == "focus" and not planes:
        planes.append(focused_planes(array))
    return project_planes(array, options.project, planes[0] if planes else None)


def _focus_note(planes: NDArray[np.intp], count: int) -> Note:
    first, last = int(planes.min()), int(planes.max())
    which = f"plane {first}" if first == last else f"planes {first} to {last}"
    return Note(f"in focus: {which} of {count}, counted from 0", NoteCode.IN_FOCUS, figure=first)


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


def _on_one_grid(volumes: list[Volume]) -> list[Volume]:
    """Return files that are one channel each, their voxels in the order of the first, or raise an `InputError`."""
    first = volumes[0]
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
    return volumes


def _join_channels(volumes: Sequence[Volume], choice: ChannelChoice, join: _Join) -> Volume:
    """Return files that are one channel each as one volume, with the source of the first and the notes on all."""
    count = len(choice.segmented)
    segmented, further = volumes[:count], volumes[count:]
    # Joined as well: what was brought to another order of voxels is then stored in that order.
    measured = {name: join([volume.array])[0] for name, volume in zip(choice.measured, further, strict=True)}
    of_further = [drop_notes(volume.notes, {NoteCode.CONSTANT}) for volume in further]
    notes = tuple(dict.fromkeys(note for group in (*(v.notes for v in segmented), *of_further) for note in group))
    array = join([volume.array for volume in segmented]) if count > 1 else segmented[0].array
    return replace(segmented[0], array=array, notes=notes, channel_names=choice.names, measured=measured)


def read_array(array: NDArray[Any], options: ReadOptions, unit: Unit = "um") -> Volume:
    """Return an array of the caller as a volume, as if it were read from a file; `unit` is that of its spacing.

    Without axes in the options it is ``([c,] [z,] y, x)``.
    """
    raw = RawImage("Q" * array.ndim, array.shape, array.dtype, lambda: array, "given", unit=unit)
    axes = resolve_axes(raw, options.axes or ("CZYX" if options.dims == 3 else "CYX")[-array.ndim :], _ARRAY)
    samples = array.shape[axes.index("S")] if "S" in axes else 0
    colours = COLOURS if samples in (len(COLOURS), len(COLOURS) + 1) else ()
    raw = replace(raw, axes=axes, channel_names=colours, alpha=(len(COLOURS),) if samples > len(COLOURS) else ())
    return replace(_read_raw(raw, _ARRAY, replace(options, axes=None), []), source=None)


def rearrange_volume(volume: Volume, options: ReadOptions) -> Volume:
    """Apply the channels and the pixel size of `options` to a volume, as if it were read again."""
    path, array, grid = volume.source or _ARRAY, volume.array, volume.grid
    choice = choose_channels(volume.channels, volume.channel_names, path, options)
    measured = dict(volume.measured) | {name: array[number] for name, number in choice.measured.items()}
    array = array[choice.as_index()]
    volume = replace(volume, array=array, channel_names=choice.names, measured=measured)
    if options.spacing is None:
        return volume
    axes = "CZYX" if grid.dims == 3 else "CYX"
    raw = RawImage(axes, array.shape, array.dtype, lambda: array, "given", notes=volume.notes)
    raw = replace(raw, unit=grid.unit or "um", header=grid.header)
    grid, notes = resolve_grid(grid.shape, raw, path, options)
    return replace(volume, grid=grid, notes=notes)


def inspect_volume(path: str | Path, options: ReadOptions | None = None) -> ImageInfo:
    """Return what `read_volume` would read, from the header alone; errors that headers show are the same.

    Of a picture in colours that a model of one channel is to read, the pixels are read, which may be grey.
    """
    path, options = as_path(path, "the image"), options or ReadOptions()
    raw = open_image(path, options)
    pixels = raw.load() if _may_be_grey(raw, options) else _zeros(raw.shape, raw.dtype)
    array, choice, notes, times = select_channels(pixels, raw, path, options)
    grid, grid_notes = resolve_grid(array.shape[-options.dims :], raw, path, options)
    axes, axes_source = (options.axes.upper(), "given") if options.axes else (raw.axes, raw.axes_source)
    return ImageInfo(
        axes=axes,
        axes_source=axes_source,
        dtype=str(projected_type(raw.dtype, options.project) if options.project else raw.dtype),
        grid=grid,
        channels=len(choice.segmented),
        notes=(*grid_notes, *notes),
        times=times,
        interval=raw.interval if times else None,
        channel_names=choice.names,
        measured=tuple(choice.measured),
    )


def open_image(path: Path, options: ReadOptions) -> RawImage:
    """Open a file of numbers by its header, with the colours of a palette instead of its indices."""
    raw = apply_palette(open_raw(path, options.limit, options.scene), path)
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
