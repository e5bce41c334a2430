"""The parts of all super-blocks become objects, of which only those that are not final are in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import PROBABILITY_MAX, LabelSettings
from biounet.labelling.stitching import different_maps, sum_groups
from biounet.labelling.super_blocks.contraction import by_falling_saddle, contract, saddles, sum_pairs
from biounet.labelling.super_blocks.finding import follow, look_up
from biounet.labelling.super_blocks.history import History
from biounet.labelling.super_blocks.lattice import Offset, SuperBlockLattice
from biounet.labelling.super_blocks.object_files import (
    ArrayFiles,
    BandFiles,
    empty_folder,
    joined_ids,
    load_summary,
    save_summary,
    settled_ids,
)
from biounet.labelling.super_blocks.parts import BOX, COUNT, FIRST, HEIGHT, Parts, Seam

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Load = Callable[[int], Parts]

SLACK = 1 << 14
"""Parts of which it may be possible to let go, before that is tried: it takes a pass over all that are in memory."""

_GROWTH = 1.5  # times the parts that have to stay: with 2, up to a quarter more were in memory, of a full volume


@dataclass(frozen=True)
class JoinedParts:
    """What `join_fronts` leaves in a folder.

    Attributes
    ----------
    axes
        Number of axes of the image.
    too_small
        Number of objects on faces that were dropped as too small.
    largest_front
        Most parts that were in memory at a time.
    """

    folder: Path
    axes: int
    too_small: int
    largest_front: int

    @classmethod
    def open(cls, folder: Path) -> JoinedParts:
        """Open what another process left; `FileNotFoundError` if it did not come to its end."""
        return cls(folder, **load_summary(folder))

    @property
    def objects_of_parts(self) -> ArrayFiles:
        """For each super-block, the object (n,) of each part 1..n; 0 where it was dropped."""
        return ArrayFiles(self.folder, "objects-of-parts")

    @property
    def rows(self) -> BandFiles:
        """By band, (o, `BOX` + 2 axes) rows of the objects that lay on faces."""
        return _joined_rows(self.folder, self.axes)


def _joined_rows(folder: Path, axes: int) -> BandFiles:
    return BandFiles(folder, "joined", BOX + 2 * axes)


def join_fronts(
    lattice: SuperBlockLattice,
    load: Load,
    folder: Path,
    settings: LabelSettings,
    min_voxels: int,
    *,
    slack: int = SLACK,
) -> JoinedParts:
    """Join the parts of super-blocks into the objects of the image.

    Parameters
    ----------
    load
        Returns what `find_parts` found in a super-block; it is asked again for the neighbours of each.
    folder
        Where results and intermediate files go; what is in it is removed.
    min_voxels
        Number of voxels of the smallest object.
    slack
        Parts that may pile up before those that are final are let go.

    Raises
    ------
    InputError
        If the maps of two super-blocks differ where they overlap.
    """
    empty_folder(folder)
    history = History(folder)
    limits = _Limits(settings.join, math.ceil(settings.min_peak * PROBABILITY_MAX), min_voxels)
    front = _Front.empty(lattice, _joined_rows(folder, len(lattice.shape)), limits)
    settled = np.zeros(len(lattice), np.int64)
    for index in range(len(lattice)):
        parts = load(index)
        settled[index] = len(parts.settled)
        history.grow(len(parts.front.root))
        front.add(index, parts, load)
        if len(front.root) > _GROWTH * front.kept + slack or index == len(lattice) - 1:
            history.compact(front.contract(index))
    joined = JoinedParts(folder, len(lattice.shape), front.too_small, front.largest)
    for index, ends in history.ends():
        band = lattice.band(index)
        before = int(settled[lattice.of_band(band).start : index].sum())
        objects = np.concatenate([settled_ids(band, before, int(settled[index])), ends])
        joined.objects_of_parts.save(index, objects)
    save_summary(folder, {"axes": joined.axes, "too_small": joined.too_small, "largest_front": joined.largest_front})
    return joined


@dataclass(frozen=True)
class _Limits:
    join: float
    min_peak: int
    min_voxels: int


@dataclass
class _Front:
    """The parts that are not final, and the edges between them; fields as in `parts.Front`.

    Attributes
    ----------
    target
        (n,) where the paths of a part lead that leaves its super-block: itself until that is known.
    closes
        (n,) the last super-block that a part may touch.
    added
        Edges since the last contraction, which are appended to the others there: each time, all of them are copied.
    slots
        For each super-block that has neighbours to come, the place of its front parts here; -1 for those that are gone.
    """

    lattice: SuperBlockLattice
    files: BandFiles
    limits: _Limits
    rows: Ints
    root: Ints
    leaves: Mask
    target: Ints
    closes: Ints
    ends: Ints
    keys: Ints
    minima: Ints
    added: list[tuple[Ints, Ints, Ints]] = field(default_factory=list)
    slots: dict[int, Ints] = field(default_factory=dict)
    objects: dict[int, int] = field(default_factory=dict)  # so far, by band
    kept: int = 0
    largest: int = 0
    too_small: int = 0

    @classmethod
    def empty(cls, lattice: SuperBlockLattice, files: BandFiles, limits: _Limits) -> _Front:
        """Return a front before the first super-block."""
        nothing, pairs = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
        rows, minima = np.zeros((0, files.columns), np.int64), np.zeros((0, 3), np.int64)
        return cls(lattice, files, limits, rows, nothing, nothing > 0, nothing, nothing, pairs, pairs, minima)

    def add(self, index: int, parts: Parts, load: Load) -> None:
        """Add the front of the next super-block, and what is on its seams with those before."""
        old, front = len(self.root), parts.front
        here = np.arange(old, old + len(front.root))
        self.rows = np.concatenate([self.rows, front.rows])
        self.root = np.concatenate([self.root, front.root])
        self.leaves = np.concatenate([self.leaves, front.leaves])
        self.target = np.concatenate([self.target, here])
        self.closes = np.concatenate([self.closes, self.lattice.last_neighbour(index, front.reach)])
        self.added.append((here[front.ends], front.keys, front.minima))
        self.slots[index] = here
        self._end_paths(index, old, parts)
        leads = np.where(front.leaves, self.lattice.blocks_of(front.root), -1)
        for neighbour, offset in self.lattice.earlier_neighbours(index):
            seam, its_seam = parts.seams.get(offset, _NO_SEAM), _NO_SEAM
            if len(self.slots[neighbour]):
                its_seam = load(neighbour).seams[_opposite(offset)]
            leaving = here[leads == neighbour]
            self.target[leaving] = self.slots[neighbour][look_up(its_seam.faces, self.root[leaving])]
            self._add_touches(its_seam.touches, self.slots[neighbour], seam.faces, here)
            self._add_touches(seam.touches, here, its_seam.faces, self.slots[neighbour])
        self.slots = {i: slots for i, slots in self.slots.items() if self.lattice.has_later_neighbour(i, index)}
        self.largest = max(self.largest, len(self.root))

    def _end_paths(self, index: int, old: int, parts: Parts) -> None:
        """Find the parts of a super-block to which paths lead that were waiting for it: those of slots below `old`."""
        waiting = np.flatnonzero(self._leads_out()[:old])
        waiting = waiting[self.lattice.blocks_of(self.root[waiting]) == index]
        if not waiting.size:
            return
        faces = np.concatenate([_NO_FACES, *(seam.faces for seam in parts.seams.values())])
        self.target[waiting] = old + look_up(faces[np.argsort(faces[:, 0])], self.root[waiting])

    def _leads_out(self) -> Mask:
        """Return which parts have paths to a super-block that is not there yet."""
        return np.asarray(self.leaves & (self.target == np.arange(len(self.root))))

    def _add_touches(self, touches: Ints, slots: Ints, faces: Ints, other_slots: Ints) -> None:
        ends = np.column_stack([slots[touches[:, 0]], other_slots[look_up(faces, touches[:, 1])]])
        pairs, minima, _ = sum_pairs(ends, touches[:, 2:])
        self.added.append((pairs, np.where(self.leaves[pairs], -1, self.root[pairs]), minima))

    def contract(self, index: int) -> Ints:
        """Join what can be joined after a super-block, and let go what is final.

        Return what each slot became: a slot, or -1 - its object, 0 where it was dropped.
        """
        target = follow(self.target)
        if (self.leaves & (self.target != np.arange(len(target))))[target].any():
            raise different_maps("a path from peak to peak is closed")
        np.maximum.at(self.closes, target, self.closes)
        complete = self._sum_edges(target, index)
        saddle, order = saddles(self.minima), np.flatnonzero(complete)
        order = order[by_falling_saddle(saddle[order])]
        unknown = self._leaks(index)
        height, limits = self._heights(target), self.limits
        part, kept = contract(height, self.ends[order], saddle[order], unknown, limits.join, limits.min_peak)
        rows = _sum_rows(part[target], self.rows)
        is_part = (part == np.arange(len(part))) & (rows[:, COUNT] > 0)
        became = np.zeros(len(part), np.int64)
        final = np.flatnonzero(is_part & ~unknown)
        became[final] = -1 - self._write_objects(rows[final])
        front = np.flatnonzero(is_part & unknown)
        became[front] = np.arange(len(front))
        became = np.asarray(became[part[target]])
        left = np.concatenate([np.flatnonzero(~complete), order[kept]])
        self._keep(rows, front, left, became)
        return became

    def _heights(self, target: Ints) -> Ints:
        """Return the peak of each part with those whose paths lead to it."""
        height = np.zeros(len(target), np.int64)
        here = self.rows[:, COUNT] > 0
        np.maximum.at(height, target[here], self.rows[here, HEIGHT])
        return height

    def _keep(self, rows: Ints, front: Ints, left: Ints, became: Ints) -> None:
        """Keep some parts and edges; `became` are the new places of parts."""
        self.rows, self.root, self.leaves = rows[front], self.root[front], self.leaves[front]
        self.closes, self.target, self.kept = self.closes[front], np.arange(len(front)), len(front)
        self.ends, self.keys, self.minima = became[self.ends[left]], self.keys[left], self.minima[left]
        now = np.append(np.maximum(became, -1), -1)
        self.slots = {index: now[slots] for index, slots in self.slots.items()}

    def _sum_edges(self, target: Ints, index: int) -> Mask:
        """Let edges end where paths lead, and each pair of basins have one; return which are complete."""
        edges = zip((self.ends, self.keys, self.minima), *self.added, strict=True)
        self.ends, self.keys, self.minima = (np.concatenate(column) for column in edges)
        self.added.clear()
        self.ends = target[self.ends]
        differ = np.flatnonzero(self.ends[:, 0] != self.ends[:, 1])
        self.ends, self.keys, self.minima = self.ends[differ], self.keys[differ], self.minima[differ]
        self.keys = np.where((self.keys < 0) & ~self.leaves[self.ends], self.root[self.ends], self.keys)
        basins = np.where(self.keys < 0, -1 - self.ends, self.keys)
        turned = basins[:, 0] > basins[:, 1]
        for pair in (self.ends, self.keys, basins):
            pair[turned] = pair[turned, ::-1]
        _, self.minima, rows = sum_pairs(basins, self.minima)
        self.ends, self.keys = self.ends[rows], self.keys[rows]
        # A basin that another one took in had no unknown border.
        may_grow = (self.keys < 0) | (self.keys == self.root[self.ends])
        opens, leaks = (which[self.ends] & may_grow for which in (self._opens(index), self._leaks(index)))
        return np.asarray(~((leaks[:, 0] & opens[:, 1]) | (opens[:, 0] & leaks[:, 1])))

    def _opens(self, index: int) -> Mask:
        """Return which parts may get more voxels from super-blocks after `index`."""
        return np.asarray(self._leads_out() | (self.closes > index))

    def _leaks(self, index: int) -> Mask:
        """Return which parts may get more borders."""
        leaks = self._opens(index)
        leaks[self.ends[self._leads_out()[self.ends].any(axis=1)]] = True
        return leaks

    def _write_objects(self, rows: Ints) -> Ints:
        """Write the rows of final parts that are objects; return the objects, 0 for what is dropped."""
        limits = self.limits
        high = rows[:, HEIGHT] >= limits.min_peak
        large = rows[:, COUNT] >= limits.min_voxels
        self.too_small += int((high & ~large).sum())
        chosen = np.flatnonzero(high & large)
        chosen = chosen[np.argsort(rows[chosen, FIRST])]
        bands = self.lattice.bands_of(rows[chosen, FIRST])
        present, starts, counts = np.unique(bands, return_index=True, return_counts=True)
        before = np.array([self.objects.get(band, 0) for band in present.tolist()], np.int64)
        places = np.arange(len(chosen)) + np.repeat(before - starts, counts)
        self.objects.update(zip(present.tolist(), (before + counts).tolist(), strict=True))
        self.files.append(bands, rows[chosen])
        ids = np.zeros(len(rows), np.int64)
        ids[chosen] = joined_ids(bands, places)
        return ids


_NO_FACES = np.zeros((0, 2), np.int64)
_NO_SEAM = Seam(_NO_FACES, np.zeros((0, 5), np.int64))


def _opposite(offset: Offset) -> Offset:
    return tuple(-o for o in offset)


def _sum_rows(group: Ints, rows: Ints) -> Ints:
    """Combine the rows (n, columns) of each group into the row of its number; the others have no voxels."""
    table = np.empty_like(rows)
    table[:, :BOX] = sum_groups(group, rows[:, :BOX].T, len(rows)).T
    axes = (rows.shape[1] - BOX) // 2
    low, high = table[:, BOX : BOX + axes], table[:, BOX + axes :]
    low[:], high[:] = np.iinfo(np.int64).max, 0
    np.minimum.at(low, group, rows[:, BOX : BOX + axes])
    np.maximum.at(high, group, rows[:, BOX + axes :])
    return table
