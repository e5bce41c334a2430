"""The super-blocks of an image, and which of them are neighbours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from biounet.tiling import Block

Ints = NDArray[np.int64]
Offset = tuple[int, ...]
"""Where a neighbour lies: -1, 0 or 1 along each axis."""


@dataclass(frozen=True)
class SuperBlockLattice:
    """Super-blocks in scan order, which tile an image.

    Attributes
    ----------
    shape
        Of the image, ``([z,] y, x)``.
    size
        Of a super-block along each axis; the last one of an axis may be smaller.
    from_end
        For each axis, whether super-blocks are counted from its end, so that the first one may be smaller instead;
        empty: none is.
    """

    shape: tuple[int, ...]
    size: tuple[int, ...]
    from_end: tuple[bool, ...] = ()

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of super-blocks along each axis."""
        return tuple(-(-length // edge) for length, edge in zip(self.shape, self.size, strict=True))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where the first super-block would begin along each axis if it were not cut by the edge of the image."""
        sides = self.from_end or (False,) * len(self.shape)
        triples = zip(self.shape, self.size, sides, strict=True)
        return tuple(-(-length % edge) if from_end else 0 for length, edge, from_end in triples)

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def bands(self) -> int:
        """Number of bands: super-blocks at one place along the first axis, whose voxels are consecutive."""
        return self.counts[0]

    def band(self, index: int) -> int:
        """Return the band of a super-block."""
        return index // math.prod(self.counts[1:])

    def of_band(self, band: int) -> range:
        """Return the super-blocks of a band."""
        length = math.prod(self.counts[1:])
        return range(band * length, (band + 1) * length)

    def place(self, index: int) -> tuple[int, ...]:
        """Return where a super-block lies in the lattice."""
        return tuple(int(i) for i in np.unravel_index(index, self.counts))

    def block(self, index: int) -> Block:
        """Return a super-block; it has no halo."""
        corner = (i * edge + at for i, edge, at in zip(self.place(index), self.size, self.starts, strict=True))
        core = tuple(
            slice(max(at, 0), min(at + edge, length))
            for at, edge, length in zip(corner, self.size, self.shape, strict=True)
        )
        return Block(core, core, self.shape)

    def last_neighbour(self, index: int, reach: Ints) -> Ints:
        """Return the last super-block at the voxel that is `reach` (n, axes), 0 or 1, beyond a super-block."""
        place = np.minimum(np.array(self.place(index)) + reach, np.array(self.counts) - 1)
        return np.asarray(np.ravel_multi_index(tuple(place.T), self.counts), np.int64)

    def has_later_neighbour(self, index: int, current: int) -> bool:
        """Return whether a super-block has a neighbour that comes after `current`."""
        return bool(self.last_neighbour(index, np.ones((1, len(self.shape)), np.int64))[0] > current)

    def earlier_neighbours(self, index: int, *, faces_only: bool = False) -> Iterator[tuple[int, Offset]]:
        """Yield the neighbours that come before a super-block, and where they lie as seen from it."""
        place = self.place(index)
        for offset in itertools.product((-1, 0, 1), repeat=len(self.shape)):
            if offset >= (0,) * len(offset) or (faces_only and sum(map(abs, offset)) > 1):
                continue
            there = tuple(p + o for p, o in zip(place, offset, strict=True))
            if all(0 <= p < n for p, n in zip(there, self.counts, strict=True)):
                yield int(np.ravel_multi_index(there, self.counts)), offset

    def blocks_of(self, voxels: Ints) -> Ints:
        """Return the super-blocks that hold voxels, given as flat indices in the image."""
        places = np.unravel_index(voxels, self.shape)
        places = tuple((p - at) // edge for p, edge, at in zip(places, self.size, self.starts, strict=True))
        return np.asarray(np.ravel_multi_index(places, self.counts), np.int64)

    def bands_of(self, voxels: Ints) -> Ints:
        """Return the bands of voxels, given as flat indices in the image."""
        return np.asarray((voxels // math.prod(self.shape[1:]) - self.starts[0]) // self.size[0], np.int64)
