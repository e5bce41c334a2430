"""What QuPath demands of GeoJSON, as its readers of features, classes, measurements and planes do."""

import json
import math
from uuid import UUID

from shapely.geometry import shape

KINDS = {"annotation", "detection", "cell", "tile", "tmaCore"}
MEMBERS = {"type", "id", "geometry", "nucleusGeometry", "properties"}


def features_for_qupath(text):
    """Return the features of a file, all of which QuPath imports as they are meant."""
    document = json.loads(text)
    assert document["type"] == "FeatureCollection"
    features = document["features"]
    for feature in features:
        check_feature(feature)
    ids = [feature["id"] for feature in features]
    assert len(set(ids)) == len(ids)  # an object with the identifier of another one replaces it
    return features


def check_feature(feature):
    assert feature["type"] == "Feature"
    assert set(feature) <= MEMBERS
    assert str(UUID(feature["id"])) == feature["id"]  # any other identifier is ignored
    check_geometry(feature["geometry"])
    properties = feature["properties"]
    assert properties["objectType"] in KINDS  # without, everything is an annotation
    assert None not in properties.values()  # the reader asks each for its text
    assert isinstance(properties["name"], str)
    classification = properties["classification"]
    assert isinstance(classification, str)  # an object would need a colour
    assert classification == classification.strip() != ""
    assert "\n" not in classification
    for name, value in properties.get("measurements", {}).items():
        assert name
        assert type(value) in (int, float)  # a text, null or a list ends the import
        assert math.isfinite(value)


def check_geometry(geometry):
    assert geometry["type"] in {"Polygon", "MultiPolygon", "Point"}
    assert set(geometry) <= {"type", "coordinates", "plane"}
    if "plane" in geometry:
        plane = geometry["plane"]
        assert set(plane) == {"c", "z", "t"}  # another name is never skipped, and ends the import
        assert all(type(number) is int for number in plane.values())
        assert plane["c"] == -1  # all channels
        assert min(plane["z"], plane["t"]) >= 0
    found = shape(geometry)
    assert found.is_valid  # one that is not fails the whole import
    assert not found.is_empty
    for polygon in polygons(geometry):
        for ring in polygon:
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            assert all(round(number, 2) == number for point in ring for number in point)  # it rounds to 2 decimals


def polygons(geometry):
    """Return the polygons of a geometry, each a list of rings."""
    kind, coordinates = geometry["type"], geometry["coordinates"]
    return {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(kind, [])
