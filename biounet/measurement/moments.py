"""Sizes, moments, outlines and convex hulls of all objects of a label image at once, compiled.

Labels are 1..n, 0 is background. Sums are integers, so that no result depends on their order. The loops are over runs,
the consecutive voxels of one object along x: far fewer than voxels, and the sums over a run have closed forms.
"""

# Compiled functions carry no annotations: numba infers the types from the arguments.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from biounet.core import compiled, find_runs


@compiled
def object_runs(volume):
    """Return start, stop and label (r, 3) of each run in a contiguous volume (z, y, x), in scan order."""
    flat = volume.reshape(-1)
    spans = find_runs(volume, (0, 0, 0))
    runs = np.empty((2 * len(spans) + 8, 3), np.int64)
    n = 0
    for span in range(len(spans)):
        begin, end = spans[span]
        for voxel in range(begin + 1, end + 1):
            if voxel < end and flat[voxel] == flat[begin]:
                continue
            if n == len(runs):
                runs = np.concatenate((runs, np.empty_like(runs)))
            runs[n, 0], runs[n, 1], runs[n, 2] = begin, voxel, flat[begin]
            n += 1
            begin = voxel
    return runs[:n].copy()


@compiled
def sum_coordinates(runs, shape, n):
    """Sum over the voxels of each object.

    Returns
    -------
    size
        (n,) number of voxels.
    low, high
        (n, 3) lowest and highest index along z, y and x.
    origin
        (n, 3) first voxel in scan order, from which the coordinates in the sums are counted.
    first
        (n, 3) sums of z, y and x.
    second
        (n, 6) sums of zz, zy, zx, yy, yx and xx; exact for objects up to 70 000 voxels wide.
    """
    _, height, width = shape
    size = np.zeros(n, np.int64)
    low, high, origin = np.zeros((n, 3), np.int64), np.zeros((n, 3), np.int64), np.zeros((n, 3), np.int64)
    first, second = np.zeros((n, 3), np.int64), np.zeros((n, 6), np.int64)
    for r in range(len(runs)):
        begin, end, k = runs[r, 0], runs[r, 1], runs[r, 2] - 1
        row, length = begin // width, end - begin
        z, y, x = row // height, row % height, begin % width
        if size[k] == 0:
            for axis, index in enumerate((z, y, x)):  # assigning a whole row takes numba seconds to compile
                origin[k, axis] = low[k, axis] = high[k, axis] = index
        size[k] += length
        low[k, 1], low[k, 2] = min(low[k, 1], y), min(low[k, 2], x)
        high[k, 0], high[k, 1], high[k, 2] = z, max(high[k, 1], y), max(high[k, 2], x + length - 1)
        z, y, x = z - origin[k, 0], y - origin[k, 1], x - origin[k, 2]
        along = length * (2 * x + length - 1) // 2
        first[k, 0] += length * z
        first[k, 1] += length * y
        first[k, 2] += along
        second[k, 0] += length * z * z
        second[k, 1] += length * z * y
        second[k, 2] += z * along
        second[k, 3] += length * y * y
        second[k, 4] += y * along
        second[k, 5] += _sum_of_squares(x + length) - _sum_of_squares(x)
    return size, low, high, origin, first, second


@compiled
def _sum_of_squares(end):
    """Return the sum of i² for 0 <= i < end; differences are correct for negative ends too."""
    return end * (end - 1) * (2 * end - 1) // 6


def covariances(size: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the covariances (n, 3, 3) of the voxel coordinates of each object, from `sum_coordinates`."""
    n, sums = size[:, None].astype(np.float64), first.astype(np.float64)
    i, j = np.triu_indices(3)
    result = np.empty((len(n), 3, 3))
    # Times n², so that the difference is exact, and 0 for a line, until n times a sum passes 2**53.
    result[:, i, j] = result[:, j, i] = (n * second - sums[:, i] * sums[:, j]) / (n * n)
    return result


@compiled
def sum_intensity(values, runs, total, peak, squares):
    """Sum the values (voxels,) of each object.

    Adds to three arrays (n,) that are 0: the sum to `total`, the maximum to `peak`, and the squares of the differences
    from the mean to `squares`. NaN gives NaN.
    """
    size = np.zeros(len(total), np.int64)
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
    mean = total / np.maximum(size, 1)
    for r in range(len(runs)):
        k = runs[r, 2] - 1
        added = 0.0
        for voxel in range(runs[r, 0], runs[r, 1]):
            difference = values[voxel] - mean[k]
            added += difference * difference
        squares[k] += added


@compiled
def count_links(labels, n):
    """Count the half links of the outline of each object in an image (y, x): along y, along x, and diagonal (n, 3).

    The outline runs through the centres of the border pixels, those with a 4-neighbour outside the object. The number
    of border pixels among the 4-neighbours and among the diagonal neighbours of a border pixel decides which half links
    meet there: two straight ones, two diagonal ones, one of each, or none (Benkrid and Crookes, "Design and FPGA
    implementation of a perimeter estimator"; the table of `skimage.measure.perimeter`). Of three straight neighbours,
    the two opposite ones are on the outline.
    """
    height, width = labels.shape
    links = np.zeros((n, 3), np.int64)
    border = np.zeros((3, width + 2), labels.dtype)  # of rows y - 1, y and y + 1
    _mark_border(labels, 0, border[0])
    for y in range(height):
        above, here, below = border[(y - 1) % 3], border[y % 3], border[(y + 1) % 3]
        _mark_border(labels, y + 1, below)
        for x in range(1, width + 1):
            label = here[x]
            if label == 0:
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


@compiled
def _mark_border(labels, y, border):
    """Write the labels of the border pixels of row `y` to ``border[1:-1]``, 0 elsewhere."""
    height, width = labels.shape
    if y >= height:
        border[:] = 0
        return
    row, above, below = labels[y], labels[max(y - 1, 0)], labels[min(y + 1, height - 1)]
    for x in range(1, width - 1):
        label = row[x]
        inside = (row[x - 1] == label) & (row[x + 1] == label) & (above[x] == label) & (below[x] == label)
        border[x + 1] = 0 if inside else label
    border[1], border[width] = row[0], row[width - 1]
    if y == 0 or y == height - 1:
        border[1:-1] = row


@compiled
def convex_areas(runs, width, low, high):
    """Count the pixels (n,) in the convex hull of each object of an image, as `skimage.measure.regionprops` does.

    The hull is that of the midpoints of the pixels' edges; pixels with their centre in it or on it count. In doubled
    coordinates all corners are integers and the count is exact.

    Parameters
    ----------
    runs
        (r, 3), from `object_runs`.
    width
        Of the image.
    low, high
        (n,) lowest and highest y of each object.
    """
    n = len(low)
    offset = np.zeros(n + 1, np.int64)
    offset[1:] = np.cumsum(high - low + 1)
    left = np.full(offset[n], width, np.int64)
    right = np.full(offset[n], -1, np.int64)
    for r in range(len(runs)):
        k = runs[r, 2] - 1
        row = offset[k] + runs[r, 0] // width - low[k]
        x = runs[r, 0] % width
        left[row] = min(left[row], x)
        right[row] = max(right[row], x + runs[r, 1] - runs[r, 0] - 1)
    area = np.zeros(n, np.int64)
    for k in range(n):
        # The right side is the left side of the mirrored object.
        lowest = _hull_starts(left[offset[k] : offset[k + 1]])
        highest = _hull_starts(-right[offset[k] : offset[k + 1]])
        area[k] = np.sum(1 - highest - lowest)
    return area


@compiled
def _hull_starts(left):
    """Return the lowest x of the convex hull in each row, from the lowest x of the object in each row."""
    rows = len(left)
    corner = np.empty((2 * rows + 1, 2), np.int64)  # y, x in doubled coordinates, from -1 to 2 * rows - 1
    n = 0
    for y in range(-1, 2 * rows):
        above, below = left[max(y // 2, 0)], left[min((y + 1) // 2, rows - 1)]
        x = 2 * min(above, below) - (y % 2 == 0)
        while n > 1 and _turns_outward(corner[n - 2], corner[n - 1], y, x):
            n -= 1
        corner[n, 0], corner[n, 1] = y, x
        n += 1
    starts = np.empty(rows, np.int64)
    side = 0
    for row in range(rows):
        while corner[side + 1, 0] < 2 * row:
            side += 1
        (y0, x0), (y1, x1) = corner[side], corner[side + 1]
        # The lowest integer x with 2x on the side of the hull or to the right of it.
        starts[row] = -((-(x0 * (y1 - y0) + (x1 - x0) * (2 * row - y0))) // (2 * (y1 - y0)))
    return starts


@compiled
def _turns_outward(before, last, y, x):
    """Return whether `last` lies on the line from `before` to the next corner or to the right of it."""
    return (last[1] - before[1]) * (y - before[0]) >= (x - before[1]) * (last[0] - before[0])
