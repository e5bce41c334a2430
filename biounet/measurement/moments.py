"""Sizes and outlines of all objects of a label image at once, compiled: the inner loops of `biounet.measurement`.

Labels are 1..n, 0 is background. Everything is counted in integers, so that no result depends on the order of a sum.
The unit of work is a run: voxels of one object that lie side by side along x. Objects have far fewer runs than voxels,
and the sums over a run have closed forms.
"""

# Compiled functions carry no annotations: numba infers its types from the arrays that `biounet.measurement` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202

from __future__ import annotations

import numpy as np

from biounet.core import compiled, find_runs


@compiled
def object_runs(volume):
    """Return begin, end and label (r, 3) of each run of one label in a contiguous volume (z, y, x), in scan order."""
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
    Number of voxels (n,), lowest and highest index (n, 3) along z, y and x, sums (n, 3) of the distance along z, y and
    x from the lowest z, the lowest y and the x of the first voxel, which is returned (n, 3) too, and sums (n, 6) of
    zz, zy, zx, yy, yx and xx of those distances. Exact for objects up to 70 000 voxels wide.
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
            for axis, index in enumerate((z, y, x)):  # a whole row at once would take seconds to compile
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
    """Return the sum of i² for 0 <= i < end; differences of it are right for negative ends too."""
    return end * (end - 1) * (2 * end - 1) // 6


@compiled
def sum_intensity(values, runs, total, peak):
    """Add the values (voxels,) of each object to `total` (n,) and put the highest into `peak` (n,).

    A value that is not a number makes both not a number.
    """
    seen = np.zeros(len(total), np.bool_)
    for r in range(len(runs)):
        k = runs[r, 2] - 1
        highest, added = values[runs[r, 0]], total[k]
        for voxel in range(runs[r, 0], runs[r, 1]):
            value = values[voxel]
            added += value
            if value > highest or value != value:
                highest = value
        total[k] = added
        if not seen[k] or highest > peak[k] or highest != highest:
            peak[k] = highest
        seen[k] = True


@compiled
def count_links(labels, n):
    """Count the pieces of the outline of each object in an image (y, x).

    The outline runs through the centres of the border pixels, those with a 4-neighbour outside the object. The number
    of border pixels among the 4- and the diagonal neighbours of a border pixel tells which half links meet there:
    two straight ones, two diagonal ones, one of each, or none that counts (Benkrid and Crookes, "Design and FPGA
    implementation of a perimeter estimator"; the same table as `skimage.measure.perimeter`).

    Returns
    -------
    (n, 3): half links along y, along x, and diagonal. Of three straight neighbours, the two that lie opposite each
    other are on the outline.
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
    """Count the pixels in the convex hull of each object of an image, as `skimage.measure.regionprops` does.

    A pixel has the extent of the diamond between the middles of its edges; a pixel whose centre is in the hull of these
    or on it counts. In doubled coordinates all corners are integers and the count is exact.

    Parameters
    ----------
    runs
        (r, 3), from `object_runs`.
    width
        Of the image.
    low, high
        (n,) lowest and highest y of each object.

    Returns
    -------
    (n,) int64.
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
        # The right side is the left side of the mirror image.
        lowest = _hull_starts(left[offset[k] : offset[k + 1]])
        highest = _hull_starts(-right[offset[k] : offset[k + 1]])
        area[k] = np.sum(1 - highest - lowest)
    return area


@compiled
def _hull_starts(left):
    """Return the lowest x in the convex hull of each row, given the lowest x of the object in each row."""
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
        # The least x with 2 x at or to the right of the side, rounded up exactly.
        starts[row] = -((-(x0 * (y1 - y0) + (x1 - x0) * (2 * row - y0))) // (2 * (y1 - y0)))
    return starts


@compiled
def _turns_outward(before, last, y, x):
    """Whether `last` lies on or to the right of the line from `before` to the next corner."""
    return (last[1] - before[1]) * (y - before[0]) >= (x - before[1]) * (last[0] - before[0])
