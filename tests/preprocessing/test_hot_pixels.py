"""Hot pixels are removed, and images without them stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import NormaliseSettings
from biounet.preprocessing import scale_intensities
from biounet.preprocessing.hot_pixels import remove_hot_pixels
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


def test_hot_pixels_at_the_same_position_in_all_planes_are_removed():
    stack = np.stack([discs((96, 96), 12, 1)[0]] * 5)
    stack[:, 40, 40] = stack[:, 7, 90] = 60000
    cleaned, count = remove_hot_pixels(stack)
    assert count == 10
    assert cleaned[:, 40, 40].max() < 2000
    assert stack[0, 40, 40] == 60000  # the input is not modified


@given(seed=st.integers(0, 50), noise=st.sampled_from([0, 5, 40, 200]), radius=st.sampled_from([(2, 3), (4, 8)]))
@settings(max_examples=30, deadline=None)
def test_images_without_hot_pixels_stay_bit_for_bit(seed, noise, radius):
    image = discs((96, 96), 30, seed, radius)[0] + np.random.default_rng(seed).normal(0, noise, (96, 96))
    cleaned, count = remove_hot_pixels(image)
    assert count == 0
    assert cleaned.base is image or cleaned is image


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 1, 5)])
def test_images_of_any_shape_are_processed(shape):
    image = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    image.flat[-1] = 60000
    assert remove_hot_pixels(image)[0].shape == shape
    assert scale_intensities(image[None], SETTINGS).image.shape == (1, *shape)
