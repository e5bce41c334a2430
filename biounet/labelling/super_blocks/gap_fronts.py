"""The gaps of all super-blocks become holes of objects, of which only those that are not decided are in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.labelling.super_blocks.fronts import SLACK
from biounet.labelling.super_blocks.gaps import Gaps
from biounet.labelling.super_blocks.history import History
from biounet.labelling.super_blocks.lattice import SuperBlockLattice
from biounet.labelling.super_blocks.object_files import (
    ArrayFiles,
    BandFiles,
    empty_folder,
    load_summary,
    save_summary,
    split_ids,
)

Ints = NDArray[np.int64]

_NONE = np.iinfo(np.int64).max
"""The lowest owner of a gap that touches no object; that of open ones is 0."""


@dataclass(frozen=True)
class JoinedGaps:
    """What `join_gaps` leaves in a folder.

    Attributes
    ----------
    largest_front
        Most gaps that were in memory at a time.
    """

    folder: Path
    largest_front: int

    @classmethod
    def open(cls, folder: Path) -> JoinedGaps:
        """Open what another process left; `FileNotFoundError` if it did not come to its end."""
        return cls(folder, **load_summary(folder))

    @property
    def objects_of_gaps(self) -> ArrayFiles:
        """For each super-block, the object (n,) of which each of its `Gaps` is a hole; 0: of none."""
        return ArrayFiles(self.folder, "objects-of-gaps")

    @property
    def added(self) -> BandFiles:
        """By band, (a, 2) objects and voxels of their holes."""
        return BandFiles(self.folder, "added", 2)


def join_gaps(
    lattice: SuperBlockLattice, load: Callable[[int], Gaps], folder: Path, *, slack: int = SLACK
) -> JoinedGaps:
    """Join the gaps of super-blocks across their faces, and find those that are holes of one object.

    Parameters
    ----------
    load
        Returns what `find_gaps` found in a super-block; it is asked again for the neighbours of each.
    folder
        Where results and intermediate files go; what is in it is removed.
    slack
        Gaps that may pile up before those that are decided are let go.
    """
    empty_folder(folder)
    history = History(folder)
    front = _Front(lattice)
    for index in range(len(lattice)):
        gaps = load(index)
        history.grow(len(gaps.owner))
        front.add(index, gaps, load)
        if len(front.low) > 2 * front.kept + slack or index == len(lattice) - 1:
            history.compact(front.contract(index))
    joined = JoinedGaps(folder, front.largest)
    for index, ends in history.ends():
        gaps = load(index)
        objects = np.concatenate([ends, gaps.filled[:, 0]])
        joined.objects_of_gaps.save(index, objects)
        is_hole = objects > 0
        holes = np.column_stack([objects, np.concatenate([gaps.voxels, gaps.filled[:, 1]])])[is_hole]
        joined.added.append(split_ids(holes[:, 0])[0], holes)
    save_summary(folder, {"largest_front": front.largest})
    return joined


@dataclass
class _Front:
    """The gaps that are not decided.

    Attributes
    ----------
    low, high
        (n,) the lowest and highest object that each one touches, `_NONE` and 0 for none, 0 and `_NONE` if it is open.
    closes
        (n,) the last super-block that a gap may touch.
    pairs
        Gaps that touch, (p, 2) each.
    slots
        For each super-block that has neighbours to come, the place of its gaps here; -1 for open ones that are gone.
    """

    lattice: SuperBlockLattice
    low: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    high: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    closes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    pairs: list[Ints] = field(default_factory=list)
    slots: dict[int, Ints] = field(default_factory=dict)
    kept: int = 0
    largest: int = 0

    def add(self, index: int, gaps: Gaps, load: Callable[[int], Gaps]) -> None:
        """Add the gaps of the next super-block, and what they touch in those before."""
        here = np.arange(len(gaps.owner)) + len(self.low)
        self.low = np.concatenate([self.low, np.where(gaps.owner > 0, gaps.owner, _NONE)])
        self.high = np.concatenate([self.high, gaps.owner])
        self.closes = np.concatenate([self.closes, self.lattice.last_neighbour(index, gaps.reach)])
        self.slots[index] = here
        for neighbour, offset in self.lattice.earlier_neighbours(index, faces_only=True):
            if here.size or self.slots[neighbour].size:
                other = load(neighbour)
                back = tuple(-o for o in offset)
                mine, theirs = np.broadcast_arrays(gaps.faces[offset], other.faces[back])
                self._meet((mine, here, gaps.objects), (theirs, self.slots[neighbour], other.objects))
        self.slots = {i: slots for i, slots in self.slots.items() if self.lattice.has_later_neighbour(i, index)}
        self.largest = max(self.largest, len(self.low))

    def _meet(self, *sides: tuple[NDArray[np.int32], Ints, Ints]) -> None:
        """Let the gaps of two faces touch what lies on the other one; a side is a face, and its slots and objects."""
        codes = np.stack([face.ravel() for face, _, _ in sides], axis=1).astype(np.int64)
        codes = codes[(codes < 0).any(axis=1)]
        if not len(codes):
            return
        codes = np.unique(codes, axis=0)
        places = np.stack(
            [np.append(slots, -1)[np.where(c < 0, -1 - c, -1)] for c, (_, slots, _) in zip(codes.T, sides, strict=True)]
        )
        both = (places >= 0).all(axis=0)
        self.pairs.append(places[:, both].T)
        for (own, other), code, objects in (
            (places, codes[:, 1], sides[1][2]),
            (places[::-1], codes[:, 0], sides[0][2]),
        ):
            meets = (own >= 0) & (other < 0)
            owner = np.append(0, objects)[np.maximum(code[meets], 0)]
            np.minimum.at(self.low, own[meets], owner)
            np.maximum.at(self.high, own[meets], np.where(owner > 0, owner, _NONE))

    def contract(self, index: int) -> Ints:
        """Join gaps that touch after a super-block, and let go those that are decided.

        Return what each slot became: a slot, or -1 - its object, 0 for none.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n = len(self.low)
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self.pairs])
        graph = coo_array((np.ones(len(pairs), np.bool_), tuple(pairs.T)), shape=(n, n))
        count, group = connected_components(graph, directed=False)
        low, high, closes = np.full(count, _NONE), np.zeros(count, np.int64), np.zeros(count, np.int64)
        np.minimum.at(low, group, self.low)
        np.maximum.at(high, group, self.high)
        np.maximum.at(closes, group, self.closes)
        stays = (low >= high) & (closes > index)
        became = np.where(stays, np.cumsum(stays) - 1, -1 - np.where(low == high, low, 0))[group]
        self.low, self.high, self.closes = low[stays], high[stays], closes[stays]
        self.pairs, self.kept = [], len(self.low)
        now = np.append(np.maximum(became, -1), -1)
        self.slots = {i: now[slots] for i, slots in self.slots.items()}
        return np.asarray(became, np.int64)
