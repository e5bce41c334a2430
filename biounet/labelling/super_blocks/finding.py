"""The basins of one super-block become its parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biounet.core import PROBABILITY_MAX, LabelSettings, Region, compiled
from biounet.labelling.label import BlockObjects
from biounet.labelling.stitching import different_maps, sum_groups, write_labels
from biounet.labelling.super_blocks.contraction import by_falling_saddle, contract, saddles, sum_pairs
from biounet.labelling.super_blocks.lattice import Offset
from biounet.labelling.super_blocks.parts import COUNT, FIRST, HEIGHT, Front, Parts, Seam, no_parts
from biounet.tiling import Block, relative_region

Ints = NDArray[np.int64]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]


def find_parts(
    blocks: Iterable[BlockObjects], super_block: Block, settings: LabelSettings, min_voxels: int
) -> tuple[Labels | None, Parts]:
    """Stitch the blocks of one super-block as far as its own voxels decide.

    Parameters
    ----------
    blocks
        They tile the core of `super_block`, in any order, and are parts of the same image. Each is let go before the
        next one is taken.
    min_voxels
        Number of voxels of the smallest object: `smallest_object`.

    Returns
    -------
    The label image of the core, 0 background and the parts from 1 on, or None if it has no foreground; and the parts.

    Raises
    ------
    InputError
        If the maps of two blocks differ where they overlap.
    """
    labels, basins = _collect(blocks, super_block)
    if labels is None or basins is None:
        return None, no_parts(len(super_block.shape))
    faces = _Faces.of(basins.faces, super_block)
    basin, graph = _build_graph(basins, faces, super_block)
    min_peak = math.ceil(settings.min_peak * PROBABILITY_MAX)
    saddle, order = saddles(graph.minima), np.flatnonzero(graph.complete)
    order = order[by_falling_saddle(saddle[order])]
    unknown = graph.leaks.copy()
    part, kept = contract(graph.table[HEIGHT], graph.ends[order], saddle[order], unknown, settings.join, min_peak)
    table = sum_groups(part, graph.table, part.size)
    final = ~unknown & (table[COUNT] > 0) & (table[HEIGHT] >= min_peak)
    is_small = table[COUNT] < min_voxels
    settled = _in_scan_order(final & ~is_small, table)
    front = _in_scan_order(unknown & (table[COUNT] > 0) & (part == np.arange(part.size)), table)
    both = np.concatenate([settled, front])
    number = np.zeros(part.size, np.int32)
    number[both] = np.arange(1, both.size + 1)
    boxes = _write_parts(labels, basins.written, number[part[basin]], both.size, super_block)
    rows = np.concatenate([table[:, both].T, boxes], axis=1)
    left = np.concatenate([np.flatnonzero(~graph.complete), order[kept]])
    slot = number[part].astype(np.int64) - 1 - settled.size
    waiting, touches = _list_front(graph, rows[settled.size :], left, front, slot)
    seams = _list_seams(faces, slot[basin[faces.owner]], touches, super_block)
    return labels, Parts(rows[: settled.size], int((final & is_small).sum()), waiting, seams)


def _in_scan_order(which: Mask, table: Ints) -> Ints:
    numbers = np.flatnonzero(which)
    return numbers[np.argsort(table[FIRST, numbers])]


@dataclass(frozen=True)
class _Basins:
    """The basins of all blocks in one sequence: as `BlockObjects`, `table` (4, n) having the rows `HEIGHT` to `FIRST`.

    `faces` are in scan order. `written` is the box of the blocks that have any, in the super-block.
    """

    root: Ints
    leaves: Mask
    table: Ints
    edges: Ints
    minima: Ints
    faces: Ints
    written: Region


def _collect(blocks: Iterable[BlockObjects], super_block: Block) -> tuple[Labels | None, _Basins | None]:
    """Return 1 + the basin of each voxel of the core, and the basins; None without foreground."""
    labels: Labels | None = None
    collected, regions = [], []
    offset = 0
    for block in blocks:
        if not len(block.runs):
            continue
        if labels is None:
            labels = np.zeros([part.stop - part.start for part in super_block.core], np.int32)
        regions.append(relative_region(block.block.core, super_block.core))
        core = labels[regions[-1]]
        numbers = np.arange(offset + 1, offset + 1 + block.root.size, dtype=np.int32)
        write_labels(core[None] if core.ndim == 2 else core, block.runs, block.basins, numbers)
        table = np.stack([block.height, block.count, block.certainty, block.first], axis=1)
        faces = block.face_voxels + np.array((0, offset))
        collected.append((block.root, block.exits_block, table, block.edges + offset, block.border_minima, faces))
        offset += block.root.size
    if labels is None:
        return None, None
    root, leaves, table, edges, minima, faces = (np.concatenate(parts) for parts in zip(*collected, strict=True))
    axes = zip(*regions, strict=True)
    written = tuple(slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in axes)
    return labels, _Basins(root, leaves, table.T, edges, minima, faces[np.argsort(faces[:, 0])], written)


@dataclass(frozen=True)
class _Faces:
    """The foreground voxels of a super-block next to its neighbours, in scan order.

    `owner` is the basin of each; `sides` (f, axes, 2) says at which faces it lies, the lower or the upper one of each
    axis.
    """

    voxels: Ints
    owner: Ints
    sides: Mask

    @classmethod
    def of(cls, faces: Ints, super_block: Block) -> _Faces:
        """Choose those of the faces of blocks, (f, 2), that are at a face of the super-block."""
        places = np.stack(np.unravel_index(faces[:, 0], super_block.shape), axis=1)
        sides = np.zeros((*places.shape, 2), np.bool_)
        for axis, (part, length) in enumerate(zip(super_block.core, super_block.shape, strict=True)):
            sides[:, axis, 0] = (places[:, axis] == part.start) & (part.start > 0)
            sides[:, axis, 1] = (places[:, axis] == part.stop - 1) & (part.stop < length)
        outer = sides.any(axis=(1, 2))
        return cls(faces[outer, 0], faces[outer, 1], sides[outer])


@dataclass(frozen=True)
class _Graph:
    """The basins of a super-block in order of their roots, and the borders between them.

    Attributes
    ----------
    table
        (4, n) rows `HEIGHT` to `FIRST`; no voxels where only a voxel of a neighbour is touched.
    root
        (n,) the peak of each basin, or the voxel of a neighbour to which its paths lead.
    leaves
        (n,) whether the paths lead to a neighbour.
    leaks
        (n,) whether a border of the basin may go on outside.
    reach
        (n, axes) as in `Parts`.
    ends, minima
        (e, 2) and (e, 3) as in `BlockObjects`, each pair once, in order.
    complete
        (e,) whether a border lies in the super-block as a whole.
    """

    table: Ints
    root: Ints
    leaves: Mask
    leaks: Mask
    reach: Ints
    ends: Ints
    minima: Ints
    complete: Mask


def _build_graph(basins: _Basins, faces: _Faces, super_block: Block) -> tuple[Ints, _Graph]:
    """Return the basin of the graph of each basin of a block, and the graph."""
    target = _follow_paths(basins, super_block)
    ends_there = np.flatnonzero(target == np.arange(target.size))
    ends_there = ends_there[np.argsort(basins.root[ends_there])]
    basin = np.empty(target.size, np.int64)
    basin[ends_there] = np.arange(ends_there.size)
    basin = basin[target]
    pairs = np.sort(basin[basins.edges], axis=1)
    differ = pairs[:, 0] != pairs[:, 1]
    ends, minima, _ = sum_pairs(pairs[differ], basins.minima[differ])
    leaves = basins.leaves[ends_there]
    opens = leaves.copy()
    opens[basin[faces.owner]] = True
    leaks = opens.copy()
    leaks[ends[leaves[ends].any(axis=1)]] = True
    a, b = ends.T
    complete = ~((leaks[a] & opens[b]) | (opens[a] & leaks[b]))
    # As digits of one number, the last neighbour in scan order is the largest.
    digits = 1 << np.arange(len(super_block.shape))[::-1]
    reach = np.zeros(leaves.size, np.int64)
    np.maximum.at(reach, basin[faces.owner], faces.sides[:, :, 1] @ digits)
    table = sum_groups(basin, basins.table, leaves.size)
    reach = (reach[:, None] & digits > 0).astype(np.int64)
    return basin, _Graph(table, basins.root[ends_there], leaves, leaks, reach, ends, minima, complete)


def _follow_paths(basins: _Basins, super_block: Block) -> Ints:
    """Return for each basin the one in which its paths end; for those that leave the super-block, one of each voxel."""
    target = np.arange(basins.root.size)
    exits = np.flatnonzero(basins.leaves)
    voxels = basins.root[exits]
    places = np.unravel_index(voxels, super_block.shape)
    inside = np.ones(exits.size, np.bool_)
    for place, part in zip(places, super_block.core, strict=True):
        inside &= (place >= part.start) & (place < part.stop)
    target[exits[inside]] = look_up(basins.faces, voxels[inside])
    _, first, which = np.unique(voxels[~inside], return_index=True, return_inverse=True)
    outer = exits[~inside]
    target[outer] = outer[first][which]
    target = follow(target)
    if np.isin(target, exits[inside]).any():
        raise different_maps("a path from peak to peak is closed")
    return target


def look_up(faces: Ints, voxels: Ints) -> Ints:
    """Return what owns voxels by a table (f, 2) of voxels in order and their owners.

    Raises
    ------
    ValueError
        If a voxel is not in the table: it is background there, and foreground for those who ask.
    """
    entry = np.searchsorted(faces[:, 0], voxels)
    if (entry == len(faces)).any() or not np.array_equal(faces[entry, 0], voxels):
        raise different_maps("one lacks a foreground voxel of the other")
    return np.asarray(faces[entry, 1])


def follow(target: Ints) -> Ints:
    """Follow targets of targets to their ends; an item whose path is closed is left with a target on its way."""
    # Pointer jumping doubles the length of the path in each pass; a path visits each item at most once.
    for _ in range(target.size.bit_length() + 1):
        previous, target = target, target[target]
        if np.array_equal(previous, target):
            break
    return target


def _write_parts(labels: Labels, written: Region, number: Labels, parts: int, super_block: Block) -> Ints:
    """Replace each 1 + basin by the number of its part; return the boxes of the parts (p, 2 axes) in the image."""
    region = labels[written]
    is_whole = region.shape == labels.shape
    volume = region if is_whole else np.ascontiguousarray(region)  # of which the loop is compiled
    volume = volume[None] if labels.ndim == 2 else volume
    box = np.zeros((parts + 1, 2, 3), np.int64)
    box[:, 0] = np.iinfo(np.int64).max
    _number_voxels(volume, np.concatenate([np.zeros(1, np.int32), number]), box)
    if not is_whole:
        region[...] = volume.reshape(region.shape)
    start = np.array([part.start + at.start for part, at in zip(super_block.core, written, strict=True)])
    return np.asarray((box[1:, :, 3 - labels.ndim :] + start).reshape(parts, 2 * labels.ndim))


@compiled
def _number_voxels(labels, number, box):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Replace each label by its number, and extend the boxes, (n, 2, 3) lowest and end, of the numbers."""
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            line = labels[z, y]
            last = 0
            for x in range(width):
                here = number[line[x]]
                line[x] = here
                if here == last:
                    continue
                if last:
                    box[last, 1, 2] = max(box[last, 1, 2], x)
                if here:
                    low, high = box[here]
                    low[0], low[1], low[2] = min(low[0], z), min(low[1], y), min(low[2], x)
                    high[0], high[1] = max(high[0], z + 1), max(high[1], y + 1)
                last = here
            if last:
                box[last, 1, 2] = max(box[last, 1, 2], width)


def _list_front(graph: _Graph, rows: Ints, left: Ints, front: Ints, slot: Ints) -> tuple[Front, Ints]:
    """Return the parts that are in `front` with the edges that are `left`, and what touches neighbours as in `Seam`.

    `slot` is the place of each basin's part in `front`; it has no meaning for other basins.
    """
    is_voxel = graph.table[COUNT] == 0
    ends, minima = graph.ends[left], graph.minima[left]
    touches = is_voxel[ends].any(axis=1)
    # Of a pair with a voxel of a neighbour: the basin that touches it, and the voxel.
    pair = ends[touches]
    pair = np.where(is_voxel[pair[:, :1]], pair[:, ::-1], pair)
    touching = np.column_stack([slot[pair[:, 0]], graph.root[pair[:, 1]], minima[touches]])
    ends = ends[~touches]
    keys = np.where(graph.leaves[ends], -1, graph.root[ends])
    root, leaves, reach = graph.root[front], graph.leaves[front], graph.reach[front]
    return Front(rows, root, leaves, reach, slot[ends], keys, minima[~touches]), touching


def _list_seams(faces: _Faces, slots: Ints, touching: Ints, super_block: Block) -> dict[Offset, Seam]:
    """Return what lies along each neighbour; `slots` are the parts of the voxels at faces."""
    places = np.stack(np.unravel_index(touching[:, 1], super_block.shape), axis=1)
    starts, stops = (np.array([getattr(part, name) for part in super_block.core]) for name in ("start", "stop"))
    offsets = (places >= stops).astype(np.int64) - (places < starts)
    owned = np.column_stack([faces.voxels, slots])
    choices = [
        [o for o, is_there in ((-1, part.start > 0), (0, True), (1, part.stop < length)) if is_there]
        for part, length in zip(super_block.core, super_block.shape, strict=True)
    ]
    seams = {}
    for offset in itertools.product(*choices):
        if any(offset):
            along = [faces.sides[:, axis, (o + 1) // 2] for axis, o in enumerate(offset) if o]
            seams[offset] = Seam(owned[np.all(along, axis=0)], touching[(offsets == offset).all(axis=1)])
    return seams
