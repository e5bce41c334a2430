"""Labels to a table: one row per object or per class, the unit in every column name.

Names, and what they stand for, are those of `skimage.measure.regionprops` where it has them. Columns with a physical
unit, that of the grid (µm or mm), appear on calibrated grids only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError
from biounet.measurement import moments, surface_area

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, NDArray[Any]]
"""A table: arrays of one length by the names of their columns."""

_MANY_ROWS = 20_000  # of numbers: from here on pyarrow, which takes 0.1 s to import, is faster than Python
_POWERS_FROM, _POWERS_BELOW = 1e16, 1e-4  # Python writes larger and smaller numbers with a power of ten


def measure_columns(
    labels: NDArray[np.integer[Any]],
    intensities: NDArray[Any],
    grid: Grid,
    confidence: NDArray[np.floating[Any]] | None,
    channel_names: Sequence[str],
) -> Columns:
    """Measure the objects of an image or a volume.

    Parameters
    ----------
    labels
        ``([z,] y, x)``: 0 is background, objects are 1..N without gaps.
    intensities
        ``(c, [z,] y, x)``, as the file stores them.
    grid
        Where the voxels are.
    confidence
        (N,) how sure each object is, 0..1, as of `biounet.labelling.Objects`; None leaves the column out.
    channel_names
        One for each channel of `intensities`.

    Returns
    -------
    One row per object, in the order of the labels: ``label``, ``centroid_<axis>_px``, ``intensity_mean_<channel>``,
    ``intensity_max_<channel>``, ``intensity_sum_<channel>``, ``touches_border`` (whether a voxel lies at the edge of
    the image), ``confidence``; of an image also ``area_px``, ``perimeter_px``, ``axis_major_length_px``,
    ``axis_minor_length_px``, ``eccentricity`` and ``solidity``, of a volume ``volume_px``. On a calibrated grid each of
    these places, lengths, areas and volumes has a second column in the grid's unit (``area_um2``, ``volume_mm3``), and
    the eccentricity is that in this unit. Of a volume also ``surface_area``, ``sphericity`` (surface of the ball of the
    same volume divided by the surface; objects of few voxels can exceed 1), ``axis_major_length`` and
    ``axis_minor_length``, in the grid's unit or else in voxels, and ``neighbours``, the number of objects that it
    touches.

    Raises
    ------
    InputError
        If the arrays do not fit each other, or the labels are not 1..N without gaps.
    """
    _check_fit(labels, intensities, grid, channel_names)
    volume = np.ascontiguousarray(labels, np.int32).reshape((1, *grid.shape)[-3:])
    runs = moments.object_runs(volume)
    sums = _sum_coordinates(runs, volume)
    columns: Columns = {"label": np.arange(1, len(sums.size) + 1)}
    columns |= _centroids(sums, grid)
    if grid.dims == 2:
        columns |= _with_unit("area", sums.size, grid)
        columns |= _perimeters(moments.count_links(volume[0], len(sums.size)), grid)
        columns |= _ellipses(sums, grid)
        columns["solidity"] = sums.size / moments.convex_areas(runs, grid.shape[1], sums.low[:, 1], sums.high[:, 1])
    else:
        columns |= _with_unit("volume", sums.size, grid)
        columns |= _solids(volume, runs, sums, grid)
    for name, channel in zip(channel_names, intensities, strict=True):
        columns |= _intensities(name, channel, runs, sums.size)
    at_border = (sums.low == 0) | (sums.high == np.array(volume.shape) - 1)
    columns["touches_border"] = at_border[:, 3 - grid.dims :].any(axis=1)
    return columns if confidence is None else columns | _confidence(confidence, len(sums.size))


def measure_objects(
    labels: NDArray[np.integer[Any]],
    intensities: NDArray[Any] | None,
    grid: Grid,
    confidence: NDArray[np.floating[Any]] | None = None,
    channel_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Measure objects as `measure_columns` does, into a pandas DataFrame.

    Channels without names are called ``0``, ``1``, …; without intensities there are no columns of them.
    """
    import pandas as pd  # slow to import

    if intensities is None:
        intensities = np.empty((0, *labels.shape))
    names = [str(i) for i in range(len(intensities))] if channel_names is None else channel_names
    return pd.DataFrame(measure_columns(labels, intensities, grid, confidence, names))


def measure_classes(labels: NDArray[np.integer[Any]], class_names: Sequence[str], grid: Grid) -> Columns:
    """Measure the classes of an image or a volume.

    Parameters
    ----------
    labels
        ``([z,] y, x)``: 0 is background, classes are 1..K.
    class_names
        The K classes without the background.
    grid
        Where the voxels are.

    Returns
    -------
    One row per class, also where nothing has it: ``class``, ``label``, ``area_px`` (``volume_px`` of a volume),
    ``area_um2`` (``volume_mm3``) on a calibrated grid, and ``fraction`` of all voxels.

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
    columns |= _with_unit("area" if grid.dims == 2 else "volume", count, grid)
    columns["fraction"] = count / labels.size
    return columns


def columns_to_csv(columns: Columns) -> str:
    r"""Write a table as CSV with a header and lines that end in ``\n``.

    Floats are written with as many digits as it takes to read the same number, truth values as 0 and 1, None and
    floats that are not a number as an empty cell. Strings are quoted where they must be.
    """
    header = ",".join(_quote(name) for name in columns) + "\n"
    rows = len(next(iter(columns.values()), ()))
    if rows >= _MANY_ROWS and all(column.dtype.kind in "biuf" for column in columns.values()):
        return header + _rows_by_pyarrow(columns)
    cells = [_cells(column) for column in columns.values()]
    if len(cells) == 1:
        cells = [[cell or '""' for cell in cells[0]]]  # an empty line would not be a row
    lines = map(",".join, zip(*cells, strict=True))
    return header + "".join(f"{line}\n" for line in lines)


class _Sums(NamedTuple):
    """What `biounet.measurement.sum_coordinates` returns."""

    size: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    origin: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]


def _check_fit(labels: NDArray[Any], intensities: NDArray[Any], grid: Grid, channel_names: Sequence[str]) -> None:
    if labels.dtype.kind not in "iu":
        raise InputError(f"labels must be integers, not {labels.dtype}")
    if labels.shape != grid.shape or intensities.shape[1:] != grid.shape:
        cause = f"labels {labels.shape} and intensities {intensities.shape} do not lie on a grid {grid.shape}"
        raise InputError(cause)
    if len(channel_names) != len(intensities) or len(set(channel_names)) != len(channel_names):
        raise InputError(f"{len(intensities)} channels need as many different names, not {list(channel_names)}")
    if labels.min() < 0 or labels.max() > labels.size:
        raise InputError(f"labels must be 1..N without gaps, but they are {labels.min()}..{labels.max()}")


def _sum_coordinates(runs: NDArray[np.int64], volume: NDArray[np.int32]) -> _Sums:
    sums = _Sums(*moments.sum_coordinates(runs, volume.shape, int(runs[:, 2].max(initial=0))))
    if (sums.size == 0).any():
        missing = int(np.argmin(sums.size)) + 1
        raise InputError(f"labels must be 1..{len(sums.size)} without gaps, but {missing} is missing")
    return sums


def _scales(grid: Grid) -> list[tuple[str, NDArray[np.float64]]]:
    """Return voxels and, on a calibrated grid, its unit: the name and the length of a step along each axis."""
    scales = [("px", np.ones(grid.dims))]
    return scales if grid.unit is None else [*scales, (grid.unit, np.array(grid.steps))]


def _centroids(sums: _Sums, grid: Grid) -> Columns:
    axes = "zyx"[3 - grid.dims :]
    centroid = (sums.origin + sums.first / sums.size[:, None])[:, 3 - grid.dims :]
    scales = _scales(grid)
    return {f"centroid_{axis}_{unit}": centroid[:, i] * step[i] for unit, step in scales for i, axis in enumerate(axes)}


def _with_unit(name: str, size: NDArray[np.int64], grid: Grid) -> Columns:
    physical = {f"{name}_{unit}{grid.dims}": size * math.prod(steps) for unit, steps in _scales(grid)[1:]}
    return {f"{name}_px": size, **physical}


def _perimeters(links: NDArray[np.int64], grid: Grid) -> Columns:
    """Return the length of outlines whose links were counted by `biounet.measurement.count_links`."""
    lengths = {unit: [step[0] / 2, step[1] / 2, math.hypot(*step) / 2] for unit, step in _scales(grid)}
    return {f"perimeter_{unit}": links @ length for unit, length in lengths.items()}


def _ellipses(sums: _Sums, grid: Grid) -> Columns:
    """Return axes and eccentricity of the ellipses that have the second moments of the objects."""
    covariances = surface_area.covariances(sums.size, sums.first, sums.second)[:, 1:, 1:]
    columns: Columns = {}
    for unit, steps in _scales(grid):
        yy, yx, _, xx = (covariances * np.outer(steps, steps)).reshape(-1, 4).T
        middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
        major, minor = 4 * np.sqrt(middle + half), 4 * np.sqrt(np.maximum(middle - half, 0))
        columns |= {f"axis_major_length_{unit}": major, f"axis_minor_length_{unit}": minor}
    longest = np.where(major > 0, major, 1)
    columns["eccentricity"] = np.sqrt((longest - minor) * (longest + minor)) / longest * (major > 0)
    return columns


def _solids(volume: NDArray[np.int32], runs: NDArray[np.int64], sums: _Sums, grid: Grid) -> Columns:
    """Return surface, sphericity, axes and neighbours, lengths in the unit of the grid where it has one."""
    unit, steps = _scales(grid)[-1]
    covariances = surface_area.covariances(sums.size, sums.first, sums.second)
    surface = surface_area.surface_areas(volume, runs, covariances, steps)
    major, minor = surface_area.axis_lengths(covariances, steps)
    return {
        f"surface_area_{unit if unit == 'px' else unit + '2'}": surface,
        "sphericity": np.cbrt(36 * math.pi * (sums.size * math.prod(steps)) ** 2) / surface,
        f"axis_major_length_{unit}": major,
        f"axis_minor_length_{unit}": minor,
        "neighbours": surface_area.count_neighbours(volume, runs, len(sums.size)),
    }


def _intensities(name: str, channel: NDArray[Any], runs: NDArray[np.int64], size: NDArray[np.int64]) -> Columns:
    values = _readable(channel).reshape(-1)
    kind = np.int64 if values.dtype.kind in "iu" else np.float64
    total, peak = np.zeros(len(size), kind), np.zeros(len(size), kind)
    moments.sum_intensity(values, runs, total, peak)
    return {f"intensity_mean_{name}": total / size, f"intensity_max_{name}": peak, f"intensity_sum_{name}": total}


def _readable(channel: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous channel of a type that compiled functions know and whose sums fit into 64 bits."""
    kind, width = channel.dtype.kind, channel.dtype.itemsize
    if kind == "b":
        return np.ascontiguousarray(channel).view(np.uint8)
    if kind in "iu" and width == 8:
        peak = max(abs(int(channel.min())), abs(int(channel.max())))
        return np.ascontiguousarray(channel, np.int64 if peak * channel.size < 2**63 else np.float64)
    if kind == "f" and width not in (4, 8):
        return np.ascontiguousarray(channel, np.float32 if width == 2 else np.float64)
    return np.ascontiguousarray(channel, channel.dtype.newbyteorder("="))


def _confidence(confidence: NDArray[np.floating[Any]], n: int) -> Columns:
    if len(confidence) != n:
        raise InputError(f"{n} objects, but the confidence of {len(confidence)}")
    return {"confidence": np.asarray(confidence)}


def _cells(column: NDArray[Any]) -> list[str]:
    kind = column.dtype.kind
    if kind in "iu":
        return [str(value) for value in column.tolist()]
    if kind == "b":
        return ["1" if value else "0" for value in column.tolist()]
    if kind == "f":
        # A float32 has 8 digits, of which a Python float would make 17; numpy spells them by rules that change.
        values = column.tolist() if column.dtype == np.float64 else [float(str(value)) for value in column]
        return [str(value) if value == value else "" for value in values]
    return ["" if value is None else _quote(str(value)) for value in column.tolist()]


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _rows_by_pyarrow(columns: Columns) -> str:
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    table = pa.table([_spelled(column) for column in columns.values()], names=list(columns))
    buffer = pa.BufferOutputStream()
    csv.write_csv(table, buffer, csv.WriteOptions(include_header=False, quoting_style="none"))
    return str(buffer.getvalue().to_pybytes().decode())


def _spelled(column: NDArray[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return a column for pyarrow, floats as texts of Python's spelling: 2.0 and 1e-05 where pyarrow has 2 and 0.00001.

    The digits are the same, since both are the shortest ones that read back.
    """
    import pyarrow as pa  # slow to import
    from pyarrow import compute

    if column.dtype == np.bool_:
        return pa.array(column.view(np.uint8))
    if column.dtype.kind != "f":
        return pa.array(column)
    if column.dtype.itemsize not in (4, 8):
        return pa.array([text or None for text in _cells(column)], pa.string())
    size = np.abs(column)
    whole = (size < _POWERS_FROM) & (column == np.floor(column))
    texts = compute.cast(pa.array(column, from_pandas=True), pa.string())
    if whole.any():
        texts = compute.if_else(pa.array(whole), compute.binary_join_element_wise(texts, ".0", ""), texts)
    other = (size >= _POWERS_FROM) | ((size < _POWERS_BELOW) & (size > 0))
    other |= compute.match_substring(texts, "e").fill_null(False).to_numpy(zero_copy_only=False)
    if not other.any():
        return texts
    return compute.replace_with_mask(texts, pa.array(other), pa.array(_cells(column[other]), pa.string()))
