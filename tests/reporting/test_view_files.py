"""The files of an image for the report: what the viewer unpacks is the label image, and they are small."""

import base64
import json
import zlib

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from imagecodecs import webp_decode

from biounet.core import Grid, Volume
from biounet.measurement import Table, measure_objects
from biounet.reporting import OutputOptions, write_outputs
from biounet.reporting.overlays import Canvas
from biounet.reporting.view_files import encode_picture, view_data
from biounet.segmentation import Segmentation
from support.images import discs


def unpack(text):
    """Return what the script of the page makes of the data of an image: labels, sizes, confidence, and the rest."""
    view = json.loads(text)
    planes, at = np.frombuffer(zlib.decompress(base64.b64decode(view["data"])), np.uint8), 0
    arrays = []
    for count, kind in ((view["runs"], "<i4"), (view["runs"], "<i4"), *[(view.get("objects", 0), "<f4")] * 2):
        arrays.append(planes[at : at + 4 * count].reshape(4, count).T.copy().view(kind).ravel())
        at += 4 * count
    labels = np.repeat(arrays[1], arrays[0]).reshape(view["size"][::-1])
    return labels, arrays[2], arrays[3], view


def canvas_of(labels):
    return Canvas(np.zeros((*labels.shape, 3), np.uint8), labels, bright=False)


def table_of(count):
    numbers = np.arange(1, count + 1)
    return Table("objects", {"label": numbers, "area_px": numbers * 3, "confidence": 1 / numbers})


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 70_000)))
def test_labels_and_figures_come_back(labels):
    count = int(labels.max())
    found, sizes, confidence, view = unpack(view_data(canvas_of(labels), table_of(count), Grid(labels.shape), {}))
    assert np.array_equal(found, labels)
    assert np.array_equal(sizes, np.arange(1, count + 1) * 3)
    assert np.allclose(confidence, 1 / np.arange(1, count + 1))
    assert view["hidden"] == count - len(set(labels[labels > 0].tolist()))


def test_the_size_of_a_pixel_is_that_of_the_labels():
    labels = np.zeros((10, 20), np.int32)
    data = view_data(canvas_of(labels), table_of(0), Grid((30, 60), (0.5, 0.25), "um"), {})
    view = unpack(data)[3]
    assert (view["pixel"], view["unit"], view["source"]) == (0.75, "um", [60, 30])
    assert "pixel" not in unpack(view_data(canvas_of(labels), table_of(0), Grid((30, 60)), {}))[3]


def test_names_of_classes_cannot_end_the_script():
    labels = np.array([[0, 1]], np.int32)
    table = Table(
        "classes", {"class": np.array(["</script>"], object), "label": np.array([1]), "area_px": np.array([1])}
    )
    text = view_data(canvas_of(labels), table, Grid(labels.shape), {1: "</script>"})
    assert "<" not in text
    assert unpack(text)[3]["names"] == {"1": "</script>"}


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (700, 900)])
def test_pictures_keep_their_shape_and_stay_small(shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    encoded = encode_picture(noise, (192, 144), 3000)
    height, width, _ = webp_decode(encoded).shape
    assert len(encoded) <= 3000
    assert width <= 192
    assert height <= 144
    if shape == (700, 900):
        assert width / height == pytest.approx(900 / 700, rel=0.05)


def test_files_of_an_image(tmp_path):
    image, labels = discs((120, 160), 8, 0)
    grid = Grid(labels.shape)
    table = measure_objects(labels, image[None], grid, np.ones(labels.max()), ("a",))
    result = Segmentation(labels, int(labels.max()), table, Volume(image[None], grid))
    options = OutputOptions(view_folder=tmp_path / "views")
    write_outputs(result, tmp_path, "x", options)
    files = {path.name: path.read_bytes() for path in (tmp_path / "views").iterdir()}
    assert set(files) == {"x_thumb.webp", "x_view.webp", "x_view.js"}
    assert len(files["x_thumb.webp"]) <= 20_000
    assert webp_decode(files["x_view.webp"]).shape == (120, 160, 3)
    script = files["x_view.js"].decode()
    assert np.array_equal(unpack(script.removeprefix("biounetView(").removesuffix(");\n"))[0], labels)
    write_outputs(result, tmp_path, "x", options)
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "views").iterdir()}
