"""One working grid: images and labels are resampled to the voxel size of a model, and predictions back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, Grid, InputError, Region

Zoom = tuple[float, ...]
"""A factor for each spatial axis."""

_MAX_ZOOM = 50.0  # factor between voxel sizes beyond which one of them is wrong
_MIN_DIFFERENCE = 0.02  # relative, between voxel sizes that are worth resampling
_BAND = 2**20  # voxels that are interpolated at a time

_Step = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]


def working_zoom(grid: Grid, data: DataSettings, path: Path | None = None) -> Zoom:
    """Return the factor along each axis from an image's grid to the working grid of a model; 1 where it has none.

    Where the model has one, a voxel size that is unknown, in another unit, or far from it raises `InputError`.
    """
    if data.pixel_size_um is None and not data.voxel_size:
        return (1.0,) * grid.dims
    target = data.voxel_size or (data.pixel_size_um,)
    if grid.spacing is None:
        works = f"at {target[0]} µm per pixel" if grid.dims == 2 else f"on voxels of {' x '.join(map(str, target))}"
        raise InputError(f"pixel size unknown, and this model works {works}", path=path, hint="give it with --spacing")
    model_unit = data.voxel_unit or ("um" if data.dims == 2 else None)
    if data.voxel_size and model_unit is not None and grid.unit != model_unit:
        cause = f"voxel size in {grid.unit}, and this model works on voxels in {model_unit}"
        hint = "NIfTI is in mm and TIFF in µm; a model works in the one that it was trained in"
        raise InputError(cause, path=path, hint=hint)
    if data.voxel_size:
        zooms = tuple(step / size for step, size in zip(grid.spacing, data.voxel_size, strict=True))
    else:
        factor = 1e3 if grid.unit == "mm" else 1.0
        zooms = (float(np.mean(grid.spacing[-2:])) * factor / float(target[0] or 1),) * grid.dims
    if not 1 / _MAX_ZOOM <= min(zooms) <= max(zooms) <= _MAX_ZOOM:
        sizes = " x ".join(f"{size:.4g}" for size in grid.spacing)
        works = " x ".join(f"{size:.4g}" for size in target if size)
        unit = grid.unit if data.voxel_size else "µm"
        cause = f"voxels of {sizes} {grid.unit}, and this model works at {works} {unit}"
        raise InputError(cause, path=path, hint="give their size with --spacing if the file is wrong")
    return tuple(1.0 if abs(zoom - 1) < _MIN_DIFFERENCE else zoom for zoom in zooms)


def rescaled_shape(shape: tuple[int, ...], zoom: Zoom) -> tuple[int, ...]:
    """Return the shape ``([z,] y, x)`` of an image after `rescale`."""
    return tuple(max(1, round(size * factor)) for size, factor in zip(shape, zoom, strict=True))


@dataclass(frozen=True)
class Resampling:
    """From one grid to another of the same field of view, whose corners are the same; shapes ``([z,] y, x)``."""

    old: tuple[int, ...]
    new: tuple[int, ...]

    @classmethod
    def zoomed(cls, shape: tuple[int, ...], zoom: Zoom) -> Resampling:
        """Return the way from the grid of an image to the working grid."""
        return cls(shape, rescaled_shape(shape, zoom))

    @property
    def changes(self) -> bool:
        """Whether the grids differ."""
        return self.old != self.new

    def back(self) -> Resampling:
        """Return the way back."""
        return Resampling(self.new, self.old)

    def needed(self, region: Region, *, filtered: bool = False) -> Region:
        """Return the part of the old grid on which a region of the new one depends.

        Parameters
        ----------
        filtered
            Whether it is filtered first where it shrinks, as images are and maps are not.
        """
        parts = []
        for old, new, part in zip(self.old, self.new, region, strict=True):
            lower, upper, _ = _interpolation(old, new, part)
            margin = _filter_radius(old, new) if filtered else 0
            parts.append(slice(max(int(lower[0]) - margin, 0), min(int(upper[-1]) + 1 + margin, old)))
        return tuple(parts)

    def steps(self, region: Region, origin: Region) -> list[_Step]:
        """Return what `_interpolation` does along each axis, in an array that holds `origin` of the old grid."""
        pairs = zip(self.old, self.new, region, origin, strict=True)
        return [_interpolation(old, new, part, at.start) for old, new, part, at in pairs]


def rescale(image: NDArray[np.float32], zoom: Zoom) -> NDArray[np.float32]:
    """Resample ``(c, [z,] y, x)`` linearly, with a low-pass filter first where it shrinks; its corners stay corners."""
    way = Resampling.zoomed(image.shape[1:], zoom)
    if not way.changes:
        return image.astype(np.float32, copy=False)
    whole = tuple(slice(0, size) for size in way.new)
    image = image[(slice(None), *way.needed(whole, filtered=True))]
    return np.concatenate([rescale_part(image[n : n + 1], way, whole) for n in range(len(image))])


def rescale_part(image: NDArray[np.float32], way: Resampling, region: Region) -> NDArray[np.float32]:
    """Return a region of an image that `rescale` resamples, with the same bits, from the part that it depends on.

    The filter is that of `skimage.transform.resize`: a Gaussian whose standard deviation is half the number of voxels,
    less one, that become one.

    Parameters
    ----------
    image
        ``way.needed(region, filtered=True)`` of the image, ``(c, [z,] y, x)``.
    """
    sigma = [_filter_sigma(old, new) for old, new in zip(way.old, way.new, strict=True)]
    if any(sigma):
        from scipy.ndimage import gaussian_filter  # slow to import, and rarely needed

        # What is repeated beyond an edge of the part that is none of the image stays within the margin.
        image = gaussian_filter(image.astype(np.float32, copy=False), (0, *sigma), mode="nearest")
    steps = way.steps(region, way.needed(region, filtered=True))
    out = np.empty((len(image), *(part.stop - part.start for part in region)), np.float32)
    lower, upper, weight = steps[0]
    planes = max(1, _BAND * out.shape[1] // math.prod(image.shape))
    for start in range(0, out.shape[1], planes):  # float64, so that the order of the axes vanishes when it is rounded
        band = slice(start, start + planes)
        first = int(lower[band][0])
        values = image[:, first : int(upper[band][-1]) + 1].astype(np.float64)
        for axis in range(1, len(steps)):
            values = _interpolate(values, axis + 1, steps[axis])
        out[:, band] = _interpolate(values, 1, (lower[band] - first, upper[band] - first, weight[band]))
    return out


def resample_planes(maps: NDArray[np.uint16], shape: tuple[int, ...]) -> Iterator[NDArray[np.uint16]]:
    """Resample ``(k, [z,] y, x)`` linearly to a shape ``([z,] y, x)``, and yield its planes ``(k, y, x)``."""
    way, whole = Resampling(maps.shape[1:], shape), tuple(slice(0, size) for size in shape)
    return resample_part(maps[(slice(None), *way.needed(whole))], way, whole)


def resample_part(maps: NDArray[np.uint16], way: Resampling, region: Region) -> Iterator[NDArray[np.uint16]]:
    """Yield the planes of a region of maps that `resample_planes` resamples, with the same bits.

    Parameters
    ----------
    maps
        ``way.needed(region)`` of the maps, ``(k, [z,] y, x)``.
    """
    steps = way.steps(region, way.needed(region))
    if maps.ndim == 3:
        maps, steps = maps[:, None], [_interpolation(1, 1, slice(0, 1)), *steps]
    same = way.old[-2:] == way.new[-2:]
    rows, columns = ((first, second, share.astype(np.float32)) for first, second, share in steps[1:])
    height = max(1, _BAND // maps[:, 0, 0].size)
    for lower, upper, weight in zip(*steps[0][:2], steps[0][2].astype(np.float32), strict=True):
        if same and weight == 0:
            yield maps[:, lower]
            continue
        out = np.empty((len(maps), len(rows[0]), len(columns[0])), np.uint16)
        for start in range(0, out.shape[1], height):  # some rows at a time, since float32 takes several copies of them
            band = slice(start, start + height)
            first = int(rows[0][band][0])
            needed = (slice(None), slice(first, int(rows[1][band][-1]) + 1))
            values = maps[:, lower][needed].astype(np.float32)
            if weight:
                values += weight * (maps[:, upper][needed].astype(np.float32) - values)
            step = rows[0][band] - first, rows[1][band] - first, rows[2][band, None]
            out[:, band] = np.rint(_between(_between(values, 1, step), 2, columns))
        yield out


def _between(values: NDArray[np.float32], axis: int, step: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    lower, upper, weight = step
    start = values.take(lower, axis)
    between: NDArray[np.float32] = start + weight * (values.take(upper, axis) - start)
    return between


def _filter_sigma(old: int, new: int) -> float:
    return max(0.0, (old / new - 1) / 2)


def _filter_radius(old: int, new: int) -> int:
    """Return the voxels on either side that `gaussian_filter` looks at by default."""
    return int(4 * _filter_sigma(old, new) + 0.5)


def _interpolation(old: int, new: int, part: slice, origin: int = 0) -> _Step:
    """Return the two voxels of an axis of `old` around each of a part of `new` ones, and the weight of the second.

    The voxels are counted from `origin`; the weights are always those of the whole axis.
    """
    position = ((np.arange(part.start, part.stop) + 0.5) * old / new - 0.5).clip(0, old - 1)
    first = position.astype(np.intp)
    weight = np.asarray(position - first, np.float64)
    return first - origin, first + (weight > 0) - origin, weight


def _interpolate(values: NDArray[np.float64], axis: int, step: _Step) -> NDArray[np.float64]:
    lower, upper, weight = step
    if len(lower) == values.shape[axis] and not weight.any():
        return values
    weight = weight.reshape(-1, *(1,) * (values.ndim - 1 - axis))
    return values.take(lower, axis) * (1 - weight) + values.take(upper, axis) * weight


def resize_labels(labels: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Resize labels to a shape by taking the nearest voxel or, where that is unlabelled, the nearest labelled one.

    A voxel of a coarser grid covers several of the finer one: it is labelled where any of them is. So planes and
    strokes of one voxel stay whole, wherever they lie; without unlabelled voxels this is nearest-neighbour
    interpolation.
    """
    for axis, new in enumerate(shape):
        old = labels.shape[axis]
        if new == old:
            continue
        source, nearest = labels, nearest_voxels(old, new)
        labels = source.take(nearest, axis=axis)
        for other in _next_nearest(old, new, nearest):
            if not (unlabelled := labels == UNLABELLED).any():
                break
            labels = np.where(unlabelled, source.take(other, axis=axis), labels)
    return labels


def nearest_voxels(old: int, new: int) -> NDArray[np.intp]:
    """Return for each voxel of an axis of `new` ones that of the `old` ones in which its centre lies."""
    return ((np.arange(new) + 0.5) * old / new).astype(np.intp)


def _next_nearest(old: int, new: int, nearest: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield for each of `new` voxels the next of the `old` ones that it covers, at last the nearest again."""
    covering = ((np.arange(old) + 0.5) * new / old).astype(np.intp)
    distance = np.abs(np.arange(old) + 0.5 - (covering + 0.5) * old / new)
    order = np.lexsort([distance, np.arange(old) != nearest[covering], covering])
    rank = np.arange(old) - np.searchsorted(covering[order], covering[order])
    for n in range(1, int(rank.max(initial=0)) + 1):
        indices = nearest.copy()
        indices[covering[order][rank == n]] = order[rank == n]
        yield indices
