"""The surroundings of a body: one value all around it, where everything but a brain or a body was removed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import bounding_box

_SHARE = 0.05  # share of the voxels from which one value along the edges of the field is no chance
_MAJORITY = 0.5  # share of the neighbours along these edges that have it
_NOISE = 1e-4  # deviations of the image within which voxels have one value: what interpolation leaves of 0
_PADDINGS = 3  # fields around one another that each have a value
_SAMPLE = 2**20  # voxels of which the deviation is taken


def find_body(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where the body is in an image whose surroundings were removed; None where they were not.

    Surroundings have one value, such as 0, or what a later step made of 0, up to a ten thousandth of the deviation of
    the image. It is known from the edges in which the sides of the field meet, where a body hardly reaches: more than
    half of the neighbours along them have it, both of them, which the background of a scanner, that is noise, does not.
    No single voxel decides: not a mark in a corner, nor a slice that was filled. Where the field was padded with
    another value, the surroundings lie inside of that, and are looked for again.

    Parameters
    ----------
    image
        Shape ``(c, [z,] y, x)``, any real type, finite.

    Returns
    -------
    Shape of `image`.
    """
    body = _inside(image)
    for _ in range(_PADDINGS):
        if body is None or (found := bounding_box(np.logical_or.reduce(body))) is None:
            break
        box = (slice(None), *found)
        inner = _inside(image[box])
        if inner is None or not inner.any() or (body[box] & ~inner).mean() <= _SHARE:
            break
        body[box] &= inner
    return body


def _inside(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return what does not have the value of the edges; None where they have none."""
    lines = [_edges_along(image, axis) for axis in range(1, image.ndim)]
    value = float(np.percentile(np.concatenate([line.ravel() for line in lines]), 50, method="lower"))
    tolerance = _NOISE * float(image.ravel()[:: max(1, image.size // _SAMPLE)].std(dtype=np.float64))
    low, high = value - tolerance, value + tolerance
    pairs = [_are_within(line[:, 1:], low, high) & _are_within(line[:, :-1], low, high) for line in lines]
    if not sum(pair.size for pair in pairs) or np.concatenate([p.ravel() for p in pairs]).mean() <= _MAJORITY:
        return None
    around = _are_within(image, low, high)
    return ~around if around.mean() > _SHARE else None


def _edges_along(image: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the edges of the field that lead along an axis, shape ``(edges, voxels)``."""
    ends = [range(image.shape[0]), *([0, size - 1] for size in image.shape[1:])]
    ends[axis] = range(image.shape[axis])
    return np.moveaxis(image[np.ix_(*ends)], axis, -1).reshape(-1, image.shape[axis])


def _are_within(values: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    return np.asarray((values >= low) & (values <= high))
