"""Outlines of other programs as annotations: the labels that were drawn, or one line that says what is wrong."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from roifile import ImagejRoi, roiwrite

from biounet.core import UNLABELLED, DataSettings, Grid, InputError
from biounet.files import (
    LabelledImage,
    ReadOptions,
    drawn_annotations,
    export_formats,
    read_annotation,
    undrawn_regions,
    write_export,
)
from biounet.files.outlines.coco_reading import read_coco
from biounet.files.outlines.fill import fill

U = UNLABELLED
CELLS = DataSettings()
LAND = DataSettings(kind="classes", classes=("water", "road"))
STROKES = DataSettings(kind="scribbles", classes=("background", "cell"))
SHAPE = (4, 6)


def box(y, x, height, width):
    """The corners of a rectangle as COCO writes polygons."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def coco(path, *drawn, shape=SHAPE, images=("x.tif",), **of_image):
    """A file with annotations ``(category, segmentation)`` of its first image."""
    names = sorted({name for name, _ in drawn})
    content = {
        "images": [
            {"id": n, "file_name": name, "height": shape[-2], "width": shape[-1], **of_image}
            for n, name in enumerate(images, 1)
        ],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": names.index(name) + 1}
            | (segmentation if isinstance(segmentation, dict) else {"segmentation": [segmentation]})
            for n, (name, segmentation) in enumerate(drawn, 1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
    }
    path.write_text(json.dumps(content))
    return path


def read(path, data=CELLS, shape=SHAPE, **more):
    return read_annotation(path, data, Grid(shape), **more)


def failure(path, data=CELLS, shape=SHAPE, **more):
    with pytest.raises(InputError) as caught:
        read(path, data, shape, **more)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_objects_are_numbered_as_they_come_and_the_rest_is_background(tmp_path):
    found = read(coco(tmp_path / "x.json", ("cell", box(0, 0, 2, 3)), ("cell", box(2, 3, 2, 3))))
    assert found.labels.tolist() == [[1, 1, 1, 0, 0, 0]] * 2 + [[0, 0, 0, 2, 2, 2]] * 2
    assert (found.format, found.overlaps, found.notes) == ("COCO", 0, ())


@pytest.mark.parametrize("name", ["looked at", "Looked-at", "background", "Region*"])
def test_outside_a_window_all_that_is_not_drawn_is_unlabelled(tmp_path, name):
    path = coco(tmp_path / "x.json", (name, box(0, 0, 2, 4)), ("cell", box(1, 3, 2, 2)))
    assert read(path).labels.tolist() == [[0, 0, 0, 0, U, U], [0, 0, 0, 1, 1, U], [U, U, U, 1, 1, U], [U] * 6]


def test_a_window_without_objects_is_background(tmp_path):
    assert read(coco(tmp_path / "x.json", ("looked at", box(0, 0, 4, 1)))).labels.tolist() == [[0] + [U] * 5] * 4


@pytest.mark.parametrize("name", ["Unlabelled", "Ignore*"])
def test_regions_of_class_unlabelled_are_unlabelled_but_for_objects(tmp_path, name):
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 4, 2)), (name, box(0, 0, 4, 4)))
    assert read(path).labels.tolist() == [[1, 1, U, U, 0, 0]] * 4


def test_the_rule_for_overlaps_is_declared(tmp_path):
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 4, 3)), ("cell", box(0, 2, 4, 3)))
    later, unlabelled = read(path), read(path, DataSettings(overlap="unlabelled"))
    assert later.labels.tolist() == [[1, 1, 2, 2, 2, 0]] * 4
    assert unlabelled.labels.tolist() == [[1, 1, U, 2, 2, 0]] * 4
    assert later.overlaps == unlabelled.overlaps == 1
    assert later.notes == ("1 pair of outlines overlap, in 4 pixels: the later one is on top",)
    assert unlabelled.notes == ("1 pair of outlines overlap, in 4 pixels: unlabelled there",)


def test_an_object_that_vanishes_under_another_is_reported(tmp_path):
    path = coco(tmp_path / "x.json", ("cell", box(1, 1, 2, 2)), ("cell", box(0, 0, 4, 5)))
    assert read(path).notes[1] == "1 of them vanishes under others"


def test_classes_are_known_by_name_whatever_their_order_in_the_file(tmp_path):
    path = coco(tmp_path / "x.json", ("Road", box(0, 0, 4, 2)), ("water", box(0, 2, 4, 2)))
    assert read(path, LAND).labels.tolist() == [[2, 2, 1, 1, 0, 0]] * 4


def test_unknown_classes_are_listed(tmp_path):
    path = coco(
        tmp_path / "x.json", ("tree", box(0, 0, 1, 2)), ("tree", box(2, 0, 1, 2)), ("roof", box(0, 2, 4, 2)),
        ("road", box(0, 5, 4, 1)),
    )  # fmt: skip
    assert failure(path, LAND) == (
        "outlines of classes that the recipe lacks: tree (2), roof (1) (hint: the classes are water, road; outlines "
        "may also be called background or unlabelled)"
    )


def test_areas_are_strokes_too(tmp_path):
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 4, 2)), ("background", box(0, 4, 4, 2)))
    assert read(path, STROKES).labels.tolist() == [[1, 1, U, U, 0, 0]] * 4


def test_slices_that_nobody_drew_in_are_unlabelled_where_the_recipe_says_so(tmp_path):
    data = DataSettings(dims=3, slices="z")
    found = read(coco(tmp_path / "x.json", ("cell", box(0, 0, 4, 3)), z=1), data, (3, *SHAPE))
    assert (found.labels[1] == [1, 1, 1, 0, 0, 0]).all()
    assert (found.labels[[0, 2]] == U).all()


@pytest.mark.parametrize(
    ("made", "data", "text"),
    [
        (lambda path: coco(path), CELLS, "no object is drawn in it"),
        (lambda path: coco(path, ("unlabelled", box(0, 0, 2, 2))), CELLS, "nothing is drawn on this image"),
        (lambda path: coco(path, ("cell", {"bbox": [1, 1, 2, 2]})), CELLS, "holds boxes only (1)"),
        (lambda path: coco(path, ("cell", box(0, 9, 3, 3))), CELLS, "1 of 1 outlines lie outside the image"),
        (lambda path: coco(path, ("a", box(0, 0, 2, 2)), shape=(6, 4)), CELLS, "image of 4 x 6 pixels, not 6 x 4"),
        (lambda path: coco(path, ("a", [1, 2, 3])), CELLS, "annotation 1 has no valid polygon or mask"),
        (
            lambda path: coco(path, ("a", {"segmentation": {"size": SHAPE, "counts": [99, 1]}})),
            CELLS,
            "annotation 1 has no valid polygon or mask",
        ),
        (
            lambda path: coco(path, ("a", box(0, 0, 2, 2))),
            DataSettings(kind="classes", classes=("a",), palette={"#FF0000": "a"}),
            "the recipe has a palette, but these are outlines",
        ),
    ],
)
def test_what_cannot_be_an_annotation_is_one_line(tmp_path, made, data, text):
    assert text in failure(made(tmp_path / "x.json"), data)


@pytest.mark.parametrize(
    "content",
    [
        {"images": [], "annotations": [{}]},
        {"images": [{"file_name": "x.tif"}], "annotations": []},
        {"images": [{"id": 1, "file_name": "x.tif", "height": 4, "width": 6}]},
        {"images": [{"id": [], "file_name": "x.tif", "height": 4, "width": 6}], "annotations": []},
        {"images": [{"id": 1, "file_name": "x.tif", "height": "4 px", "width": 6}], "annotations": [], "categories": 1},
        {"images": {"file_name": 1}, "annotations": [{"image_id": 1}]},
    ],
)
def test_what_lacks_the_members_of_coco_is_one_line(tmp_path, content):
    with pytest.raises(InputError, match="is no COCO JSON") as caught:
        read_coco(write_json(tmp_path / "x.json", content), SHAPE)
    assert "\n" not in str(caught.value)


def test_text_that_is_nested_without_end_is_one_line(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"images": [{"file_name": ' + "[" * 100_000)
    assert "is no COCO JSON: nested too deeply" in failure(path)


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


def test_of_several_images_the_name_decides(tmp_path):
    path = coco(tmp_path / "all.json", ("cell", box(0, 0, 4, 2)), images=("a/x.tif", "b/x.tif", "y.tif"))
    assert read(path, image=tmp_path / "a" / "x.tif").labels.any()
    assert "no object is drawn" in failure(path, image=tmp_path / "y.png")
    assert "holds 3 images, and none that could be z.tif: a/x.tif, b/x.tif, y.tif" in failure(
        path, image=tmp_path / "z.tif"
    )
    assert "several that could be x.tif" in failure(path, image=tmp_path / "x.tif")


@pytest.mark.parametrize(("member", "what"), [("images", "images"), ("categories", "categories")])
def test_two_of_one_id_are_not_guessed_at(tmp_path, member, what):
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 2, 2)), ("rim", box(2, 2, 2, 2)), images=("x.tif", "y.tif"))
    content = json.loads(path.read_text())
    content[member][1]["id"] = 1
    path.write_text(json.dumps(content))
    assert failure(path, image=tmp_path / "x.tif").startswith(f"holds 2 {what} with the id 1: ")


@pytest.mark.parametrize("counts", [[0, 2.5, 21.5], [2**62, 2**62, 2**62, 2**62 + 4], [0, 2**70], ["0", "4"]])
def test_runs_that_are_no_lengths_are_no_mask(tmp_path, counts):
    path = coco(tmp_path / "x.json", ("cell", {"segmentation": {"size": SHAPE, "counts": counts}}))
    assert "annotation 1 has no valid polygon or mask" in failure(path)


def test_an_id_with_a_fraction_is_none(tmp_path):
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 2, 2)))
    path.write_text(path.read_text().replace('"image_id": 1', '"image_id": 1.5'))
    assert "is no COCO JSON" in failure(path)


def test_json_of_no_known_kind_is_said_to_be_json(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"images": [')
    assert failure(path).startswith("is JSON, but none of GeoJSON, COCO or LabelMe")


def test_what_does_not_fit_in_memory_is_one_line(tmp_path, monkeypatch):
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 2, 2)))
    monkeypatch.setattr(drawn_annotations, "fill", lambda *_, **__: np.empty(2**55))
    assert failure(path).startswith("does not fit in memory")


def test_boxes_and_crowds_among_outlines_are_unlabelled(tmp_path):
    crowd = {"iscrowd": 1, "segmentation": {"size": SHAPE, "counts": [16, 8]}}
    empty = {"bbox": [2, 0, 1, 4], "segmentation": [[]]}
    path = coco(tmp_path / "x.json", ("cell", box(0, 0, 4, 2)), ("cell", empty), ("cell", crowd))
    found = read(path)
    assert found.labels.tolist() == [[1, 1, U, 0, U, U]] * 4
    assert found.notes == ("1 box without an outline: unlabelled there", "1 crowd of objects: unlabelled there")


@given(st.lists(arrays(np.bool_, SHAPE), min_size=1, max_size=5))
@settings(deadline=None)
def test_masks_lie_on_each_other_in_their_order(tmp_path_factory, masks):
    expected = np.zeros(SHAPE, np.int32)
    drawn = []
    for mask in masks:
        lengths = np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=False, append=False)), prepend=0)
        drawn.append(("cell", {"segmentation": {"size": SHAPE, "counts": lengths.tolist()}}))
    for number, mask in enumerate((mask for mask in masks if mask.any()), 1):
        expected[mask] = number
    path = coco(tmp_path_factory.mktemp("masks") / "x.json", *drawn)
    outlines, _ = read_coco(path, SHAPE)
    np.testing.assert_array_equal(fill(outlines, SHAPE).labels if expected.any() else expected, expected)


def test_polygons_of_one_object_may_overlap(tmp_path):
    segmentation = {"segmentation": [box(0, 0, 4, 3), box(0, 2, 4, 3)]}
    found = read(coco(tmp_path / "x.json", ("cell", segmentation)))
    assert found.labels.tolist() == [[1, 1, 1, 1, 1, 0]] * 4
    assert found.overlaps == 0


def exported(labels, folder, name, **more):
    (chosen,) = export_formats([name])
    columns = {"label": np.unique(labels[labels > 0])}
    image = LabelledImage("x", labels, Grid(labels.shape), "objects", columns, file_name="x.tif", **more)
    return write_export(image, chosen, folder)


@pytest.mark.parametrize("name", ["roi", "geojson", "coco", "coco-polygons"])
@pytest.mark.parametrize("shape", [(40, 35), (3, 40, 35)])
def test_what_was_exported_is_read_as_it_was(tmp_path, name, shape):
    """Objects that touch and have dents, each in one piece; in volumes, their slices are one object again."""
    draw = np.random.default_rng(1)
    labels = np.kron(np.arange(1, 29).reshape(4, 7), np.ones((10, 5), np.int32)).astype(np.int32)
    labels = np.broadcast_to(labels, shape).copy()
    labels[..., ::10, :] = np.where(draw.random(labels[..., ::10, :].shape) < 0.5, 0, labels[..., ::10, :])
    found = read(exported(labels, tmp_path, name), DataSettings(dims=len(shape)), shape)
    np.testing.assert_array_equal(found.labels, labels)
    assert (found.overlaps, found.notes) == (0, ())


def test_outlines_in_slices_are_not_taken_for_objects_of_a_volume(tmp_path):
    """Without a number of their objects, each would be an object that ends at both sides of its plane."""
    path = tmp_path / "x.zip"
    roiwrite(path, [ImagejRoi.frompoints(np.array([[1, 1], [4, 1], [4, 3], [1, 3]]), z=z) for z in (0, 1)])
    assert "2 outlines in 2 slices do not say which of them are one object" in failure(
        path, DataSettings(dims=3), (3, *SHAPE)
    )
    found = read(path, DataSettings(dims=3, slices="z"), (3, *SHAPE))
    assert [(plane > 0).any() for plane in found.labels] == [True, True, False]


def test_of_a_stack_the_outlines_of_the_chosen_plane_are_taken(tmp_path):
    path = tmp_path / "x.zip"
    roiwrite(path, [ImagejRoi.frompoints(np.array([[x, 0], [x + 2, 0], [x + 2, 4], [x, 4]]), t=x) for x in (0, 3)])
    found = read(path, options=ReadOptions(plane=3))
    assert found.labels.tolist() == [[0, 0, 0, 1, 1, 0]] * 4
    assert "outlines of 2 planes, 0, 3 counted from 0, on one image (hint: choose one with --plane)" in failure(path)
    assert "nothing is drawn on this image" in failure(path, options=ReadOptions(plane=1))


def test_what_encloses_no_pixel_is_not_background(tmp_path):
    assert "no outline encloses a pixel" in failure(coco(tmp_path / "x.json", ("cell", [1, 1, 2, 1, 1, 1])))


@pytest.mark.parametrize(
    ("names", "values"), [(("water", ""), [1, 2]), (("Water: deep", "road-12"), [1, 2]), (("WATER", "road"), [1, 2])]
)
def test_classes_of_outlines_without_one_are_their_names(tmp_path, names, values):
    first = {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 4], [0, 4]]]}
    second = {"type": "Polygon", "coordinates": [[[3, 0], [5, 0], [5, 4], [3, 4]]]}
    features = [
        {"type": "Feature", "geometry": first, "properties": {"classification": {"name": names[0]}}},
        {"type": "Feature", "geometry": second, "properties": {"name": names[1] or "road"}},
    ]
    path = tmp_path / "x.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert read(path, LAND).labels[0, [0, 3]].tolist() == values
    water = DataSettings(kind="classes", classes=("water",))
    assert "the recipe lacks" in failure(coco(tmp_path / "y.json", ("road", box(0, 0, 4, 2))), water)


def test_regions_that_nobody_drew_are_those_of_the_image_where_one_file_is_of_all(tmp_path):
    data = DataSettings(kind="classes", classes=("a", "b"), unknown={"p1": ("b",)})
    assert undrawn_regions(tmp_path / "all.json", data, tmp_path / "p1.tif") == {"b"}
    assert undrawn_regions(tmp_path / "all.json", data, tmp_path / "p2.tif") == set()


@pytest.mark.parametrize("name", ["roi", "geojson", "coco", "coco-polygons"])
@settings(deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_are_one_line(tmp_path_factory, name, data):
    labels = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((4, 4), np.int32)).astype(np.int32)
    path = exported(labels, tmp_path_factory.mktemp("damaged"), name)
    content = bytearray(path.read_bytes())
    first = data.draw(st.integers(0, len(content) - 1))
    content[first : data.draw(st.integers(first, len(content)))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    with suppress(InputError):
        found = read(path, shape=labels.shape)
        assert found.labels.shape == labels.shape


def test_numbers_of_objects_fit_in_32_bits(tmp_path):
    path = coco(tmp_path / "x.json", ("cell", {"segmentation": [box(0, 0, 2, 2)], "track_id": 2**40}), z=0)
    assert f"object number {2**40} does not fit in 32 bits" in failure(path, DataSettings(dims=3), (1, *SHAPE))
