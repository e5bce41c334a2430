"""What a super-block is made of: objects that are final, and what has to wait for its neighbours; in a file, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import Region
from biounet.labelling.super_blocks.lattice import Offset

Ints = NDArray[np.int64]

HEIGHT, COUNT, CERTAINTY, FIRST, BOX = range(5)
"""Columns of a row of integers about a part: the peak, voxels, sum of certainty (0..65535 each), first voxel as a flat
index in the image, and from `BOX` on the lowest voxel along each axis and the one after the highest."""


@dataclass(frozen=True)
class Seam:
    """What lies along one neighbour of a super-block.

    Attributes
    ----------
    faces
        (f, 2): foreground voxels next to the neighbour, in scan order, and the front part of each.
    touches
        (t, 5): front parts and foreground voxels of the neighbour that they touch, with the highest, sum and number of
        their border minima.
    """

    faces: Ints
    touches: Ints


@dataclass(frozen=True)
class Front:
    """The parts of a super-block that are not final, and what it depends on which of them are one object.

    Attributes
    ----------
    rows
        (n, `BOX` + 2 axes): a row for each part, in scan order of their first voxels.
    root
        (n,) the peak of each part, or the voxel of a neighbour to which its paths lead.
    leaves
        (n,) whether the paths lead to a neighbour.
    reach
        (n, axes) by how many voxels, 0 or 1 along each axis, the last neighbour in scan order lies beyond the
        super-block that a part may touch.
    ends
        (e, 2) pairs of parts, numbered from 0 on, that have a border.
    keys
        (e, 2) the peaks of the basins that touch there; -1 where it is not known.
    minima
        (e, 3) the highest, sum and number of border minima.
    """

    rows: Ints
    root: Ints
    leaves: NDArray[np.bool_]
    reach: Ints
    ends: Ints
    keys: Ints
    minima: Ints


@dataclass(frozen=True)
class Parts:
    """What is known of a super-block without its neighbours; voxels are flat indices in the image.

    Attributes
    ----------
    settled
        (s, `BOX` + 2 axes): a row for each object that is final, in scan order of their first voxels; parts 1..s.
    too_small
        Number of final objects that were dropped as too small.
    front
        Parts s + 1 and above.
    seams
        By where the neighbour lies.
    """

    settled: Ints
    too_small: int
    front: Front
    seams: Mapping[Offset, Seam]

    @property
    def box(self) -> Region:
        """The smallest region of the image that holds all parts; empty without any."""
        ends = np.concatenate([self.settled, self.front.rows])[:, BOX:]
        axes: int = ends.shape[1] // 2
        if not len(ends):
            return (slice(0, 0),) * axes
        low, high = ends[:, :axes].min(0), ends[:, axes:].max(0)
        return tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))

    def save(self, path: Path) -> None:
        """Write everything to one file, of which `load_parts` reads the seams as they are needed."""
        arrays = {f"front/{field.name}": getattr(self.front, field.name) for field in fields(Front)}
        for offset, seam in self.seams.items():
            arrays |= {_seam_key(offset, "faces"): seam.faces, _seam_key(offset, "touches"): seam.touches}
        with path.open("wb") as file:
            np.savez(file, settled=self.settled, too_small=np.array(self.too_small), **arrays)


def no_parts(axes: int) -> Parts:
    """Return what a super-block without foreground is made of."""
    rows, pairs = np.zeros((0, BOX + 2 * axes), np.int64), np.zeros((0, 2), np.int64)
    nothing = np.zeros(0, np.int64)
    front = Front(rows, nothing, nothing > 0, rows[:, :axes], pairs, pairs, np.zeros((0, 3), np.int64))
    return Parts(rows, 0, front, {})


@dataclass(frozen=True)
class _SavedSeams(Mapping[Offset, Seam]):
    """The seams in a file, each read when it is asked for: those of a volume are large."""

    path: Path
    offsets: tuple[Offset, ...]

    def __getitem__(self, offset: Offset) -> Seam:
        if offset not in self.offsets:
            raise KeyError(offset)
        with np.load(self.path) as arrays:
            return Seam(arrays[_seam_key(offset, "faces")], arrays[_seam_key(offset, "touches")])

    def __iter__(self) -> Iterator[Offset]:
        return iter(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)


def load_parts(path: Path) -> Parts:
    """Read what `Parts.save` wrote."""
    with np.load(path) as arrays:
        front = Front(**{field.name: arrays[f"front/{field.name}"] for field in fields(Front)})
        names = [name.split("/") for name in arrays.files if name.endswith("/faces")]
        seams = _SavedSeams(path, tuple(tuple(map(int, offset.split(","))) for _, offset, _ in names))
        return Parts(arrays["settled"], int(arrays["too_small"]), front, seams)


def _seam_key(offset: Offset, name: str) -> str:
    return f"seams/{','.join(map(str, offset))}/{name}"
