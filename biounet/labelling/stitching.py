"""The basins of all blocks become the objects of the image.

Basins that touch, and the saddles between them, form a graph. It is the same however the image was cut, and the objects
depend on the graph alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from biounet.core import LENGTH_TOLERANCE, PROBABILITY_MAX, InputError, LabelSettings, SettingsError, compiled
from biounet.labelling.holes import fill_holes
from biounet.labelling.label import BlockObjects, Ints, Map, label_block, required_halo
from biounet.labelling.union_find import find_root, flatten
from biounet.tiling import block_lattice

_BLOCK_EDGE = {2: 1024, 3: 96}  # by number of axes: about a million voxels


def different_maps(how: str) -> InputError:
    """Return the error of blocks that do not agree where they overlap, in whatever way that shows."""
    hint = "if a GPU computed them, do it with --device cpu; if not, please report it"
    return InputError(f"blocks that overlap hold different maps: {how}", hint=hint)


@dataclass(frozen=True)
class Objects:
    """The objects of an image.

    Attributes
    ----------
    labels
        ``([z,] y, x)``: 0 background, objects 1..N in scan order of their first voxels.
    count
        (N,) voxels of each object.
    confidence
        (N,) mean certainty of the voxels that are foreground, 0..1: the log-odds of the foreground, of which
        `CERTAIN_LOG_ODDS` and more count as 1.
    too_small
        Number of objects that were dropped as smaller than ``settings.min_size``.
    """

    labels: npt.NDArray[np.int32]
    count: Ints
    confidence: npt.NDArray[np.float64]
    too_small: int = 0


def label_objects(
    foreground: Map,
    contour: Map | None,
    distance: Map | None,
    settings: LabelSettings,
    *,
    voxel_um: float | None = None,
) -> Objects:
    """Label one image in memory; see `label_block` and `stitch`.

    Works in blocks: their working arrays stay in the processor's cache, which takes half the time.
    """
    shape = foreground.shape
    halo = required_halo(has_distance=distance is not None)
    parts = []
    for block in block_lattice(shape, _BLOCK_EDGE[len(shape)]):
        region = block.grown(halo)
        edges, heights = (None if values is None else values[region] for values in (contour, distance))
        parts.append(label_block(foreground[region], edges, heights, settings, block=block))
    return stitch(parts, shape, settings, voxel_um=voxel_um)


def stitch(
    blocks: Sequence[BlockObjects], shape: tuple[int, ...], settings: LabelSettings, *, voxel_um: float | None = None
) -> Objects:
    """Join the basins of all blocks into the objects of the image.

    Edges are processed from the highest saddle down. Two parts become one object if the saddle is at least
    ``settings.join`` times the lower of their peaks, or if that peak is lower than ``settings.min_peak``. Objects lower
    than ``settings.min_peak`` or smaller than ``settings.min_size`` are then dropped, and holes filled.

    Parameters
    ----------
    blocks
        All blocks of one lattice, in any order.
    shape
        Of the image, ``([z,] y, x)``.
    voxel_um
        Area (µm²) or volume (µm³) of a voxel; None where the image is not calibrated.

    Raises
    ------
    SettingsError
        If ``settings.min_size`` is in µm and the image is not calibrated.
    InputError
        If the maps of two blocks differ where they overlap.
    """
    min_voxels = smallest_object(settings, voxel_um)
    min_peak = math.ceil(settings.min_peak * PROBABILITY_MAX)
    if not blocks:
        return Objects(np.zeros(shape, np.int32), np.zeros(0, np.int64), np.zeros(0))
    table, edges, saddle, basins_of_blocks = _build_graph(blocks)
    part = merge_basins(table[0], edges, saddle, settings.join, min_peak)
    parts = sum_groups(part, table, part.size)
    label, table = _select_objects(parts, min_peak, min_voxels)
    too_small = int(((parts[1] > 0) & (parts[1] < min_voxels) & (parts[0] >= min_peak)).sum())
    _, foreground, certainty, _ = table
    labels = np.zeros(shape, np.int32)
    for block, basins in zip(blocks, basins_of_blocks, strict=True):
        core = labels[block.block.core]
        write_labels(core[None] if core.ndim == 2 else core, block.runs, block.basins, label[part[basins]])
    count = foreground.copy()
    if settings.fill_holes:
        objects, filled = fill_holes(labels)
        np.add.at(count, objects - 1, filled)
    return Objects(labels, count, certainty / (PROBABILITY_MAX * foreground), too_small)


def smallest_object(settings: LabelSettings, voxel_um: float | None) -> int:
    """Return the number of voxels of the smallest object.

    Raises
    ------
    SettingsError
        If ``settings.min_size`` is in µm and the image is not calibrated.
    """
    if settings.min_size_unit == "px":
        return math.ceil(settings.min_size)
    if voxel_um is None:
        raise SettingsError(
            f"the smallest object is {settings.min_size} µm² (µm³), but the image has no calibration",
            hint="give its pixel size with --spacing",
        )
    return math.ceil(settings.min_size / voxel_um * (1 - LENGTH_TOLERANCE))


def _build_graph(blocks: Sequence[BlockObjects]) -> tuple[Ints, Ints, Ints, list[Ints]]:
    """Return the table of all basins in scan order of their peaks, edges, saddles, and the basins of each block."""
    offsets = np.cumsum([0, *(block.root.size for block in blocks)])
    peak = _follow_exits(blocks, offsets)
    root = np.concatenate([block.root for block in blocks])
    with_peak = np.flatnonzero(peak == np.arange(peak.size))
    with_peak = with_peak[np.argsort(root[with_peak])]
    basin = np.empty(peak.size, np.int64)
    basin[with_peak] = np.arange(with_peak.size)
    basin = basin[peak]
    rows = np.concatenate([(block.height, block.count, block.certainty, block.first) for block in blocks], axis=1)
    table = sum_groups(basin, rows, with_peak.size)
    return table, *_merge_edges(blocks, offsets, basin), np.split(basin, offsets[1:-1])


def _follow_exits(blocks: Sequence[BlockObjects], offsets: Ints) -> Ints:
    """Return for each basin of a block the one in which its paths end, which may be a basin of another block.

    Basins of all blocks are numbered in one sequence; those of block ``b`` begin at ``offsets[b]``.
    """
    target = np.arange(offsets[-1])
    exits = np.flatnonzero(np.concatenate([block.exits_block for block in blocks]))
    if not exits.size:
        return target
    shifts = zip(blocks, offsets[:-1], strict=True)
    faces = np.concatenate([block.face_voxels + np.array((0, offset)) for block, offset in shifts])
    faces = faces[np.argsort(faces[:, 0])]
    exit_voxels = np.concatenate([block.root for block in blocks])[exits]
    entry = np.searchsorted(faces[:, 0], exit_voxels)
    if (entry == len(faces)).any() or not np.array_equal(faces[entry, 0], exit_voxels):
        raise different_maps("one lacks a foreground voxel of the other")
    target[exits] = faces[entry, 1]
    # Pointer jumping doubles the length of the path in each pass; a path visits each basin of a block at most once.
    for _ in range(target.size.bit_length() + 1):
        previous, target = target, target[target]
        if np.array_equal(previous, target):
            break
    if np.isin(target, exits).any():
        raise different_maps("a path from peak to peak is closed")
    return target


def _merge_edges(blocks: Sequence[BlockObjects], offsets: Ints, basin: Ints) -> tuple[Ints, Ints]:
    """Return each edge between basins of the image once, and its saddle; by falling saddle, then by pair.

    The saddle is the mean of the highest minimum of a border and the average one: with the highest alone, two cells
    become one if the network misses their border at a single voxel (benchmarks/RESULTS.md).
    """
    ends = [block.edges + offset for block, offset in zip(blocks, offsets[:-1], strict=True)]
    pairs = np.sort(basin[np.concatenate(ends)], axis=1)
    minima = np.concatenate([block.border_minima for block in blocks])
    order = np.argsort(pairs[:, 0] << 32 | pairs[:, 1])
    order = order[pairs[order, 0] != pairs[order, 1]]
    pairs, minima = pairs[order], minima[order]
    first = np.flatnonzero(np.diff(pairs, axis=0, prepend=-1).any(axis=1))
    if not first.size:
        return pairs, minima[:, 0]
    highest = np.maximum.reduceat(minima[:, 0], first)
    total, count = np.add.reduceat(minima[:, 1:], first).T
    saddle = (highest * count + total) // (2 * count)
    order = np.argsort((PROBABILITY_MAX - saddle).astype(np.uint16), kind="stable")
    return pairs[first][order], saddle[order]


def sum_groups(group: Ints, rows: Ints, groups: int) -> Ints:
    """Combine the columns of `rows`, (4, n): highest height, sum of count and of certainty, first voxel of a group."""
    has_voxels = rows[1] > 0  # not in basins of the ring, whose first voxel is undefined
    group, (height, count, certainty, first) = group[has_voxels], rows[:, has_voxels]
    table = np.zeros((4, groups), np.int64)
    table[3] = np.iinfo(np.int64).max
    np.maximum.at(table[0], group, height)
    np.add.at(table[1], group, count)
    np.add.at(table[2], group, certainty)
    np.minimum.at(table[3], group, first)
    return table


def _select_objects(table: Ints, min_peak: int, min_voxels: int) -> tuple[npt.NDArray[np.int32], Ints]:
    """Return the label of each part, 0 for dropped ones, and the table of the parts that have one."""
    selected = np.flatnonzero((table[1] >= max(min_voxels, 1)) & (table[0] >= min_peak))
    selected = selected[np.argsort(table[3, selected])]
    label = np.zeros(table.shape[1], np.int32)
    label[selected] = np.arange(1, selected.size + 1)
    return label, table[:, selected]


@compiled
def merge_basins(height, edges, saddle, share, min_peak):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Merge basins into parts along edges of falling saddle; return the basin with the highest peak of each one's part.

    This is the merge tree of the surface, cut where the saddle is lower than `share` times the lower peak and that peak
    is at least `min_peak`. Saddles fall and peaks rise, so that an edge needs one visit: if cut, it stays cut.
    """
    part = np.arange(len(height))
    for e in range(len(saddle)):
        a, b = find_root(part, edges[e, 0]), find_root(part, edges[e, 1])
        high, low = (a, b) if (height[a], -a) >= (height[b], -b) else (b, a)
        if saddle[e] >= share * height[low] or height[low] < min_peak:
            part[low] = high
    flatten(part)
    return part


@compiled
def write_labels(core, runs, basins, label):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write ``label[basin]`` for each voxel of `runs` into `core` (z, y, x)."""
    _, height, width = core.shape
    n = 0
    for r in range(len(runs)):
        row = runs[r, 0] // width
        line = core[row // height, row % height]
        for x in range(runs[r, 0] - row * width, runs[r, 1] - row * width):
            line[x] = label[basins[n]]
            n += 1
