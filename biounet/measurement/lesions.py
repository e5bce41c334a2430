"""Classes and nested regions of a volume to a table: one row for each of them, and one for each connected lesion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import LENGTH_TOLERANCE, Grid, InputError, bounding_box, canonical_transform
from biounet.measurement import moments
from biounet.measurement.objects import Columns

Floats = NDArray[np.float64]

_SAME = 1 - LENGTH_TOLERANCE  # lengths that differ by less are one length


def measure_lesions(
    labels: NDArray[np.integer[Any]], regions: Mapping[str, tuple[int, ...]], grid: Grid, min_voxels: int = 1
) -> Columns:
    """Measure regions and the lesions they consist of.

    A lesion is a set of voxels that are connected by faces, edges or corners. The largest comes first; lesions of one
    size come in the order of their places, so that the table does not depend on how the array is stored.

    A voxel reaches half a step to each side along each axis of the array, as for ``feret_diameter_max`` of
    `skimage.measure.regionprops`: five voxels in a line are 5 long. The axial slices are those across the axis of the
    array that is nearest to superior-inferior; without an affine, those across z.

    Parameters
    ----------
    labels
        ``([z,] y, x)`` classes.
    regions
        The values in `labels` that belong to each region, by its name. A class is a region of one value; regions may
        share values.
    grid
        Where the voxels are.
    min_voxels
        A lesion of fewer voxels has no row; the row of its region counts its voxels.

    Returns
    -------
    ``class``, the name of the region; ``lesion``, 1..N, and 0 for the region as a whole; ``voxels`` (``pixels`` of an
    image); on a calibrated grid in its unit ``volume_mm3`` (``area_mm2``), for a volume in mm ``volume_ml``, and of
    each lesion ``longest_diameter_mm``, the longest in any axial slice, ``perpendicular_diameter_mm``, the longest line
    across it at a right angle in that slice, inside the convex hull, and of a volume ``longest_diameter_3d_mm`` in any
    direction; ``centroid_<axis>_px``, counted from the first voxel; ``centroid_<axis>_ras_mm`` in space on a grid with
    an affine, and ``frame``, what these places are given in, by the code of the header: ``scanner``, ``aligned``,
    ``Talairach``, ``MNI152`` or ``template``; ``touches_border``, whether a voxel lies at the edge of the field of
    view. Numbers that a region does not have, such as the centroid of no voxels, are NaN.

    Raises
    ------
    InputError
        If labels are not integers, do not lie on the grid, or no regions are named.
    """
    if labels.dtype.kind not in "iu" or labels.shape != grid.shape:
        raise InputError(f"labels {labels.dtype} {labels.shape} are not integers on a grid {grid.shape}")
    if not regions:
        raise InputError("no regions to measure")
    frame = _frame(grid)
    box = bounding_box(labels) or (slice(0, 1),) * labels.ndim
    inside = labels[box]
    window = _Window(np.array([part.start for part in box]), np.array(labels.shape))
    parts = [_measure_region(np.isin(inside, values), window, frame, min_voxels) for values in regions.values()]
    rows = [len(part.size) for part in parts]
    found = _Lesions(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    columns: Columns = {
        "class": np.repeat(np.array(list(regions), object), rows),
        "lesion": np.concatenate([np.arange(n) for n in rows]),
        "voxels" if grid.dims == 3 else "pixels": found.size,
    }
    return columns | _sizes(found, frame) | _places(found, frame) | {"touches_border": found.at_border}


def min_lesion_voxels(min_mm3: float, grid: Grid) -> int:
    """Return the number of voxels of the smallest lesion that is counted; 1 where voxels have no size in space."""
    if grid.unit is None or grid.dims == 2:
        return 1
    factor = {"mm": 1.0, "um": 1e-9}[grid.unit]
    return max(1, math.ceil(min_mm3 / (math.prod(grid.steps) * factor) * (1 - LENGTH_TOLERANCE)))


@dataclass(frozen=True)
class _Frame:
    """Where voxels are, whatever the grid says it with.

    Attributes
    ----------
    axes
        The axes of the array, the one across which axial slices lie first.
    steps
        (d, d) what one step along each axis of the array is in space.
    unit
        Of `steps`; None where there is none.
    origin
        (3,) place of the first voxel in mm, right, anterior and superior; None where it is not known.
    name
        What places are given in, as `Grid.frame`.
    """

    axes: list[int]
    steps: Floats
    unit: str | None
    origin: Floats | None = None
    name: str = ""

    def place(self, voxels: Floats) -> Floats:
        """Return places (n, d) of voxels (n, d)."""
        return voxels @ self.steps + (0 if self.origin is None else self.origin)


class _Window(NamedTuple):
    """The part of an array that is looked at: its first voxel, and the shape of the array."""

    start: NDArray[np.int64]
    shape: NDArray[np.int64]


class _Lesions(NamedTuple):
    """Columns of a region: the region itself, then its lesions."""

    size: NDArray[np.int64]
    centroid: Floats  # (n, d) in voxels along the axes of the array
    at_border: NDArray[np.bool_]
    diameters: Floats  # (n, 3) longest in a slice, across it, in 3D


def _frame(grid: Grid) -> _Frame:
    axes = list(canonical_transform(grid).axes)
    if grid.affine is None or grid.unit is None or grid.dims == 2:
        return _Frame(axes, np.diag(grid.steps), grid.unit)
    affine = np.array(grid.affine, np.float64)[:3]
    return _Frame(axes, affine[:, 2::-1].T, "mm", affine[:, 3], grid.frame)  # a row of steps for each of z, y and x


def _sizes(found: _Lesions, frame: _Frame) -> Columns:
    if frame.unit is None:
        return {}
    dims, unit = len(frame.steps), frame.unit
    size = found.size * abs(np.linalg.det(frame.steps))
    columns: Columns = {f"{'volume' if dims == 3 else 'area'}_{unit}{dims}": size}
    if (unit, dims) == ("mm", 3):
        columns["volume_ml"] = size / 1000
    names = ("longest_diameter", "perpendicular_diameter", "longest_diameter_3d")[:dims]
    return columns | {f"{name}_{unit}": found.diameters[:, i] for i, name in enumerate(names)}


def _places(found: _Lesions, frame: _Frame) -> Columns:
    columns: Columns = {f"centroid_{axis}_px": found.centroid[:, i] for i, axis in enumerate("zyx"[-len(frame.axes) :])}
    if frame.origin is not None:
        place = frame.place(found.centroid)
        columns |= {f"centroid_{axis}_ras_mm": place[:, i] for i, axis in enumerate("xyz")}
        columns |= {"frame": np.full(len(place), frame.name, object)} if frame.name else {}
    return columns


def _measure_region(mask: NDArray[np.bool_], window: _Window, frame: _Frame, min_voxels: int) -> _Lesions:
    from scipy import ndimage  # slow to import

    dims = mask.ndim
    mask = mask.transpose(frame.axes)
    box = bounding_box(mask)
    if box is None:
        return _Lesions(np.zeros(1, np.int64), np.full((1, dims), np.nan), np.zeros(1, bool), np.full((1, 3), np.nan))
    # From here on in the box, slices first; an image is one slice.
    parts, n = ndimage.label(mask[box], np.ones((3,) * dims))
    parts = np.ascontiguousarray(parts, np.int32).reshape((1, *parts.shape)[-3:])
    corner = window.start[frame.axes] + [part.start for part in box]
    runs = moments.object_runs(parts)
    size, low, high, first_voxel, first, _ = moments.sum_coordinates(runs, parts.shape, n)
    centroid = corner + (first_voxel + first / size[:, None])[:, 3 - dims :]
    at_border = (corner + low[:, 3 - dims :] == 0) | (corner + high[:, 3 - dims :] == window.shape[frame.axes] - 1)
    centroid = centroid[:, np.argsort(frame.axes)]
    order = np.lexsort([*frame.place(centroid).round(6).T, -size])
    order = order[size[order] >= min_voxels]
    diameters = np.full((1 + len(order), 3), np.nan)
    if frame.unit is not None:
        ends = _ends_of_runs(runs, parts.shape, n)
        diameters[1:] = _all_diameters([ends[k] for k in order], frame.steps[frame.axes])
    return _Lesions(
        np.append(size.sum(), size[order]),
        np.vstack([size @ centroid / size.sum(), centroid[order]]),
        np.append(at_border.any(), at_border[order].any(axis=1)),
        diameters,
    )


def _ends_of_runs(runs: NDArray[np.int64], size: tuple[int, ...], n: int) -> list[NDArray[np.int64]]:
    """Return, for each object, the voxels (m, 3) at either end of its runs, in the order of their slices."""
    runs = runs[np.argsort(runs[:, 2], kind="stable")]
    ends = np.stack(np.unravel_index(np.stack([runs[:, 0], runs[:, 1] - 1], axis=1), size), axis=-1)
    groups = np.split(ends, np.searchsorted(runs[:, 2], np.arange(2, n + 1)))
    return [group.reshape(-1, 3) for group in groups]


def _all_diameters(lesions: list[NDArray[np.int64]], steps: Floats) -> Floats:
    """Return the `_diameters` (n, 3) of lesions, each form once: 48 000 specks take 1 s and not 33."""
    forms = [(ends - ends[0]).tobytes() for ends in lesions]
    known = {form: _diameters(ends - ends[0], steps) for form, ends in dict(zip(forms, lesions, strict=True)).items()}
    return np.reshape([known[form] for form in forms], (-1, 3))


def _diameters(ends: NDArray[np.int64], steps: Floats) -> tuple[float, float, float]:
    """Return the longest diameter in a slice, the one across it, and the longest in 3D (NaN of an image).

    Parameters
    ----------
    ends
        (m, 3) voxels with a convex hull that is the object's, slices in order.
    steps
        (d, d) what a step across slices, and along both axes in them, is in space.
    """
    plane = np.linalg.qr(steps[-2:].T)[1].T  # both steps in coordinates of the plane they span
    slices = np.split(ends, np.flatnonzero(np.diff(ends[:, 0])) + 1)
    hulls = [_hull(voxels[:, 1:], plane) for voxels in slices]
    pairs = [_across(corners) for corners, _ in hulls]
    longest = max(length for length, _ in pairs)
    across = max(width for length, width in pairs if length >= longest * _SAME)
    if len(steps) == 2:
        return longest, across, np.nan
    # What is inside its slice is inside the whole: the hull in space takes a quarter of the time.
    outer = np.concatenate([voxels[chosen] for voxels, (_, chosen) in zip(slices, hulls, strict=True)])
    return longest, across, _farthest(_hull(outer, steps)[0])


def _hull(voxels: NDArray[np.int64], steps: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the corners of the convex hull of the middles of the faces of voxels, and which voxels have one.

    In the plane corners are in counterclockwise order.
    """
    from scipy.spatial import ConvexHull  # slow to import

    tips = (voxels[:, None] @ steps + np.concatenate([steps, -steps]) / 2).reshape(-1, len(steps))
    corners = ConvexHull(tips).vertices
    return tips[corners], np.unique(corners // (2 * len(steps)))


def _farthest(corners: Floats) -> float:
    from scipy.spatial.distance import pdist  # slow to import

    return float(pdist(corners).max())


def _across(corners: Floats) -> tuple[float, float]:
    """Return the diameter of a convex polygon (m, 2) and its longest chord at a right angle to it.

    Of several diameters of one length, the one with the longest chord.
    """
    lengths = np.hypot(*(corners[:, None] - corners).T)
    longest = float(lengths.max())
    ends = np.argwhere(np.triu(lengths >= longest * _SAME))
    return longest, max(_longest_chord(corners, i, j) for i, j in ends)


def _longest_chord(corners: Floats, i: int, j: int) -> float:
    """Return the longest chord at a right angle to the diameter between two corners, i < j, of a convex polygon."""
    x, y = (corners[j] - corners[i]) / np.linalg.norm(corners[j] - corners[i])
    along, beside = ((corners - corners[i]) @ np.array([[x, -y], [y, x]])).T
    # The diameter parts the outline into two sides, from which all chords go; the longest begins at a corner.
    one, other = np.arange(i, j + 1), np.arange(j, i + len(corners) + 1)[::-1] % len(corners)
    height = np.interp(along, along[one], beside[one]) - np.interp(along, along[other], beside[other])
    return float(np.abs(height).max())
