"""Sizes, moments, outlines and convex hulls of all objects of a label image at once, compiled.

Labels are 1..n, 0 is background. Sums are exact integers, those of Python where 64 bits may not hold them, so that no
result depends on their order. The loops are over runs, the consecutive voxels of one object along x: far fewer than
voxels, and the sums over a run have closed forms.
"""

# Compiled functions carry no annotations: numba infers the types from the arguments.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import compiled, inlined

Ints = NDArray[np.int64]

_FAR = 2**31  # x beyond all images
_LARGEST_SUM = 2.0**60  # which second moments stay below in 64 bits: what is computed on the way is larger
_RUNS_AT_A_TIME = 1000


class CoordinateSums(NamedTuple):
    """Sums over the voxels of each object.

    Attributes
    ----------
    size
        (n,) number of voxels.
    low, high
        (n, 3) lowest and highest index along z, y and x.
    origin
        (n, 3) first voxel in scan order, from which the coordinates in the sums are counted.
    first
        (n, 3) sums of z, y and x.
    second
        (n, 6) sums of zz, zy, zx, yy, yx and xx; integers of Python if there is an object of which 64 bits may not hold
        them, such as one of 35 000 x 35 000 pixels.
    """

    size: Ints
    low: Ints
    high: Ints
    origin: Ints
    first: Ints
    second: NDArray[Any]


def sum_coordinates(runs: Ints, shape: tuple[int, ...], n: int) -> CoordinateSums:
    """Sum over the voxels of the objects 1..`n`, from the runs (r, 3) of a volume of this shape (z, y, x)."""
    # With np.add.at this takes as long as a compiled loop for the runs of a field of cells, and nothing to compile.
    begin, length, k = runs[:, 0], runs[:, 1] - runs[:, 0], runs[:, 2] - 1
    starts = np.stack(np.unravel_index(begin, shape), axis=1).astype(np.int64)
    size, origin = np.zeros(n, np.int64), np.zeros((n, 3), np.int64)
    np.add.at(size, k, length)
    origin[k[::-1]] = starts[::-1]  # of the voxels written to one place, the last remains: the first in scan order
    low, high = np.full((n, 3), np.iinfo(np.int64).max), np.zeros((n, 3), np.int64)
    for axis, last in enumerate((starts[:, 0], starts[:, 1], starts[:, 2] + length - 1)):
        np.minimum.at(low[:, axis], k, starts[:, axis])
        np.maximum.at(high[:, axis], k, last)
    low[size == 0] = 0
    places = (starts - origin[k]).T
    first, second = _sum_moments(places, length, k, n)
    span = (high - low + 1).max(axis=1, initial=1)
    if (wide := _may_overflow(size, span)).any():
        own, number = wide[k], np.cumsum(wide) - 1
        second = second.astype(object)
        second[wide] = _sum_exactly(places[:, own], length[own], number[k[own]], span[wide])
    return CoordinateSums(size, low, high, origin, first, second)


def _may_overflow(size: NDArray[Any], span: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether 64 bits may not hold the second moments of so many voxels in a cube, or what leads to them."""
    edge = span.astype(np.float64)
    return np.asarray(np.maximum(size, edge) * edge**2 >= _LARGEST_SUM)


def _sum_exactly(places: Ints, length: Ints, k: Ints, span: Ints) -> NDArray[Any]:
    """Return the second moments of `_sum_moments` in integers of Python; each object lies in a cube of edge `span`.

    Some runs at a time, in 64 bits where they fit: integers of Python take 10 times as long and as much memory.
    """
    second = np.zeros((len(span), 6), object)
    for start in range(0, len(length), _RUNS_AT_A_TIME):
        part = slice(start, start + _RUNS_AT_A_TIME)
        kind = object if _may_overflow(length[part].sum(), span.max()) else np.int64
        second += _sum_moments(places[:, part].astype(kind), length[part].astype(kind), k[part], len(span))[1]
    return second


def _sum_moments(places: NDArray[Any], length: NDArray[Any], k: Ints, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return first and second moments of the objects `k` of runs that begin at `places` (3, r), in their integers."""
    z, y, x = places
    along, across = length * (2 * x + length - 1) // 2, _sum_of_squares(x + length) - _sum_of_squares(x)
    first, second = np.zeros((n, 3), places.dtype), np.zeros((n, 6), places.dtype)
    for axis, column in enumerate((length * z, length * y, along)):
        np.add.at(first[:, axis], k, column)
    products = (length * z * z, length * z * y, z * along, length * y * y, y * along, across)
    for i, column in enumerate(products):
        np.add.at(second[:, i], k, column)
    return first, second


def _sum_of_squares(end: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of i² for 0 <= i < end; differences are correct for negative ends too."""
    return end * (end - 1) * (2 * end - 1) // 6


def covariances(size: Ints, first: Ints, second: NDArray[Any]) -> NDArray[np.float64]:
    """Return the covariances (n, 3, 3) of the voxel coordinates of each object, from `sum_coordinates`."""
    n, sums = size[:, None].astype(np.float64), first.astype(np.float64)
    i, j = np.triu_indices(3)
    result = np.empty((len(n), 3, 3))
    # Times n², so that the difference is exact, and 0 for a line, until n times a sum passes 2**53.
    result[:, i, j] = result[:, j, i] = (n * second.astype(np.float64) - sums[:, i] * sums[:, j]) / (n * n)
    return result


def join_coordinates(one: CoordinateSums, other: CoordinateSums) -> CoordinateSums:
    """Return the sums over two parts of the same objects, of which all have voxels in `one`, the earlier part."""
    size = other.size[:, None]
    shift = (other.origin - one.origin) * (size > 0)
    i, j = np.triu_indices(3)
    far, sums = shift.astype(object), other.first.astype(object)
    moved = other.second + far[:, i] * sums[:, j] + far[:, j] * sums[:, i] + size * far[:, i] * far[:, j]
    return CoordinateSums(
        one.size + other.size,
        np.where(size > 0, np.minimum(one.low, other.low), one.low),
        np.where(size > 0, np.maximum(one.high, other.high), one.high),
        one.origin,
        one.first + other.first + size * shift,
        one.second + moved,
    )


@compiled
def sum_intensity(values, runs, size, total, peak):
    """Sum the values (voxels,) of each object.

    Adds to three arrays (n,) that are 0 before the first part of an image: the number of voxels to `size`, the sum to
    `total`, the maximum to `peak`. NaN gives NaN.
    """
    for r in range(len(runs)):
        k = runs[r, 2] - 1
        highest, added = values[runs[r, 0]], total[k]
        for voxel in range(runs[r, 0], runs[r, 1]):
            value = values[voxel]
            added += value
            if value > highest or value != value:
                highest = value
        total[k] = added
        if size[k] == 0 or highest > peak[k] or highest != highest:
            peak[k] = highest
        size[k] += runs[r, 1] - runs[r, 0]


@compiled
def sum_squares(values, runs, means, squares):
    """Add the squares of the differences of the values (voxels,) of each object from its mean to `squares` (n,)."""
    for r in range(len(runs)):
        k = runs[r, 2] - 1
        added, mean = 0.0, means[k]
        for voxel in range(runs[r, 0], runs[r, 1]):
            difference = values[voxel] - mean
            added += difference * difference
        squares[k] += added


@compiled
def count_links(labels, n, begin, end):
    """Count the half links of the outline of the objects 1..n in an image (y, x): along y, along x, diagonal (n, 3).

    Those of the rows from `begin` to `end` are counted. Where these are not the first and last ones of an object, two
    more rows lie beyond them.

    The outline runs through the centres of the border pixels, those with a 4-neighbour outside the object. The number
    of border pixels among the 4-neighbours and among the diagonal neighbours of a border pixel decides which half links
    meet there: two straight ones, two diagonal ones, one of each, or none (Benkrid and Crookes, "Design and FPGA
    implementation of a perimeter estimator"; the table of `skimage.measure.perimeter`). Of three straight neighbours,
    the two opposite ones are on the outline.
    """
    width = labels.shape[1]
    links = np.zeros((n, 3), np.int64)
    border = np.zeros((3, width + 2), labels.dtype)  # of rows y - 1, y and y + 1
    for y in range(max(begin - 2, -1), end):
        above, here, below = border[(y - 1) % 3], border[y % 3], border[(y + 1) % 3]
        _mark_border(labels, y + 1, below)
        for x in range(1, width + 1 if y >= begin else 1):
            label = here[x]
            if label == 0 or label > n:
                continue
            along_y = int(above[x] == label) + int(below[x] == label)
            along_x = int(here[x - 1] == label) + int(here[x + 1] == label)
            diagonal = int(above[x - 1] == label) + int(above[x + 1] == label)
            diagonal += int(below[x - 1] == label) + int(below[x + 1] == label)
            straight = along_y + along_x
            k = label - 1
            if straight in (2, 3) and diagonal <= 2:
                links[k, 0] += along_y if straight == 2 else along_y // 2 * 2
                links[k, 1] += along_x if straight == 2 else along_x // 2 * 2
            elif (straight, diagonal) == (0, 2) or (straight, diagonal) == (1, 3):
                links[k, 2] += 2
            elif straight == 1 and diagonal in (1, 2):
                links[k, 0] += along_y
                links[k, 1] += along_x
                links[k, 2] += 1
    return links


@inlined
def _mark_border(labels, y, border):
    """Write the labels of the border pixels of row `y` to ``border[1:-1]``, 0 elsewhere."""
    height, width = labels.shape
    row = labels[min(y, height - 1)]
    above, below = labels[max(y - 1, 0)], labels[min(y + 1, height - 1)]
    at_edge = y == 0 or y == height - 1
    for x in range(1, width - 1):
        label = row[x]
        inside = (row[x - 1] == label) & (row[x + 1] == label) & (above[x] == label) & (below[x] == label)
        border[x + 1] = 0 if inside and not at_edge else label
    border[1], border[width] = row[0], row[width - 1]
    for x in range(0 if y >= height else width, width):
        border[x + 1] = 0


def convex_areas(runs: Ints, width: int, low: Ints, high: Ints) -> Ints:
    """Count the pixels (n,) in the convex hull of each object of an image, as `skimage.measure.regionprops` does.

    The hull is that of the midpoints of the pixels' edges; pixels with their centre in it or on it count. In doubled
    coordinates all corners are integers and the count is exact.

    Parameters
    ----------
    runs
        (r, 3), from `biounet.core.find_label_runs`.
    width
        Of the image.
    low, high
        (n,) lowest and highest y of each object.
    """
    extents = row_extents(low, high)
    extend_rows(extents, runs, width, low)
    return hull_areas(extents)


class RowExtents(NamedTuple):
    """Lowest and highest x of each object in each of its rows; those of object ``k`` begin at ``offset[k]``."""

    offset: Ints  # (n + 1,)
    left: Ints  # (rows,)
    right: Ints


def row_extents(low: Ints, high: Ints) -> RowExtents:
    """Return extents without any pixel, of objects from row `low` to row `high`."""
    offset = np.concatenate([[0], np.cumsum(high - low + 1)])
    return RowExtents(offset, np.full(offset[-1], _FAR), np.full(offset[-1], -1))


def extend_rows(extents: RowExtents, runs: Ints, width: int, low: Ints, start: int = 0) -> None:
    """Add runs in an image of this width to extents, in place.

    `low` (n,) is the row in it where an object begins, and `start` the x of its first column.
    """
    (y, x), length, k = np.divmod(runs[:, 0], width), runs[:, 1] - runs[:, 0], runs[:, 2] - 1
    row = extents.offset[k] + y - low[k]
    np.minimum.at(extents.left, row, start + x)
    np.maximum.at(extents.right, row, start + x + length - 1)


def hull_areas(extents: RowExtents) -> Ints:
    """Return the `convex_areas` of objects with these extents."""
    offset, left, right = extents
    # The right side is the left side of the mirrored object.
    widths = 1 - _hull_starts(-right, offset) - _hull_starts(left, offset)
    return np.add.reduceat(widths, offset[:-1]) if len(offset) > 1 else np.zeros(0, np.int64)


@compiled
def _hull_starts(left, offset):
    """Return the lowest x of the convex hull in each row of each object, from the lowest x of the object in each row.

    The rows of object ``k`` are ``offset[k]`` to ``offset[k + 1]``.
    """
    starts = np.empty(len(left), np.int64)
    corner = np.empty((2 * len(left) + 1, 2), np.int64)  # y, x in doubled coordinates, from -1 to 2 * rows - 1
    for k in range(len(offset) - 1):
        begin, rows = offset[k], offset[k + 1] - offset[k]
        n = 0
        for y in range(-1, 2 * rows):
            above, below = left[begin + max(y // 2, 0)], left[begin + min((y + 1) // 2, rows - 1)]
            x = 2 * min(above, below) - (y % 2 == 0)
            while n > 1 and _turns_outward(corner, n, y, x):
                n -= 1
            corner[n, 0], corner[n, 1] = y, x
            n += 1
        side = 0
        for row in range(rows):
            while corner[side + 1, 0] < 2 * row:
                side += 1
            y0, x0, y1, x1 = corner[side, 0], corner[side, 1], corner[side + 1, 0], corner[side + 1, 1]
            # The lowest integer x with 2x on the side of the hull or to the right of it.
            starts[begin + row] = -((-(x0 * (y1 - y0) + (x1 - x0) * (2 * row - y0))) // (2 * (y1 - y0)))
    return starts


@inlined
def _turns_outward(corner, n, y, x):
    """Return whether the last of `n` corners lies on the line from the one before to the next or to the right of it."""
    y0, x0, y1, x1 = corner[n - 2, 0], corner[n - 2, 1], corner[n - 1, 0], corner[n - 1, 1]
    return (x1 - x0) * (y - y0) >= (x - x0) * (y1 - y0)
