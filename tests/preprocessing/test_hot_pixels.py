"""Hot pixels are removed, and images without them stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import ArrayImage, DataSettings, Grid, NormaliseSettings, Volume
from biounet.preprocessing import find_scale, scale_intensities
from support.hot_pixels import remove_hot_pixels
from support.images import discs

SETTINGS = NormaliseSettings()
FIELD = discs((256, 256), 60, 1)[0]


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_hot_pixels_do_not_change_other_pixels(share, kind):
    clean = (FIELD // (8 if kind is np.uint8 else 1)).astype(kind)
    hot = clean.copy()
    chosen = np.random.default_rng(0).random(hot.shape) < share
    hot[chosen] = 255 if kind is np.uint8 else 65535
    expected = scale_intensities(clean[None], SETTINGS).image
    scaled = scale_intensities(hot[None], SETTINGS)
    assert scaled.hot == pytest.approx(chosen.mean(), rel=0.25)
    np.testing.assert_allclose(scaled.image[0][~chosen], expected[0][~chosen], atol=0.05)
    assert np.mean(scaled.image > 1.5) < 1e-4


def scale_of(image):
    """Return the scale of ``([z,] y, x)``."""
    return find_scale(ArrayImage.of(Volume(image[None], Grid(image.shape))), SETTINGS, DataSettings()).channels[0]


def test_hot_pixels_at_the_same_position_in_all_planes_are_removed():
    stack = np.stack([discs((96, 96), 12, 1)[0]] * 5)
    stack[:, 40, 40] = stack[:, 7, 90] = 60000
    scale = scale_of(stack)
    assert scale.hot_pixels == 10
    scaled = scale_intensities(stack[None], SETTINGS).image[0]
    assert scale.low + scale.width * scaled[:, 40, 40].max() < 2000
    assert stack[0, 40, 40] == 60000  # the input is not modified


@given(seed=st.integers(0, 50), noise=st.sampled_from([0, 5, 40, 200]), radius=st.sampled_from([(2, 3), (4, 8)]))
@settings(max_examples=30, deadline=None)
def test_images_without_hot_pixels_stay_bit_for_bit(seed, noise, radius):
    image = discs((96, 96), 30, seed, radius)[0] + np.random.default_rng(seed).normal(0, noise, (96, 96))
    scale = scale_of(image)
    assert scale.hot is None
    expected = (image - scale.low).astype(np.float32) * np.float32(1 / scale.width)
    assert np.array_equal(scale_intensities(image[None], SETTINGS).image[0], expected)


@given(seed=st.integers(0, 50), shape=st.sampled_from([(90, 70), (3, 40, 50), (2, 600, 33)]))
@settings(max_examples=20, deadline=None)
def test_hot_pixels_are_replaced_by_the_third_highest_neighbour(seed, shape):
    rng = np.random.default_rng(seed)
    image = rng.gamma(2, 30, shape).round().astype(np.uint16)
    image[rng.random(shape) < 0.01] = 4000
    cleaned, count = remove_hot_pixels(image)
    scale = scale_of(image)
    assert scale.hot_pixels == count > 0
    expected = (cleaned.astype(np.float32) - np.float32(scale.low)) * np.float32(1 / scale.width)
    assert np.array_equal(scale_intensities(image[None], SETTINGS).image[0], expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 1, 5)])
def test_images_of_any_shape_are_processed(shape):
    image = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    image.flat[-1] = 60000
    assert scale_of(image).hot_pixels == remove_hot_pixels(image)[1]
    assert scale_intensities(image[None], SETTINGS).image.shape == (1, *shape)
