"""GeoJSON: QuPath takes what is written, and what it writes is read; the objects keep their pixels."""

import gzip
import json
import zipfile
from uuid import UUID

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely import contains_xy
from shapely.geometry import shape

from biounet.core import UNLABELLED, DataSettings, Grid, InputError
from biounet.files import LabelledImage, read_annotation
from biounet.files.outlines import geojson, json_stream, strips
from biounet.files.outlines.fill import fill
from biounet.files.outlines.geojson import read_geojson, write_geojson, write_geojson_points
from biounet.files.outlines.outline import UNLABELLED_CLASS, Plane
from support.label_images import blobs, label_images, picture
from support.qupath import features_for_qupath

SQUARE = [[[1, 2], [5, 2], [5, 6], [1, 6], [1, 2]]]
NOTCHED = picture("11110 12211 10101 11011")  # a hole that touches the outside, and a neighbour in it
PIECES = picture("1.1 .1. 2.2")


def labelled(labels, grid=None, kind="objects", **others):
    labels = np.asarray(labels)
    others = {"columns": {}, "class_name": "nucleus", "identity": "run:a.tif", **others}
    return LabelledImage("a", labels, grid or Grid(labels.shape), kind, **others)


def written(image, path, write=write_geojson):
    path.unlink(missing_ok=True)
    write(image, path)
    return features_for_qupath(path.read_text(encoding="utf-8"))


def feature(geometry, properties=None, **others):
    return {"type": "Feature", "geometry": geometry, "properties": properties or {}, **others}


def polygon(rings=SQUARE, **others):
    return {"type": "Polygon", "coordinates": rings, **others}


def read(path, document, **options):
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return read_geojson(path, **options)


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("geojson")


@settings(max_examples=100, deadline=None)
@example(NOTCHED)
@example(PIECES)
@given(label_images())
def test_objects_keep_their_pixels_through_the_file(folder, labels):
    path = folder / "a.geojson"
    features = written(labelled(labels), path)
    y, x = np.indices(labels.shape) + 0.5
    for one in features:  # as any program sees them
        inside = contains_xy(shape(one["geometry"]), x, y)
        np.testing.assert_array_equal(inside, labels == int(one["properties"]["name"]))
    if features:  # and as biounet reads them
        np.testing.assert_array_equal(fill(read_geojson(path), labels.shape).labels, labels)


@settings(max_examples=60, deadline=None)
@example(NOTCHED, 1)
@given(label_images(longest=12), st.integers(1, 60))
def test_a_large_image_is_traced_in_strips_and_gives_the_same_features(folder, labels, pixels):
    whole = written(labelled(labels), folder / "a.geojson")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "_STRIP", pixels)
        patch.setattr(strips, "_BAND", pixels)
        parts = written(labelled(labels), folder / "b.geojson")
    assert sorted(parts, key=lambda one: int(one["properties"]["name"])) == whole


def test_real_nuclei_keep_their_pixels(shared_data, folder):
    paths = sorted((shared_data / "nuclei2d" / "val" / "labels").iterdir())
    for path in paths:
        labels = tifffile.imread(path).astype(np.int32)
        image = labelled(labels, columns={"label": np.unique(labels)[1:]})
        assert len(written(image, folder / "a.geojson")) == len(image.values)
        np.testing.assert_array_equal(fill(read_geojson(folder / "a.geojson"), labels.shape).labels, labels)
    assert len(paths) == 49


def test_an_object_says_what_it_is_and_what_was_measured(tmp_path):
    columns = {
        "label": np.array([2, 1]),
        "area_um2": np.array([0.1, np.nan]),
        "mean": np.array([0.1, 2], np.float32),
        "touches_border": np.array([True, False]),
        "note": np.array(["x", "y"], object),
    }
    first, second = written(labelled(picture("1.2"), columns=columns), tmp_path / "a.geojson")
    assert first["properties"] == {
        "objectType": "detection",
        "name": "1",
        "classification": "nucleus",
        "measurements": {"label": 1, "mean": 2.0, "touches_border": 0},
    }
    assert second["properties"]["measurements"] == {"label": 2, "area_um2": 0.1, "mean": 0.1, "touches_border": 1}
    assert second["geometry"] == polygon([[[2, 0], [3, 0], [3, 1], [2, 1], [2, 0]]])
    assert second["id"] == str(labelled(picture("1.2")).object_id(2))  # the same in all formats, and the next time


def test_slices_of_an_object_come_back_as_one_through_qupath(tmp_path):
    labels = np.stack([picture("1.2 1.2"), picture("122 ..2"), picture("... ..2")])
    image = labelled(labels, columns={"label": np.array([1, 2]), "volume_px": np.array([3, 6])})
    features = written(image, tmp_path / "a.geojson")
    assert [(one["properties"]["name"], one["geometry"]["plane"]["z"]) for one in features] == [
        ("1", 0),
        ("2", 0),
        ("1", 1),
        ("2", 1),
        ("2", 2),
    ]
    assert {one["properties"]["measurements"]["volume_px"] for one in features[1::2]} == {6}
    for one in features[:2]:
        del one["geometry"]["plane"]  # QuPath does not write the first plane
    outlines = read(tmp_path / "b.geojson", collection(*features))
    np.testing.assert_array_equal(fill(outlines, labels.shape).labels, labels)


def test_frames_of_a_time_series_are_planes(tmp_path):
    image = labelled(np.stack([picture("1.."), picture("..2")]), Grid((1, 3)), times=(4, 6))
    features = written(image, tmp_path / "a.geojson")
    assert [one["geometry"]["plane"] for one in features] == [{"c": -1, "z": 0, "t": t} for t in (4, 6)]


def test_classes_are_one_annotation_each(tmp_path):
    columns = {
        "label": np.array([1, 1, 2]),
        "class": np.array(["tumour", "tumour", "oedema"], object),
        "lesion": np.array([0, 1, 0]),
        "area_px": np.array([3, 1, 2]),
    }
    image = labelled(picture("1.1 122"), kind="classes", columns=columns, class_names={1: "tumour", 2: "oedema"})
    tumour, oedema = written(image, tmp_path / "a.geojson")
    assert (tumour["geometry"]["type"], oedema["geometry"]["type"]) == ("MultiPolygon", "Polygon")
    kinds = [(one["properties"]["objectType"], one["properties"]["classification"]) for one in (tumour, oedema)]
    assert kinds == [("annotation", "tumour"), ("annotation", "oedema")]
    assert tumour["properties"]["measurements"] == {"label": 1, "lesion": 0, "area_px": 3}
    with pytest.raises(InputError, match="geojson-points holds objects"):
        write_geojson_points(image, tmp_path / "b.geojson")


def test_points_are_the_centroids(tmp_path, monkeypatch):
    monkeypatch.setattr(geojson, "_BAND", 2000)  # pixels, so that the image has many bands
    labels = blobs()
    points = written(labelled(labels), tmp_path / "a.geojson", write_geojson_points)
    for label, one in enumerate(points, 1):
        y, x = np.nonzero(labels == label)
        np.testing.assert_allclose(one["geometry"]["coordinates"], [x.mean() + 0.5, y.mean() + 0.5], atol=0.006)
    assert [one["id"] for one in points] == [str(labelled(labels).object_id(n + 1)) for n in range(len(points))]


def test_points_of_a_stack_lie_in_its_middle_and_frame(tmp_path):
    stack = labelled(np.stack([picture("1.2")] * 2 + [picture("1..")]))
    points = written(stack, tmp_path / "a.geojson", write_geojson_points)
    assert [one["geometry"]["plane"]["z"] for one in points] == [1, 0]
    frames = labelled(np.stack([picture("1.."), picture("..2")]), Grid((1, 3)), times=(4, 6))
    points = written(frames, tmp_path / "b.geojson", write_geojson_points)
    assert [one["geometry"]["plane"]["t"] for one in points] == [4, 6]


def test_an_image_without_objects_is_a_file_without_features(tmp_path):
    for write in (write_geojson, write_geojson_points):
        assert written(labelled(picture("...")), tmp_path / "a.geojson", write) == []
        assert read_geojson(tmp_path / "a.geojson") == []


@pytest.mark.parametrize(
    "document",
    [
        collection(feature(polygon())),
        {"features": [feature(polygon())], "type": "FeatureCollection", "crs": None},
        [feature(polygon())],
        feature(polygon()),
        polygon(),
        collection(feature({"type": "MultiPolygon", "coordinates": [SQUARE]})),
        collection(feature({"type": "GeometryCollection", "geometries": [polygon()]})),
        collection(feature(polygon([[[*point, 7] for point in SQUARE[0]]]))),
        collection(feature(polygon([SQUARE[0][:-1]]))),  # open
    ],
)
def test_all_forms_that_qupath_reads_are_read(tmp_path, document):
    [outline] = read(tmp_path / "a.geojson", document)
    np.testing.assert_array_equal(outline.rings, [[[2, 1], [2, 5], [6, 5], [6, 1]]], strict=False)
    assert (outline.class_name, outline.plane, outline.is_window) == ("", None, False)
    assert read(tmp_path / "b.geojson", json.dumps(document, indent=4))[0].rings[0].shape == (4, 2)


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ("Tumor", "Tumor"),
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"names": ["Tumor", "Positive"], "color": [200, 0, 0]}, "Tumor: Positive"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),
        ({}, ""),
        (None, ""),
    ],
)
def test_a_class_is_a_text_or_an_object(tmp_path, classification, name):
    [outline] = read(tmp_path / "a.geojson", [feature(polygon(), {"classification": classification})])
    assert outline.class_name == name


def test_holes_and_planes_are_kept(tmp_path):
    hole = [[2, 3], [3, 3], [3, 4], [2, 3]]
    plane = {"c": -1, "z": 3, "t": 0}
    [outline] = read(tmp_path / "a.geojson", [feature(polygon([*SQUARE, hole], plane=plane), {"name": "a"})])
    assert [len(ring) for ring in outline.rings] == [4, 3]
    assert (outline.plane, outline.name) == (Plane(z=3, t=0), "a")


def test_cells_have_two_outlines_to_choose_from(tmp_path):
    nucleus = polygon([[[2, 3], [4, 3], [4, 5], [2, 3]]])
    cell = [feature(polygon(), {"objectType": "cell"}, nucleusGeometry=nucleus)]
    assert len(read(tmp_path / "a.geojson", cell)[0].rings[0]) == 4
    assert len(read(tmp_path / "a.geojson", cell, part="nucleus")[0].rings[0]) == 3
    del cell[0]["nucleusGeometry"]
    assert len(read(tmp_path / "a.geojson", cell, part="nucleus")[0].rings[0]) == 4


@pytest.mark.parametrize(
    "properties",
    [
        {"name": "looked at", "isLocked": True},
        {"classification": "Looked at"},
        {"classification": {"name": "LOOKED AT"}},
    ],
)
def test_regions_that_were_looked_at_are_windows(tmp_path, properties):
    window, cell = read(tmp_path / "a.geojson", [feature(polygon(), properties), feature(polygon())])
    assert (window.is_window, cell.is_window) == (True, False)
    renamed = [feature(polygon(), {"classification": name}) for name in ("Region*", "Done", "cell")]
    assert [one.is_window for one in read(tmp_path / "a.geojson", renamed, window_class="done")] == [True, True, False]


def test_what_qupath_ignores_is_unlabelled(tmp_path):
    [outline] = read(
        tmp_path / "a.geojson", [feature(polygon(), {"classification": {"name": "Ignore*", "color": [1]}})]
    )
    assert (outline.class_name, outline.is_window) == (UNLABELLED_CLASS, False)


def test_what_is_no_object_has_no_rings_and_is_named(tmp_path):
    document = [
        feature({"type": "Point", "coordinates": [1, 2]}),
        feature({"type": "LineString", "coordinates": [[1, 2], [3, 4], [5, 6]]}, {"name": "scale"}),
        feature(polygon(), {"objectType": "tmaCore", "name": "A-1"}),
        feature(polygon(), {"objectType": "tile"}),
        feature(polygon(), {"objectType": "root"}),  # QuPath's image as a whole
        feature(polygon(), id="PathRootObject"),
        feature(None),
        feature(polygon([])),
    ]
    outlines = read(tmp_path / "a.geojson", document)
    names = ["Point", "LineString scale", "tmaCore A-1", "tile", "GeometryCollection", "Polygon"]
    assert [(outline.rings, outline.name) for outline in outlines] == [((), name) for name in names]


def test_objects_within_objects_are_found(tmp_path):
    child = feature(polygon(), {"name": "inner"})
    outlines = read(tmp_path / "a.geojson", [feature(polygon(), {"name": "outer", "childObjects": [child]})])
    assert [outline.name for outline in outlines] == ["outer", "inner"]


def test_labels_that_are_classes_join_no_objects(tmp_path):
    """A measurement called label may be anything: two in one plane are not one object."""
    twice = [feature(polygon(), {"measurements": {"label": 1}}) for _ in range(2)]
    assert [one.object_number for one in read(tmp_path / "a.geojson", twice)] == [None, None]
    once = [feature(polygon(), {"measurements": [{"name": "label", "value": n}]}) for n in (7, 9)]
    assert [one.object_number for one in read(tmp_path / "a.geojson", once)] == [7, 9]


def test_compressed_files_are_read(tmp_path):
    text = json.dumps(collection(feature(polygon())))
    packed = tmp_path / "a.geojson.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert len(read_geojson(packed)) == 1
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.geojson", text)
    assert len(read_geojson(tmp_path / "a.zip")) == 1
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"a\.geojson\.gz: is damaged: Compressed file ended"):
        read_geojson(packed)


TEXT = json.dumps(collection(*[feature(polygon(), {"name": 'é"]'}, id="a")] * 3), ensure_ascii=False)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_file_is_the_same_in_whatever_parts_it_is_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr(json_stream, "_CHUNK", size)
    assert [outline.name for outline in read(tmp_path / "a.geojson", f"\ufeff{TEXT}\n")] == ['é"]'] * 3
    numbers = [feature(polygon([[[12.25, 1e-3], [123456, 2], [5, 600]]]))]
    assert read(tmp_path / "a.geojson", numbers)[0].rings[0].tolist() == [[1e-3, 12.25], [2, 123456], [600, 5]]


@pytest.mark.parametrize("size", [5, 1 << 20])
def test_a_file_that_was_cut_short_is_never_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr(json_stream, "_CHUNK", size)
    for end in range(len(TEXT)):
        with pytest.raises(InputError, match="ends too early"):
            read(tmp_path / "a.geojson", TEXT[:end])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("hello", "no JSON file"),
        ('"FeatureCollection"', "no JSON file"),
        ("\x00\xff", "no JSON file"),
        (TEXT + "]", "more text follows"),
        (TEXT.replace("[5, 2]", "[5, 2"), "not JSON: expecting ',' delimiter"),
        ('{"type": "FeatureCollection", "features": [{} {}]}', "feature 1 is no feature"),
        ('{"type": "FeatureCollection" "features": []}', "a comma or } was expected"),
        ('{"type": "FeatureCollection", 1: []}', "not JSON"),
        ('{"type": "FeatureCollection", "features": 3}', "no GeoJSON: it has type, features"),
        ('{"version": "5.4", "shapes": []}', "no GeoJSON: it has version, shapes"),
        ("{}", "no GeoJSON: it has nothing"),
        ("[[1, 2]]", "feature 1 is no feature"),
        ("[" * 10**5, "RecursionError"),
        (TEXT.replace("[5, 2]", "[5]", 1), "feature 1 has a ring that is no list of points"),
        (TEXT.replace("[5, 2]", "[5, null]", 1), "feature 1 has a ring"),
        (TEXT.replace("[5, 2]", "[5, NaN]", 1), "feature 1 has a ring"),
        (TEXT.replace("[5, 2]", "[5, 1e999]", 1), "feature 1 has a ring"),
        (TEXT.replace('"Polygon"', '"Circle"', 1), "feature 1 has a geometry of type 'Circle'"),
    ],
)
def test_what_is_no_geojson_is_one_line(tmp_path, text, cause):
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.geojson", text)
    assert cause in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'a.geojson'}: ")
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_item_that_would_take_all_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", 16)
    monkeypatch.setattr(json_stream, "_MAX_VALUE", 1000)
    assert len(read(tmp_path / "a.geojson", TEXT)) == 3
    with pytest.raises(InputError, match="has an item of more than 1000 characters"):
        read(tmp_path / "a.geojson", [feature(polygon([[[1, 1]] * 1000]))])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_geojson(tmp_path / "a.geojson")


def test_identifiers_differ_in_each_slice(tmp_path):
    image = labelled(np.stack([picture("1"), picture("1")]))
    first, second = (UUID(one["id"]) for one in written(image, tmp_path / "a.geojson"))
    assert first != second


def annotation(path, features, **data):
    path.write_text(json.dumps(collection(*features)))
    return read_annotation(path, DataSettings(**data), Grid((8, 8)))


def test_the_recipe_names_the_class_of_regions_and_the_part_of_cells(tmp_path):
    nucleus = polygon([[[2, 3], [4, 3], [4, 5], [2, 5]]])
    cell = feature(polygon(), {"objectType": "cell"}, nucleusGeometry=nucleus)
    done = feature(polygon([[[0, 0], [8, 0], [8, 7], [0, 7]]]), {"classification": "Done_region"})
    plain = annotation(tmp_path / "a.geojson", [cell], cell_part="nucleus")
    assert ((plain.labels == 1).sum(), (plain.labels == 0).sum()) == (4, 60)
    within = annotation(tmp_path / "a.geojson", [cell, done], window_class="done region")
    counts = dict(zip(*map(np.ndarray.tolist, np.unique(within.labels, return_counts=True)), strict=True))
    assert counts == {1: 16, 0: 40, UNLABELLED: 8}


def test_points_need_no_class(tmp_path):
    point = feature({"type": "Point", "coordinates": [1, 2]})
    found = annotation(
        tmp_path / "a.geojson",
        [feature(polygon(), {"classification": "tumour"}), point],
        kind="classes",
        classes=("oedema", "tumour"),
    )
    assert (found.labels == 2).sum() == 16
    assert "(Point)" in found.notes[0]
