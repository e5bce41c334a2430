"""Tables in the names and units of CellProfiler: of each image, and ``Image.csv`` and ``Cells.csv`` of a whole run.

Lengths are in pixels whatever the calibration, intensities are divided by the largest value of the type of the pixels,
and angles are in degrees. What is measured otherwise than by CellProfiler, such as the surface of a stack's objects, or
has no name there is left out. Names and definitions are those of its modules MeasureObjectSizeShape,
MeasureObjectIntensity, MeasureObjectNeighbors, RelateObjects and ExportToSpreadsheet, version 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, find_label_runs
from biounet.files.atomic import atomic_path
from biounet.files.exports.labelled_image import ExportedImage, LabelledImage

CELLS, NUCLEI = "Cells", "Nuclei"
"""Names of objects: of those of a run, or of the larger ones, and of those that lie in larger ones."""

# By what CellProfiler divides pixels of integers (python-bioformats, `FormatReader`); floats are taken as they are
_SCALES = {"uint8": 255, "int8": 255, "uint16": 65535, "int16": 65535, "uint32": 2**32, "int32": 2**32 - 1}
_INTENSITIES = {"mean": "MeanIntensity", "max": "MaxIntensity", "sum": "IntegratedIntensity", "sd": "StdIntensity"}
_IMAGE, _OBJECT, _MEAN = "ImageNumber", "ObjectNumber", "_MeanIntensity_"
Table = dict[str, NDArray[Any]]


def write_cellprofiler(image: LabelledImage, path: Path) -> None:
    """Write the table of an image with the names and units of CellProfiler, as CSV.

    Each frame of a time series is an image of its own; they are numbered from 1, and so are the objects of each.
    """
    _write_csv(cellprofiler_table(image), path)


def cellprofiler_table(image: LabelledImage) -> Table:
    """Return the table of an image with the names and units of CellProfiler.

    Raise `InputError` if its labels are no objects, or the type of the pixels is not known.
    """
    if image.kind != "objects":
        hint = "export classes and lesions as parquet or h5ad"
        raise InputError("tables of CellProfiler are of objects, and these are classes", hint=hint)
    columns = image.columns
    times, labels = columns.get("t", np.zeros(len(columns["label"]), np.int64)), columns["label"]
    numbers = _numbers_in_frames(times, labels)
    table = {_IMAGE: _image_numbers(image, times), _OBJECT: numbers}
    shapes = _planar_shapes if image.grid.dims == 2 else _solid_shapes
    table |= shapes(columns, _Moments.of(image))
    for axis in "xyz"[: image.grid.dims]:
        table[f"Location_Center_{axis.upper()}"] = columns[f"centroid_{axis}_px"]
    table |= _intensities(image) | {"Number_Object_Number": numbers}
    if "neighbours" in columns:
        table["Neighbors_NumberOfNeighbors_Adjacent"] = columns["neighbours"]
    if "track" in columns:
        table["TrackObjects_Label"] = columns["track"]
    if "parent" in columns:
        table[f"Parent_{CELLS}"] = np.array([int(parent or 0) for parent in columns["parent"].tolist()], np.int64)
    if "count_inside" in columns:
        table[f"Children_{NUCLEI}_Count"] = columns["count_inside"]
    return table


def _image_numbers(image: LabelledImage, times: NDArray[Any]) -> NDArray[np.int64]:
    return np.searchsorted(image.times, times) + 1 if image.times else np.ones(len(times), np.int64)


def _numbers_in_frames(times: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of objects from 1 in each frame, in the order of their labels."""
    order = np.lexsort((labels, times))
    is_first = np.append(True, np.diff(times[order]) != 0)[: len(order)]
    begins = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - begins + 1
    return numbers


@dataclass(frozen=True)
class _Moments:
    """Sizes, covariances and boxes of the objects of a table, in pixels and in the order ``(z, y, x)``.

    Attributes
    ----------
    size
        (n,) pixels.
    covariance
        (n, 3, 3) of their positions.
    low, high
        (n, 3) first pixel, and the one behind the last.
    """

    size: NDArray[np.int64]
    covariance: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @classmethod
    def of(cls, image: LabelledImage) -> _Moments:
        """Return those of the objects in the rows of a table; they are of whole pixels, and so without error."""
        labels = image.columns["label"]
        volume = np.ascontiguousarray(image.labels.reshape(-1, *image.grid.shape[-2:]))  # planes of all frames
        runs = find_label_runs(volume)
        values, row = np.unique(runs[:, 2], return_inverse=True)
        depth = image.grid.shape[0] if image.grid.dims == 3 else 1
        plane, y, x = np.unravel_index(runs[:, 0], volume.shape)
        first = np.stack([plane % depth, y, x], axis=1).astype(np.int64)
        length = runs[:, 1] - runs[:, 0]
        low = np.full((len(values), 3), np.iinfo(np.int64).max)
        high = np.zeros((len(values), 3), np.int64)
        np.minimum.at(low, row, first)
        np.maximum.at(high, row, first + np.stack([np.ones_like(length), np.ones_like(length), length], axis=1))
        covariance, size = _covariances(first - low[row], length, row, len(values))
        place = np.searchsorted(values, labels)
        return cls(size[place], covariance[place], low[place], high[place])


def _covariances(
    first: NDArray[np.int64], length: NDArray[np.int64], row: NDArray[np.int64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return covariances (n, 3, 3) and sizes (n,) of objects of runs, which begin at (r, 3) and lie along x."""
    steps, squares = length * (length - 1) // 2, (length - 1) * length * (2 * length - 1) // 6
    z, y, x = first.T
    sum_x = length * x + steps
    first_moments = [length * z, length * y, sum_x]
    second = {
        (0, 0): length * z * z,
        (0, 1): length * z * y,
        (1, 1): length * y * y,
        (0, 2): z * sum_x,
        (1, 2): y * sum_x,
        (2, 2): length * x * x + 2 * x * steps + squares,
    }
    size = np.bincount(row, length, minlength=n)
    mean = [np.bincount(row, moment, minlength=n) / size for moment in first_moments]
    covariance = np.zeros((n, 3, 3))
    for (one, other), moment in second.items():
        value = np.bincount(row, moment, minlength=n) / size - mean[one] * mean[other]
        covariance[:, one, other] = covariance[:, other, one] = value
    return covariance, size.astype(np.int64)


def _planar_shapes(columns: Mapping[str, NDArray[Any]], moments: _Moments) -> Table:
    area, perimeter = columns["area_px"], columns["perimeter_px"]
    major, minor = columns["axis_major_length_px"], columns["axis_minor_length_px"]
    longest = np.where(major > 0, major, 1)
    round_area, box = 4 * math.pi * area, (moments.high - moments.low)[:, 1:]
    box_area = box.prod(axis=1)
    with np.errstate(divide="ignore"):  # of one pixel, which has no perimeter: infinite, as there
        form_factor = round_area / perimeter**2
    shapes = {
        "Area": area,
        "BoundingBoxArea": box_area,
        **_boxes(moments, "XY"),
        "Center_X": columns["centroid_x_px"],
        "Center_Y": columns["centroid_y_px"],
        "Compactness": perimeter**2 / round_area,
        "Eccentricity": np.sqrt(np.maximum(1 - (minor / longest) ** 2, 0)) * (major > 0),  # in pixels, not in µm
        "EquivalentDiameter": np.sqrt(4 * area / math.pi),
        "Extent": area / box_area,
        "FormFactor": form_factor,
        "MajorAxisLength": major,
        "MinorAxisLength": minor,
        "Orientation": _orientations(moments.covariance),
        "Perimeter": perimeter,
        "Solidity": columns["solidity"],
    }
    return {f"AreaShape_{name}": values for name, values in shapes.items()}


def _solid_shapes(columns: Mapping[str, NDArray[Any]], moments: _Moments) -> Table:
    volume, box_volume = columns["volume_px"], (moments.high - moments.low).prod(axis=1)
    variances = np.linalg.eigvalsh(moments.covariance) if len(volume) else np.zeros((0, 3))
    shapes = {
        "Volume": volume,
        "BoundingBoxVolume": box_volume,
        **_boxes(moments, "XYZ"),
        **{f"Center_{axis.upper()}": columns[f"centroid_{axis}_px"] for axis in "xyz"},
        "EquivalentDiameter": np.cbrt(6 * volume / math.pi),
        "Extent": volume / box_volume,
        # Of the ellipsoid of equal moments, as in scikit-image: its axes are 2 √5 standard deviations long
        "MajorAxisLength": np.sqrt(20 * np.maximum(variances[:, 2], 0)),
        "MinorAxisLength": np.sqrt(20 * np.maximum(variances[:, 0], 0)),
    }
    return {f"AreaShape_{name}": values for name, values in shapes.items()}


def _boxes(moments: _Moments, axes: str) -> Table:
    ends = (("Minimum", moments.low), ("Maximum", moments.high))
    return {f"BoundingBox{end}_{axis}": values[:, "ZYX".index(axis)] for end, values in ends for axis in axes}


def _orientations(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles from the y axis to the long axis, -90 to 90 degrees, as ``orientation`` of scikit-image."""
    yy, yx, xx = covariance[:, 1, 1], covariance[:, 1, 2], covariance[:, 2, 2]
    no_axis = np.where(yx > 0, 45.0, -45.0)
    return np.where(yy == xx, no_axis, np.degrees(np.arctan2(2 * yx, yy - xx)) / 2)


def _intensities(image: LabelledImage) -> Table:
    """Return intensities, scaled to 1 for the largest value of the type."""
    table = {}
    for name, values in image.columns.items():
        first, _, rest = name.partition("_")
        figure, _, channel = rest.partition("_")
        if first != "intensity" or figure not in _INTENSITIES:
            continue
        if channel not in image.channel_types:
            hint = "segment the image again: earlier versions did not record it"
            raise InputError(f"the type of the pixels of channel '{channel}' is not known", hint=hint)
        table[f"Intensity_{_INTENSITIES[figure]}_{channel}"] = values / _SCALES.get(image.channel_types[channel], 1)
    return dict(sorted(table.items()))


def merged_paths(objects: Sequence[str] = (CELLS,)) -> tuple[str, ...]:
    """Return the tables of a whole run below its folder: that of its images, and one for each kind of objects."""
    return tuple(f"cellprofiler/{name}.csv" for name in ("Image", *objects))


def merge_cellprofiler(images: Sequence[ExportedImage], folder: Path, objects: Sequence[str] = (CELLS,)) -> None:
    """Write ``Image.csv`` and a table for each kind of objects, of all images of a run, below its folder.

    The number of an image is that of its row in ``counts.csv``, from 1.
    """
    import pyarrow as pa  # slow to import

    first, tables, channels = 1, dict[str, list[Any]](), dict[str, None]()
    for image in images:
        for name, path in image.tables.items():
            table = _read_numbered(path, first, _metadata(image))
            channels |= dict.fromkeys(found for one in table.column_names if (found := one.partition(_MEAN)[2]))
            tables.setdefault(name, []).append(table)
        first += image.rows
    paths = [folder / name for name in merged_paths(objects)]
    paths[0].parent.mkdir(exist_ok=True)
    with atomic_path(paths[0]) as part:
        _write_csv(_image_table(images, list(channels)), part)
    for name, path in zip(objects, paths[1:], strict=True):
        with atomic_path(path) as part:
            parts = tables.get(name, [])
            _write_csv(pa.concat_tables(parts, promote_options="permissive") if parts else {_IMAGE: []}, part)


def _read_numbered(path: Path, first: int, metadata: Mapping[str, str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return a table of an image of which `first` is the number, with what is known of the image."""
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    with path.open("rb") as file:
        table = csv.read_csv(file)
    table = table.set_column(0, _IMAGE, pa.array(table[_IMAGE].to_numpy().astype(np.int64) + first - 1))
    for name, value in reversed(list(metadata.items())):
        table = table.add_column(2, name, pa.array([value] * len(table), pa.string()))
    return table


def _metadata(image: ExportedImage) -> dict[str, str]:
    return {f"Metadata_{name[:1].upper()}{name[1:]}": value for name, value in image.metadata.items()}


def _image_table(images: Sequence[ExportedImage], channels: Sequence[str]) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for image in images:
        path = PurePosixPath(image.name)
        for number in range(image.rows):
            counts = {f"Count_{name}": count[number] for name, count in image.counts.items()}
            row: dict[str, Any] = {_IMAGE: len(rows) + 1, **counts, **_metadata(image)}
            row |= {"Metadata_T": image.times[number]} if image.times else {}
            row |= {f"FileName_{channel}": path.name for channel in channels or ["Image"]}
            rows.append(row | {"Metadata_Folder": path.parent.as_posix()})
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _write_csv(table: Any, path: Path) -> None:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    if not isinstance(table, pa.Table):
        table = pa.table({name: pa.array(values, from_pandas=True) for name, values in table.items()})
    with path.open("wb") as file:  # by its name, pyarrow opens no path that is no text
        csv.write_csv(table, file, csv.WriteOptions(quoting_style="needed"))
