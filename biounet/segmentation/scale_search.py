"""The zoom at which an image looks as those of the training did, for images that do not as they are.

An image of another magnification than any of the training is blurred or noisy for the model, or its objects are too
large or too small, or found with little confidence. Parts of it are then segmented at a few zooms, and the one is taken
at which nothing of that is so, with the highest confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

_SMALLER, _LARGER = (1 / 2, 1 / 4, 1 / 8), (2.0, 4.0)
_SAMPLE = {2: 2048, 3: 256}  # longest edge, in voxels of the image and of the working grid, of the part that is tried
_MIN_EDGE = 64  # voxels on the working grid: of less there is no texture to compare


@dataclass(frozen=True)
class Look:
    """What an image, or a part of it, looks like at a zoom.

    Attributes
    ----------
    is_familiar
        Whether texture, size and confidence of the objects are like those of training images.
    confidence
        Mean over the objects; 0 without any.
    diameter
        Median of the objects, in voxels of the working grid; None where they are few.
    count
        Number of objects in the part that is tried.
    """

    zoom: float
    is_familiar: bool
    confidence: float
    diameter: float | None = None
    count: int = 0


def zooms_to_try(first: Look, shape: tuple[int, ...], smallest: float) -> tuple[float, ...]:
    """Return the zooms to try beside 1, of an image of this shape, ``([z,] y, x)``, that looks like `first` at 1.

    Where objects are below the diameter `smallest`, it is enlarged, unless the result would be too large; else it is
    made smaller, as long as it keeps a texture.
    """
    if first.diameter is not None and first.diameter < smallest:
        return tuple(zoom for zoom in _LARGER if max(shape) * zoom <= _SAMPLE[len(shape)])
    return tuple(zoom for zoom in _SMALLER if min(shape[-2:]) * zoom >= _MIN_EDGE)


def is_closer(diameter: float | None, zoom: float, typical: float) -> bool:
    """Whether objects of a diameter, in voxels of the working grid, are closer to the typical one than at zoom 1.

    Nuclei of an ordinary size in an image that is out of focus look sharper when it is made smaller, but not like those
    of another magnification.
    """
    if diameter is None or zoom == 1:
        return True
    return abs(math.log(diameter / typical)) <= abs(math.log(diameter / zoom / typical))


def largest_zoom(shape: tuple[int, ...]) -> float:
    """Return the largest zoom other than 1 that may be chosen for an image of this shape."""
    return max((zoom for zoom in _LARGER if max(shape) * zoom <= _SAMPLE[len(shape)]), default=_SMALLER[0])


def best_zoom(looks: Sequence[Look]) -> float:
    """Return the zoom of the highest confidence among those at which the image looks familiar; of all, if at none."""
    familiar = [look for look in looks if look.is_familiar] or looks
    return max(familiar, key=lambda look: look.confidence).zoom


def count_instability(looks: Sequence[Look], zoom: float) -> float:
    """Return by which share the count at a zoom differs from that at half of it or at twice it, whichever is nearer.

    Objects of another magnification are found at several sizes alike. In an image that is out of focus each size shows
    others.
    """
    counts = {look.zoom: look.count for look in looks}
    neighbours = [counts[other] for other in (zoom / 2, zoom * 2) if other in counts]
    differences = [abs(count - counts[zoom]) / max(count, counts[zoom], 1) for count in neighbours]
    return min(differences, default=0.0)


def densest_window(labels: NDArray[np.integer]) -> tuple[slice, ...]:
    """Return the window of a label image with the most voxels of objects; all of an image that is not large."""
    edge = _SAMPLE[labels.ndim]
    parts = [max(1, math.ceil(size / edge)) for size in labels.shape]
    edges = [np.linspace(0, size, count + 1).astype(int) for size, count in zip(labels.shape, parts, strict=True)]
    windows = [
        tuple(slice(int(axis[at]), int(axis[at + 1])) for axis, at in zip(edges, place, strict=True))
        for place in product(*map(range, parts))
    ]
    return max(windows, key=lambda window: int(np.count_nonzero(labels[window])))
