"""OME-Zarr: valid for its own library, the same pixels when read again, and pixel sizes as in the source."""

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from biounet.core import Grid, Volume
from biounet.files import export_formats, hash_tree, write_export
from biounet.files.exports.pyramid import halve_image, halve_labels, pyramid_factors
from support.labelled_images import labelled_image, squares, time_series, without_image

(OME_ZARR,) = export_formats(["ome-zarr"])
AFFINE = ((0.5, 0, 0, -10), (0, 0.5, 0, 20), (0, 0, 2, 30))


def export(image, tmp_path):
    return write_export(image, OME_ZARR, tmp_path)


def multiscales(path):
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]


def transformations(path, level=0):
    return {one["type"]: one[one["type"]] for one in multiscales(path)["datasets"][level]["coordinateTransformations"]}


def validate(path):
    """Validate the image and its labels, or labels alone, with the models of the specification."""
    from ome_zarr_models.v05 import Image, ImageLabel

    group = zarr.open_group(path, mode="r")
    if "image-label" in group.attrs["ome"]:
        return ImageLabel.from_zarr(group)
    image = Image.from_zarr(group)
    assert image.labels.ome_attributes.labels == list(group["labels"].group_keys())
    return ImageLabel.from_zarr(group["labels"][image.labels.ome_attributes.labels[0]])


SCENES = {
    "image": labelled_image(squares((20, 30)), (0.5, 0.25), "um"),
    "uncalibrated": labelled_image(squares((20, 30))),
    "stack": labelled_image(squares((3, 20, 30)), (2.0, 0.5, 0.5), "um"),
    "pyramid": labelled_image(squares((700, 530)), (0.5, 0.5), "um"),
    "series": time_series(3, 60.0, (0.5, 0.5), "um"),
    "empty": labelled_image(np.zeros((20, 30), np.int32), (0.5, 0.5), "um"),
    "classes": labelled_image(squares((20, 30)).clip(max=2), kind="classes", class_names={1: "core", 2: "rim"}),
    "volume in mm": labelled_image(squares((3, 20, 30)), grid=Grid((3, 20, 30), (2, 0.5, 0.5), "mm", AFFINE)),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("with_image", [True, False], ids=["with image", "labels alone"])
def test_every_scene_is_valid_and_read_again_equal(tmp_path, scene, with_image):
    image = SCENES[scene] if with_image else without_image(SCENES[scene])
    path = export(image, tmp_path)
    labels = path / "labels" / image.element if with_image else path
    source = validate(path).ome_attributes.image_label.source
    assert (source.image if source else None) == ("../../" if with_image else None)
    np.testing.assert_array_equal(zarr.open_array(labels / "0", mode="r")[:], image.labels)
    if with_image:
        stored = zarr.open_array(path / "0", mode="r")
        pixels = np.moveaxis(stored[:], 1 if image.times else 0, 0)
        np.testing.assert_array_equal(pixels, image.image.array)
        assert stored.dtype == image.image.array.dtype
        assert [axis for axis in multiscales(path)["axes"] if axis["name"] != "c"] == multiscales(labels)["axes"]


@pytest.mark.parametrize("scene", ["image", "stack", "pyramid", "series"])
def test_equal_input_gives_equal_bytes(tmp_path, scene):
    hashes = {hash_tree(write_export(SCENES[scene], OME_ZARR, tmp_path / name)) for name in ("a", "b")}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("spacing", "unit", "word"),
    [((0.5, 0.25), "um", "micrometer"), ((2.0, 3.0), "mm", "millimeter"), (None, None, None)],
)
def test_pixels_have_the_size_of_the_source_with_its_unit(tmp_path, spacing, unit, word):
    path = export(labelled_image(squares((20, 30)), spacing, unit), tmp_path)
    for group in (path, path / "labels" / "cells"):
        axes = [axis for axis in multiscales(group)["axes"] if axis["type"] == "space"]
        assert [axis.get("unit") for axis in axes] == [word, word]
        assert transformations(group)["scale"][-2:] == list(spacing or (1.0, 1.0))
        assert "translation" not in transformations(group)


def test_levels_lie_on_each_other(tmp_path):
    # The centre of a block of two pixels is half a pixel from that of its first one.
    path = export(SCENES["pyramid"], tmp_path)
    for group, channel in ((path, [1.0]), (path / "labels" / "cells", [])):
        assert [one["path"] for one in multiscales(group)["datasets"]] == ["0", "1", "2"]
        assert transformations(group, 1)["scale"] == [*channel, 1.0, 1.0]
        assert transformations(group, 1)["translation"] == [*(0.0 for _ in channel), 0.25, 0.25]
        assert transformations(group, 2)["translation"] == [*(0.0 for _ in channel), 0.75, 0.75]


def test_frames_have_their_time(tmp_path):
    series = time_series(3, 60.0)
    series = replace(series, times=(4, 5, 6), image=None)
    path = export(series, tmp_path)
    assert multiscales(path)["axes"][0] == {"name": "t", "type": "time", "unit": "second"}
    assert transformations(path) == {"scale": [60.0, 1.0, 1.0], "translation": [240.0, 0.0, 0.0]}
    path = export(replace(series, interval=None, name="b"), tmp_path)
    assert multiscales(path)["axes"][0] == {"name": "t", "type": "time"}


def test_a_volume_whose_axes_are_those_of_the_world_has_its_place_and_others_their_directions(tmp_path):
    path = export(SCENES["volume in mm"], tmp_path)
    assert transformations(path)["translation"] == [0.0, 30.0, 20.0, -10.0]
    axes = {axis["name"]: axis.get("orientation") for axis in multiscales(path)["axes"]}
    assert axes["x"] == {"type": "anatomical", "value": "left-to-right"}
    flipped = ((-0.5, 0, 0, 10), (0, 0.5, 0, 20), (0, 0, 2, 30))
    oblique = ((0.4, -0.3, 0, 10), (0.3, 0.4, 0, 20), (0, 0, 2, 30))
    for name, affine in (("flipped", flipped), ("oblique", oblique)):
        grid = Grid((3, 20, 30), (2, 0.5, 0.5), "mm", affine)
        path = export(labelled_image(squares(grid.shape), grid=grid, name=name), tmp_path)
        assert "translation" not in transformations(path)
    axes = {axis["name"]: axis for axis in multiscales(tmp_path / "flipped.ome.zarr")["axes"]}
    assert axes["x"]["orientation"]["value"] == "right-to-left"


def test_all_channels_are_in_the_image_with_their_names(tmp_path):
    labels = squares((20, 30))
    green = labels.astype(np.uint16) * 500
    volume = Volume(labels.astype(np.uint8)[None], Grid((20, 30)), channel_names=("DAPI",), measured={"GFP": green})
    path = export(labelled_image(labels, image=volume), tmp_path)
    omero = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    assert [channel["label"] for channel in omero["channels"]] == ["DAPI", "GFP"]
    assert len({channel["color"] for channel in omero["channels"]}) == 2
    stored = zarr.open_array(path / "0", mode="r")[:]
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored[1], green)


def test_colours_and_columns_are_in_the_metadata_of_up_to_1000_objects(tmp_path):
    few, many = squares((20, 30)), squares((210, 210), 2, 6)
    described = validate(export(labelled_image(few, name="few"), tmp_path)).ome_attributes.image_label
    assert [one.label_value for one in described.colors] == list(range(1, few.max() + 1))
    assert len({one.rgba for one in described.colors}) == few.max()
    first = described.properties[0].model_dump()
    assert (first["area_px"], first["touches_border"]) == (16, False)
    assert many.max() > 1000
    described = validate(export(labelled_image(many, name="many"), tmp_path)).ome_attributes.image_label
    assert (described.colors, described.properties) == (None, None)


def test_classes_have_their_names(tmp_path):
    described = validate(export(SCENES["classes"], tmp_path)).ome_attributes.image_label
    assert [one.model_dump()["class"] for one in described.properties] == ["core", "rim"]


def test_labels_beyond_16_bits_are_kept(tmp_path):
    labels = np.arange(1, 70_001, dtype=np.int32).reshape(280, 250)
    path = export(labelled_image(labels, image=None), tmp_path)
    np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[:], labels)


def test_lower_levels_of_labels_are_labels_and_those_of_images_means():
    pixels = np.array([[0, 0, 9], [9, 9, 9], [4, 4, 200]])
    assert halve_labels(pixels, (2, 2)).tolist() == [[0, 9], [4, 200]]
    assert halve_image(pixels.astype(np.uint8), (2, 2)).tolist() == [[4, 9], [4, 200]]
    assert halve_image(np.array([[1.0, 2.0]]), (1, 2)).tolist() == [[1.5]]


@given(arrays.arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 3)))
@settings(max_examples=50, deadline=None)
def test_no_label_is_made_up(labels):
    halved = halve_labels(labels, (2, 2))
    assert halved.shape == tuple(-(-n // 2) for n in labels.shape)
    for place in np.ndindex(halved.shape):
        block = labels[tuple(slice(2 * i, 2 * i + 2) for i in place)]
        values, counts = np.unique(block, return_counts=True)
        assert halved[place] in values[counts == counts.max()]


def test_axes_of_coarse_steps_wait_for_the_others():
    assert pyramid_factors((20, 30), (1, 1)) == [(1, 1)]
    assert pyramid_factors((40, 1100, 200), (4, 1, 1)) == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]
