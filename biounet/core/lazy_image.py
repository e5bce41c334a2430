"""Images that are read region by region, because they may be larger than memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core.orientation import canonical_grid, canonical_transform
from biounet.core.volume import Grid, Volume

Region = tuple[slice, ...]
"""Part of a grid: one slice with start and stop for each spatial axis, inside the image."""


@dataclass(frozen=True)
class LazyImage(ABC):
    """An image of which only regions are in memory.

    It can be pickled, so that other processes read the same file, and be read by several threads at a time.

    Attributes
    ----------
    source
        File or folder; None for an image in memory.
    grid
        Of the spatial axes, as the file stores them.
    dtype
        Of the channels to segment.
    channel_names
        One for each channel to segment; empty where they are unknown.
    channels
        Number of channels to segment.
    measured
        Names and types of further channels, which are measured and not segmented.
    chunks
        Voxels that the file stores together along each spatial axis: regions of whole chunks are read fastest.
    notes
        Remarks for the user, as `Volume.notes`.
    scene
        Which image of `source`, if that holds several.
    """

    source: Path | None
    grid: Grid
    dtype: np.dtype[Any]
    channels: int
    channel_names: tuple[str, ...]
    chunks: tuple[int, ...]
    measured: Mapping[str, np.dtype[Any]]
    notes: tuple[str, ...] = ()
    scene: str = ""

    @abstractmethod
    def read(self, region: Region) -> NDArray[Any]:
        """Return the channels to segment of a region, ``(c, [z,] y, x)``, in native byte order.

        Raises
        ------
        InputError
            If a chunk of the region is damaged, naming it.
        """

    @abstractmethod
    def read_measured(self, region: Region) -> dict[str, NDArray[Any]]:
        """Return the further channels of a region by their names, ``([z,] y, x)`` each."""

    def constant_value(self, region: Region) -> tuple[Any, ...] | None:
        """Return the value of each channel in a region of which the file stores nothing; None if it stores any of it.

        Chunks that are absent from a Zarr array have its fill value. This decodes no pixel.
        """
        return None

    def constant_measured(self, region: Region) -> dict[str, Any]:
        """Return the value of each further channel in a region of which the file stores nothing; the others not."""
        return {}


@dataclass(frozen=True)
class ArrayImage(LazyImage):
    """An image in memory as a `LazyImage`; regions are views."""

    volume: Volume = field(kw_only=True)

    @classmethod
    def of(cls, volume: Volume) -> ArrayImage:
        """Return an image, which is no time series."""
        return cls(
            source=volume.source,
            grid=volume.grid,
            dtype=volume.array.dtype,
            channels=volume.channels,
            channel_names=volume.channel_names,
            chunks=volume.grid.shape,
            measured={name: channel.dtype for name, channel in volume.measured.items()},
            notes=volume.notes,
            scene=volume.scene,
            volume=volume,
        )

    def read(self, region: Region) -> NDArray[Any]:  # noqa: D102 - inherited
        return self.volume.array[(slice(None), *region)]

    def read_measured(self, region: Region) -> dict[str, NDArray[Any]]:  # noqa: D102 - inherited
        return {name: channel[region] for name, channel in self.volume.measured.items()}


@dataclass(frozen=True)
class CanonicalImage(LazyImage):
    """An image in the canonical orientation, whatever that of `stored` is; without the channels to measure."""

    stored: LazyImage = field(kw_only=True)

    @classmethod
    def of(cls, image: LazyImage) -> LazyImage:
        """Return an image in the canonical orientation: itself where it is stored so."""
        transform = canonical_transform(image.grid)
        if not transform.changes:
            return image
        return cls(
            source=image.source,
            grid=canonical_grid(image.grid),
            dtype=image.dtype,
            channels=image.channels,
            channel_names=image.channel_names,
            chunks=tuple(image.chunks[axis] for axis in transform.axes),
            measured={},
            notes=image.notes,
            scene=image.scene,
            stored=image,
        )

    def read(self, region: Region) -> NDArray[Any]:  # noqa: D102 - inherited
        transform = canonical_transform(self.stored.grid)
        return np.ascontiguousarray(transform.apply(self.stored.read(stored_region(region, self.stored.grid))))

    def read_measured(self, region: Region) -> dict[str, NDArray[Any]]:  # noqa: D102 - inherited
        return {}

    def constant_value(self, region: Region) -> tuple[Any, ...] | None:  # noqa: D102 - inherited
        return self.stored.constant_value(stored_region(region, self.stored.grid))


def stored_region(region: Region, grid: Grid) -> Region:
    """Return a region of the canonical orientation as one of `grid`, on which the image is stored."""
    transform = canonical_transform(grid)
    parts: list[slice] = [slice(0)] * len(region)
    for part, axis, flipped in zip(region, transform.axes, transform.flipped, strict=True):
        length = grid.shape[axis]
        parts[axis] = slice(length - part.stop, length - part.start) if flipped else part
    return tuple(parts)


def canonical_region(region: Region, grid: Grid) -> Region:
    """Return a region of `grid`, on which an image is stored, as one of the canonical orientation."""
    transform = canonical_transform(grid)
    pairs = zip(transform.axes, transform.flipped, strict=True)
    lengths = grid.shape
    return tuple(
        slice(lengths[axis] - region[axis].stop, lengths[axis] - region[axis].start) if flipped else region[axis]
        for axis, flipped in pairs
    )
