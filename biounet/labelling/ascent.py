"""The surface, steepest ascent on it, and the borders between basins.

All is in integers, the same in every block. The working arrays are flat and padded: the core of a block and a ring of
one voxel around it in scan order, 0 where there is no foreground. A neighbour is a fixed offset in the flat array, so
that images and volumes share every loop. ``parent`` holds 1 + the voxel that each foreground voxel points to; once its
path is resolved, -1 - its basin.
"""

# Compiled functions carry no annotations: numba infers its types from the arrays that it gets.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"
# ruff: noqa: ANN001, ANN201, PLR0913
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import compiled, find_runs, inlined

Map = NDArray[np.uint16]
Steps = NDArray[np.int32]
Frame = tuple[tuple[int, ...], ...]
Basins = tuple[NDArray[Any], ...]

_EDGES = 1 << 16  # of the buffer of `find_edges`


def subtract_contour(distance: Map, contour: Map, weight: int) -> Map:
    """Return distance - weight/256 * contour (z, y, x), not below 0."""
    level = contour.astype(np.int32)
    level *= weight
    level >>= 8
    np.subtract(distance, level, out=level)
    return np.maximum(level, 0, out=level).astype(np.uint16)


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


def mask_surface(height, foreground, threshold, origin, padded):
    """Return the padded surface: `height`, at least 1, where there is foreground, else 0."""
    surface = pad(height, origin, padded)
    inner = surface[tuple(slice(o, o + n) for o, n in zip(origin, height.shape, strict=True))]
    np.maximum(inner, 1, out=inner)
    inner *= foreground >= threshold
    return surface


def pad(values, origin, padded):
    """Return an array of 0 of the shape `padded`, with `values` from `origin` on."""
    array = np.zeros(padded, values.dtype)
    array[tuple(slice(o, o + n) for o, n in zip(origin, values.shape, strict=True))] = values
    return array


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


def find_ring_voxels(surface, margin):
    """Return the foreground voxels of the ring."""
    inner = tuple(slice(m, n - m) for m, n in zip(margin, surface.shape, strict=True))
    ring = np.ones(surface.shape, np.bool_)
    ring[inner] = False
    ring &= surface > 0
    return np.flatnonzero(ring).astype(np.int32)


@compiled
def resolve_roots(parent, runs, ring, roots):
    """Follow every path to its root, number the roots, and write -1 - number at each voxel.

    Write the roots to `roots`, which has room for all voxels of `runs` and `ring`, and return their number. From the
    last voxel to the first: after `point_uphill`, most voxels point to one that is already resolved. Voxels of the ring
    that no path reaches are numbered too, for the edges across the faces of the block.
    """
    n = 0
    for r in range(len(runs) - 1, -1, -1):
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
    for i in range(len(ring)):
        if parent[ring[i]] > 0:
            roots[n] = ring[i]
            n += 1
            parent[ring[i]] = -n
    return n


@compiled
def measure_basins(certainty, foreground, runs, parent, basin, sums):
    """Write the basin of each voxel of `runs` to `basin`, and add to `sums`.

    `sums` (3, n) are the voxels, the sum of certainty and the first voxel of each basin; `foreground` is padded.
    """
    n = 0
    for r in range(len(runs)):
        for voxel in range(runs[r, 0], runs[r, 1]):
            number = -1 - parent[voxel]
            basin[n] = number
            n += 1
            if sums[0, number] == 0:
                sums[2, number] = voxel
            sums[0, number] += 1
            sums[1, number] += certainty[foreground[voxel]]


def find_edges(surface, runs, steps, width, parent, basins):
    """Return (e, 5): pairs of basins that touch, lower number first, and highest, sum and number of border minima.

    A border minimum is the height of the lower of two touching voxels. `steps` are the offsets to the neighbours that
    come later in scan order. A pair may be listed more than once.
    """
    slots = 1024
    while slots < 4 * basins:
        slots *= 2
    table = np.full((slots, 5), -1, np.int64)
    edges = np.empty((max(_EDGES, 2 * width * len(steps)), 5), np.int64)
    parts, run = [], 0
    while run < len(runs):
        n, run = list_edges(surface, runs, run, steps, width, parent, table, edges)
        parts.append(edges[:n].copy())
    return np.concatenate((*parts, table[table[:, 0] >= 0]))


@compiled
def list_edges(surface, runs, run, steps, width, parent, table, edges):
    """List pairs of touching basins in `edges` from a run on, until there may be no room for another row.

    Return how many, and the next run. Consecutive voxels mostly separate the same two basins: a pair is put into the
    hash table `table` only when another one follows, and listed only when the table has to make room. Most voxels have
    neighbours of the same basin only, which vector instructions detect for a whole row at a time.
    """
    n, pair = 0, np.full(5, -1, np.int64)
    differs = np.empty(width, np.uint8)
    while run < len(runs) and n + width * len(steps) < len(edges):
        first, last = runs[run, 0], run
        while last + 1 < len(runs) and runs[last + 1, 0] // width == first // width:
            last += 1
        length = runs[last, 1] - first
        here = parent[first : first + length]
        differs[:length] = 0
        for step in steps:
            there = parent[first + step : first + step + length]
            for x in range(length):
                differs[x] |= np.uint8(there[x] != here[x])
        for r in range(run, last + 1):
            for voxel in range(runs[r, 0], runs[r, 1]):
                if not differs[voxel - first]:
                    continue
                own = parent[voxel]
                for step in steps:
                    other = parent[voxel + step]
                    if other == own or other == 0:
                        continue
                    low, high = np.int64(-1 - max(own, other)), np.int64(-1 - min(own, other))
                    height = np.int64(min(surface[voxel], surface[voxel + step]))
                    if low != pair[0] or high != pair[1]:
                        n += store_edge(table, edges, n, pair)
                        pair[0], pair[1], pair[2], pair[3], pair[4] = low, high, height, 0, 0
                    pair[2] = max(pair[2], height)
                    pair[3] += height
                    pair[4] += 1
        run = last + 1
    n += store_edge(table, edges, n, pair)
    return n, run


@inlined
def store_edge(table, edges, n, pair):
    """Add a pair to `table`; return 1 if it displaced another one, which goes to ``edges[n]``, else 0."""
    row = table[(pair[0] * 31 + pair[1]) & (len(table) - 1)]
    moved = 0
    if row[0] == pair[0] and row[1] == pair[1]:
        row[2] = max(row[2], pair[2])
        row[3] += pair[3]
        row[4] += pair[4]
    else:
        moved = int(row[0] >= 0)
        for i in range(5):
            if moved:
                edges[n, i] = row[i]
            row[i] = pair[i]
    return moved


def find_face_voxels(frame, surface, parent):
    """Return (f, 2): each foreground voxel of the core next to another core, and its basin."""
    padded, margin, _, start, image = frame
    inner = tuple(slice(m, n - m) for m, n in zip(margin, padded, strict=True))
    faces = np.zeros(padded, np.bool_)
    for axis in range(3):
        core = padded[axis] - 2 * margin[axis]
        for place, borders in ((0, start[axis] > 0), (-1, start[axis] + core < image[axis])):
            if borders:
                np.moveaxis(faces[inner], axis, 0)[place] = True
    voxels = np.flatnonzero(faces)
    voxels = voxels[surface[voxels] > 0]
    return np.stack([voxels, -1 - parent[voxels].astype(np.int64)], axis=1)


def to_image_index(voxels, padded, margin, start, image):
    """Return flat indices in the padded array as those in an image in which the core begins at `start`."""
    row, x = np.divmod(np.asarray(voxels, np.int64), padded[2])
    z, y = np.divmod(row, padded[1])
    row = (z - margin[0] + start[0]) * image[1] + y - margin[1] + start[1]
    return row * image[2] + x - margin[2] + start[2]


def find_basins(foreground: Map, height: Map, threshold: int, certainty: Map, steps: Steps, frame: Frame) -> Basins:
    """Return the fields of `biounet.labelling.BlockObjects` after `block`.

    `foreground` and `height` (z, y, x) cover the core and its ring inside the image; `certainty` is that of each
    probability; `steps` lead to all neighbours and to the voxel itself, in scan order. `frame`: shape of the padded
    array, its margin, begin of the maps in it, begin of the core in the image, shape of the image.
    """
    padded, margin, origin, start, image = frame
    surface = mask_surface(height, foreground, threshold, origin, padded)
    flat, parent = surface.ravel(), np.zeros(surface.size, np.int32)
    runs, ring = find_runs(surface, margin), find_ring_voxels(surface, margin)
    lengths = runs[:, 1] - runs[:, 0]
    parent[ring] = ring + 1
    point_uphill(flat, runs, steps, padded[2], parent)
    roots = np.empty(lengths.sum() + len(ring), np.int32)
    roots = roots[: resolve_roots(parent, runs, ring, roots)]
    basin, sums = np.empty(lengths.sum(), np.int32), np.zeros((3, len(roots)), np.int64)
    measure_basins(certainty, pad(foreground, origin, padded).ravel(), runs, parent, basin, sums)
    edges = find_edges(flat, runs, steps[len(steps) // 2 + 1 :], padded[2], parent, len(roots))
    faces = find_face_voxels(frame, flat, parent)
    exits_block = np.zeros(len(roots), np.bool_)
    exits_block[-1 - parent[ring]] = True
    heights = flat[roots].astype(np.int64)
    in_image = (padded, margin, start, image)
    roots, firsts = to_image_index(roots, *in_image), to_image_index(sums[2], *in_image)
    faces[:, 0] = to_image_index(faces[:, 0], *in_image)
    begins = to_image_index(runs[:, 0], padded, margin, (0, 0, 0), (0, padded[1] - 2, padded[2] - 2))
    runs = np.stack([begins, begins + lengths], axis=1)
    return runs, basin, roots, exits_block, heights, sums[0], sums[1], firsts, edges[:, :2], edges[:, 2:], faces
