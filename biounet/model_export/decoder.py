"""Maps of a model of biounet become objects; this file needs NumPy only and is part of packages for other programs.

Each pixel of the foreground climbs to its highest neighbour, on the surface distance - contour, until it comes to a
peak: pixels that share a peak are a basin. Basins that touch are one object where the saddle between them is high, as
compared with the lower one of their peaks. All is in integers, 0..65535 for 0..1, so that the labels are those of
biounet.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_ONE = 65535  # a probability of 1


class LabelObjects:
    """Make a label image of the maps of one or several images.

    Parameters
    ----------
    foreground
        Probability from which a pixel is part of an object.
    contour
        How much the contour lowers the surface.
    join
        Height of a saddle, as a fraction of the lower peak beside it, from which two basins are one object.
    min_peak
        Height below which a peak is none; objects without a higher one are left out.
    min_size
        Pixels below which an object is left out.
    fill_holes
        Whether background that one object encloses becomes part of it.
    """

    def __init__(
        self,
        foreground: float = 0.5,
        contour: float = 0.4,
        join: float = 0.45,
        min_peak: float = 0.2,
        min_size: float = 15,
        fill_holes: bool = True,
    ) -> None:
        self.foreground = max(math.ceil(foreground * _ONE), 1)
        self.contour = round(contour * 256)
        self.join = join
        self.min_peak = math.ceil(min_peak * _ONE)
        self.min_size = max(math.ceil(min_size), 1)
        self.fill_holes = fill_holes

    def __call__(self, foreground: Any, contour: Any, distance: Any, *others: Any) -> npt.NDArray[np.int32]:  # noqa: ANN401
        """Return labels, 0 for background and 1..N, of maps ``(batch, 1, [z,] y, x)`` from 0 to 1; in their shape."""
        maps = np.stack([np.asarray(one, np.float32) for one in (foreground, contour, distance)])
        whole = np.rint(maps * _ONE).astype(np.int64)
        labels = np.zeros(whole.shape[1:], np.int32)
        for at in np.ndindex(labels.shape[:2]):
            labels[at] = self._label(*(one[at] for one in whole))
        return labels

    def _label(self, foreground: Ints, contour: Ints, distance: Ints) -> npt.NDArray[np.int32]:
        surface = _smooth(np.maximum(distance - (contour * self.contour >> 8), 0))
        height = np.pad(np.where(foreground >= self.foreground, np.maximum(surface, 1), 0), 1)
        flat, pixels = height.ravel(), np.flatnonzero(height)
        labels = np.zeros(height.size, np.int32)
        if pixels.size:
            steps = _neighbours(height.shape)
            basin, peaks = _climb(flat, pixels, steps)
            parts = _merge(flat[peaks], *_saddles(flat, pixels, basin, steps), self.join, self.min_peak)
            labels[pixels] = self._number(parts[basin], flat[peaks])
        inner = labels.reshape(height.shape)[(slice(1, -1),) * height.ndim]
        return _fill_holes(inner) if self.fill_holes else inner

    def _number(self, part: Ints, height: Ints) -> npt.NDArray[np.int32]:
        """Return the label of each pixel from the basin that its object is called after, which has its peak."""
        count = np.bincount(part, minlength=height.size)
        kept = (count >= self.min_size) & (height >= self.min_peak)
        found, first = np.unique(part, return_index=True)
        order = found[np.argsort(first)]
        order = order[kept[order]]
        label = np.zeros(height.size, np.int32)
        label[order] = np.arange(1, order.size + 1)
        return label[part]


def _smooth(surface: Ints) -> Ints:
    """Return a 1-2-1 filter along each axis, the edge repeated, which removes peaks of single pixels."""
    total = surface
    for axis in range(surface.ndim):
        wide = np.moveaxis(np.pad(total, [(int(n == axis),) * 2 for n in range(surface.ndim)], mode="edge"), axis, 0)
        total = np.moveaxis(wide[:-2] + 2 * wide[1:-1] + wide[2:], 0, axis)
    return total >> 2 * surface.ndim


def _neighbours(shape: tuple[int, ...]) -> list[int]:
    """Return the steps to all neighbours and to the pixel itself, in the order in which pixels are stored."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return [
        sum(n * stride for n, stride in zip(step, strides, strict=True))
        for step in product((-1, 0, 1), repeat=len(shape))
    ]


def _climb(height: Ints, pixels: Ints, steps: list[int]) -> tuple[Ints, Ints]:
    """Return the basin of each pixel, numbered in the order of the peaks, and the peaks."""
    best, target = np.zeros(pixels.size, np.int64), pixels.copy()
    for step in steps:  # of equal neighbours the first
        there = height[pixels + step]
        higher = there > best
        best[higher], target[higher] = there[higher], pixels[higher] + step
    place = np.zeros(height.size, np.int64)
    place[pixels] = np.arange(pixels.size)
    end = place[target]
    while not np.array_equal(end, further := end[end]):
        end = further
    peaks, basin = np.unique(end, return_inverse=True)
    return basin.reshape(-1), pixels[peaks]


def _saddles(height: Ints, pixels: Ints, basin: Ints, steps: list[int]) -> tuple[Ints, Ints]:
    """Return pairs of basins that touch, (n, 2), and the saddle of each: from the highest one down, then by pair.

    A saddle is the mean of the highest and the mean value along the border, of the lower of two pixels that touch.
    """
    of_pixel = np.full(height.size, -1, np.int64)
    of_pixel[pixels] = basin
    pairs, minima = [], []
    for step in steps[len(steps) // 2 + 1 :]:
        there = of_pixel[pixels + step]
        touches = (there >= 0) & (there != basin)
        pairs.append(np.sort(np.stack([basin[touches], there[touches]], axis=1), axis=1))
        minima.append(np.minimum(height[pixels[touches]], height[pixels[touches] + step]))
    pair, lower = np.concatenate(pairs), np.concatenate(minima)
    if not lower.size:
        return pair, lower
    order = np.lexsort((pair[:, 1], pair[:, 0]))
    pair, lower = pair[order], lower[order]
    first = np.flatnonzero(np.diff(pair, axis=0, prepend=-1).any(axis=1))
    count = np.diff(first, append=lower.size)
    saddle = (np.maximum.reduceat(lower, first) * count + np.add.reduceat(lower, first)) // (2 * count)
    order = np.argsort(-saddle, kind="stable")
    return pair[first][order], saddle[order]


def _merge(height: Ints, pairs: Ints, saddles: Ints, join: float, min_peak: int) -> Ints:
    """Return for each basin the one with the highest peak of its object."""
    part, peak = list(range(height.size)), height.tolist()

    def root(basin: int) -> int:
        while part[basin] != basin:
            part[basin] = part[part[basin]]
            basin = part[basin]
        return basin

    for (a, b), saddle in zip(pairs.tolist(), saddles.tolist(), strict=True):
        high, low = sorted((root(a), root(b)), key=lambda basin: (-peak[basin], basin))
        if saddle >= join * peak[low] or peak[low] < min_peak:
            part[low] = high
    return np.array([root(basin) for basin in range(height.size)], np.int64)


def _fill_holes(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Give background that one object encloses, across faces, to that object."""
    labels = np.pad(labels, 1)
    before = _last_label(labels)
    after = _last_label(labels[..., ::-1])[..., ::-1]
    # The object on both sides in the row; what is open to other background, or another object, is no hole.
    owner = np.where((labels == 0) & (before == after), before, labels).reshape(-1)
    flat, steps = labels.reshape(-1), [math.prod(labels.shape[axis + 1 :]) for axis in range(labels.ndim)]
    holes = np.flatnonzero((flat == 0) & (owner > 0))
    while holes.size:
        closed = np.ones(holes.size, np.bool_)
        for step in (*steps, *(-step for step in steps)):
            closed &= owner[holes + step] == owner[holes]
        if closed.all():
            break
        owner[holes[~closed]] = 0
        holes = holes[closed]
    return owner.reshape(labels.shape)[(slice(1, -1),) * labels.ndim]


def _last_label(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the last label at or before each pixel of a row; 0 where there is none."""
    columns = np.where(labels > 0, np.arange(labels.shape[-1]), 0)
    return np.take_along_axis(labels, np.maximum.accumulate(columns, axis=-1), axis=-1)
