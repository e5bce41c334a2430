"""An image is an array, the grid its voxels lie on, and the file it came from; they travel together."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.errors import InputError

Unit = Literal["um", "mm"]


@dataclass(frozen=True)
class Grid:
    """Where voxels are.

    Attributes
    ----------
    shape
        Number of voxels along each spatial axis, ``(y, x)`` or ``(z, y, x)``.
    spacing
        Distance between voxel centres along each axis of `shape`, in `unit`. None where the image is not calibrated:
        uncalibrated is a value of its own and never 1.0.
    unit
        Unit of `spacing`, ``"um"`` or ``"mm"``; None exactly where `spacing` is None.
    affine
        Of a NIfTI volume: three rows of four numbers that take a voxel ``(x, y, z, 1)``, x first, to its place in mm,
        right, anterior and superior of the scanner's origin. None for files that have none.
    header
        The header of that NIfTI file, from which label images take their place in space, bit for bit.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    unit: Unit | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    header: bytes | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise InputError(f"a grid has 2 or 3 axes of at least one voxel, not shape {self.shape}")
        if (self.spacing is None) != (self.unit is None):
            raise InputError(f"spacing {self.spacing} and unit {self.unit} go together")
        if self.spacing is not None:
            if len(self.spacing) != len(self.shape):
                raise InputError(f"spacing {self.spacing} does not fit the axes of shape {self.shape}")
            if not all(np.isfinite(s) and s > 0 for s in self.spacing):
                raise InputError(f"spacing must be positive and finite, not {self.spacing}")

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def calibrated(self) -> bool:
        """Whether lengths on this grid have a physical unit."""
        return self.spacing is not None

    @property
    def steps(self) -> tuple[float, ...]:
        """Length of one voxel step along each axis: in `unit` when calibrated, else in voxels."""
        return self.spacing if self.spacing is not None else (1.0,) * self.dims


@dataclass(frozen=True)
class Volume:
    """An image with its grid and origin.

    Attributes
    ----------
    array
        Intensities, shape ``(c, y, x)`` or ``(c, z, y, x)``, in the type that the file stores.
    grid
        The grid of the spatial axes of `array`.
    source
        The file it was read from; None for an array that the caller made.
    notes
        Remarks of the reader that a user should see, such as ``"pixel size unknown"``.
    """

    array: NDArray[Any]
    grid: Grid
    source: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.shape[1:] != self.grid.shape:
            raise InputError(f"array {self.array.shape} does not lie on grid {self.grid.shape}", path=self.source)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])
