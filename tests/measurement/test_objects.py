"""Tables of images: every column against scikit-image, small images, and laws of units and labels."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops, regionprops_table

from biounet.core import Grid, InputError, find_label_runs
from biounet.measurement import columns_to_csv, measure_classes, measure_objects, moments
from support.label_images import blobs, label_images, picture, pixels, row, table

# Name of the column: name in scikit-image.
NAMES = {
    "centroid_y_px": "centroid-0",
    "centroid_x_px": "centroid-1",
    "area_px": "area",
    "perimeter_px": "perimeter",
    "axis_major_length_px": "axis_major_length",
    "axis_minor_length_px": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "intensity_mean_a": "intensity_mean-0",
    "intensity_max_a": "intensity_max-0",
    "intensity_sd_a": "intensity_std-0",
    "intensity_mean_b": "intensity_mean-1",
    "intensity_max_b": "intensity_max-1",
    "intensity_sd_b": "intensity_std-1",
}
PROPERTIES = sorted({name.split("-")[0] for name in NAMES.values()})


@given(label_images())
@example(blobs())
@example(np.zeros((1, 1), np.int32))
@settings(deadline=None, max_examples=60)
def test_columns_match_scikit_image(labels):
    image = pixels(labels.shape)
    ours = table(labels, image=image)
    theirs = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=["label", *PROPERTIES])
    np.testing.assert_array_equal(ours["label"], theirs["label"])
    for name, their_name in NAMES.items():
        # Their moments are about 1e-8 where ours are exactly 0.
        np.testing.assert_allclose(ours[name], theirs[their_name], rtol=1e-6, atol=1e-6, err_msg=name)


@given(label_images(longest=14))
@example(blobs())
@settings(deadline=None, max_examples=100)
def test_convex_areas_equal_scikit_image(labels):
    runs = find_label_runs(labels[None])
    found = regionprops(labels)
    low, high = (np.array([region.bbox[i] for region in found], np.int64) for i in (0, 2))
    ours = moments.convex_areas(runs, labels.shape[1], low, high - 1)
    assert ours.tolist() == [region.area_convex for region in found]


@given(label_images(), st.tuples(*[st.floats(0.1, 10)] * 2))
@example(blobs(), (0.25, 0.5))
@settings(deadline=None, max_examples=50)
def test_lengths_in_um_match_scikit_image(labels, spacing):
    ours = table(labels, Grid(labels.shape, spacing, "um"))
    properties = ["area", "centroid", "axis_major_length", "axis_minor_length", "eccentricity", "solidity"]
    theirs = regionprops_table(labels, properties=properties, spacing=spacing)
    names = {"area_um2": "area", "centroid_y_um": "centroid-0", "centroid_x_um": "centroid-1"}
    names |= {f"axis_{which}_length_um": f"axis_{which}_length" for which in ("major", "minor")}
    for name, their_name in {**names, "solidity": "solidity"}.items():
        np.testing.assert_allclose(ours[name], theirs[their_name], rtol=1e-6, atol=1e-5, err_msg=name)
    # Near a circle and near a line, an eccentricity magnifies the rounding of the moments.
    np.testing.assert_allclose(ours["eccentricity"] ** 2, theirs["eccentricity"] ** 2, atol=1e-6)


@given(label_images(), st.floats(0.01, 100))
@settings(deadline=None, max_examples=50)
def test_square_pixels_scale_lengths_and_areas(labels, step):
    columns = table(labels, Grid(labels.shape, (step, step), "um"))
    for name in ("perimeter", "axis_major_length", "axis_minor_length", "centroid_y", "centroid_x"):
        np.testing.assert_allclose(columns[f"{name}_um"], columns[f"{name}_px"] * step, rtol=1e-9, atol=1e-6 * step)
    np.testing.assert_allclose(columns["area_um2"], columns["area_px"] * step**2)


def test_twice_the_spacing_is_four_times_the_area():
    labels = blobs()
    once, twice = (table(labels, Grid(labels.shape, (s, s / 2), "um")) for s in (0.5, 1.0))
    for name, column in once.items():
        factor = 4 if name.endswith("_um2") else 2 if name.endswith("_um") else 1
        np.testing.assert_allclose(twice[name], factor * column, rtol=1e-12, err_msg=name)


def test_columns_in_mm():
    labels = blobs(50, 8)
    mm, um = (table(labels, Grid(labels.shape, (0.5, 1), unit)) for unit in ("mm", "um"))
    assert list(mm) == [name.replace("_um", "_mm") for name in um]
    for in_mm, in_um in zip(mm.values(), um.values(), strict=True):
        np.testing.assert_array_equal(in_mm, in_um)


def test_no_physical_columns_without_calibration():
    labels = blobs(50, 8)
    bare, calibrated = table(labels), table(labels, Grid(labels.shape, (1.0, 1.0), "um"))
    assert not [name for name in bare if "um" in name.replace("sum", "").split("_")[-1]]
    assert {name for name in calibrated if name not in bare} == {
        "area_um2", "perimeter_um", "axis_major_length_um", "axis_minor_length_um", "centroid_y_um", "centroid_x_um"
    }  # fmt: skip


@given(label_images(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_permuted_labels_permute_the_rows(labels, random):
    order = list(range(labels.max()))
    random.shuffle(order)
    before = table(labels)
    after = table(np.append(0, np.array(order, np.int32) + 1).astype(np.int32)[labels])
    for name in set(before) - {"label"}:
        # An object's row moves from k to order[k].
        np.testing.assert_array_equal(before[name], after[name][order], err_msg=name)


@given(label_images(), st.sampled_from([(0, 1), (1,), (0,)]))
@settings(deadline=None, max_examples=50)
def test_mirrored_images_have_equal_shapes(labels, axes):
    before, after = table(labels), table(np.flip(labels, axes))
    for name in ("area_px", "perimeter_px", "solidity", "touches_border"):
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    for name in ("axis_major_length_px", "axis_minor_length_px"):
        np.testing.assert_allclose(before[name], after[name], atol=1e-6)


def test_one_pixel():
    found = row("... .1. ...")
    assert (found["area_px"], found["centroid_y_px"], found["centroid_x_px"]) == (1, 1, 1)
    assert (found["perimeter_px"], found["axis_major_length_px"], found["eccentricity"]) == (0, 0, 0)
    assert found["solidity"] == 1


def test_line():
    found = row("....... .11111. .......")
    assert found["axis_minor_length_px"] == 0
    assert found["axis_major_length_px"] == pytest.approx(4 * math.sqrt(2))
    assert (found["eccentricity"], found["solidity"]) == (1, 1)


def test_diagonal_line():
    found = row("1... .1.. ..1. ...1")
    assert (found["axis_minor_length_px"], found["eccentricity"], found["solidity"]) == (0, 1, 1)


def test_rectangle_of_non_square_pixels():
    """The outline runs through the centres of the border pixels: twice 1 step along y and 3 along x."""
    found = row("...... .1111. .1111. ......", Grid((4, 6), (10.0, 0.5), "um"))
    assert found["perimeter_px"] == 2 * (1 + 3)
    assert found["perimeter_um"] == 2 * (10 + 3 * 0.5)
    assert found["area_um2"] == 8 * 10 * 0.5


def test_diamond_of_non_square_pixels():
    found = row("..... ..1.. .111. ..1.. .....", Grid((5, 5), (3.0, 4.0), "um"))
    assert found["perimeter_um"] == pytest.approx(4 * 5)


def test_ring_has_two_outlines_and_a_hole():
    found = row("11111 1...1 1...1 1...1 11111")
    assert found["area_px"] == 16
    assert found["solidity"] == 16 / 25


def test_disconnected_parts_share_a_row():
    found = row("1...1")
    assert (found["area_px"], found["centroid_x_px"], found["solidity"]) == (2, 2, 2 / 5)


def test_every_pixel_an_object():
    labels = np.arange(1, 1201, dtype=np.int32).reshape(3, 400)
    columns = table(labels, image=labels[None])
    assert columns["intensity_sum_a"].tolist() == columns["label"].tolist() == list(range(1, 1201))
    assert set(columns["solidity"]) == set(columns["area_px"]) == {1}
    assert set(columns["perimeter_px"]) == {0}


def test_perimeter_next_to_a_touching_object():
    alone = table(picture("111. 111. 111."))
    beside = table(picture("1112 1112 1112"))
    assert alone["perimeter_px"][0] == beside["perimeter_px"][0] == 8


def test_touching_the_border():
    labels = picture("1....  .2.3.  .....  .4..5  ..6..")
    assert table(labels)["touches_border"].tolist() == [True, False, False, False, True, True]


@pytest.mark.parametrize("size", [(3, 4), (2, 3, 4)])
def test_an_empty_table_keeps_all_columns(size):
    grid = Grid(size, (0.5,) * len(size), "um")
    some = np.zeros(size, np.int32)
    some[0] = 1
    empty = table(np.zeros(size, np.int32), grid, confidence=np.zeros(0))
    full = table(some, grid, confidence=np.ones(1))
    assert {name: c.dtype for name, c in empty.items()} == {name: c.dtype for name, c in full.items()}
    assert all(len(column) == 0 for column in empty.values())
    assert columns_to_csv(empty) == ",".join(full) + "\n"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([[1, 3, 3]]), "2 is missing"),
        (np.array([[1, -1, 0]]), "-1..1"),
        (np.array([[1, 2**32, 0]]), "0..4294967296"),
        (np.array([[0.5, 1.0, 0]]), "integers"),
        (np.array([[1, 2]]), "grid"),
    ],
)
def test_invalid_labels(labels, words):
    with pytest.raises(InputError, match=words):
        measure_objects(labels, pixels((1, 3), 1), Grid((1, 3)), None, ["a"])


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_channel_names_must_match_channels(names):
    with pytest.raises(InputError, match="names"):
        measure_objects(picture("1"), pixels((1, 1)), Grid((1, 1)), None, names)


def test_confidence_must_match_objects():
    with pytest.raises(InputError, match="confidence of 3"):
        table(picture("1.2"), confidence=np.zeros(3))


def test_label_dtypes_and_read_only_labels():
    labels = picture("11.22")
    for dtype in (np.uint8, np.uint16, np.int64, ">u4"):
        other = labels.astype(dtype)
        other.flags.writeable = False
        assert table(other)["area_px"].tolist() == [2, 2]


def test_classes():
    columns = measure_classes(
        picture("1102 1000").astype(np.uint8), ["a", "b", "c"], Grid((2, 4), (1.0, 0.5), "mm")
    ).columns
    assert columns_to_csv(columns) == (
        "class,label,area_px,area_mm2,fraction\na,1,3,1.5,0.375\nb,2,1,0.5,0.125\nc,3,0,0.0,0.0\n"
    )


def test_channels_of_classes():
    channels = {"GFP": np.array([[1, 3, 9, 7], [5, 0, 0, 0]], np.uint8), "RFP": np.ones((2, 4))}
    columns = measure_classes(picture("1102 1000").astype(np.uint8), ["a", "b", "c"], Grid((2, 4)), channels).columns
    np.testing.assert_array_equal(columns["intensity_mean_GFP"], [3, 7, np.nan])
    np.testing.assert_array_equal(columns["intensity_mean_RFP"], [1, 1, np.nan])


def test_classes_of_a_volume():
    columns = measure_classes(np.ones((2, 3, 4), np.uint8), ["a"], Grid((2, 3, 4))).columns
    assert {name: column.tolist() for name, column in columns.items()} == {
        "class": ["a"], "label": [1], "volume_px": [24], "fraction": [1.0]
    }  # fmt: skip


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_must_have_class_names(label):
    with pytest.raises(InputError, match="1 classes"):
        measure_classes(np.array([[0, label]]), ["a"], Grid((1, 2)))
