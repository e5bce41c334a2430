"""The surface for steepest ascent, compiled, in integers: the same in every block."""
# Compiled functions carry no annotations: numba infers its types from the arrays that `biounet.labelling` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import numpy as np

from biounet.core import compiled


@compiled
def subtract_contour(distance, contour, weight):
    """Return distance - weight/256 * contour (z, y, x), not below 0."""
    out = np.empty_like(distance)
    for z in range(distance.shape[0]):
        for y in range(distance.shape[1]):
            up, down, line = distance[z, y], contour[z, y], out[z, y]
            for x in range(distance.shape[2]):
                level = np.int32(up[x]) - ((weight * np.int32(down[x])) >> np.int32(8))
                line[x] = max(level, np.int32(0))
    return out


@compiled
def smooth(surface):
    """Return the surface (z, y, x) after a 1-2-1 filter along each axis, the edge repeated.

    The filter removes peaks of single voxels, which are most of the peaks of a predicted surface; with fewer basins all
    later steps are faster.
    """
    depth, height, width = surface.shape
    out = np.empty_like(surface)
    total = np.empty(width + 2, np.int32)
    shift = np.int32(4 if depth == 1 else 6)
    for z in range(depth):
        # The only slice of an image is not filtered along z.
        shares = (1, 0, 0) if depth == 1 else (2, 1, 1)
        slices = (z, max(z - 1, 0), min(z + 1, depth - 1))
        for y in range(height):
            total[:] = 0
            previous, following = max(y - 1, 0), min(y + 1, height - 1)
            for near, share in zip(slices, shares):  # noqa: B905 (numba knows no strict)
                if share == 0:
                    continue
                above, here, below = surface[near, previous], surface[near, y], surface[near, following]
                for x in range(width):
                    column = np.int32(above[x]) + np.int32(2) * np.int32(here[x]) + np.int32(below[x])
                    total[x + 1] += np.int32(share) * column
            total[0], total[width + 1] = total[1], total[width]
            line = out[z, y]
            for x in range(width):
                line[x] = (total[x] + np.int32(2) * total[x + 1] + total[x + 2]) >> shift
    return out


@compiled
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
