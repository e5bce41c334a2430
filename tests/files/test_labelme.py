"""LabelMe: its shapes are objects with the pixels that were drawn, and a file of another image is noticed."""

import base64
import json

import imagecodecs
import numpy as np
import pytest

from biounet.core import InputError
from biounet.files.outlines.fill import fill
from biounet.files.outlines.labelme import read_labelme
from support.label_images import picture


def drawn(kind, points, label="cell", **others):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **others}


def document(*shapes, size=(8, 9), **others):
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": "a.tif",
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        **others,
    }


def read(folder, content, **options):
    path = folder / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), encoding="utf-8")
    return read_labelme(path, **options)


def mask(pixels, encode=imagecodecs.png_encode):
    return base64.b64encode(encode(np.asarray(pixels, np.uint8))).decode()


def filled(outlines, shape=(8, 9)):
    return fill(outlines, shape).labels


@pytest.mark.parametrize("kind", ["polygon", "oriented_rectangle", None])
def test_a_polygon_has_its_pixels_and_its_class(tmp_path, kind):
    [outline] = read(tmp_path, document(drawn(kind, [[1, 2], [4, 2], [4, 6], [1, 6]], "nucleus")), shape=(8, 9))
    assert (outline.class_name, outline.object_number, outline.is_window) == ("nucleus", None, False)
    assert np.argwhere(filled([outline])).tolist() == [[y, x] for y in range(2, 6) for x in range(1, 4)]


@pytest.mark.parametrize(
    "points", [[[1, 2], [4, 6]], [[4, 6], [1, 2]], [[1, 6], [4, 2]], [[1, 2], [4, 2], [4, 6], [1, 6]]]
)
def test_a_rectangle_is_drawn_from_any_corner(tmp_path, points):
    assert filled(read(tmp_path, document(drawn("rectangle", points)))).sum() == 12


@pytest.mark.parametrize("radius", [0.4, 3, 40, 900])
def test_a_circle_has_the_pixels_whose_centres_lie_in_it(tmp_path, radius):
    side = int(2 * radius + 5)
    centre = side / 2 + 0.2
    [outline] = read(tmp_path, document(drawn("circle", [[centre, centre], [centre + radius, centre]])))
    y, x = np.indices((side, side)) + 0.5
    distance = np.hypot(y - centre, x - centre)
    labels = filled([outline], (side, side))
    assert (labels[distance < radius - 0.03] == 1).all()
    assert (labels[distance > radius] == 0).all()


def test_the_circle_around_everything_has_a_polygon(tmp_path):
    (outline,) = read(tmp_path, document(drawn("circle", [[0, 0], [1e300, 0]])))
    assert len(outline.rings[0]) <= 20_000


def test_a_mask_keeps_its_pixels(tmp_path):
    pixels = picture("111. 1.11 1111 ..1.")
    shape = drawn("mask", [[3, 2], [6, 5]], mask=mask(pixels * 255))
    expected = np.zeros((8, 9), int)
    expected[2:6, 3:7] = pixels
    np.testing.assert_array_equal(filled(read(tmp_path, document(shape))), expected)


def test_masks_of_one_bit_are_read(tmp_path):
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture("1. .1") == 1).save(buffer, "PNG")
    shape = drawn("mask", [[0, 0], [1, 1]], mask=base64.b64encode(buffer.getvalue()).decode())
    np.testing.assert_array_equal(filled(read(tmp_path, document(shape)), (2, 2)), [[1, 0], [0, 1]])


def test_shapes_of_a_group_are_one_object(tmp_path):
    left, right = [[0, 0], [3, 0], [3, 2], [0, 2]], [[2, 0], [6, 0], [6, 2], [2, 2]]  # which overlap
    alone = [[0, 4], [2, 4], [2, 6], [0, 6]]
    shapes = [drawn("polygon", left, group_id=7), drawn("polygon", alone), drawn("polygon", right, group_id=7)]
    labels = filled(read(tmp_path, document(*shapes, drawn("polygon", [[6, 4], [8, 4], [8, 6]], "other", group_id=7))))
    assert labels[0].tolist() == [1] * 6 + [0] * 3
    assert len(set(labels[labels > 0].tolist())) == 3  # another class is another object


def test_points_and_lines_are_no_objects(tmp_path):
    shapes = [drawn("point", [[1, 2]]), drawn("line", [[1, 2], [3, 4]]), drawn("linestrip", [[1, 2], [3, 4], [5, 1]])]
    outlines = read(tmp_path, document(*shapes, drawn("circle", [[4, 4], [6, 4]])))
    assert [(outline.rings, outline.name) for outline in outlines[:3]] == [
        ((), "point cell"),
        ((), "line cell"),
        ((), "linestrip cell"),
    ]
    assert filled(outlines).any()


def test_regions_that_were_looked_at_are_windows(tmp_path):
    region = document(drawn("rectangle", [[0, 0], [5, 5]], "Looked At"), drawn("rectangle", [[0, 0], [2, 2]]))
    assert [outline.is_window for outline in read(tmp_path, region)] == [True, False]
    assert [outline.is_window for outline in read(tmp_path, region, window_class="CELL")] == [False, True]


def test_a_file_without_objects_has_none(tmp_path):
    assert read(tmp_path, document()) == []


def test_a_file_of_another_image_is_noticed(tmp_path):
    cell = document(drawn("circle", [[4, 4], [6, 4]]), imageData="A" * 3_000_000)
    assert len(read(tmp_path, cell, shape=(8, 9))) == 1
    with pytest.raises(InputError, match=r"drawn on an image of 9 x 8 pixels, and its image has 8 x 9 "):
        read(tmp_path, cell, shape=(9, 8))
    assert len(read(tmp_path, cell | {"imageHeight": "8"}, shape=(8, 9))) == 1
    assert len(read(tmp_path, cell | {"imageHeight": None}, shape=(9, 8))) == 1  # earlier versions do not say


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "ends too early"),
        (json.dumps(document(drawn("polygon", [[1, 2], [4, 2], [4, 6]])))[:200], "ends too early"),
        ("{}", "not of LabelMe: it has nothing"),
        ({"type": "FeatureCollection", "features": []}, "not of LabelMe: it has type, features"),
        (document({"label": "a"}), "shape 1 has no list of points"),
        (document(3), "shape 1 is no shape of LabelMe"),
        (document(drawn("polygon", [[1, 2], [3]])), "shape 1 has no list of points"),
        (document(drawn("polygon", [])), "shape 1 has no list of points"),
        (document(drawn("polygon", "abc")), "shape 1 has no list of points"),
        (document(drawn("circle", [[1, 2]])), "shape 1 is a circle of 1 points"),
        (document(drawn("star", [[1, 2]])), "shape 1 is a star of 1 points"),
        (document(drawn("mask", [[1, 2], [3, 4]])), "shape 1 is a mask without a PNG"),
        (document(drawn("mask", [[1, 2], [3, 4]], mask="?")), "shape 1 is a mask without a PNG"),
        (document(drawn("mask", [[1, 2], [3, 4]], mask=base64.b64encode(b"GIF89a").decode())), "mask without a PNG"),
        (document(drawn("mask", [[1, 2], [9, 10]], mask=mask(np.ones((9, 9)))[:40])), "mask without a PNG"),
        (document(drawn("mask", [[1, 2], [3, 4]], mask="AAAA")), "mask without a PNG"),
        (document(drawn("mask", [[1, 2], [3, 4]], mask=mask(np.zeros((300, 200))))), "mask of 200 x 300 pixels"),
    ],
)
def test_what_is_not_of_labelme_is_one_line(tmp_path, content, cause):
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert cause in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: ")
    assert "\n" not in str(caught.value)
