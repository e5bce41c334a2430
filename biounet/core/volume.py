"""Images with their grid: shape, voxel size, orientation and source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.core.errors import InputError
from biounet.core.notes import NoteCode, drop_notes

Unit = Literal["um", "mm"]

LENGTH_TOLERANCE = 1e-5
"""Relative tolerance of lengths: headers store voxel sizes in 32 bits, so that 1 mm becomes 0.99999998 mm."""

WORLD_AXES = ("LR", "PA", "IS")
"""Letters of the two directions of each world axis x, y and z; the second is the positive one in RAS."""

_MAX_SHIFT = 1e-3  # of a voxel: above the rounding of float32 headers
_TIE = 1e-4  # between sums of cosines: two axis orders are equally close


@dataclass(frozen=True)
class Grid:
    """Positions of the voxels of an image.

    Attributes
    ----------
    shape
        Number of voxels along each spatial axis, ``(y, x)`` or ``(z, y, x)``.
    spacing, unit
        Distance between voxel centres along each axis of `shape`, in ``"um"`` or ``"mm"``; None, and never 1.0, for
        uncalibrated images.
    affine
        Of a NIfTI volume, shape (3, 4): maps a voxel ``(x, y, z, 1)``, x first, to RAS coordinates in mm.
    header
        The header of that NIfTI file, which label images copy.
    axcodes
        Directions of the axes x, y and z, such as ``"LPS"`` (as `nibabel.aff2axcodes`); None where unknown. Follows
        from `affine` where there is one.
    frame
        Coordinate system of `affine` by its code in the NIfTI header: ``scanner``, ``aligned`` (with another scan),
        ``Talairach``, ``MNI152`` or ``template``; empty where unknown.
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
        counts = [sum(code in pair for code in self.axcodes or "") for pair in WORLD_AXES]
        if self.axcodes is not None and not (max(counts) == 1 and sum(counts) == len(self.axcodes) == len(self.shape)):
            raise InputError(f"axcodes {self.axcodes!r}: a letter for each axis, such as RAS, of shape {self.shape}")

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def calibrated(self) -> bool:
        """Whether the grid has a physical unit."""
        return self.spacing is not None

    @property
    def steps_um(self) -> tuple[float, ...] | None:
        """Voxel size along each axis in µm; None for uncalibrated grids."""
        factor = {"um": 1.0, "mm": 1e3, None: 0.0}[self.unit]
        return None if self.spacing is None else tuple(step * factor for step in self.spacing)

    @property
    def steps(self) -> tuple[float, ...]:
        """`spacing`, or 1 along each axis of an uncalibrated grid."""
        return self.spacing if self.spacing is not None else (1.0,) * self.dims


def nearest_axcodes(affine: Sequence[Sequence[float]], dims: int = 3) -> str:
    """Return the codes of the anatomical directions nearest to the first `dims` axes of an affine.

    The assignment has the largest sum of cosines. Ties, as at 45 degrees, are broken by the directions of the axes and
    not by their order in memory.

    Raise `InputError` if it is not a finite (3, 4) matrix without columns of zeros.
    """
    matrix = np.array(affine, np.float64)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all() or not matrix[:, :dims].any(axis=0).all():
        raise InputError(f"no affine, three rows of four numbers by which each axis leads somewhere: {affine}")
    columns = matrix[:, :dims] / np.abs(matrix[:, :dims]).max(axis=0)  # squares neither underflow nor overflow
    cosines = columns / np.linalg.norm(columns, axis=0)
    candidates = []  # sum of cosines; the directions of the axes, to break ties; the world axis of each axis
    for worlds in permutations(range(3), dims):
        total = float(sum(abs(cosines[world, axis]) for axis, world in enumerate(worlds)))
        order = sorted(range(dims), key=lambda axis: worlds[axis])
        directions = [cosines[:, axis] * (1 if cosines[worlds[axis], axis] >= 0 else -1) for axis in order]
        candidates.append((total, np.concatenate(directions).round(3).tolist(), worlds))
    best = max(total for total, *_ in candidates)
    worlds = max((directions, worlds) for total, directions, worlds in candidates if total > best - _TIE)[1]
    return "".join(WORLD_AXES[world][int(cosines[world, axis] >= 0)] for axis, world in enumerate(worlds))


def bounding_box(mask: NDArray[Any]) -> tuple[slice, ...] | None:
    """Return the bounding box of the nonzero elements of an array; None where all are 0."""
    indices = [np.flatnonzero(slices_with_any(mask, axis)) for axis in range(mask.ndim)]
    return tuple(slice(int(i[0]), int(i[-1]) + 1) for i in indices) if indices[0].size else None


def slices_with_any(mask: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """Return which slices normal to an axis have any element that is not 0."""
    return np.asarray(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))


def grid_mismatch(one: Grid, other: Grid) -> str:
    """Return how two grids differ, in words; empty where they agree to a thousandth of a voxel or one is unknown."""
    if one.shape != other.shape:
        return f"{_times(other.shape)} voxels, not {_times(one.shape)}"
    if one.spacing is None or other.spacing is None:
        return ""
    if one.affine is None or other.affine is None or one.unit != other.unit:
        ends = [(n * size, n * b) for n, size, b in zip(one.shape, _in_mm(one), _in_mm(other), strict=True)]
        shift = max(abs(a - b) for a, b in ends)
    else:
        lengths = (*reversed(one.shape), 1)[:3]
        corners = np.array([(*corner, 1) for corner in product(*((-0.5, n - 0.5) for n in lengths))])
        shifts = corners @ (np.array(one.affine) - np.array(other.affine)).T
        shift = float(np.linalg.norm(shifts, axis=1).max())
    smallest = min(_in_mm(one))
    if shift <= _MAX_SHIFT * smallest:
        return ""
    sizes = [f"{_times(grid.spacing or ())} {grid.unit}" for grid in (other, one)]
    detail = f", voxel size {sizes[0]}, not {sizes[1]}" if sizes[0] != sizes[1] else ""
    return f"voxels lie up to {shift:.3g} mm ({shift / smallest:.3g} voxels) apart{detail}"


def _in_mm(grid: Grid) -> tuple[float, ...]:
    return tuple(step * (1e-3 if grid.unit == "um" else 1.0) for step in grid.steps)


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


@dataclass(frozen=True)
class Volume:
    """Intensities of an image, shape ``(c, [z,] y, x)`` in the dtype of the file, with the grid of the spatial axes.

    A time series has `times` and shape ``(c, t, [z,] y, x)``; all of its frames lie on one grid.

    Attributes
    ----------
    channel_names
        One for each channel of `array`; empty where they are unknown.
    measured
        Further channels by their names, ``([t,] [z,] y, x)`` each, that are measured and not segmented.
    times
        Numbers of the frames of a time series, from 0 in its file; empty for an image.
    interval
        Seconds between two frames of the file; None where it does not say.
    scene
        Which image of `source`, if that holds several.
    """

    array: NDArray[Any]
    grid: Grid
    source: Path | None = None
    notes: tuple[str, ...] = ()
    channel_names: tuple[str, ...] = ()
    measured: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    times: tuple[int, ...] = ()
    interval: float | None = None
    scene: str = ""

    def __post_init__(self) -> None:
        shape = (*((len(self.times),) if self.times else ()), *self.grid.shape)
        if self.array.shape[1:] != shape:
            raise InputError(f"array {self.array.shape} does not lie on grid {shape}", path=self.source)
        if any(channel.shape != shape for channel in self.measured.values()):
            raise InputError(f"a measured channel does not lie on grid {shape}", path=self.source)
        if self.channel_names and len(self.channel_names) != len(self.array):
            raise InputError(f"{len(self.array)} channels need as many names, not {self.channel_names}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def frame(self, index: int) -> Volume:
        """Return the `index`-th of `times` of a time series as an image; nothing is copied."""
        channels = {name: channel[index] for name, channel in self.measured.items()}
        return replace(self, array=self.array[:, index], measured=channels, times=(), interval=None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes without those on unknown sizes, which a batch shows once for all its images."""
        return drop_notes(self.notes, {NoteCode.VOXEL_SIZE_UNKNOWN})
