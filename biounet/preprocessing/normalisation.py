"""Intensities on one scale: what every image goes through, in training and in prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import DataSettings, NormaliseSettings
from biounet.preprocessing.channel_groups import is_offset, without_offset
from biounet.preprocessing.image_parts import array_image, image_parts, stack_shape
from biounet.preprocessing.scale_finding import find_scale
from biounet.preprocessing.scaled_regions import ScaledImage, write_scaled


def scale_intensities(image: NDArray[Any], settings: NormaliseSettings) -> ScaledImage:
    """Map percentiles of a finite ``(c, …)`` to 0 and 1, or its mean to 0 and its deviation to 1, linearly.

    Statistics are taken over the whole image, so that no tile is treated differently from another. Percentiles are
    those of the specimen: areas that were never acquired are left out, and filled with the mirror image of their
    surroundings; hot pixels are replaced by a neighbour, and nothing else is clipped. Where objects are too few to
    reach the percentiles on a constant background, the background becomes 0 and the objects 1. An image, or a channel,
    without contrast becomes 0 everywhere.

    The same as `find_scale` and `scale_region` of the whole image.
    """
    lazy = array_image(image)
    shape = stack_shape(lazy)
    scale = find_scale(lazy, settings, DataSettings())
    out = np.empty((len(image), *shape), np.float32)
    acquired = np.empty(shape, bool) if scale.has_unacquired else None
    for part in image_parts(lazy):
        area = write_scaled(lazy, scale, part.region, out[(slice(None), *part.region)])
        if acquired is not None:
            acquired[part.region] = area
    mask = None if acquired is None else acquired.reshape(image.shape[1:])
    return ScaledImage(out.reshape(image.shape), mask, scale.hot, scale.saturated, scale.top)


def offset_from_minimum(values: NDArray[Any]) -> NDArray[Any]:
    """Return 64-bit integers minus their minimum, exactly; all other types as they are."""
    if not is_offset(values.dtype):
        return values
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return without_offset(native, native.min().item())
