"""Intensities on one scale: what every image goes through, in training and in prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import NormaliseSettings
from biounet.preprocessing.body_mask import body_mask
from biounet.preprocessing.hot_pixels import remove_hot_pixels
from biounet.preprocessing.order_statistics import percentiles
from biounet.preprocessing.unacquired import fill_with_mirror_image, find_unacquired


@dataclass(frozen=True)
class ScaledImage:
    """A normalised image ``(c, [z,] y, x)``, and which of its pixels show no specimen."""

    image: NDArray[np.float32]
    acquired: NDArray[np.bool_] | None = None  # where any channel was, ([z,] y, x); None: everywhere
    hot: float = 0.0  # share of the values that were hot pixels


def scale_intensities(image: NDArray[Any], settings: NormaliseSettings) -> ScaledImage:
    """Map percentiles of a finite ``(c, …)`` to 0 and 1, or its mean to 0 and its deviation to 1, linearly.

    Statistics are taken over the whole image, so that no tile is treated differently from another. Percentiles are
    those of the specimen: areas that were never acquired are left out, and filled with the mirror image of their
    surroundings; hot pixels are replaced by a neighbour, and nothing else is clipped. Where objects are too few to
    reach the percentiles on a constant background, the background becomes 0 and the objects 1. An image, or a channel,
    without contrast becomes 0 everywhere.
    """
    out = np.empty(image.shape, np.float32)
    scale = _zscore if settings.method == "zscore" else _scale_percentiles
    areas: list[NDArray[np.bool_]] = []
    hot_pixels = 0
    for group, target in zip(image[:, None], out[:, None], strict=True) if settings.per_channel else [(image, out)]:
        area, count = scale(offset_from_minimum(group), settings, target)
        areas.extend([] if area is None else area)
        hot_pixels += count
    acquired = ~np.logical_and.reduce(areas) if len(areas) == len(image) else None
    return ScaledImage(out, acquired, hot_pixels / max(1, image.size))


def _scale_percentiles(
    group: NDArray[Any], settings: NormaliseSettings, out: NDArray[np.float32]
) -> tuple[NDArray[np.bool_] | None, int]:
    """Write scaled channels to `out`; return the area that was never acquired, and the number of hot pixels."""
    ranks = settings.low, settings.high
    unacquired = find_unacquired(group)
    group, hot_pixels = remove_hot_pixels(group, unacquired)
    low, high = percentiles(group, ranks, unacquired)
    if high <= low and unacquired:  # the rest is constant: two values with straight borders are a picture
        unacquired = ()
        low, high = percentiles(group, ranks)
    if high <= low:
        next_low, next_high = percentiles(group, ranks, (low,))
        low, high = min(low, next_low), max(high, next_high)
    if high <= low:
        out[...] = 0
        return None, hot_pixels
    _subtract(group, low, out)
    out *= np.float32(1 / (high - low))
    if not unacquired:
        return None, hot_pixels
    area = group == unacquired[0]
    fill_with_mirror_image(area, out)
    return area, hot_pixels


def _zscore(group: NDArray[Any], settings: NormaliseSettings, out: NDArray[np.float32]) -> tuple[None, int]:
    """Write (v - mean) / deviation over the voxels of the body in some channels to `out`, 0 around it."""
    body = body_mask(group)
    values = group.ravel() if body is None else group[body]
    if not values.size or values.min() == values.max():
        out[...] = 0
        return None, 0
    _subtract(group, values.mean(dtype=np.float64), out)
    out /= np.float32(values.std(dtype=np.float64))
    if body is not None:
        out[~body] = 0
    return None, 0


def _subtract(values: NDArray[Any], offset: float, out: NDArray[np.float32]) -> None:
    """Write ``values - offset`` to `out`, with the precision of types that have more digits than float32."""
    wide = values.dtype.itemsize > 2 and values.dtype != np.float32
    dtype = np.float64 if wide else np.float32
    np.subtract(values, dtype(offset), out=out, dtype=dtype, casting="unsafe")


def offset_from_minimum(values: NDArray[Any]) -> NDArray[Any]:
    """Return 64-bit integers minus their minimum, exactly; all other types as they are.

    Float64 has 53 bits: differences above an offset of 2^60 would be lost in it.
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8:
        return values
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native.view(np.uint64) - np.uint64(native.min().view(np.uint64))
