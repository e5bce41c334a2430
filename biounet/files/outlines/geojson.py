"""Outlines as GeoJSON, as QuPath reads and writes it.

Its coordinates (x, y) are pixels from the corner of the image, whose first pixel covers 0 to 1: the corner coordinates
of `Outline`, the other way round. What QuPath demands of a file is in its ``QuPathTypeAdapters`` and ``GsonTools``:

- an ``id`` is a UUID, or it is ignored;
- a ``classification`` is a text, or an object with a colour, and all other objects end the import;
- ``measurements`` is an object of numbers; neither they nor texts may be null;
- ``plane`` has c, z and t and nothing else; c is -1 for all channels;
- polygons that are not valid end the import since version 0.6.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid5

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, find_label_runs
from biounet.files.disk_arrays import forget
from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.formats.raw import translate_errors
from biounet.files.outlines.json_stream import JsonList
from biounet.files.outlines.outline import (
    QUPATH_UNLABELLED,
    QUPATH_WINDOW,
    UNLABELLED_CLASS,
    WINDOW_CLASS,
    Outline,
    Plane,
    Ring,
)
from biounet.files.outlines.strips import trace_strips

_Feature = dict[str, Any]
_Found = tuple[Outline, int | None]  # with the label of its row in the table, if there is one

_BAND = 1 << 22  # pixels of which the runs are made at a time
_ROWS = 1 << 12  # of a table that are made numbers at a time

CellPart = Literal["cell", "nucleus"]

_GEOMETRIES = ("Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection")
_PARTS_OF_IMAGES = ("tile", "tmaCore")  # kinds of QuPath's objects that are none
_FORMER_KINDS = {"PathRootObject": "root", "PathTileObject": "tile", "TMACoreObject": "tmaCore", "tma_core": "tmaCore"}


@dataclass
class _Reading:
    """One file being read, with the options of `read_geojson`."""

    path: Path
    window_class: str
    part: CellPart
    number: int = 0  # of the present feature, from 1

    def outlines(self, feature: Any) -> Iterator[_Found]:  # noqa: ANN401 - whatever is in the file
        """Give the outline of a feature, and those of features that it contains, with the labels of their rows."""
        if not isinstance(feature, dict) or feature.get("type") not in ("Feature", *_GEOMETRIES):
            raise self.error("is no feature of GeoJSON")
        if feature["type"] != "Feature":
            feature = {"geometry": feature}
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if _kind(feature, properties) != "root":
            yield self._outline(feature, properties), _label(properties.get("measurements"))
        for child in properties.get("childObjects") or properties.get("children") or ():
            yield from self.outlines(child)

    def _outline(self, feature: _Feature, properties: _Feature) -> Outline:
        geometry = feature.get("geometry")
        if self.part == "nucleus":
            geometry = feature.get("nucleusGeometry") or geometry
        geometry = geometry if isinstance(geometry, dict) else {"type": "GeometryCollection"}
        kind = _kind(feature, properties)
        rings = () if kind in _PARTS_OF_IMAGES else tuple(self._rings(geometry))
        name, class_name = str(properties.get("name") or ""), _class_name(properties.get("classification"))
        names = {name.casefold(), class_name.casefold()}
        is_window = bool(rings and names & {self.window_class.casefold(), QUPATH_WINDOW})
        class_name = UNLABELLED_CLASS if class_name.casefold() == QUPATH_UNLABELLED else class_name
        what = kind if kind in _PARTS_OF_IMAGES else geometry.get("type")
        return Outline(rings, class_name, _plane(geometry), name if rings else f"{what} {name}".strip(), is_window)

    def _rings(self, geometry: _Feature) -> Iterator[Ring]:
        kind = geometry.get("type")
        if kind not in _GEOMETRIES:
            raise self.error(f"has a geometry of type {kind!r}")
        if kind == "GeometryCollection":
            for one in geometry.get("geometries") or ():
                yield from self._rings(one)
        if kind not in ("Polygon", "MultiPolygon"):
            return
        polygons = geometry.get("coordinates") or []
        for polygon in [polygons] if kind == "Polygon" else polygons:
            for ring in polygon:
                points = self._points(ring)
                if len(points) >= 3:
                    yield points

    def _points(self, ring: Any) -> Ring:  # noqa: ANN401 - whatever stands in the file
        """Return a ring (n, 2) of (y, x), without its last point where that is its first again."""
        try:
            points = np.array(ring, np.float64)
        except (TypeError, ValueError):
            points = np.full((1, 1), np.nan)
        if points.size == 0:
            return np.zeros((0, 2))
        if points.ndim != 2 or points.shape[1] < 2 or not np.isfinite(points).all():
            raise self.error("has a ring that is no list of points with x and y")
        points = np.ascontiguousarray(points[:, 1::-1])
        return points[:-1] if len(points) > 1 and (points[0] == points[-1]).all() else points

    def error(self, cause: str) -> InputError:
        """Return an error about the present feature."""
        return InputError(f"feature {self.number} {cause}", path=self.path, hint="draw it again, or remove it")


@translate_errors
def read_geojson(path: str | Path, window_class: str = WINDOW_CLASS, part: CellPart = "cell") -> list[Outline]:
    """Read outlines from GeoJSON: a collection of features, a list of them, one feature, or one geometry.

    Of each feature its polygons are read, with holes, and the class, name and plane that QuPath gives it. Slices of one
    object, as `write_geojson` writes them, are known by the ``label`` among their measurements.

    Parameters
    ----------
    path
        May be compressed (``.geojson.gz``, or the zip of QuPath).
    window_class
        Class or name of regions in which everything was looked at, beside ``Region*``, which is QuPath's own; upper and
        lower case are the same. ``Ignore*`` is `UNLABELLED_CLASS`.
    part
        Which outline of a cell is read that has two.

    Returns
    -------
    The outlines, in the order of the file. Points, lines, cores and tiles are no objects, and have no rings.

    Raises
    ------
    InputError
        If the file is no GeoJSON, cut short, or a feature has no valid coordinates.
    """
    reading = _Reading(Path(path), window_class, part)
    features = JsonList(reading.path, "features")
    found: list[_Found] = []
    for feature in features:
        reading.number += 1
        found += reading.outlines(feature)
    if not features.has_list:
        if features.members.get("type") not in ("Feature", *_GEOMETRIES):
            names = ", ".join(features.members) or "nothing"
            hint = "an outline file of QuPath is a collection of features"
            raise InputError(f"is JSON, but no GeoJSON: it has {names}", path=reading.path, hint=hint)
        reading.number = 1
        found += reading.outlines(features.members)
    return _number_objects(_state_first_slices(found))


def _state_first_slices(found: list[_Found]) -> list[_Found]:
    """Return the outlines with their slices where any states one: QuPath leaves out the first."""
    if all(outline.plane is None for outline, _ in found):
        return found
    first = Plane(0, 0)
    return [(outline if outline.plane else replace(outline, plane=first), label) for outline, label in found]


def _number_objects(found: list[_Found]) -> list[Outline]:
    """Return the outlines with the numbers of their objects, if the labels that they come with are such."""
    objects = [(outline.plane, label) for outline, label in found if outline.rings and not outline.is_window]
    is_object_number = None not in {label for _, label in objects} and len(set(objects)) == len(objects)
    if not is_object_number:
        return [outline for outline, _ in found]
    return [outline if outline.is_window else replace(outline, object_number=label) for outline, label in found]


def _label(measurements: Any) -> int | None:  # noqa: ANN401 - whatever stands in the file
    """Return the label of an object that `write_geojson` wrote; earlier versions of QuPath made it a list."""
    if isinstance(measurements, list):
        measurements = {one.get("name"): one.get("value") for one in measurements if isinstance(one, dict)}
    label = measurements.get("label") if isinstance(measurements, dict) else None
    return int(label) if isinstance(label, int | float) and label > 0 and label == int(label) else None


def _kind(feature: _Feature, properties: _Feature) -> str:
    """Return what QuPath takes a feature for; earlier versions wrote it elsewhere."""
    for found in (*(properties.get(name) for name in ("objectType", "object_type", "type")), feature.get("id")):
        if isinstance(found, str) and found:
            return _FORMER_KINDS.get(found, found)
    return "annotation"


def _class_name(classification: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    """Return the name of a class, which is a text or an object; that of a derived class as QuPath shows it."""
    if isinstance(classification, dict):
        names = classification.get("names") or [classification.get("name")]
        return ": ".join(str(name) for name in names if name)
    return classification if isinstance(classification, str) else ""


def _plane(geometry: _Feature) -> Plane | None:
    """Return the slice that a geometry lies in; None if it does not say, as for the first one."""
    plane = geometry.get("plane")
    if not isinstance(plane, dict):
        return None
    numbers = {axis: plane.get(axis) for axis in "ztc"}
    return Plane(**{axis: n for axis, n in numbers.items() if isinstance(n, int) and n >= 0})


# One for all objects: 3x faster
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write_geojson(image: LabelledImage, path: Path) -> None:
    """Write outlines that QuPath imports as detections, and classes as annotations, with the columns of the table.

    In stacks and time series, an object has a feature in each slice, with the slice as its ``plane`` and the
    measurements of the whole object.
    """
    _write(_outlines_of(image), path)


def write_geojson_points(image: LabelledImage, path: Path) -> None:
    """Write the centroid of each object as a detection with the columns of the table: QuPath shows millions of them.

    In stacks, it lies in the slice that is next to the centroid. Classes are an `InputError`.
    """
    if image.kind == "classes":
        raise InputError("geojson-points holds objects, and these are classes", hint="export geojson")
    _write(_points_of(image), path)


def _write(features: Iterator[_Feature], path: Path) -> None:
    """Write features, a line each, as they come: together they would take 20 times the memory of their text."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, feature in enumerate(features):
            file.write(f"{',' * (number > 0)}\n{_ENCODER.encode(feature)}")
        file.write("\n]}\n")


def _outlines_of(image: LabelledImage) -> Iterator[_Feature]:
    features = _Features(image)
    for t, z, labels in image.planes():
        plane = {"plane": {"c": -1, "z": z or 0, "t": t or 0}} if (t, z) != (None, None) else {}
        for label, polygons in trace_strips(labels):
            coordinates = [list(map(_closed, polygon)) for polygon in polygons]
            if len(coordinates) == 1:
                geometry: _Feature = {"type": "Polygon", "coordinates": coordinates[0]}
            else:
                geometry = {"type": "MultiPolygon", "coordinates": coordinates}
            yield features.feature(label, geometry | plane)


def _closed(ring: NDArray[np.int32]) -> list[list[int]]:
    points: list[list[int]] = ring[:, ::-1].tolist()
    return [*points, points[0]]


def _points_of(image: LabelledImage) -> Iterator[_Feature]:
    features = _Features(image)
    for label, (t, z, y, x) in zip(*_centroids(image), strict=True):
        geometry: _Feature = {"type": "Point", "coordinates": [round(x + 0.5, 2), round(y + 0.5, 2)]}
        if image.times or image.grid.dims == 3:
            geometry["plane"] = {"c": -1, "z": round(z), "t": image.times[round(t)] if image.times else 0}
        yield features.feature(label, geometry)


def _centroids(image: LabelledImage) -> tuple[list[int], list[list[float]]]:
    """Return the labels, and the mean (t, z, y, x) of the pixels of each."""
    size, width = int(image.values.max(initial=0)) + 1, image.grid.shape[-1]
    counts, sums = np.zeros(size), np.zeros((4, size))
    depth, rows = image.grid.shape[0] if image.grid.dims == 3 else 1, max(1, _BAND // width)
    for number, (_, _, plane) in enumerate(image.planes()):
        for first in range(0, len(plane), rows):
            begin, end, label = find_label_runs(plane[None, first : first + rows]).T
            length = end - begin
            y, x = np.divmod(begin, width)
            position = (number // depth, number % depth, y + first, x + (length - 1) / 2)
            counts += np.bincount(label, length, size)
            for axis, values in enumerate(position):
                sums[axis] += np.bincount(label, length * values, size)
            forget(plane)
    return image.values.tolist(), (sums[:, image.values] / counts[image.values]).T.tolist()


class _Features:
    """What the features of an image say beside their geometry."""

    def __init__(self, image: LabelledImage) -> None:
        self.image = image
        columns, labels = image.columns, image.row_labels
        rows = np.flatnonzero(labels)
        # In the order of labels, that of the features: rows are made numbers of Python many at a time, 5x faster.
        self._rows = rows[np.argsort(labels[rows], kind="stable")]
        self._places = {label: place for place, label in enumerate(labels[self._rows].tolist())}
        self._columns = {name: column for name, column in columns.items() if column.dtype.kind in "biuf"}
        self._block: tuple[int, list[tuple[float | None, ...]]] = (-1, [])

    def feature(self, label: int, geometry: _Feature) -> _Feature:
        """Return the feature of an object or class."""
        is_object = self.image.kind == "objects"
        class_name = self.image.class_of(label)
        properties: _Feature = {
            "objectType": "detection" if is_object else "annotation",
            "name": str(label) if is_object else class_name,
            "classification": class_name,
        }
        if measurements := self._measurements(label):
            properties["measurements"] = measurements
        identity = self.image.object_id(label)
        if "plane" in geometry:  # the same object in another slice is another one for QuPath
            identity = uuid5(identity, "{c}/{z}/{t}".format(**geometry["plane"]))
        return {"type": "Feature", "id": str(identity), "geometry": geometry, "properties": properties}

    def _measurements(self, label: int) -> dict[str, float]:
        """Return the row of the table without what was not measured, for which QuPath has no value."""
        place = self._places.get(label)
        if place is None:
            return {}
        block, number = divmod(place, _ROWS)
        if block != self._block[0]:
            rows = self._rows[block * _ROWS : (block + 1) * _ROWS]
            columns = (_numbers(column[rows]) for column in self._columns.values())
            self._block = (block, list(zip(*columns, strict=True)))
        values = zip(self._columns, self._block[1][number], strict=True)
        return {name: value for name, value in values if value is not None}


def _numbers(column: NDArray[Any]) -> list[float | None]:
    """Return a column as numbers, 0 and 1 for booleans, and None where nothing was measured."""
    if column.dtype == np.float32:  # with its own digits, of which it has fewer
        column = np.array([str(value) for value in column], np.float64)
    numbers: list[float | None] = (column.astype(np.uint8) if column.dtype == np.bool_ else column).tolist()
    for n in np.flatnonzero(~np.isfinite(column)).tolist():
        numbers[n] = None
    return numbers
