"""The surface, steepest ascent on it, and the borders between basins: compiled inner loops of `biounet.labelling`.

All is in integers, the same in every block. The working arrays are flat and padded: the core of a block and a ring of
one voxel around it in scan order, 0 where there is no foreground. A neighbour is a fixed offset in the flat array, so
that images and volumes share every loop. ``parent`` holds 1 + the voxel that each foreground voxel points to; once its
path is resolved, -1 - its basin.
"""

# Compiled functions carry no annotations: numba infers its types from the arrays that `biounet.labelling` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np

from biounet.core import compiled, find_runs


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


@compiled
def point_uphill(surface, runs, steps, width, parent):
    """Let each voxel of `runs` point to its highest neighbour, itself included; of equal ones to the first.

    A whole row is compared with three neighbours at a time, which compiles to vector instructions. A voxel whose
    highest neighbour comes before it points to the target of that one, which keeps paths short for `resolve_roots`.
    """
    best = np.empty(width, np.uint16)
    step_of = np.empty(width, np.uint16)
    run = 0
    while run < len(runs):
        begin, row = runs[run, 0], runs[run, 0] // width
        last = run
        while last + 1 < len(runs) and runs[last + 1, 0] // width == row:
            last += 1
        length = runs[last, 1] - begin
        best[:length] = 0
        for k in range(0, len(steps), 3):
            line = surface[begin + steps[k] : begin + steps[k] + length + 2]
            number = np.uint16(k)
            for x in range(length):
                high, step = best[x], step_of[x]
                step = number if line[x] > high else step
                high = max(high, line[x])
                step = number + np.uint16(1) if line[x + 1] > high else step
                high = max(high, line[x + 1])
                step = number + np.uint16(2) if line[x + 2] > high else step
                best[x], step_of[x] = max(high, line[x + 2]), step
        for r in range(run, last + 1):
            for voxel in range(runs[r, 0], runs[r, 1]):
                target = voxel + steps[step_of[voxel - begin]]
                parent[voxel] = parent[target] if target < voxel else target + 1
        run = last + 1


@compiled
def find_ring_voxels(surface, margin):
    """Return the foreground voxels of the ring."""
    depth, height, width = surface.shape
    flat = surface.ravel()
    ring = np.empty(2 * (margin[0] * height * width + depth * (height + width)), np.int32)
    n = 0
    for row in range(depth * height):
        z, y = row // height, row % height
        inner = margin[0] <= z < depth - margin[0] and 0 < y < height - 1
        for voxel in range(row * width, (row + 1) * width, width - 1 if inner else 1):
            if flat[voxel] > 0:
                ring[n] = voxel
                n += 1
    return ring[:n].copy()


@compiled
def resolve_roots(parent, runs, ring):
    """Follow every path to its root, number the roots, and write -1 - number at each voxel; return the roots.

    From the last voxel to the first: after `point_uphill`, most voxels point to one that is already resolved. Voxels of
    the ring that no path reaches are numbered too, for the edges across the faces of the block.
    """
    roots = np.empty(1024 + len(ring), np.int32)
    n = 0
    for r in range(len(runs) - 1, -1, -1):
        if n + runs[r, 1] - runs[r, 0] + len(ring) > len(roots):
            roots = np.concatenate((roots, np.empty(len(roots) + runs[r, 1] - runs[r, 0], np.int32)))
        for voxel in range(runs[r, 1] - 1, runs[r, 0] - 1, -1):
            if parent[voxel] < 0:
                continue
            end = parent[voxel] - 1
            while parent[end] > 0 and parent[end] != end + 1:
                end = parent[end] - 1
            if parent[end] > 0:
                roots[n] = end
                n += 1
                parent[end] = -n
            mark, current = parent[end], voxel
            while parent[current] > 0:
                target = parent[current] - 1
                parent[current] = mark
                current = target
    for voxel in ring:
        if parent[voxel] > 0:
            roots[n] = voxel
            n += 1
            parent[voxel] = -n
    return roots[:n].copy()


@compiled
def measure_basins(certainty, foreground, frame, runs, parent, basins):
    """Return the basin of each voxel of `runs`, and (3, n): voxels, sum of certainty, first voxel of each basin."""
    padded, _, origin, _, _ = frame
    _, height, width = padded
    labels = np.empty((runs[:, 1] - runs[:, 0]).sum(), np.int32)
    sums = np.zeros((3, basins), np.int64)
    n = 0
    for begin, end in runs:
        row = begin // width
        line = foreground[row // height - origin[0], row % height - origin[1]]
        for voxel in range(begin, end):
            basin = -1 - parent[voxel]
            labels[n] = basin
            n += 1
            if sums[0, basin] == 0:
                sums[2, basin] = voxel
            sums[0, basin] += 1
            sums[1, basin] += certainty[line[voxel - row * width - origin[2]]]
    return labels, sums


@compiled
def find_edges(surface, runs, steps, width, parent, basins):
    """Return (e, 5): pairs of basins that touch, lower number first, and highest, sum and number of border minima.

    A border minimum is the height of the lower of two touching voxels. `steps` are the offsets to the neighbours that
    come later in scan order. Consecutive voxels mostly separate the same two basins: a pair is put into a hash table
    only when another one follows, and listed only when the table has to make room, so that few pairs are listed twice.
    Most voxels have neighbours of the same basin only, which vector instructions detect for a whole row at a time.
    """
    slots = 1024
    while slots < 4 * basins:
        slots *= 2
    table = np.full((slots, 5), -1, np.int64)
    edges = np.empty((1024, 5), np.int64)
    n, low, high = 0, -1, -1
    highest, total, count = np.int64(-1), np.int64(0), np.int64(0)
    differs, row, first = np.empty(width, np.uint8), -1, 0
    for r in range(len(runs)):
        begin, end = runs[r]
        if begin // width != row:
            row, first, last = begin // width, begin, r
            while last + 1 < len(runs) and runs[last + 1, 0] // width == row:
                last += 1
            mark_borders(parent, first, runs[last, 1] - first, steps, differs)
        for voxel in range(begin, end):
            if not differs[voxel - first]:
                continue
            here = parent[voxel]
            for step in steps:
                there = parent[voxel + step]
                if there == here or there == 0:
                    continue
                a, b = -1 - max(here, there), -1 - min(here, there)
                height = np.int64(min(surface[voxel], surface[voxel + step]))
                if a == low and b == high:
                    highest, total, count = max(highest, height), total + height, count + 1
                    continue
                if n == len(edges):
                    edges = np.concatenate((edges, np.empty_like(edges)))
                n += store_edge(table, edges, n, (low, high, highest, total, count))
                low, high, highest, total, count = a, b, height, height, np.int64(1)
    if n == len(edges):
        edges = np.concatenate((edges, np.empty_like(edges)))
    n += store_edge(table, edges, n, (low, high, highest, total, count))
    return np.concatenate((edges[:n], table[table[:, 0] >= 0]))


@compiled
def mark_borders(parent, first, length, steps, differs):
    """Mark in `differs` each of `length` voxels from `first` on whose basin differs from that of a neighbour."""
    here = parent[first : first + length]
    differs[:length] = 0
    for step in steps:
        there = parent[first + step : first + step + length]
        for x in range(length):
            differs[x] |= np.uint8(there[x] != here[x])


@compiled
def store_edge(table, edges, n, edge):
    """Add a pair to `table`; return 1 if it displaced another one, which goes to ``edges[n]``, else 0."""
    low, high, highest, total, count = edge
    row = table[(low * 31 + high) & (len(table) - 1)]
    if row[0] == low and row[1] == high:
        row[2] = max(row[2], highest)
        row[3] += total
        row[4] += count
        return 0
    moved = row[0] >= 0
    if moved:
        edges[n] = row
    row[0], row[1], row[2], row[3], row[4] = low, high, highest, total, count
    return 1 if moved else 0


@compiled
def find_face_voxels(frame, runs, parent):
    """Return (f, 2): each foreground voxel of the core next to another core, and its basin."""
    padded, margin, _, start, image = frame
    # Coordinates in the padded array at which the core borders on another one; -1 where the image ends instead.
    first = np.full(3, -1)
    last = np.full(3, -1)
    for axis in range(3):
        if start[axis] > 0:
            first[axis] = margin[axis]
        if start[axis] + padded[axis] - 2 * margin[axis] < image[axis]:
            last[axis] = padded[axis] - margin[axis] - 1
    faces = np.empty((1024, 2), np.int64)
    n = 0
    for begin, end in runs:
        row, x = divmod(begin, padded[2])
        z, y = divmod(row, padded[1])
        whole = z in (first[0], last[0]) or y in (first[1], last[1])
        while n + end - begin > len(faces):
            faces = np.concatenate((faces, np.empty_like(faces)))
        for voxel in range(begin, end):
            if whole or x in (first[2], last[2]):
                faces[n, 0], faces[n, 1] = voxel, -1 - parent[voxel]
                n += 1
            x += 1
    return faces[:n].copy()


@compiled
def to_image_index(voxels, padded, margin, start, image):
    """Change flat indices, in place, from the padded array to an image in which the core begins at `start`."""
    for n in range(len(voxels)):
        row, x = divmod(np.int64(voxels[n]), padded[2])
        z, y = divmod(row, padded[1])
        row = (z - margin[0] + start[0]) * image[1] + y - margin[1] + start[1]
        voxels[n] = row * image[2] + x - margin[2] + start[2]


@compiled
def find_basins(foreground, height, threshold, certainty, steps, frame):
    """Return the fields of `biounet.labelling.BlockObjects` after `block`.

    `foreground` and `height` (z, y, x) cover the core and its ring inside the image; `certainty` is that of each
    probability; `steps` lead to all neighbours and to the voxel itself, in scan order. `frame`: shape of the padded
    array, its margin, begin of the maps in it, begin of the core in the image, shape of the image.
    """
    padded, margin, origin, start, image = frame
    surface = mask_surface(height, foreground, threshold, origin, padded)
    flat, parent = surface.ravel(), np.zeros(surface.size, np.int32)
    runs, ring = find_runs(surface, margin), find_ring_voxels(surface, margin)
    parent[ring] = ring + 1
    point_uphill(flat, runs, steps, padded[2], parent)
    roots = resolve_roots(parent, runs, ring).astype(np.int64)
    basins, sums = measure_basins(certainty, foreground, frame, runs, parent, len(roots))
    edges = find_edges(flat, runs, steps[len(steps) // 2 + 1 :], padded[2], parent, len(roots))
    faces = find_face_voxels(frame, runs, parent)
    heights, exits_block = flat[roots].astype(np.int64), np.zeros(len(roots), np.bool_)
    exits_block[-1 - parent[ring]] = True
    to_image_index(roots, padded, margin, start, image)
    to_image_index(sums[2], padded, margin, start, image)
    to_image_index(faces[:, 0], padded, margin, start, image)
    lengths = runs[:, 1] - runs[:, 0]
    to_image_index(runs[:, 0], padded, margin, (0, 0, 0), (0, padded[1] - 2, padded[2] - 2))
    runs[:, 1] = runs[:, 0] + lengths
    return runs, basins, roots, exits_block, heights, sums[0], sums[1], sums[2], edges[:, :2], edges[:, 2:], faces
