"""Intensities of a region of an image on the scale of the whole image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import LazyImage, Region
from biounet.preprocessing.hot_pixels import pad_at_borders
from biounet.preprocessing.image_parts import read_stack, stack_shape
from biounet.preprocessing.intensity_scale import ChannelScale, IntensityScale
from biounet.preprocessing.resampling import Resampling, rescale_part
from biounet.preprocessing.unacquired import MIRROR_REACH, fill_with_mirror_image
from biounet.tiling import relative_region

_BAND = 2**24  # values of an image that are scaled at a time before they are resampled


@dataclass(frozen=True)
class ScaledImage:
    """A normalised image ``(c, [z,] y, x)``, or a region of it, and which of its pixels show no specimen."""

    image: NDArray[np.float32]
    acquired: NDArray[np.bool_] | None = None  # where any channel was, ([z,] y, x); None: everywhere
    hot: float = 0.0  # share of the values of the whole image that were hot pixels
    saturated: float | None = None  # share of its acquired pixels at the full scale of a camera; None: of none
    top: int | None = None  # that value


def scale_region(image: LazyImage, scale: IntensityScale, region: Region, *, fill: bool = True) -> ScaledImage:
    """Return a region of an image on the scale of the whole image.

    Parameters
    ----------
    image
        In the canonical orientation.
    region
        ``([z,] y, x)``, in voxels from the start of `IntensityScale.body_box`.
    fill
        Whether areas that were not acquired are filled, for which their surroundings are read; else their values mean
        nothing.

    Returns
    -------
    The same voxels, to the last bit, as in the same region of the whole image.
    """
    origin = scale.body_box
    source = tuple(slice(r.start + o.start, r.stop + o.start) for r, o in zip(region, origin, strict=True))
    stack = (slice(0, 1), *source)[-3:]
    out = np.empty((image.channels, *(part.stop - part.start for part in stack)), np.float32)
    acquired = write_scaled(image, scale, stack, out, fill=fill)
    shape = out.shape[-len(region) :]
    return ScaledImage(
        out.reshape(-1, *shape),
        None if acquired is None else acquired.reshape(shape),
        scale.hot,
        scale.saturated,
        scale.top,
    )


def rescale_region(image: LazyImage, scale: IntensityScale, way: Resampling, region: Region) -> NDArray[np.float32]:
    """Return a region of an image on the scale of the whole image, on the working grid.

    Parameters
    ----------
    way
        From the grid of `IntensityScale.body_box` to the working grid.
    region
        ``([z,] y, x)`` of the working grid.

    Returns
    -------
    The voxels ``(c, [z,] y, x)``, to the last bit, that `rescale` gives there of the whole image.
    """
    if not way.changes:
        return scale_region(image, scale, region).image
    out = np.empty((image.channels, *(part.stop - part.start for part in region)), np.float32)
    needed = way.needed(region, filtered=True)
    voxels = image.channels * math.prod(part.stop - part.start for part in needed)
    planes = max(1, out.shape[1] * _BAND // voxels)
    first = region[0]
    for start in range(first.start, first.stop, planes):
        band = (slice(start, min(start + planes, first.stop)), *region[1:])
        scaled = scale_region(image, scale, way.needed(band, filtered=True)).image
        out[:, band[0].start - first.start : band[0].stop - first.start] = rescale_part(scaled, way, band)
    return out


def write_scaled(
    image: LazyImage, scale: IntensityScale, region: Region, out: NDArray[np.float32], *, fill: bool = True
) -> NDArray[np.bool_] | None:
    """Write a region ``(z, y, x)`` to `out`, ``(c, z, y, x)``, and return where it was acquired; None: everywhere."""
    missing = []
    for channels, values in _cleaned(image, scale, region):
        target = out[channels.channels]
        _write_linear(channels, scale.method, values, target)
        if channels.body.backgrounds:
            target[~channels.body.mask(values, region)] = 0
        if channels.unacquired:
            area = values == channels.unacquired[0]
            missing.extend(area)
            if fill and area.any():
                _fill(image, scale, region, channels, target)
    return np.asarray(~np.logical_and.reduce(missing)) if scale.has_unacquired else None


def acquired_stack(image: LazyImage, scale: IntensityScale, region: Region) -> NDArray[np.bool_]:
    """Return where any channel of a region ``(z, y, x)`` was acquired, of an image with areas that were not."""
    areas = [values == channels.unacquired[0] for channels, values in _cleaned(image, scale, region)]
    return np.asarray(~np.logical_and.reduce(np.concatenate(areas)))


def _cleaned(image: LazyImage, scale: IntensityScale, region: Region) -> Iterator[tuple[ChannelScale, NDArray[Any]]]:
    """Yield the channels of each scale in a region ``(z, y, x)``, without offset and hot pixels."""
    shape = stack_shape(image)
    margin = int(any(each.hot for each in scale.channels))
    outer = _grown(region, margin, shape)
    tile = read_stack(image, outer)
    within = (slice(None), *relative_region(region, outer))
    rows, columns = region[1:]
    sides = rows.start == 0, rows.stop == shape[1], columns.start == 0, columns.stop == shape[2]
    for each in scale.channels:
        values = each.prepare(tile)
        cleaned = values[within]
        if each.hot is not None:
            padded = pad_at_borders(values.reshape(-1, *values.shape[2:]), sides)
            (plane, y, x), replacement = each.hot.find(padded)
            if replacement.size:
                cleaned = np.array(cleaned)
                cleaned.reshape(-1, *cleaned.shape[2:])[plane, y - 1, x - 1] = replacement
        yield each, cleaned


def _grown(region: Region, margin: int, shape: tuple[int, ...]) -> Region:
    """Return a region that is larger by a margin in y and x."""
    return region[0], *(
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, size in zip(region[1:], shape[1:], strict=True)
    )


def _write_linear(channels: ChannelScale, method: str, values: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Write ``(values - low) / width``, with the precision of types that have more digits than float32."""
    if not channels.width:
        out[...] = 0
        return
    wide = values.dtype.itemsize > 2 and values.dtype != np.float32
    dtype = np.float64 if wide else np.float32
    np.subtract(values, dtype(channels.low), out=out, dtype=dtype, casting="unsafe")
    if method == "zscore":
        out /= np.float32(channels.width)
    else:
        out *= np.float32(1 / channels.width)


def _fill(
    image: LazyImage, scale: IntensityScale, region: Region, channels: ChannelScale, out: NDArray[np.float32]
) -> None:
    """Fill what was not acquired in a region with the mirror image of its surroundings."""
    outer = _grown(region, 2 * MIRROR_REACH, stack_shape(image))
    values = next(values for each, values in _cleaned(image, scale, outer) if each is channels)
    filled = np.empty(values.shape, np.float32)
    _write_linear(channels, scale.method, values, filled)
    core = relative_region(region, outer)
    area = values == channels.unacquired[0]
    fill_with_mirror_image(area, filled, core[1:])
    out[...] = filled[(slice(None), *core)]
