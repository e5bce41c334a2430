"""Objects that the edge of an image cuts: which to count, and with what weight, so that density and size are unbiased.

An image shows a part of a specimen. Counting every object in it, those that the edge cuts included, counts too many per
area; leaving all cut ones out counts too few, and large objects fewest. Two estimators have no such bias:

- the **counting frame** (Gundersen 1977, J. Microsc. 111:219) leaves out what touches the last row or column, and
  divides by the area of the frame, ``(height - 1) (width - 1)``; in 3D the same with a brick;
- **weights** (Miles 1974; Lantuéjoul 1978) leave out what touches any edge, and count every other object as often as
  the place for an object of its size in the image is smaller than the image. Means of sizes weighted by them are
  unbiased too, since all weighted objects are whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def in_counting_frame(high: NDArray[np.integer], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return which objects the counting frame of an image, or the brick of a volume, counts.

    Parameters
    ----------
    high
        Highest index of each object along each axis, shape ``(n, dims)``.
    shape
        Of the image, ``([z,] y, x)``.
    """
    return np.asarray((np.asarray(high) < np.asarray(shape) - 1).all(axis=1))


def frame_size(shape: Sequence[int], steps: Sequence[float] | None = None) -> float:
    """Return the area of the counting frame, or the volume of the brick, by which its count is divided.

    Parameters
    ----------
    shape
        Of the image, ``([z,] y, x)``.
    steps
        Distance between pixels along each axis; None: the result is in pixels.
    """
    return math.prod((n - 1) * step for n, step in zip(shape, steps or (1.0,) * len(shape), strict=True))


def border_weights(low: NDArray[np.integer], high: NDArray[np.integer], shape: Sequence[int]) -> NDArray[np.float64]:
    """Return how often each object counts; 0 for one that touches an edge of the image.

    The weight is the number of pixels of the image divided by the number of places that the bounding box of the object
    has in it without touching an edge.

    Parameters
    ----------
    low, high
        Lowest and highest index of each object along each axis, shape ``(n, dims)``.
    shape
        Of the image, ``([z,] y, x)``.
    """
    low, high, size = np.asarray(low), np.asarray(high), np.asarray(shape)
    places = size - 1 - (high - low + 1)
    touches = ((low == 0) | (high == size - 1)).any(axis=1)
    weights = np.prod(size / np.where(touches[:, None], 1, places), axis=1)
    return np.where(touches, 0.0, weights)
