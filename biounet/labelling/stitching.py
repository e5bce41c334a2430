"""Objects of blocks to objects of the image.

The basins of all blocks make one graph: basins that touch, and the saddle between them. The graph is the same however
the image was cut, and everything here depends on the graph alone, so that the result is the same as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biounet.core import LENGTH_TOLERANCE, PROBABILITY_MAX, LabelSettings, SettingsError, compiled
from biounet.labelling.holes import fill_holes
from biounet.labelling.label import BlockObjects, Ints, Map, label_block, reach
from biounet.tiling import block_lattice

_EDGE = {2: 1024, 3: 96}
"""Edge of a block by the number of axes: about a million voxels."""


@dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Attributes
    ----------
    labels
        ``([z,] y, x)`` int32: 0 background, objects 1..N in scan order of their first voxels.
    count
        (N,) int64: voxels of each object.
    confidence
        (N,) float64: mean certainty over the voxels that were found as foreground, 0..1. The certainty of a voxel is
        the log-odds of its foreground, where `biounet.labelling.SURE` and more count as 1.
    summit
        (N,) float64: highest point of the surface in each object, 0..1.
    """

    labels: npt.NDArray[np.int32]
    count: Ints
    confidence: npt.NDArray[np.float64]
    summit: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Graph:
    """Basins of the whole image in scan order of their summits: the table of `_tally`, and edges by falling saddle."""

    table: Ints
    edges: Ints
    saddle: Ints


def label_objects(
    foreground: Map,
    contour: Map | None,
    distance: Map | None,
    settings: LabelSettings,
    *,
    voxel_um: float | None = None,
) -> Objects:
    """Label one image that lies in memory; see `label_block` and `stitch`.

    Works in blocks, since a block whose working arrays stay in the processor's cache takes half the time.
    """
    shape = foreground.shape
    margin = reach(has_distance=distance is not None)
    parts = []
    for block in block_lattice(shape, _EDGE[len(shape)]):
        region = block.grown(margin)
        lowered = None if contour is None else contour[region]
        climbed = None if distance is None else distance[region]
        parts.append(label_block(foreground[region], lowered, climbed, settings, block=block))
    return stitch(parts, shape, settings, voxel_um=voxel_um)


def stitch(
    blocks: Sequence[BlockObjects], shape: tuple[int, ...], settings: LabelSettings, *, voxel_um: float | None = None
) -> Objects:
    """Join the basins of all blocks into the objects of the image.

    Edges are taken from the highest saddle down. Two parts are one object when a saddle between them is at least
    ``settings.join`` of the lower of their summits, or when that summit is lower than ``settings.min_peak``. Objects
    that stay lower than ``settings.min_peak``, or smaller than ``settings.min_size``, are dropped; holes are filled.

    Parameters
    ----------
    blocks
        All blocks of one lattice, in any order.
    shape
        Of the image, ``([z,] y, x)``.
    settings
        See `LabelSettings`.
    voxel_um
        Area (µm²) or volume (µm³) of a voxel, where the image is calibrated.

    Raises
    ------
    SettingsError
        If the smallest object is given in µm and the image is not calibrated.
    ValueError
        If the maps of two blocks differ where they overlap.
    """
    smallest = _smallest(settings, voxel_um)
    lowest = math.ceil(settings.min_peak * PROBABILITY_MAX)
    graph, basin_of_local = _graph(blocks)
    part = join(graph.table[0], graph.edges, graph.saddle, settings.join, lowest)
    label, table = _number(_tally(part, graph.table, part.size), lowest, smallest)
    height, found, certainty, _ = table
    labels = np.zeros(shape, np.int32)
    for block, basins in zip(blocks, basin_of_local, strict=True):
        core = labels[block.block.core]
        _paint(core[None] if core.ndim == 2 else core, block.runs, block.labels, label[part[basins]])
    count = found.copy()
    if settings.fill_holes:
        owner, filled = fill_holes(labels)
        np.add.at(count, owner - 1, filled)
    return Objects(labels, count, certainty / (PROBABILITY_MAX * found), height / PROBABILITY_MAX)


def _smallest(settings: LabelSettings, voxel_um: float | None) -> int:
    """Return the smallest number of voxels that is an object."""
    if settings.min_size_unit == "px":
        return math.ceil(settings.min_size)
    if voxel_um is None:
        raise SettingsError(
            f"the smallest object is {settings.min_size} µm² (µm³), but the image has no calibration",
            hint="give its pixel size with --spacing",
        )
    return math.ceil(settings.min_size / voxel_um * (1 - LENGTH_TOLERANCE))


def _graph(blocks: Sequence[BlockObjects]) -> tuple[_Graph, list[Ints]]:
    """Make the graph of the image, and for each block the basin of the image that each of its own belongs to."""
    offsets = np.cumsum([0, *(block.root.size for block in blocks)])
    summit = _summits(blocks, offsets)
    root = _chain(block.root for block in blocks)
    own = np.flatnonzero(summit == np.arange(summit.size))
    own = own[np.argsort(root[own])]
    basin = np.empty(summit.size, np.int64)
    basin[own] = np.arange(own.size)
    basin = basin[summit]
    columns = (_chain(getattr(b, name) for b in blocks) for name in ("height", "count", "certainty", "first"))
    table = _tally(basin, np.stack(tuple(columns)), own.size)
    return _Graph(table, *_edges(blocks, offsets, basin)), np.split(basin, offsets[1:-1]) if blocks else []


def _summits(blocks: Sequence[BlockObjects], offsets: Ints) -> Ints:
    """Follow the paths that leave their blocks; return for each basin of a block the one that holds its summit."""
    summit = np.arange(offsets[-1])
    leaves = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *(block.leaves for block in blocks)]))
    if not leaves.size:
        return summit
    gates = np.concatenate(
        [block.gates + np.array((0, offset)) for block, offset in zip(blocks, offsets[:-1], strict=True)]
    )
    gates = gates[np.argsort(gates[:, 0])]
    exits = _chain(block.root for block in blocks)[leaves]
    entry = np.searchsorted(gates[:, 0], exits)
    if (entry == len(gates)).any() or not np.array_equal(gates[entry, 0], exits):
        raise ValueError("blocks that overlap hold different maps: one lacks a foreground voxel of the other")
    summit[leaves] = gates[entry, 1]
    # Each pass doubles the length of path that is followed; a path visits each basin of a block at most once.
    for _ in range(summit.size.bit_length() + 1):
        further = summit[summit]
        if np.array_equal(further, summit):
            break
        summit = further
    if not np.isin(summit, leaves).any():
        return summit
    raise ValueError("blocks that overlap hold different maps: a path from summit to summit is closed")


def _edges(blocks: Sequence[BlockObjects], offsets: Ints, basin: Ints) -> tuple[Ints, Ints]:
    """Name the edges of all blocks by the basins of the image; return each once, by falling saddle, then by pair.

    The saddle is half way between the highest pass of a border and the mean of all of them: where two cells touch, one
    voxel at which the network did not see their border would make one cell of them (benchmarks/RESULTS.md).
    """
    ends = [block.edges + offset for block, offset in zip(blocks, offsets[:-1], strict=True)]
    pairs = np.sort(basin[np.concatenate([np.zeros((0, 2), np.int64), *ends])], axis=1)
    passes = np.concatenate([np.zeros((0, 3), np.int64), *(block.passes for block in blocks)])
    order = np.argsort(pairs[:, 0] << 32 | pairs[:, 1])
    order = order[pairs[order, 0] != pairs[order, 1]]
    pairs, passes = pairs[order], passes[order]
    first = np.flatnonzero(np.diff(pairs, axis=0, prepend=-1).any(axis=1))
    if not first.size:
        return pairs, passes[:, 0]
    highest = np.maximum.reduceat(passes[:, 0], first)
    total, number = np.add.reduceat(passes[:, 1:], first).T
    saddle = (highest * number + total) // (2 * number)
    fallen = np.argsort((PROBABILITY_MAX - saddle).astype(np.uint16), kind="stable")
    return pairs[first][fallen], saddle[fallen]


def _chain(arrays: Iterable[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


@compiled
def _tally(group, rows, groups):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add up the columns of `rows`, (4, n): highest height, sum of count and of certainty, first voxel of a group."""
    table = np.zeros((4, groups), np.int64)
    table[3] = np.iinfo(np.int64).max
    for n in range(len(group)):
        height, count, certainty, first = rows[:, n]
        # A basin of the ring has no voxels here, and no first one.
        if count > 0:
            table[0, group[n]] = max(table[0, group[n]], height)
            table[1, group[n]] += count
            table[2, group[n]] += certainty
            table[3, group[n]] = min(table[3, group[n]], first)
    return table


def _number(table: Ints, lowest: int, smallest: int) -> tuple[npt.NDArray[np.int32], Ints]:
    """Return the label of each part, 0 for dropped ones, and the table of the parts that have one."""
    kept = np.flatnonzero((table[1] >= max(smallest, 1)) & (table[0] >= lowest))
    kept = kept[np.argsort(table[3, kept])]
    label = np.zeros(table.shape[1], np.int32)
    label[kept] = np.arange(1, kept.size + 1)
    return label, table[:, kept]


@compiled
def join(height, edges, saddle, share, lowest):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Join basins into parts along edges of falling saddle.

    This is the merge tree of the surface, cut where both sides of a saddle stand out: where the saddle is lower than
    `share` of the lower summit, and that summit is at least `lowest`. What falls short once keeps falling short, since
    saddles fall and summits of parts rise, so that every edge is looked at once.

    Returns
    -------
    (n,) the part of each basin, named by the basin in it that has the highest summit.
    """
    part = np.arange(len(height))
    for e in range(len(saddle)):
        a, b = edges[e]
        while part[a] != a:
            part[a] = part[part[a]]
            a = part[a]
        while part[b] != b:
            part[b] = part[part[b]]
            b = part[b]
        high, low = (a, b) if (height[a], -a) >= (height[b], -b) else (b, a)
        if saddle[e] >= share * height[low] or height[low] < lowest:
            part[low] = high
    for basin in range(len(height)):
        end = basin
        while part[end] != end:
            end = part[end]
        part[basin] = end
    return part


@compiled
def _paint(core, runs, basins, label):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write ``label[basin]`` for each voxel of `runs` into `core` (z, y, x)."""
    _, height, width = core.shape
    n = 0
    for r in range(len(runs)):
        row = runs[r, 0] // width
        line = core[row // height, row % height]
        for x in range(runs[r, 0] - row * width, runs[r, 1] - row * width):
            line[x] = label[basins[n]]
            n += 1
