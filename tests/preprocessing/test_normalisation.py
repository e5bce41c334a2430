"""Intensities on one scale: percentiles, z-scores, offsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import NormaliseSettings
from biounet.preprocessing import offset_from_minimum, scale_intensities
from biounet.reporting import draw_overlay
from support.images import discs

SETTINGS = NormaliseSettings()
ZSCORE = NormaliseSettings(method="zscore")


def normalise(image, settings):
    return scale_intensities(image, settings).image


def test_percentiles_are_of_the_whole_image_and_each_channel():
    image = np.stack([np.arange(101.0), np.arange(101.0) * 5 + 3])[:, None]
    scaled = normalise(image, NormaliseSettings(low=0, high=100))
    assert np.allclose(scaled[0], np.arange(101) / 100)
    assert np.allclose(scaled[0], scaled[1])
    together = normalise(image, NormaliseSettings(low=0, high=100, per_channel=False))
    assert np.allclose(together, image / 503, atol=1e-6)


def test_the_minimum_is_subtracted_from_64_bit_integers_exactly():
    values = np.array([2**63, 2**63 + 1, 2**63 + 3], np.uint64)
    assert offset_from_minimum(values).tolist() == [0, 1, 3]
    assert offset_from_minimum(np.array([-(2**63), 2**63 - 1])).tolist() == [0, 2**64 - 1]
    assert offset_from_minimum(np.array([3, 5], np.uint16)).tolist() == [3, 5]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["u4", "i4", "u8", "i8", "f8"]),
    offset=st.sampled_from([0, 1000, 2**24, 2**30, 2**31 - 2**16, 2**40, 2**60]),
    method=st.sampled_from(["percentiles", "zscore"]),
)
def test_a_constant_offset_changes_nothing(kind, offset, method):
    """Law: no digits of an integer are lost to an offset, and none of a float that it has itself."""
    highest = 2**40 if kind == "f8" else np.iinfo(kind).max
    image = (discs((64, 64), 8, 3)[0] // 8)[None]
    shifted = image.astype(kind) + np.dtype(kind).type(min(offset, highest - 2**16))
    scaling = NormaliseSettings(method=method)
    np.testing.assert_allclose(normalise(shifted, scaling), normalise(image, scaling), atol=1e-5)
    if method == "percentiles":
        labels = np.zeros((64, 64), np.int32)
        assert np.array_equal(draw_overlay(shifted, labels), draw_overlay(image, labels))


def test_few_bright_objects_on_a_constant_background_become_1():
    image = np.full((1, 400, 400), 100, np.uint16)
    image[0, 50:60, 50:60] = 900  # 0.06 % of the pixels
    image[0, 90:93, 200:203] = 700
    scaled = normalise(image, SETTINGS)[0]
    assert scaled[0, 0] == 0
    assert scaled[55, 55] == pytest.approx(1, abs=0.01)
    assert scaled[91, 201] == pytest.approx(0.75, abs=0.01)
    dark = normalise(1000 - image.astype(np.int32), SETTINGS)[0]
    assert dark[0, 0] == 1
    assert dark[55, 55] == pytest.approx(0, abs=0.01)


def test_z_scores_are_taken_within_the_body_and_the_background_becomes_0():
    draw = np.random.default_rng(0)
    image = np.zeros((1, 12, 20, 20), np.float32)
    image[0, 3:9, 4:16, 4:16] = draw.normal(500, 80, (6, 12, 12))
    brain = image[0] > 0
    scores = normalise(image, ZSCORE)[0]
    assert scores[brain].mean() == pytest.approx(0, abs=1e-5)
    assert scores[brain].std() == pytest.approx(1, abs=1e-5)
    assert (scores[~brain] == 0).all()


def test_z_scores_of_an_image_with_background_are_taken_over_all_voxels():
    image = np.random.default_rng(1).normal(30, 5, (2, 6, 7, 8))
    image[1] *= 4
    scores = normalise(image, ZSCORE)
    np.testing.assert_allclose(scores.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(axis=(1, 2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0, 7, -3])
@pytest.mark.parametrize("method", [SETTINGS, ZSCORE], ids=["percentiles", "zscore"])
def test_an_image_without_contrast_becomes_0(value, method):
    assert (normalise(np.full((1, 4, 5, 6), value, np.int16), method) == 0).all()
