"""OME-TIFF of labels: valid for the schema, read again equal by tifffile and biounet, pyramids without new labels."""

from dataclasses import replace

import numpy as np
import ome_types
import pytest
import tifffile

from biounet.core import Grid
from biounet.files import ReadOptions, export_formats, hash_tree, inspect_volume, read_volume, write_export
from support.labelled_images import labelled_image, squares, time_series

(OME_TIFF,) = export_formats(["ome-tiff"])
LARGE = squares((2100, 600), 40, 50)
SCENES = {
    "image": labelled_image(squares((20, 30)), (0.5, 0.25), "um"),
    "uncalibrated": labelled_image(squares((20, 30))),
    "stack": labelled_image(squares((3, 20, 30)), (2.0, 0.5, 0.5), "um"),
    "in mm": labelled_image(squares((3, 20, 30)), (0.02, 0.005, 0.005), "mm"),
    "series": time_series(3, 60.0, (0.5, 0.5), "um"),
    "empty": labelled_image(np.zeros((20, 30), np.int32)),
    "one plane": labelled_image(squares((1, 20, 30)), (2.0, 0.5, 0.5), "um"),
    "many": labelled_image(np.arange(1, 70_001, dtype=np.int32).reshape(280, 250)),
    "large": labelled_image(LARGE, (0.5, 0.5), "um"),
    "classes": labelled_image(squares((20, 30)).clip(max=2), kind="classes", class_names={1: "<core> & µ", 2: "rim"}),
}


@pytest.mark.parametrize("scene", SCENES)
def test_every_scene_is_valid_and_read_again_equal(tmp_path, scene):
    image = SCENES[scene]
    path = write_export(image, OME_TIFF, tmp_path)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        np.testing.assert_array_equal(tif.asarray().reshape(image.labels.shape), image.labels)
        assert tif.series[0].dtype == np.int32
        described = ome_types.from_xml(tif.ome_metadata, validate=True)
    (stored,) = described.images
    assert stored.name == "a"
    assert [channel.name for channel in stored.pixels.channels] == [image.element]
    sizes = [stored.pixels.physical_size_z, stored.pixels.physical_size_y, stored.pixels.physical_size_x]
    assert tuple(sizes[-image.grid.dims :]) == (image.grid.spacing or (None,) * image.grid.dims)
    assert stored.pixels.time_increment == image.interval
    if image.grid.unit:
        assert stored.pixels.physical_size_x_unit.value == {"um": "µm", "mm": "mm"}[image.grid.unit]


@pytest.mark.parametrize("scene", ["image", "uncalibrated", "stack", "in mm", "large"])
def test_biounet_reads_it_on_the_same_grid(tmp_path, scene):
    image = SCENES[scene]
    path = write_export(image, OME_TIFF, tmp_path)
    volume = read_volume(path, ReadOptions(dims=image.grid.dims))
    np.testing.assert_array_equal(volume.array[0], image.labels)
    factor = {"mm": 1000, "um": 1, None: 1}[image.grid.unit]
    expected = None if image.grid.spacing is None else tuple(size * factor for size in image.grid.spacing)
    assert inspect_volume(path, ReadOptions(dims=image.grid.dims)).grid.spacing == expected


def test_large_labels_are_tiled_and_their_lower_levels_hold_no_other_labels(tmp_path):
    with tifffile.TiffFile(write_export(SCENES["large"], OME_TIFF, tmp_path)) as tif:
        (series,) = tif.series
        assert [level.shape for level in series.levels] == [(2100, 600), (1050, 300), (525, 150), (263, 75), (132, 38)]
        for level in series.levels:
            assert level.keyframe.is_tiled
            assert set(np.unique(level.asarray())) <= set(np.unique(LARGE))
        # The middle of an object of 40 pixels is its label at an eighth of the size, too
        np.testing.assert_array_equal(series.levels[3].asarray()[2:3, 2:3], LARGE[16:17, 16:17])


def test_classes_have_their_names(tmp_path):
    described = ome_types.from_tiff(write_export(SCENES["classes"], OME_TIFF, tmp_path))
    (names,) = described.structured_annotations.map_annotations
    assert dict(names.value) == {"1": "<core> & µ", "2": "rim"}


def test_equal_labels_have_equal_bytes(tmp_path):
    image = SCENES["large"]
    for name in "ab":
        (tmp_path / name).mkdir()
    paths = [write_export(replace(image, image=None), OME_TIFF, tmp_path / name) for name in "ab"]
    assert len(set(map(hash_tree, paths))) == 1


def test_a_volume_of_a_nifti_has_the_size_of_its_voxels(tmp_path):
    affine = ((0.5, 0, 0, -10), (0, 0.5, 0, 20), (0, 0, 2, 30))
    grid = Grid((3, 20, 30), (2, 0.5, 0.5), "mm", affine)
    described = ome_types.from_tiff(write_export(labelled_image(squares(grid.shape), grid=grid), OME_TIFF, tmp_path))
    assert described.images[0].pixels.physical_size_z == 2
