"""Label images to tables: one row per object or per class, the unit in every column name.

Names and definitions are those of `skimage.measure.regionprops` where it has them. Columns with a physical unit, that
of the grid (µm or mm), appear on calibrated grids only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, find_label_runs
from biounet.measurement.borders import Boxes, border_weights
from biounet.measurement.intensities import background_median, has_wide_sums, summable
from biounet.measurement.object_sums import (
    ObjectSums,
    Part,
    channel_columns,
    shape_columns,
    size_columns,
    sum_part,
)
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
    if confidence is not None and len(confidence) != labels.max():
        raise InputError(f"{labels.max()} objects, but the confidence of {len(confidence)}")
    shape = (1, *grid.shape)[-3:]
    volume = np.ascontiguousarray(labels, np.int32).reshape(shape)
    channels = dict(zip(channel_names, intensities, strict=True))
    values = {name: summable(c, is_wide=has_wide_sums(c)).reshape(shape) for name, c in channels.items()}
    sums = sum_part(Part(volume, find_label_runs(volume), int(volume.max()), values), grid, ring)
    _check_no_gaps(sums)
    background: dict[str, float] = {}
    if ring is not None:
        background = {name: background_median(channel, volume > 0) for name, channel in channels.items()}
    table = object_table(sums, grid, np.arange(1, len(sums.coordinates.size) + 1), background)
    return table if confidence is None else table.with_columns({"confidence": np.asarray(confidence)})


def object_table(sums: ObjectSums, grid: Grid, labels: NDArray[np.int64], background: Mapping[str, float]) -> Table:
    """Return the table of the objects with these sums and labels (n,), without their confidence."""
    boxes = Boxes(sums.boxes.low[:, 3 - grid.dims :], sums.boxes.high[:, 3 - grid.dims :])
    at_border = (boxes.low == 0) | (boxes.high == np.array(grid.shape) - 1)
    columns = {"label": labels, **shape_columns(sums, grid), **channel_columns(sums, grid, background)}
    columns |= {"touches_border": at_border.any(axis=1), "border_weight": border_weights(boxes, grid.shape)}
    return Table("objects", columns, boxes)


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
    columns |= size_columns("area" if grid.dims == 2 else "volume", count, grid)
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


def _check_no_gaps(sums: ObjectSums) -> None:
    size = sums.coordinates.size
    if (size == 0).any():
        missing = int(np.argmin(size)) + 1
        raise InputError(f"labels must be 1..{len(size)} without gaps, but {missing} is missing")
