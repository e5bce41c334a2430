"""Rings around objects and the background: pictures, and a slow reference by distance transforms."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import Grid, InputError, SettingsError
from biounet.measurement import Ring, measure_objects, rings
from support.label_images import blobs, label_images, picture, pixels

CLOSE = Ring(gap=0, width=1)


def found_rings(text, ring, grid=None):
    labels = picture(text)
    return rings.ring_labels(labels, grid or Grid(labels.shape), ring)


def slow_rings(labels, ring, spacing):
    """One distance transform for each object: a ring is where exactly one object is the nearest."""
    n = int(labels.max())
    if n == 0:
        return np.zeros_like(labels)
    distances = np.array([ndimage.distance_transform_edt(labels != k, sampling=spacing) for k in range(1, n + 1)])
    nearest = distances.min(axis=0)
    alone = np.isclose(distances, nearest, rtol=1e-4).sum(axis=0) == 1
    inside = (labels == 0) & alone & (nearest > ring.gap * 1.00002) & (nearest <= (ring.gap + ring.width) * 1.00002)
    return np.where(inside, distances.argmin(axis=0) + 1, 0)


def test_a_ring_is_what_lies_within_its_width():
    assert (
        found_rings("..... ..... ..1.. ..... .....", CLOSE).tolist()
        == picture("..... ..1.. .1.1. ..1.. .....").tolist()
    )


def test_the_gap_is_left_out():
    ring = found_rings("1.......", Ring(gap=2, width=3))
    assert ring.tolist() == picture("...111..").tolist()


def test_between_two_objects_a_pixel_belongs_to_the_nearer():
    assert found_rings("1....2", Ring(0, 9)).tolist() == picture(".1122.").tolist()


def test_a_pixel_as_near_to_one_object_as_to_another_is_in_no_ring():
    assert found_rings("1...2", Ring(0, 9)).tolist() == picture(".1.2.").tolist()
    assert found_rings("1.... ..... ..... ..... ....1", Ring(0, 9))[2, 2] == 1, "twice the same object"


def test_rings_are_measured_in_the_unit_of_the_image():
    grid = Grid((5, 5), (1.0, 0.5), "um")
    text = "..... ..... ..1.. ..... ....."
    assert found_rings(text, Ring(0, 1, "um"), grid).tolist() == picture("..... ..1.. 11.11 ..1.. .....").tolist()
    assert found_rings(text, Ring(0, 1, "px"), grid).tolist() == picture("..... ..... .1.1. ..... .....").tolist()
    in_mm = Grid((5, 5), (0.001, 0.0005), "mm")
    assert found_rings(text, Ring(0, 1, "um"), in_mm).tolist() == found_rings(text, Ring(0, 1, "um"), grid).tolist()


def test_a_ring_may_be_wider_than_the_image():
    assert found_rings("1..", Ring(0, 999_999.0)).tolist() == found_rings("1..", Ring(0, 2)).tolist()
    tiny = Grid((1, 3), (1e-300, 1e-300), "um")
    assert found_rings("1..", Ring(0, 999_999.0, "um"), tiny).tolist() == found_rings("1..", Ring(0, 2)).tolist()


def test_a_ring_in_um_needs_a_pixel_size():
    with pytest.raises(InputError, match="pixel size is unknown"):
        found_rings("1..", Ring(unit="um"))


@given(
    st.sampled_from([2, 3]).flatmap(lambda dims: label_images(dims, 7)),
    st.sampled_from([Ring(), Ring(0, 2), Ring(1, 1.5), Ring(0.5, 30)]),
    st.sampled_from([1.0, 2.0, 3.5]),
)
@example(blobs(90, 20), Ring(), 1.0)
@settings(deadline=None, max_examples=60)
def test_rings_equal_the_slow_reference(labels, ring, aspect):
    spacing = (aspect, *(1.0,) * (labels.ndim - 1))
    ours = rings.ring_labels(labels, Grid(labels.shape, spacing, "um"), ring)
    np.testing.assert_array_equal(ours, slow_rings(labels, ring, spacing))


@given(label_images(longest=12), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_strips_leave_no_trace(labels, voxels):
    whole = rings.ring_labels(labels, Grid(labels.shape), Ring(0, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rings, "_STRIP", voxels)
        np.testing.assert_array_equal(rings.ring_labels(labels, Grid(labels.shape), Ring(0, 2)), whole)


@given(label_images(), st.sampled_from([(0, 1), (1,), (0,)]))
@settings(deadline=None, max_examples=40)
def test_mirrored_images_have_mirrored_rings(labels, axes):
    ring, grid = Ring(0, 3), Grid(labels.shape)
    mirrored = rings.ring_labels(np.ascontiguousarray(np.flip(labels, axes)), grid, ring)
    np.testing.assert_array_equal(mirrored, np.flip(rings.ring_labels(labels, grid, ring), axes))


@given(st.sampled_from([2, 3]).flatmap(lambda dims: label_images(dims, 7)), st.sampled_from(["u1", "u2", "f8", "?"]))
@settings(deadline=None, max_examples=60)
def test_figures_of_rings_are_those_of_their_pixels(labels, dtype):
    image, ring, grid = pixels(labels.shape, 1, dtype), Ring(0, 2), Grid(labels.shape)
    columns = measure_objects(labels, image, grid, None, ["a"], ring).columns
    where = slow_rings(labels, ring, (1.0,) * labels.ndim)
    for k, label in enumerate(columns["label"]):
        values = image[0][where == label].astype(float)
        assert columns["ring_area_px" if labels.ndim == 2 else "ring_volume_px"][k] == len(values)
        expected = [values.mean(), values.max(), values.sum(), values.std()] if len(values) else [np.nan] * 4
        got = [columns[f"ring_{name}_a"][k] for name in ("mean", "max", "sum", "sd")]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
        outside = image[0][labels == 0].astype(float)
        assert (
            columns["background_a"][k] == np.median(outside) if len(outside) else np.isnan(columns["background_a"][k])
        )


def test_an_object_without_a_ring_has_no_figures_of_it():
    labels = picture("12")
    columns = measure_objects(labels, pixels(labels.shape), Grid(labels.shape), None, ["a", "b"], CLOSE).columns
    assert columns["ring_area_px"].tolist() == [0, 0]
    for name in ("ring_mean_a", "ring_max_b", "ring_sum_a", "ring_sd_b", "background_a"):
        assert np.isnan(columns[name]).all(), name


def test_channels_may_differ_in_type():
    labels, channels = picture("1..2"), [np.array([[1, 2, 3, 4]], np.uint8), np.array([[0.5, 1, 1.5, 2]])]
    columns = measure_objects(labels, channels, Grid(labels.shape), None, ["a", "b"], CLOSE).columns
    assert columns["intensity_mean_a"].tolist() == [1, 4]
    assert columns["ring_mean_b"].tolist() == [1, 1.5]
    assert columns["background_b"].tolist() == [1.25, 1.25]


def test_a_background_with_nan_is_not_known():
    columns = measure_objects(picture("1.."), [np.array([[1.0, np.nan, 2]])], Grid((1, 3)), None, ["a"], CLOSE).columns
    assert np.isnan(columns["background_a"]).all()
    assert columns["intensity_mean_a"].tolist() == [1]


def test_a_ring_may_be_a_text():
    assert rings.as_ring("1,5px") == rings.as_ring("1, 5") == rings.as_ring(None) == Ring(1, 5, "px")
    assert rings.as_ring("0.5,2um") == rings.as_ring("0.5,2 µm") == Ring(0.5, 2, "um")
    assert rings.as_ring("no") is None
    for bad in ("5px", "1,5mm", "1,0px", "-1,5", "nan,1", "1.2.3,5", "1,5,6", "", 5):
        with pytest.raises(SettingsError, match="ring"):
            rings.as_ring(bad)


@pytest.mark.parametrize("bad", [{"gap": -1}, {"width": 0}, {"gap": float("inf")}, {"width": "2"}, {"unit": "mm"}])
def test_a_ring_of_no_lengths_is_refused(bad):
    with pytest.raises(SettingsError, match="of the ring"):
        Ring(**bad)
