"""The surface that voxels climb, compiled: integers in, integers out, the same in every block."""
# Compiled functions carry no annotations: numba infers its types from the arrays that `biounet.label` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def smooth(distance, contour, weight):
    """Return distance - weight/256 * contour (z, y, x), not below 0, after one 1-2-1 filter along each axis.

    Values beyond the edge are those at the edge. The filter takes away the summits of single voxels, which are most of
    the summits of a predicted surface; fewer basins make everything after this faster.
    """
    depth, height, width = distance.shape
    out = np.empty_like(distance)
    total = np.empty(width + 2, np.int32)
    shift = np.int32(6 if depth > 1 else 4)
    for row in range(depth * height):
        z, y = row // height, row % height
        total[:] = 0
        for dz in range(-1, 2) if depth > 1 else range(1):
            for dy in range(-1, 2):
                share = np.int32((2 - abs(dz)) * (2 - abs(dy)) if depth > 1 else 2 - abs(dy))
                there = min(max(z + dz, 0), depth - 1), min(max(y + dy, 0), height - 1)
                up, down = distance[there], contour[there]
                for x in range(width):
                    level = np.int32(up[x]) - ((weight * np.int32(down[x])) >> np.int32(8))
                    total[x + 1] += share * max(level, np.int32(0))
        total[0], total[width + 1] = total[1], total[width]
        line = out[z, y]
        for x in range(width):
            line[x] = (total[x] + np.int32(2) * total[x + 1] + total[x + 2]) >> shift
    return out


@numba.njit(cache=True, nogil=True)
def mask_surface(height, foreground, threshold, origin, padded):
    """Return the padded surface: `height`, at least 1, where there is foreground, else 0."""
    surface = np.zeros(padded, np.uint16)
    oz, oy, ox = origin
    depth, rows, width = foreground.shape
    for z in range(depth):
        for y in range(rows):
            inside, level = foreground[z, y], height[z, y]
            line = surface[z + oz, y + oy, ox : ox + width]
            for x in range(width):
                line[x] = max(level[x], np.uint16(1)) if inside[x] >= threshold else np.uint16(0)
    return surface
