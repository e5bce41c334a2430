"""Open any file that can be read region by region, with the axes, channels and grid that `read_volume` gives it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, LazyImage, Region, Volume, as_path, as_paths
from biounet.files.axes import Paths, ReadOptions
from biounet.files.formats.raw import translate_errors
from biounet.files.lazy.made_arrays import ProjectedArray, find_grey
from biounet.files.lazy.stored_array import ArrayView, Index, LazyView, join_views
from biounet.files.read import open_image, read_files, resolve_grid, select_channels, supported, supported_type

_HINT = "save it as OME-Zarr or as a tiled OME-TIFF, which are read region by region"


@dataclass(frozen=True)
class LazyFile(LazyImage):
    """An image in files that stay closed but while a region is read, so any number of them may be at hand."""

    array: LazyView = field(kw_only=True)
    further: Mapping[str, LazyView] = field(kw_only=True)

    def read(self, region: Region) -> NDArray[Any]:  # noqa: D102 - inherited
        return read_view(self._path, self.array, (slice(0, self.channels), *region))

    def read_measured(self, region: Region) -> dict[str, NDArray[Any]]:  # noqa: D102 - inherited
        return {name: read_view(self._path, view, region, name) for name, view in self.further.items()}

    def constant_value(self, region: Region) -> tuple[Any, ...] | None:  # noqa: D102 - inherited
        return _constant(self._path, self.array, region)

    def constant_measured(self, region: Region) -> dict[str, Any]:  # noqa: D102 - inherited
        values = {name: _constant_view(self._path, view, region) for name, view in self.further.items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def _path(self) -> Path:
        return cast(Path, self.source)


@translate_errors
def read_view(path: Path, view: LazyView, index: Index, name: str = "") -> NDArray[Any]:
    """Return a part of a view in a type that later steps support; `name` is that of a channel."""
    return supported(view.read(index), path, name)


def _constant(path: Path, view: LazyView, region: Region) -> tuple[Any, ...] | None:
    values = [_constant_view(path, view, (slice(n, n + 1), *region)) for n in range(len(view))]
    return None if any(one is None for one in values) else tuple(values)


@translate_errors
def _constant_view(path: Path, view: LazyView, index: Index) -> Any | None:  # noqa: ANN401 - a number
    value = view.constant_value(index)
    # Infinite pixels are refused where they are read.
    return supported_type(view.dtype).type(value) if value is not None and np.isfinite(value) else None


def open_lazy(path: Paths, options: ReadOptions | None = None) -> LazyImage:
    """Open an image without reading its pixels.

    Axes, channels, grid and notes are those of `read_volume`, and so is every region; but that an image is constant is
    not noted, as only all of its pixels would show it. Whether a picture in colours holds only grey is decided by a
    sample, and a region that contradicts it is an error.

    Parameters
    ----------
    path
        An OME-Zarr (the level of full resolution), a Zarr array, a TIFF, an uncompressed NIfTI or ``.npy``; or several,
        one for each channel.
    options
        As of `read_volume`; `limit` does not count, and of a time series `frames` must be one.

    Raises
    ------
    InputError
        As of `read_volume`, or if the format has to be read as a whole. Damaged chunks are found when they are read.
    """
    options = replace(options or ReadOptions(), limit=sys.maxsize)
    volume = read_files(as_paths(path, "the image"), options, _open_file, join_arrays)
    array = cast(LazyView, volume.array)
    further = {name: cast(LazyView, view) for name, view in volume.measured.items()}
    return LazyFile(
        source=volume.source,
        grid=volume.grid,
        dtype=supported_type(array.dtype),
        channels=volume.channels,
        channel_names=volume.channel_names,
        chunks=array.chunks[1:],
        measured={name: supported_type(view.dtype) for name, view in further.items()},
        notes=volume.notes,
        scene=volume.scene,
        array=array,
        further=further,
    )


def can_open_lazy(path: str | Path, scene: str = "") -> bool:
    """Whether an image is stored such that its regions can be read; False for a file that cannot be read at all."""
    try:
        return open_image(as_path(path, "the image"), ReadOptions(scene=scene, limit=sys.maxsize)).regions is not None
    except InputError:
        return False


def join_arrays(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return views one after another, as `numpy.concatenate` joins arrays."""
    return cast("NDArray[Any]", join_views(cast("Sequence[LazyView]", arrays)))


def _open_file(path: Path, options: ReadOptions) -> Volume:
    """Return an image whose arrays are views of the file."""
    volume = open_views(path, options)
    if not volume.times:
        return volume
    if len(volume.times) > 1:
        cause = f"{len(volume.times)} frames of an image that is read region by region"
        raise InputError(cause, path=path, hint="choose one of them by its number")
    return volume.frame(0)


def open_views(path: Path, options: ReadOptions) -> Volume:
    """Return an image or a time series whose arrays are views of the file."""
    raw = open_image(path, options)
    if raw.regions is None:
        raise InputError("stored such that it has to be read as a whole", path=path, hint=_HINT)
    view = cast("NDArray[Any]", ArrayView.of(raw.regions))  # as views are rearranged as arrays are
    array, choice, notes, times = select_channels(view, raw, path, options, find_grey)
    if options.project and len(times) > 1:
        raise InputError("the planes of each frame are to be one image", path=path, hint="take frames one by one")
    if options.project:
        array = array[:, 0] if times else array
        array = cast("NDArray[Any]", ProjectedArray.view(cast(ArrayView, array), options.project, path))
        array = array[:, None] if times else array
    measured = {name: array[number] for name, number in choice.measured.items()}
    grid, grid_notes = resolve_grid(array.shape[-options.dims :], raw, path, options)
    channels = array[choice.as_index()]
    interval = raw.interval if times else None
    return Volume(channels, grid, path, (*grid_notes, *notes), choice.names, measured, times, interval, options.scene)
