"""Intensities on one scale and images on one grid: what every image goes through, in training and in prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, DataSettings, Grid, InputError, NormaliseSettings, bounding_box
from biounet.preprocessing.intensities import (
    find_unacquired,
    lower_spikes,
    mirror_into,
    offset_from_minimum,
    percentiles,
)
from biounet.preprocessing.surroundings import find_body

Zoom = tuple[float, ...]
"""A factor for each spatial axis."""


_FAR = 50.0  # factor between voxel sizes beyond which one of them is wrong
_SAME = 0.02  # relative difference of voxel sizes that is not worth resampling


@dataclass(frozen=True)
class ScaledImage:
    """Intensities on one scale, and what of an image turned out not to be specimen.

    Attributes
    ----------
    image
        Normalised, float32, shape ``(c, [z,] y, x)``.
    acquired
        Where any channel was acquired, shape ``([z,] y, x)``; None: everywhere.
    hot
        Share of the values that were hot pixels.
    """

    image: NDArray[np.float32]
    acquired: NDArray[np.bool_] | None = None
    hot: float = 0.0


def normalise(image: NDArray[Any], settings: NormaliseSettings) -> NDArray[np.float32]:
    """Return the image of `scale_intensities`."""
    return scale_intensities(image, settings).image


def scale_intensities(image: NDArray[Any], settings: NormaliseSettings) -> ScaledImage:
    """Map percentiles of the whole image to 0 and 1, or its mean to 0 and its standard deviation to 1, linearly.

    The statistics are those of the whole image, so that no tile is treated differently from another. Percentiles are
    those of the specimen: areas that were never acquired are left out, and filled with the mirror image of what lies
    beside them; hot pixels are brought down to their neighbours, and nothing else is clipped. Where objects are too few
    to reach the percentiles on a constant background, the background becomes 0 and they 1. An image, or a channel,
    without contrast becomes 0 everywhere.

    Parameters
    ----------
    image
        Shape ``(c, …)``, any real type, finite.
    settings
        The method, and the percentiles.
    """
    groups = image if settings.per_channel else image[None]
    if settings.method == "zscore":
        groups = image[:, None] if settings.per_channel else image[None]
        return ScaledImage(np.stack([_zscore(offset_from_minimum(group)) for group in groups]).reshape(image.shape))
    out = np.empty(image.shape, np.float32)
    missing: list[NDArray[np.bool_] | None] = []
    hot = 0
    for target, group in zip(out if settings.per_channel else out[None], groups, strict=True):
        blank, spikes = _scale(group, settings, target)
        missing += list(blank) if blank is not None and not settings.per_channel else [blank]
        hot += spikes
    known = [area for area in missing if area is not None]
    acquired = ~np.logical_and.reduce(known) if len(known) == len(image) else None
    return ScaledImage(out, acquired, hot / max(1, image.size))


def _scale(
    group: NDArray[Any], settings: NormaliseSettings, out: NDArray[np.float32]
) -> tuple[NDArray[np.bool_] | None, int]:
    """Write a group on its scale; return where nothing was acquired, and how many hot pixels there were."""
    group = offset_from_minimum(group)
    shares = settings.low, settings.high
    blank = find_unacquired(group)
    group, spikes = lower_spikes(group, blank)
    low, high = percentiles(group, shares, blank)
    if high <= low and blank:  # what is left is constant: two values with straight borders are a picture
        blank = ()
        low, high = percentiles(group, shares)
    if high <= low:
        least, most = percentiles(group, shares, (low,))
        low, high = min(low, least), max(high, most)
    if high <= low:
        out[...] = 0
        return None, spikes
    wide = group.dtype.itemsize > 2 and group.dtype != np.float32  # has more digits than float32, which low takes away
    kind = np.float64 if wide else np.float32
    np.subtract(group, kind(low), out=out, dtype=kind, casting="unsafe")
    out *= np.float32(1 / (high - low))
    if not blank:
        return None, spikes
    area = group == blank[0]
    mirror_into(area, out)
    return area, spikes


def _zscore(group: NDArray[Any]) -> NDArray[np.float32]:
    """Return (v - mean) / deviation over the voxels of the body in some channels, 0 around it."""
    body = find_body(group)
    values = group.ravel() if body is None else group[body]
    if not values.size or values.min() == values.max():
        return np.zeros(group.shape, np.float32)
    kind = np.float64 if group.dtype.itemsize > 2 and group.dtype != np.float32 else np.float32
    scores = np.empty(group.shape, np.float32)
    np.subtract(group, kind(values.mean(dtype=np.float64)), out=scores, dtype=kind, casting="unsafe")
    scores /= np.float32(values.std(dtype=np.float64))
    if body is not None:
        scores[~body] = 0
    return scores


def body_box(image: NDArray[Any], settings: NormaliseSettings, data: DataSettings) -> tuple[slice, ...]:
    """Return the part of a volume that holds the body or brain, whose surroundings were removed; else all of it.

    Classes and regions are looked for in there only, in training and in prediction: of a brain's volume that is a third
    (as nnU-Net does, Isensee et al. 2021).

    Parameters
    ----------
    image
        Shape ``(c, z, y, x)``.
    """
    whole = tuple(slice(0, size) for size in image.shape[1:])
    if settings.method != "zscore" or data.kind != "classes":
        return whole
    bodies = find_bodies(image)
    return whole if bodies is None else bounding_box(np.logical_or.reduce(bodies)) or whole


def find_bodies(image: NDArray[Any]) -> list[NDArray[np.bool_]] | None:
    """Return where the body is in each channel of ``(c, z, y, x)``; None where one still has its surroundings."""
    bodies = []
    for channel in image:
        body = find_body(channel[None])
        if body is None:
            return None
        bodies.append(body[0])
    return bodies


def working_zoom(grid: Grid, data: DataSettings, path: Path | None = None) -> Zoom:
    """Return the factor along each axis that brings a grid to the grid that the model works on; 1 where it has none.

    Parameters
    ----------
    grid
        Of an image.
    data
        Says what the model works on.
    path
        The file of the image, for messages.

    Raises
    ------
    InputError
        If the model works at a voxel size and the image's is unknown, in another unit, or far from it.
    """
    if data.pixel_size_um is None and not data.voxel_size:
        return (1.0,) * grid.dims
    wanted = data.voxel_size or (data.pixel_size_um,)
    if grid.spacing is None:
        what = f"at {wanted[0]} µm per pixel" if grid.dims == 2 else f"on voxels of {' x '.join(map(str, wanted))}"
        raise InputError(f"pixel size unknown, and this model works {what}", path=path, hint="give it with --spacing")
    _refuse_other_unit(grid, data, path)
    if data.voxel_size:
        zooms = tuple(step / size for step, size in zip(grid.spacing, data.voxel_size, strict=True))
    else:
        factor = 1e3 if grid.unit == "mm" else 1.0
        zooms = (float(np.mean(grid.spacing[-2:])) * factor / float(wanted[0] or 1),) * grid.dims
    if not 1 / _FAR <= min(zooms) <= max(zooms) <= _FAR:
        sizes = " x ".join(f"{size:.4g}" for size in grid.spacing)
        works = " x ".join(f"{size:.4g}" for size in wanted if size)
        unit = grid.unit if data.voxel_size else "µm"
        cause = f"voxels of {sizes} {grid.unit}, and this model works at {works} {unit}"
        raise InputError(cause, path=path, hint="give their size with --spacing if the file is wrong")
    return tuple(1.0 if abs(zoom - 1) < _SAME else zoom for zoom in zooms)


def _refuse_other_unit(grid: Grid, data: DataSettings, path: Path | None) -> None:
    """Refuse an image in µm where the voxel size that the model works at is in mm, and the other way round."""
    unit = data.voxel_unit or ("um" if data.dims == 2 else None)
    if data.voxel_size and unit is not None and grid.unit != unit:
        cause = f"voxel size in {grid.unit}, and this model works on voxels in {unit}"
        hint = "NIfTI is in mm and TIFF in µm; a model works in the one that it was trained in"
        raise InputError(cause, path=path, hint=hint)


def rescale(image: NDArray[np.float32], zoom: Zoom) -> NDArray[np.float32]:
    """Resample each spatial axis by its factor, linearly, low-passed first where the image shrinks.

    Parameters
    ----------
    image
        Shape ``(c, [z,] y, x)``.
    """
    return resize(image, rescaled_shape(image.shape[1:], zoom))


def rescaled_shape(shape: tuple[int, ...], zoom: Zoom) -> tuple[int, ...]:
    """Return the shape ``([z,] y, x)`` that an image of a shape has after `rescale`."""
    return tuple(max(1, round(size * factor)) for size, factor in zip(shape, zoom, strict=True))


def resize(image: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resample the spatial axes of ``(c, [z,] y, x)`` to a shape; corners of the field stay corners."""
    if image.shape[1:] == shape:
        return image.astype(np.float32, copy=False)
    from skimage.transform import resize as resample  # slow to import, and rarely needed

    return np.stack([resample(channel.astype(np.float32), shape, order=1, mode="edge") for channel in image])


def resample_planes(maps: NDArray[np.uint16], shape: tuple[int, ...]) -> Iterator[NDArray[np.uint16]]:
    """Bring probabilities to another grid, linearly, one plane at a time; corners of the field stay corners.

    Parameters
    ----------
    maps
        ``(k, [z,] y, x)``.
    shape
        Of the other grid, ``([z,] y, x)``.

    Yields
    ------
    ``(k, y, x)`` for each z, once for an image.
    """
    if maps.ndim == 3:
        maps, shape = maps[:, None], (1, *shape)
    low, high, share = _between(maps.shape[1], shape[0])
    for z in range(shape[0]):
        plane = maps[:, low[z]]
        if plane.shape[1:] == shape[1:] and share[z] == 0:
            yield plane
            continue
        mixed = plane + share[z] * (maps[:, high[z]].astype(np.float32) - plane)
        for axis in (1, 2):
            first, second, part = _between(mixed.shape[axis], shape[axis])
            near, far = mixed.take(first, axis), mixed.take(second, axis)
            mixed = near + (part[:, None] if axis == 1 else part) * (far - near)
        yield np.rint(mixed).astype(np.uint16)


def _between(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for each of `new` voxels along an axis the two of `old` around it, and the share of the second."""
    place = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
    first = place.astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)


def rescale_labels(labels: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Bring labels to a shape by taking the nearest voxel or, where nobody labelled it, the nearest labelled one.

    A voxel of a coarser grid covers several of the finer one: where any of them is labelled, it is. So planes and
    strokes of one voxel stay whole, wherever they lie; without unlabelled voxels this is the nearest voxel alone.
    """
    for axis, new in enumerate(shape):
        old = labels.shape[axis]
        if new == old:
            continue
        source, nearest = labels, ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        labels = source.take(nearest, axis=axis)
        for other in _others_covered(old, new, nearest):
            if not (unlabelled := labels == UNLABELLED).any():
                break
            labels = np.where(unlabelled, source.take(other, axis=axis), labels)
    return labels


def _others_covered(old: int, new: int, nearest: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Give for each of `new` voxels along an axis the next of the `old` ones that it covers, from its middle outwards.

    Where all are given, the nearest again.
    """
    covers = ((np.arange(old) + 0.5) * new / old).astype(np.intp)
    away = np.abs(np.arange(old) + 0.5 - (covers + 0.5) * old / new)
    order = np.lexsort([away, np.arange(old) != nearest[covers], covers])
    rank = np.arange(old) - np.searchsorted(covers[order], covers[order])
    for n in range(1, int(rank.max(initial=0)) + 1):
        given = nearest.copy()
        given[covers[order][rank == n]] = order[rank == n]
        yield given
