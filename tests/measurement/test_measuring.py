"""Labels of any program are measured, as arrays and as files; what does not fit is refused in one line."""

import doctest

import nibabel
import numpy as np
import pytest
import tifffile
from skimage.measure import regionprops_table

from biounet import MeasureOptions, measure
from biounet.core import InputError, SettingsError
from biounet.measurement import measuring
from support.label_images import blobs, picture

NUCLEI = picture("77..9 77..9 .....")
CELLS = picture("5555. 55554 5.444")


def gfp(labels, dtype=np.uint16):
    return np.random.default_rng(5).integers(0, 4000, labels.shape).astype(dtype)


@pytest.fixture
def files(tmp_path):
    """A label image with gaps in its ids, its image of two channels and the larger objects, each as a TIFF."""
    labels = blobs(60, 12) * 3
    image = np.stack([gfp(labels), gfp(labels)[::-1]])
    calibration = {"imagej": True, "resolution": (2.0, 2.0)}
    metadata = {"unit": "um", "axes": "CYX"}
    tifffile.imwrite(tmp_path / "cells.tif", image, **calibration, metadata=metadata)
    tifffile.imwrite(tmp_path / "labels.tif", labels.astype(np.uint16))
    tifffile.imwrite(tmp_path / "inside.tif", (labels > 0).astype(np.uint8))
    return tmp_path


def test_ids_are_kept_and_columns_are_those_of_scikit_image(files):
    found = measure(files / "labels.tif", files / "cells.tif", channels=["DAPI", "GFP"]).table
    labels, image = tifffile.imread(files / "labels.tif"), tifffile.imread(files / "cells.tif")
    wanted = ["label", "area", "intensity_mean", "intensity_max", "intensity_std"]
    theirs = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=wanted)
    assert found["label"].tolist() == theirs["label"].tolist()
    for ours, name in {"mean": "intensity_mean", "max": "intensity_max", "sd": "intensity_std"}.items():
        for number, channel in enumerate(("DAPI", "GFP")):
            np.testing.assert_allclose(found[f"intensity_{ours}_{channel}"], theirs[f"{name}-{number}"], rtol=1e-6)
    assert np.allclose(found["area_um2"], theirs["area"] * 0.25), "the pixel size is that of the image"


def test_arrays_and_files_give_the_same(files):
    labels, image = tifffile.imread(files / "labels.tif"), tifffile.imread(files / "cells.tif")
    inside = tifffile.imread(files / "inside.tif")
    from_files = measure(files / "labels.tif", files / "cells.tif", inside=files / "inside.tif")
    from_arrays = measure(labels, image, inside=inside, spacing=0.5)
    assert from_files.table.equals(from_arrays.table)
    assert from_files.parent_table.equals(from_arrays.parent_table)


def test_nuclei_are_counted_in_their_cells():
    found = measure(NUCLEI, inside=CELLS)
    assert found.table[["label", "parent", "inside_fraction", "crosses"]].to_numpy().tolist() == [
        [7, 5, 1.0, False],
        [9, 4, 0.5, False],
    ]
    assert found.parent_table[["label", "count_inside"]].to_numpy().tolist() == [[4, 1], [5, 1]]
    assert found.notes == ()


def test_an_empty_cell_has_a_count_of_0_and_a_lone_nucleus_no_parent():
    found = measure(picture("1..2"), inside=picture(".9.8"))
    assert found.table["parent"].isna().tolist() == [True, False]
    assert found.parent_table["count_inside"].tolist() == [1, 0]


def test_crossing_objects_are_reported_once():
    notes = measure(picture("1111 22.."), inside=picture("5566 7777")).notes
    assert notes == ("1 of 2 objects lies in more than one of the larger objects (column crosses)",)


def test_channels_may_be_images_of_their_own(files):
    labels = tifffile.imread(files / "labels.tif")
    image = tifffile.imread(files / "cells.tif")
    tifffile.imwrite(files / "gfp.tif", image[1])
    together = measure(labels, image, channels=["DAPI", "GFP"]).objects.columns
    apart = measure(labels, {"DAPI": image[0], "GFP": files / "gfp.tif"}).objects.columns
    assert list(together) == list(apart)
    for name, values in together.items():
        np.testing.assert_array_equal(values, apart[name], err_msg=name)


def test_volumes_with_an_affine_are_brought_to_the_order_of_their_image(tmp_path):
    labels = np.zeros((4, 5, 6), np.int16)
    labels[1:3, 1:4, 2:5], labels[0, 0, 0] = 4, 7
    image = np.random.default_rng(0).integers(0, 99, labels.shape).astype(np.int16)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    flipped = affine.copy()
    flipped[0, 0], flipped[0, 3] = -2, 2 * (labels.shape[0] - 1)
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels[::-1], flipped), tmp_path / "flipped.nii.gz")
    straight, turned = (
        measure(tmp_path / f"{name}.nii.gz", tmp_path / "image.nii.gz") for name in ("labels", "flipped")
    )
    assert straight.table.equals(turned.table)
    assert straight.table["volume_mm3"].tolist() == [18 * 12, 12]
    assert straight.table["intensity_mean_channel_0"].tolist() == [image[labels == 4].mean(), image[0, 0, 0]]
    moved = affine.copy()
    moved[0, 3] = 40
    nibabel.save(nibabel.Nifti1Image(labels, moved), tmp_path / "moved.nii.gz")
    with pytest.raises(InputError, match="does not lie where its image does"):
        measure(tmp_path / "moved.nii.gz", tmp_path / "image.nii.gz")


@pytest.mark.parametrize("dtype", ["u1", "i4", "u8", "f4", "f8"])
def test_ids_of_any_type(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "labels.tif", NUCLEI.astype(dtype))
    assert measure(tmp_path / "labels.tif").table["label"].tolist() == [7, 9]


def test_rings_and_background_may_be_left_out():
    options = MeasureOptions(ring="no")
    columns = measure(NUCLEI, np.ones((3, 5)), channels=["GFP"], options=options).objects.columns
    assert "intensity_sd_GFP" in columns
    assert not [name for name in columns if name.startswith(("ring", "background"))]


def test_the_example_in_the_documentation_is_right():
    assert doctest.testmod(measuring) == (0, 3)


def test_ids_of_64_bits_that_a_float_cannot_tell_apart_are_two():
    labels = np.array([[2**53, 0, 2**53 + 1, 2**63 + 5]], np.uint64)
    assert measure(labels).table["label"].tolist() == [2**53, 2**53 + 1, 2**63 + 5]


def test_ids_far_apart():
    assert measure(np.array([[0, 2**31 - 1, 3]])).table["label"].tolist() == [3, 2**31 - 1]


def test_a_label_image_without_objects_has_no_rows():
    found = measure(np.zeros((4, 4), np.uint8), np.ones((4, 4)), inside=CELLS[[0, 1, 2, 2], :4])
    assert len(found.table) == 0
    assert found.parent_table["count_inside"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("labels", "image", "inside", "message"),
    [
        (NUCLEI, np.ones((3, 4)), None, r"the labels: is 3 x 5, its image 3 x 4"),
        (NUCLEI, np.ones((5, 3)), None, r"the axes are exchanged"),
        (NUCLEI, np.ones((3, 5, 3)), None, r"axes='YXC'"),
        (NUCLEI, None, CELLS[:2], r"the larger objects: is 2 x 5, the labels 3 x 5"),
        (NUCLEI - 1, None, None, r"the labels hold the value -1"),
        (NUCLEI, None, -CELLS, r"larger objects hold the value -5"),
        (NUCLEI / 2, None, None, r"the labels must be integers, not float64"),
        (NUCLEI[0], None, None, r"\(y, x\) or \(z, y, x\), not of shape \(5,\)"),
        (NUCLEI, {"a": np.ones((2, 3, 5))}, None, r"2 channels, where each file is one"),
        (NUCLEI, {"a": np.ones((3, 5)), "b": np.ones((3, 4))}, None, r"not on the grid of .*: 3 x 4 voxels, not 3 x 5"),
    ],
)
def test_what_does_not_fit_is_refused(labels, image, inside, message):
    with pytest.raises(InputError, match=message) as caught:
        measure(labels, image, inside=inside)
    assert "\n" not in str(caught.value)


def test_names_of_channels_are_as_many_as_the_channels():
    with pytest.raises(InputError, match=r"1 channels?, and 2 names \(a, b\)"):
        measure(NUCLEI, np.ones((3, 5)), options=MeasureOptions(channels=("a", "b")))


@pytest.mark.parametrize("bad", [{"spacing": -1}, {"spacing": (1, 2, 3, 4)}, {"channels": ("a", "a")}, {"unit": "nm"}])
def test_options_that_fit_no_image_are_refused(bad):
    with pytest.raises(SettingsError):
        MeasureOptions(**bad)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((3, 5), -2, np.int16), "holds the value -2"),
        (np.full((3, 5), 0.5, np.float32), "whole numbers"),
        (np.random.default_rng(0).integers(0, 255, (3, 5, 3)).astype(np.uint8), "a colour picture, not a label image"),
    ],
)
def test_files_that_hold_no_ids_are_refused(tmp_path, values, message):
    tifffile.imwrite(tmp_path / "labels.tif", values, photometric="rgb" if values.ndim == 3 else "minisblack")
    with pytest.raises(InputError, match=message) as caught:
        measure(tmp_path / "labels.tif")
    assert str(tmp_path / "labels.tif") in str(caught.value)
