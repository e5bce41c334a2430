"""The body mask of a volume whose background was removed, as by skull stripping."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import DataSettings, NormaliseSettings, bounding_box

MIN_BACKGROUND_SHARE = 0.05  # of the voxels, from which a single value along the edges of the volume is no coincidence
BACKGROUND_MAJORITY = 0.5  # share of the neighbours along these edges that have it
BACKGROUND_NOISE = 1e-4  # standard deviations of the image within which voxels have one value: 0 after interpolation
_MAX_PADDINGS = 3  # borders around one another that each have a value of their own
_SAMPLE = 2**20  # voxels from which the standard deviation is taken


def body_mask(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return the mask of the body in ``(c, [z,] y, x)`` whose background was removed; None where it was not.

    A removed background has one value, which is that along the edges where the faces of the volume meet: a body hardly
    reaches them, and the noise of a scanner's background varies. No single voxel decides: not a mark in a corner, nor a
    slice that was filled. Where the image was padded with another value, the background lies within the padding.
    """
    body = _differs_from_edges(image)
    for _ in range(_MAX_PADDINGS):
        if body is None or (box := bounding_box(np.logical_or.reduce(body))) is None:
            break
        within = (slice(None), *box)
        inner = _differs_from_edges(image[within])
        if inner is None or not inner.any() or (body[within] & ~inner).mean() <= MIN_BACKGROUND_SHARE:
            break
        body[within] &= inner
    return body


def body_masks(image: NDArray[Any]) -> list[NDArray[np.bool_]] | None:
    """Return the body mask of each channel of ``(c, z, y, x)``; None where one still has its background."""
    masks = []
    for channel in image:
        mask = body_mask(channel[None])
        if mask is None:
            return None
        masks.append(mask[0])
    return masks


def body_box(image: NDArray[Any], settings: NormaliseSettings, data: DataSettings) -> tuple[slice, ...]:
    """Return the bounding box of the body in ``(c, z, y, x)`` whose background was removed; else all of it.

    Classes and regions are predicted within the box only, in training and in prediction: a third of a brain's volume
    (as nnU-Net does, Isensee et al. 2021).
    """
    whole = tuple(slice(0, size) for size in image.shape[1:])
    if settings.method != "zscore" or data.kind != "classes":
        return whole
    masks = body_masks(image)
    return whole if masks is None else bounding_box(np.logical_or.reduce(masks)) or whole


def _differs_from_edges(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where the image does not have the value of its edges; None where these have no common value."""
    lines = [_edges_along(image, axis) for axis in range(1, image.ndim)]
    value = float(np.percentile(np.concatenate([line.ravel() for line in lines]), 50, method="lower"))
    tolerance = BACKGROUND_NOISE * float(image.ravel()[:: max(1, image.size // _SAMPLE)].std(dtype=np.float64))
    low, high = value - tolerance, value + tolerance
    pairs = [_is_between(line[:, 1:], low, high) & _is_between(line[:, :-1], low, high) for line in lines]
    if not sum(pair.size for pair in pairs) or np.concatenate([p.ravel() for p in pairs]).mean() <= BACKGROUND_MAJORITY:
        return None
    background = _is_between(image, low, high)
    return ~background if background.mean() > MIN_BACKGROUND_SHARE else None


def _edges_along(image: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the edges of the volume along an axis, shape ``(edges, voxels)``."""
    ends = [range(image.shape[0]), *([0, size - 1] for size in image.shape[1:])]
    ends[axis] = range(image.shape[axis])
    return np.moveaxis(image[np.ix_(*ends)], axis, -1).reshape(-1, image.shape[axis])


def _is_between(values: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    return np.asarray((values >= low) & (values <= high))
