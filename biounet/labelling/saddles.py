"""Borders between basins and their heights, compiled: inner loops of `biounet.labelling`, on its flat arrays."""

# Compiled functions carry no annotations: numba infers its types from the arrays that `biounet.labelling` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np

from biounet.core import compiled


@compiled
def find_edges(surface, runs, steps, width, parent, basins):
    """Return (e, 5): pairs of basins that touch, lower number first, and the minima along their border.

    A border minimum is the height of the lower of two touching voxels. Of each pair: the highest one, their sum and
    their number.

    `steps` are the offsets to the neighbours that come later in scan order. Consecutive voxels mostly separate the same
    two basins: a pair is put into a hash table only when another one follows, and listed only when the table has to
    make room, so that few pairs are listed twice. Most voxels have neighbours of the same basin only, which vector
    instructions detect for a whole row at a time.
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
