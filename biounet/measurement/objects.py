"""Label images to tables: one row per object or per class, the unit in every column name.

Names and definitions are those of `skimage.measure.regionprops` where it has them. Columns with a physical unit, that
of the grid (µm or mm), appear on calibrated grids only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, find_label_runs
from biounet.measurement import moments, surface_area
from biounet.measurement.borders import Boxes, border_weights
from biounet.measurement.intensities import Regions, intensity_columns, surroundings_columns
from biounet.measurement.moments import CoordinateSums
from biounet.measurement.rings import Ring
from biounet.measurement.table import Columns, Table


def measure_objects(
    labels: NDArray[np.integer[Any]],
    intensities: NDArray[Any] | Sequence[NDArray[Any]],
    grid: Grid,
    confidence: NDArray[np.floating[Any]] | None,
    channel_names: Sequence[str],
    ring: Ring | None = None,
) -> Table:
    """Measure the objects of an image or a volume.

    Parameters
    ----------
    labels
        ``([z,] y, x)``: 0 is background, objects are 1..N without gaps.
    intensities
        ``(c, [z,] y, x)``, as the file stores them, or a sequence of channels of any types.
    grid
        Grid of `labels` and `intensities`.
    confidence
        (N,) 0..1, from `biounet.labelling.Objects`; None leaves the column out.
    channel_names
        One for each channel of `intensities`.
    ring
        The ring around each object in which its surroundings are measured; None leaves rings and background out.

    Returns
    -------
    One row per object, in the order of the labels: ``label``, ``centroid_<axis>_px``, the columns of
    `biounet.measurement.intensities` for each channel, ``touches_border`` (whether a voxel lies at the edge of the
    image), ``border_weight`` (by which means of sizes are weighted: `biounet.measurement.borders`) and ``confidence``.

    Images also have ``area_px``, ``perimeter_px``, ``axis_major_length_px``, ``axis_minor_length_px``, ``eccentricity``
    and ``solidity``, volumes ``volume_px``. On a calibrated grid each centroid, length, area and volume has a second
    column in the grid's unit (``area_um2``, ``volume_mm3``), and the eccentricity is the one in this unit.

    Volumes also have ``surface_area``, ``sphericity`` (surface of the ball of equal volume divided by the surface;
    above 1 for some objects of few voxels), ``axis_major_length`` and ``axis_minor_length``, in the grid's unit or else
    in voxels, and ``neighbours``, the number of objects that touch the object.

    Raises
    ------
    InputError
        If the arrays differ in shape, or the labels are not 1..N without gaps.
    """
    _check_shapes(labels, intensities, grid, channel_names)
    volume = np.ascontiguousarray(labels, np.int32).reshape((1, *grid.shape)[-3:])
    runs = find_label_runs(volume)
    sums = _sum_coordinates(runs, volume)
    columns = {"label": np.arange(1, len(sums.size) + 1), **_centroids(sums, grid)}
    shapes = _planar_shapes if grid.dims == 2 else _solid_shapes
    columns |= shapes(volume, runs, sums, grid)
    channels = dict(zip(channel_names, intensities, strict=True))
    columns |= intensity_columns(channels, Regions(runs, sums.size))
    columns |= {} if ring is None else surroundings_columns(channels, volume, len(sums.size), grid, ring)
    boxes = Boxes(sums.low[:, 3 - grid.dims :], sums.high[:, 3 - grid.dims :])
    at_border = (boxes.low == 0) | (boxes.high == np.array(grid.shape) - 1)
    columns |= {"touches_border": at_border.any(axis=1), "border_weight": border_weights(boxes, grid.shape)}
    if confidence is not None and len(confidence) != len(sums.size):
        raise InputError(f"{len(sums.size)} objects, but the confidence of {len(confidence)}")
    return Table("objects", columns | ({} if confidence is None else {"confidence": np.asarray(confidence)}), boxes)


def measure_classes(
    labels: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    grid: Grid,
    channels: Mapping[str, NDArray[Any]] | None = None,
) -> Table:
    """Measure the classes of an image or a volume.

    Parameters
    ----------
    labels
        ``([z,] y, x)``: 0 is background, classes are 1..K.
    class_names
        The K classes without the background.
    grid
        Grid of `labels`.
    channels
        Channels to measure by their names, of the shape of `labels`.

    Returns
    -------
    One row per class, absent ones included: ``class``, ``label``, ``area_px`` (``volume_px`` of a volume), ``area_um2``
    (``volume_mm3``) on a calibrated grid, ``fraction`` of all voxels, and of each channel ``intensity_mean_<channel>``,
    NaN of an absent class.

    Raises
    ------
    InputError
        If there are other labels.
    """
    if labels.shape != grid.shape:
        raise InputError(f"labels {labels.shape} do not lie on a grid {grid.shape}")
    lowest, highest, n = int(labels.min()), int(labels.max()), len(class_names)
    if lowest < 0 or highest > n:
        raise InputError(f"labels {lowest}..{highest}, but there are {n} classes")
    # Plane by plane, since bincount makes a copy of 8 bytes per voxel.
    count = np.sum([np.bincount(plane.ravel(), minlength=n + 1) for plane in labels], axis=0)[1:]
    columns: Columns = {"class": np.array(class_names, object), "label": np.arange(1, n + 1)}
    columns |= _sizes("area" if grid.dims == 2 else "volume", count, grid)
    columns["fraction"] = count / labels.size
    for name, channel in (channels or {}).items():
        planes = zip(labels, channel, strict=True)
        total = np.sum([np.bincount(one.ravel(), values.ravel(), n + 1) for one, values in planes], axis=0)[1:]
        columns[f"intensity_mean_{name}"] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return Table("classes", columns)


def _check_shapes(
    labels: NDArray[Any], intensities: Sequence[NDArray[Any]] | NDArray[Any], grid: Grid, channel_names: Sequence[str]
) -> None:
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, not {labels.dtype}")
    shapes = {labels.shape, *(channel.shape for channel in intensities)}
    if shapes != {grid.shape}:
        raise InputError(f"labels and channels of shapes {sorted(shapes)} do not lie on a grid {grid.shape}")
    if len(channel_names) != len(intensities) or len(set(channel_names)) != len(channel_names):
        raise InputError(f"{len(intensities)} channels need as many different names, not {list(channel_names)}")
    if labels.min() < 0 or labels.max() > labels.size:
        raise InputError(f"labels must be 1..N without gaps, but they are {labels.min()}..{labels.max()}")


def _sum_coordinates(runs: NDArray[np.int64], volume: NDArray[np.int32]) -> CoordinateSums:
    sums = moments.sum_coordinates(runs, volume.shape, int(runs[:, 2].max(initial=0)))
    if (sums.size == 0).any():
        missing = int(np.argmin(sums.size)) + 1
        raise InputError(f"labels must be 1..{len(sums.size)} without gaps, but {missing} is missing")
    return sums


def _scales(grid: Grid) -> list[tuple[str, NDArray[np.float64]]]:
    """Return pixels and, on a calibrated grid, its unit: the name, and the size of a voxel along each axis."""
    scales = [("px", np.ones(grid.dims))]
    return scales if grid.unit is None else [*scales, (grid.unit, np.array(grid.steps))]


def _centroids(sums: CoordinateSums, grid: Grid) -> Columns:
    axes = "zyx"[3 - grid.dims :]
    centroid = (sums.origin + sums.first / sums.size[:, None])[:, 3 - grid.dims :]
    scales = _scales(grid)
    return {f"centroid_{axis}_{unit}": centroid[:, i] * step[i] for unit, step in scales for i, axis in enumerate(axes)}


def _sizes(name: str, size: NDArray[np.int64], grid: Grid) -> Columns:
    physical = {f"{name}_{unit}{grid.dims}": size * math.prod(steps) for unit, steps in _scales(grid)[1:]}
    return {f"{name}_px": size, **physical}


def _planar_shapes(volume: NDArray[np.int32], runs: NDArray[np.int64], sums: CoordinateSums, grid: Grid) -> Columns:
    """Return areas, perimeters, ellipses and solidity."""
    hulls = moments.convex_areas(runs, grid.shape[1], sums.low[:, 1], sums.high[:, 1])
    links = moments.count_links(volume[0], len(sums.size))
    columns = _sizes("area", sums.size, grid) | _perimeters(links, grid) | _ellipses(sums, grid)
    return columns | {"solidity": sums.size / hulls}


def _perimeters(links: NDArray[np.int64], grid: Grid) -> Columns:
    """Return the length of outlines from the counts of `moments.count_links`."""
    lengths = {unit: [step[0] / 2, step[1] / 2, math.hypot(*step) / 2] for unit, step in _scales(grid)}
    return {f"perimeter_{unit}": links @ length for unit, length in lengths.items()}


def _ellipses(sums: CoordinateSums, grid: Grid) -> Columns:
    """Return axes and eccentricity of the ellipses with the second moments of the objects."""
    covariances = moments.covariances(sums.size, sums.first, sums.second)[:, 1:, 1:]
    columns: Columns = {}
    for unit, steps in _scales(grid):
        yy, yx, _, xx = (covariances * np.outer(steps, steps)).reshape(-1, 4).T
        mean, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
        major, minor = 4 * np.sqrt(mean + half), 4 * np.sqrt(np.maximum(mean - half, 0))
        columns |= {f"axis_major_length_{unit}": major, f"axis_minor_length_{unit}": minor}
    longest = np.where(major > 0, major, 1)
    columns["eccentricity"] = np.sqrt((longest - minor) * (longest + minor)) / longest * (major > 0)
    return columns


def _solid_shapes(volume: NDArray[np.int32], runs: NDArray[np.int64], sums: CoordinateSums, grid: Grid) -> Columns:
    """Return volumes, surfaces, sphericity, axes and neighbours, lengths in the unit of the grid where it has one."""
    unit, steps = _scales(grid)[-1]
    covariances = moments.covariances(sums.size, sums.first, sums.second)
    surface = surface_area.surface_areas(volume, runs, covariances, steps)
    major, minor = surface_area.axis_lengths(covariances, steps)
    return _sizes("volume", sums.size, grid) | {
        f"surface_area_{unit if unit == 'px' else unit + '2'}": surface,
        "sphericity": np.cbrt(36 * math.pi * (sums.size * math.prod(steps)) ** 2) / surface,
        f"axis_major_length_{unit}": major,
        f"axis_minor_length_{unit}": minor,
        "neighbours": surface_area.count_neighbours(volume, runs, len(sums.size)),
    }
