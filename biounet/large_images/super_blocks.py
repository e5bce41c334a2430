"""The lattice of super-blocks: the parts of a large image that are worked on, and the shards of its label image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from biounet.core import Grid, Region, canonical_transform, stored_region
from biounet.tiling import Block


@dataclass(frozen=True)
class SuperBlocks:
    """Super-blocks in scan order of the canonical orientation, in which objects are found.

    They begin at multiples of the edge in the stored orientation, in which labels are written.

    Attributes
    ----------
    grid
        On which the image is stored.
    edges
        Of a super-block along the stored axes, in voxels.
    """

    grid: Grid
    edges: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image in the canonical orientation."""
        return tuple(self.grid.shape[axis] for axis in canonical_transform(self.grid).axes)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of super-blocks along each canonical axis."""
        return tuple(len(cuts) - 1 for cuts in self.cuts)

    @property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Where super-blocks begin along each canonical axis, and where the last one ends."""
        transform, cuts = canonical_transform(self.grid), []
        for axis, flipped in zip(transform.axes, transform.flipped, strict=True):
            length = self.grid.shape[axis]
            stored = (*range(0, length, self.edges[axis]), length)
            cuts.append(tuple(length - cut for cut in reversed(stored)) if flipped else stored)
        return tuple(cuts)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def block(self, index: int) -> Block:
        """Return a super-block, without a halo, by its number in scan order."""
        place = np.unravel_index(index, self.counts)
        core = tuple(slice(cuts[at], cuts[at + 1]) for cuts, at in zip(self.cuts, place, strict=True))
        return Block(core, core, self.shape)

    def stored(self, index: int) -> Region:
        """Return the region of a super-block on the stored grid."""
        return stored_region(self.block(index).core, self.grid)

    def __iter__(self) -> Iterator[Block]:
        return map(self.block, range(len(self)))
