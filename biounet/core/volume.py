"""An image is an array, the grid its voxels lie on, and the file it came from; they travel together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.core.errors import InputError

Unit = Literal["um", "mm"]

SIZE_UNKNOWN = ("pixel size unknown", "voxel size unknown")
"""How notes begin that say why an image is not calibrated."""

LENGTH_TOLERANCE = 1e-5
"""Relative difference of lengths that are taken for one.

Headers hold rotations and voxel sizes in 32 bits, which makes 0.99999998 mm of 1 mm. Whether a length reaches a bound
must not depend on that, so every bound is met from this much before it.
"""

WORLD_AXES = ("LR", "PA", "IS")
"""Names of the directions of space, those to which coordinates in RAS grow last: left and right, and so on."""

_OFF = 1e-3  # of a voxel: more than float32 headers that mean the same place are apart
_TIE = 1e-4  # of sums of cosines: two orders are equally close to the axes of space


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
        right, anterior and superior of the origin of its frame. None for files that have none.
    header
        The header of that NIfTI file, from which label images take their place in space, bit for bit.
    axcodes
        Where the axes x, y and z lead, a letter of `WORLD_AXES` for each, such as ``"LPS"`` (as `nibabel.aff2axcodes`);
        None where nobody knows. Follows from `affine` where there is one.
    frame
        What `affine` leads to, by its code in the NIfTI header: ``scanner``, ``aligned`` (with another scan),
        ``Talairach``, ``MNI152`` or ``template``; empty where it is not known.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    unit: Unit | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    header: bytes | None = field(default=None, compare=False, repr=False)
    axcodes: str | None = field(default=None, compare=False)
    frame: str = field(default="", compare=False)

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
        if self.affine is not None:
            object.__setattr__(self, "axcodes", nearest_axcodes(self.affine, len(self.shape)))
        leads = [sum(code in pair for code in self.axcodes or "") for pair in WORLD_AXES]
        if self.axcodes is not None and not (max(leads) == 1 and sum(leads) == len(self.axcodes) == len(self.shape)):
            raise InputError(f"axcodes {self.axcodes!r}: a letter for each axis, such as RAS, of shape {self.shape}")

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def calibrated(self) -> bool:
        """Whether lengths on this grid have a physical unit."""
        return self.spacing is not None

    @property
    def steps_um(self) -> tuple[float, ...] | None:
        """Length of one voxel step along each axis in µm; None where it is unknown."""
        factor = {"um": 1.0, "mm": 1e3, None: 0.0}[self.unit]
        return None if self.spacing is None else tuple(step * factor for step in self.spacing)

    @property
    def steps(self) -> tuple[float, ...]:
        """Length of one voxel step along each axis: in `unit` when calibrated, else in voxels."""
        return self.spacing if self.spacing is not None else (1.0,) * self.dims


def nearest_axcodes(affine: Sequence[Sequence[float]], dims: int = 3) -> str:
    """Return the directions of space that the first `dims` axes of an affine are closest to, one for each.

    Of all ways to give each axis a direction of its own, the one with the largest sum of cosines. Of two that are
    equally close, as at 45 degrees, the choice depends on where the axes lead and not on the order they are stored in.

    Raises
    ------
    InputError
        If it is no affine: three rows of four finite numbers, by which each axis leads somewhere.
    """
    matrix = np.array(affine, np.float64)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or not matrix[:, :dims].any(axis=0).all():
        raise InputError(f"no affine, three rows of four numbers by which each axis leads somewhere: {affine}")
    columns = matrix[:, :dims] / np.abs(matrix[:, :dims]).max(axis=0)  # of which squares are neither 0 nor infinite
    cosines = columns / np.linalg.norm(columns, axis=0)
    found = []
    for worlds in permutations(range(3), dims):
        closeness = float(sum(abs(cosines[world, axis]) for axis, world in enumerate(worlds)))
        order = sorted(range(dims), key=lambda axis: worlds[axis])
        leads = [cosines[:, axis] * (1 if cosines[worlds[axis], axis] >= 0 else -1) for axis in order]
        found.append((closeness, np.concatenate(leads).round(3).tolist(), worlds))
    best = max(closeness for closeness, *_ in found)
    worlds = max((leads, worlds) for closeness, leads, worlds in found if closeness > best - _TIE)[1]
    return "".join(WORLD_AXES[world][int(cosines[world, axis] >= 0)] for axis, world in enumerate(worlds))


def bounding_box(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """Return the smallest box that holds everything in an array that is not 0; None where all of it is 0."""
    box = []
    for axis in range(mask.ndim):
        places = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not places.size:
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def grid_mismatch(one: Grid, other: Grid) -> str:
    """Say how far two grids differ; empty where no voxel lies a thousandth of a voxel off, as far as both say it."""
    if one.shape != other.shape:
        return f"{_times(other.shape)} voxels, not {_times(one.shape)}"
    if one.spacing is None or other.spacing is None:
        return ""
    if one.affine is None or other.affine is None or one.unit != other.unit:
        ends = [(n * size, n * b) for n, size, b in zip(one.shape, _in_mm(one), _in_mm(other), strict=True)]
        far = max(abs(a - b) for a, b in ends)
    else:
        lengths = (*reversed(one.shape), 1)[:3]
        corners = np.array([(*corner, 1) for corner in product(*((-0.5, n - 0.5) for n in lengths))])
        between = corners @ (np.array(one.affine) - np.array(other.affine)).T
        far = float(np.linalg.norm(between, axis=1).max())
    smallest = min(_in_mm(one))
    if far <= _OFF * smallest:
        return ""
    sizes = [f"{_times(grid.spacing or ())} {grid.unit}" for grid in (other, one)]
    about = f", voxel size {sizes[0]}, not {sizes[1]}" if sizes[0] != sizes[1] else ""
    return f"voxels lie up to {far:.3g} mm ({far / smallest:.3g} voxels) apart{about}"


def _in_mm(grid: Grid) -> tuple[float, ...]:
    return tuple(step * (1e-3 if grid.unit == "um" else 1.0) for step in grid.steps)


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


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

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes that are about this image alone; that sizes are unknown is said once, of all images of a batch."""
        return tuple(note for note in self.notes if not note.startswith(SIZE_UNKNOWN))
