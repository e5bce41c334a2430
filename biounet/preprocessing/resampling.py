"""One working grid: images and labels are resampled to the voxel size of a model, and predictions back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, Grid, InputError

Zoom = tuple[float, ...]
"""A factor for each spatial axis."""

_MAX_ZOOM = 50.0  # factor between voxel sizes beyond which one of them is wrong
_MIN_DIFFERENCE = 0.02  # relative, between voxel sizes that are worth resampling


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


def rescale(image: NDArray[np.float32], zoom: Zoom) -> NDArray[np.float32]:
    """Resample ``(c, [z,] y, x)`` linearly, with a low-pass filter first where it shrinks; its corners stay corners."""
    shape = rescaled_shape(image.shape[1:], zoom)
    if image.shape[1:] == shape:
        return image.astype(np.float32, copy=False)
    from skimage.transform import resize  # slow to import, and rarely needed

    return np.stack([resize(channel.astype(np.float32), shape, order=1, mode="edge") for channel in image])


def resample_planes(maps: NDArray[np.uint16], shape: tuple[int, ...]) -> Iterator[NDArray[np.uint16]]:
    """Resample ``(k, [z,] y, x)`` linearly to a shape ``([z,] y, x)``, and yield its planes ``(k, y, x)``."""
    if maps.ndim == 3:
        maps, shape = maps[:, None], (1, *shape)
    lower, upper, weight = _interpolation(maps.shape[1], shape[0])
    for z in range(shape[0]):
        plane = maps[:, lower[z]]
        if plane.shape[1:] == shape[1:] and weight[z] == 0:
            yield plane
            continue
        values = plane + weight[z] * (maps[:, upper[z]].astype(np.float32) - plane)
        for axis in (1, 2):
            first, second, share = _interpolation(values.shape[axis], shape[axis])
            start, end = values.take(first, axis), values.take(second, axis)
            values = start + (share[:, None] if axis == 1 else share) * (end - start)
        yield np.rint(values).astype(np.uint16)


def _interpolation(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the two voxels of an axis of `old` around each of `new` ones, and the weight of the second."""
    position = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    first = position.astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (position - first).astype(np.float32)


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
        source, nearest = labels, ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        labels = source.take(nearest, axis=axis)
        for other in _next_nearest(old, new, nearest):
            if not (unlabelled := labels == UNLABELLED).any():
                break
            labels = np.where(unlabelled, source.take(other, axis=axis), labels)
    return labels


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
