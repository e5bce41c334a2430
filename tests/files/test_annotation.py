"""Annotations: the meaning of values is declared, and a value without a meaning is an error."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from biounet.core import UNLABELLED, DataSettings, Grid, InputError, SettingsError
from biounet.files import read_annotation, read_labels

U = UNLABELLED
SMALL = np.array([[0, 1, 1], [2, 2, 0]])
CELLS = DataSettings()
LAND = DataSettings(kind="classes", classes=("water", "road"), unlabelled=255)
STROKES = DataSettings(kind="scribbles", classes=("cell", "background", "debris"))
PAINTED = DataSettings(
    kind="classes",
    classes=("water", "road"),
    palette={"#0000FF": "water", "#FF0000": "road", "#000000": "background", "#9B9B9B": "unlabelled"},
)


def tif(path, values, dtype=np.uint8):
    tifffile.imwrite(path, np.asarray(values).astype(dtype), photometric="minisblack")
    return path


def png(path, values, dtype=np.uint8):
    path.write_bytes(imagecodecs.png_encode(np.asarray(values).astype(dtype)))
    return path


def failure(path, data, grid=None):
    with pytest.raises(InputError) as caught:
        read_annotation(path, data, grid)
    assert caught.value.path == path
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_ids_are_read_exactly_whatever_their_type(tmp_path, dtype):
    annotation = read_annotation(tif(tmp_path / "x.tif", SMALL, dtype), CELLS)
    np.testing.assert_array_equal(annotation.labels, SMALL.astype(np.int32), strict=True)
    assert annotation.kind == "instances"


def test_large_ids_are_exact(tmp_path):
    ids = np.repeat([[0, 2**24 + 1], [2**31 - 1, 70000]], 9, axis=1)
    np.testing.assert_array_equal(read_annotation(tif(tmp_path / "x.tif", ids, "u4"), CELLS).labels, ids)
    assert "does not fit in 32 bits" in failure(tif(tmp_path / "y.tif", ids * 2, "u8"), CELLS)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_that_do_not_tell_ids_apart_are_refused(tmp_path, dtype):
    exact = 2 ** (np.finfo(dtype).nmant + 1)  # the next number is read as this one
    with pytest.raises(InputError, match="does not tell such numbers apart"):
        read_labels(tif(tmp_path / "a.tif", [[0, exact]], dtype))
    if dtype != "f8":
        assert read_labels(tif(tmp_path / "b.tif", [[0, exact - 1]], dtype)).max() == exact - 1


@pytest.mark.parametrize(("dtype", "value"), [("i4", -1), ("u1", 255), ("u2", 65535), ("f4", -1), ("u4", 2**32 - 1)])
def test_the_declared_value_is_unlabelled(tmp_path, dtype, value):
    values = np.array([[0, 1, value], [value, 2, 2]], dtype)
    data = CELLS.model_copy(update={"unlabelled": value})
    expected = [[0, 1, U], [U, 2, 2]]
    np.testing.assert_array_equal(read_annotation(tif(tmp_path / "x.tif", values, dtype), data).labels, expected)


def test_zero_is_unlabelled_in_scribbles_and_background_becomes_zero(tmp_path):
    path = png(tmp_path / "x.png", [[0, 1, 2], [3, 0, 0]])
    np.testing.assert_array_equal(read_annotation(path, STROKES).labels, [[U, 1, 0], [2, U, U]])
    cells = DataSettings(kind="scribbles", classes=("background", "cell"))
    path = png(tmp_path / "x.png", [[0, 1, 2], [2, 0, 0]])
    np.testing.assert_array_equal(read_annotation(path, cells).labels, [[U, 0, 1], [1, U, U]])


def test_scribbles_need_class_names(tmp_path):
    with pytest.raises(SettingsError, match=r"data\.classes"):
        read_annotation(png(tmp_path / "x.png", SMALL), DataSettings(kind="scribbles"))


def test_colours_become_classes(tmp_path):
    blue, red, black, grey = (0, 0, 255), (255, 0, 0), (0, 0, 0), (155, 155, 155)
    picture = np.array([[blue, red], [black, grey]], np.uint8)
    expected = [[1, 2], [0, U]]
    for path in (png(tmp_path / "x.png", picture), png(tmp_path / "a.png", np.dstack([picture, picture[..., 0]]))):
        np.testing.assert_array_equal(read_annotation(path, PAINTED).labels, expected)
    tifffile.imwrite(tmp_path / "x.tif", picture, photometric="rgb")
    np.testing.assert_array_equal(read_annotation(tmp_path / "x.tif", PAINTED).labels, expected)
    Image.fromarray(picture).quantize(8).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_annotation(tmp_path / "p.png", PAINTED).labels, expected)


def test_a_grey_picture_can_have_a_palette(tmp_path):
    path = png(tmp_path / "x.png", [[0, 155], [155, 155]])
    np.testing.assert_array_equal(read_annotation(path, PAINTED).labels, [[0, U], [U, U]])


def test_colours_outside_the_palette_are_listed(tmp_path):
    picture = np.full((3, 3, 3), 155, np.uint8)
    picture[0, :2], picture[2, 2] = (1, 2, 3), (0, 0, 254)
    text = failure(png(tmp_path / "x.png", picture), PAINTED)
    assert "2 colours that the palette lacks: #010203 (2 pixels), #0000FE (1 pixels)" in text
    noisy = np.random.default_rng(0).integers(0, 9, (9, 9, 3), np.uint8)
    assert "JPEG" in failure(png(tmp_path / "x.png", noisy), PAINTED)
    assert "no colour picture of 8 bits" in failure(png(tmp_path / "x.png", picture, np.uint16), PAINTED)


def test_values_that_no_class_has_are_errors(tmp_path):
    path = tmp_path / "x.tif"
    assert "holds values that no class has: 3 (2 pixels)" in failure(tif(path, [[0, 3, 3, 255]]), LAND)
    assert "1 water, 2 road" in failure(path, LAND)
    assert "declare it as data.unlabelled" in failure(tif(path, [[0, 255]]), LAND.model_copy(update={"unlabelled": -1}))
    assert "kind = 'instances'" in failure(tif(path, np.arange(20).reshape(4, 5)), LAND)
    mask = failure(tif(path, [[0, 255]]), DataSettings(kind="classes", classes=("cell",)))
    assert "if 255 is cell, write 1 for it" in mask
    pixels = failure(tif(path, [[1, 2]]), DataSettings(kind="classes", classes=("cell",)))
    assert "if background has a value of its own, name it among them as 'background'" in pixels
    assert "ids of objects, this is kind = 'instances'" in failure(tif(path, [[0, 1, 2, 3, 4]]), LAND)
    assert "value -2 is negative" in failure(tif(path, [[0, -2]], "i2"), CELLS)
    assert "holds fractions" in failure(tif(path, [[0, 0.5]], "f4"), CELLS)
    assert read_annotation(tif(path, [[0, 0.99999, 2.0001]], "f4"), CELLS).labels.tolist() == [[0, 1, 2]]
    assert "holds fractions" in failure(tif(path, [[0, np.nan]], "f4"), CELLS)
    assert "colour picture" in failure(png(tmp_path / "x.png", np.eye(3)[None]), CELLS)
    assert "complex" in failure(tif(path, [[0, 1]], "c8"), CELLS)


def test_an_annotation_without_a_label_is_an_error(tmp_path):
    path = tmp_path / "x.tif"
    assert "nothing is labelled" in failure(tif(path, [[-1, -1]], "i2"), CELLS)
    assert "nothing is labelled" in failure(tif(path, [[0, 0]]), STROKES)
    assert read_annotation(tif(path, [[0, 0]]), CELLS).labelled.all()  # an image without cells is a label too


def test_a_mask_is_not_an_instance_annotation(tmp_path):
    mask = np.zeros((30, 30), np.uint8)
    mask[2:8, 2:8] = mask[12:18, 2:8] = 255
    assert read_annotation(tif(tmp_path / "x.tif", mask, "u1"), CELLS).labels.max() == 255  # an object cut in two
    mask[12:18, 12:18] = 255
    assert "one object of value 255 in 3 pieces: this is a mask" in failure(tif(tmp_path / "x.tif", mask, "u1"), CELLS)


def test_points_are_not_outlines(tmp_path):
    points = np.zeros((30, 30), np.uint16)
    points[::10, ::10] = np.arange(1, 10).reshape(3, 3)
    assert "9 objects of at most 4 pixels: points are not outlines" in failure(tif(tmp_path / "x.tif", points), CELLS)
    huge = points.astype(np.uint32) * 100_000
    assert "points are not outlines" in failure(tif(tmp_path / "x.tif", huge, "u4"), CELLS)
    outlined = points.copy()
    outlined[5:9, 5:9] = 20
    assert read_annotation(tif(tmp_path / "y.tif", outlined, "u2"), CELLS).labels.max() == 20


def test_an_annotation_of_another_shape_is_an_error(tmp_path):
    path = tif(tmp_path / "x.tif", SMALL)
    assert "is 2 x 3, its image 4 x 5" in failure(path, CELLS, Grid((4, 5)))
    assert "exchanged" in failure(path, CELLS, Grid((3, 2)))
    grid = Grid((2, 3), (0.5, 0.5), "um")
    assert read_annotation(path, CELLS, grid).grid == grid


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (1, 1, 4), (3, 1, 5)], ids=str)
def test_thin_label_images_keep_their_axes(tmp_path, shape):
    path = tif(tmp_path / "x.tif", np.ones(shape))
    assert read_labels(path).shape == (shape if shape[0] > 1 or len(shape) == 2 else shape[1:])


def test_several_channels_or_times_are_not_a_label_image(tmp_path):
    for axes in ("CYX", "TYX"):
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((2, 3, 4), np.uint16), imagej=True, metadata={"axes": axes})
        with pytest.raises(InputError, match="axes YX or ZYX"):
            read_labels(tmp_path / "x.tif")


def test_the_display_colours_of_a_label_image_are_not_labels(tmp_path):
    table = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    for name, imagej in (("fiji.tif", True), ("plain.tif", False)):
        tifffile.imwrite(tmp_path / name, SMALL.astype(np.uint8), photometric="palette", colormap=table, imagej=imagej)
        np.testing.assert_array_equal(read_annotation(tmp_path / name, CELLS).labels, SMALL)


def test_grey_stored_as_rgb_is_read_as_ids(tmp_path):
    opaque = np.full(SMALL.shape, 255)
    for name, bands in (("rgb.png", [SMALL] * 3), ("rgba.png", [SMALL] * 3 + [opaque])):
        assert read_labels(png(tmp_path / name, np.stack(bands, axis=-1))).tolist() == SMALL.tolist()
    tifffile.imwrite(tmp_path / "x.tif", np.stack([SMALL] * 3, axis=-1).astype(np.uint16), photometric="rgb")
    assert read_annotation(tmp_path / "x.tif", CELLS).labels.tolist() == SMALL.tolist()
    coloured = failure(png(tmp_path / "y.png", np.stack([SMALL, SMALL, 2 * SMALL], axis=-1)), CELLS)
    assert "a colour picture, not a label image (hint: save one number for each object, in grey" in coloured


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_one_bit_masks_are_read_as_displayed(tmp_path, white_is_zero):
    white = SMALL > 0
    kind = "miniswhite" if white_is_zero else "minisblack"
    stored = ~white if white_is_zero else white
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric=kind, metadata=None, software="scanner")
    data = DataSettings(kind="classes", classes=("cell",))
    assert read_annotation(tmp_path / "x.tif", data).labels.tolist() == white.astype(int).tolist()
