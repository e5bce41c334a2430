"""How a label store is divided: its levels, the shards of each, and the chunks in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from biounet.core import Grid, Region
from biounet.files.exports.ome_metadata import CHUNKS
from biounet.files.exports.pyramid import pyramid_factors

_MOST_VOXELS = 1 << 24  # of a shard of lower resolution, which is made from up to eight times as many
_LEAST_PART = 8  # a chunk has at least this part of the usual length, or the length of the whole shard


@dataclass(frozen=True)
class StoreLevel:
    """One resolution of a label store.

    Attributes
    ----------
    name
        Of its array: 0, 1, …
    factors
        By what it is smaller than the labels along each axis.
    shape
        Its length along each axis.
    shard
        Voxels of a file along each axis; the last ones may reach beyond the end.
    chunk
        Voxels that are packed together in a shard.
    """

    name: str
    factors: tuple[int, ...]
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return prod(-(-length // size) for length, size in zip(self.shape, self.shard, strict=True))

    def regions(self) -> Iterator[Region]:
        """Yield the region of each shard, in row order."""
        return self.regions_in(tuple(slice(0, length) for length in self.shape))

    def region(self, index: int) -> Region:
        """Return the region of the shard with this number in row order."""
        counts = [-(-length // size) for length, size in zip(self.shape, self.shard, strict=True)]
        return tuple(
            slice(int(at) * size, min((int(at) + 1) * size, length))
            for at, size, length in zip(np.unravel_index(index, counts), self.shard, self.shape, strict=True)
        )

    def regions_in(self, region: Region) -> Iterator[Region]:
        """Yield the regions of the shards that a region touches, in row order."""
        ranges = [
            range(part.start // size, -(-part.stop // size)) for part, size in zip(region, self.shard, strict=True)
        ]
        for place in product(*ranges):
            yield tuple(
                slice(index * size, min((index + 1) * size, length))
                for index, size, length in zip(place, self.shard, self.shape, strict=True)
            )

    def key(self, region: Region) -> str:
        """Return the path of a shard below the store; raise `ValueError` for a region that is none."""
        places = [part.start // size for part, size in zip(region, self.shard, strict=True)]
        if next(self.regions_in(region), None) != tuple(region):
            raise ValueError(f"{region} is not one shard of {self.shard} in {self.shape}")
        return "/".join([self.name, "c", *map(str, places)])


def store_levels(grid: Grid, shard: Sequence[int]) -> tuple[StoreLevel, ...]:
    """Return the levels of the labels of an image.

    Parameters
    ----------
    shard
        Voxels of a shard of the labels themselves, ``([z,] y, x)``. It is cut where the image ends. Those of lower
        resolution are the same or, since they are made from several, smaller.
    """
    levels = []
    for number, factors in enumerate(pyramid_factors(grid.shape, grid.steps)):
        shape = tuple(-(-length // factor) for length, factor in zip(grid.shape, factors, strict=True))
        chunk = tuple(map(_chunk_length, shape, shard, CHUNKS[grid.dims]))
        counts = [-(-min(length, size) // part) for length, size, part in zip(shape, shard, chunk, strict=True)]
        while number and prod(counts) > 1 and prod(map(int.__mul__, counts, chunk)) > _MOST_VOXELS:
            most = counts.index(max(counts))
            counts[most] = -(-counts[most] // 2)
        sizes = tuple(count * part for count, part in zip(counts, chunk, strict=True))
        levels.append(StoreLevel(str(number), factors, shape, sizes, chunk))
    return tuple(levels)


def _chunk_length(length: int, shard: int, usual: int) -> int:
    """Return the largest divisor of the length of a shard up to the usual length of a chunk, or all of a short axis."""
    if length <= usual and length <= shard:
        return length
    fitting = max(part for part in range(1, min(shard, usual) + 1) if shard % part == 0)
    return fitting if fitting * _LEAST_PART >= usual or shard <= usual else shard
