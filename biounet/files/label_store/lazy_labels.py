"""Label images that are read region by region, wherever they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, Region, canonical_grid, canonical_region, canonical_transform


class LazyLabels(Protocol):
    """A label image of which only regions are in memory, such as a `LabelStore`."""

    @property
    def grid(self) -> Grid:
        """Of the labels."""
        ...

    @property
    def chunk(self) -> tuple[int, ...]:
        """Voxels that are stored together along each axis."""
        ...

    def read(self, region: Region) -> NDArray[Any]:
        """Return the labels of a region, integers ``([z,] y, x)``."""
        ...

    def has_labels(self, region: Region) -> bool:
        """Whether there may be any label in a region; this reads no pixel."""
        ...


@dataclass(frozen=True)
class StoredOrder:
    """Labels of the canonical orientation in the order of voxels of a source, whose grid is `grid`."""

    labels: LazyLabels
    grid: Grid

    @classmethod
    def of(cls, labels: LazyLabels, grid: Grid) -> LazyLabels:
        """Return labels in the order of voxels of `grid`, on which or on whose canonical grid they lie."""
        is_canonical = canonical_transform(grid).changes and labels.grid == canonical_grid(grid)
        return cls(labels, grid) if is_canonical else labels

    @property
    def chunk(self) -> tuple[int, ...]:  # noqa: D102 - as of `LazyLabels`
        transform = canonical_transform(self.grid)
        return tuple(self.labels.chunk[transform.axes.index(axis)] for axis in range(self.grid.dims))

    def read(self, region: Region) -> NDArray[Any]:  # noqa: D102
        found = self.labels.read(canonical_region(region, self.grid))
        return np.ascontiguousarray(canonical_transform(self.grid).undo(found))

    def has_labels(self, region: Region) -> bool:  # noqa: D102
        return self.labels.has_labels(canonical_region(region, self.grid))
