"""Colours of labels are told apart."""

import numpy as np
from skimage.color import rgb2lab

from biounet.files.exports import colours


def test_lightness_and_hue_are_those_of_scikit_image():
    rgb = np.random.default_rng(0).integers(0, 256, (1000, 3)).astype(np.uint8)
    np.testing.assert_allclose(colours._to_lab(rgb), rgb2lab(rgb[None])[0], atol=1e-9)


def test_the_first_colours_are_far_apart_and_all_are_visible():
    lab = rgb2lab(colours.palette()[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[~np.eye(len(lab), dtype=bool)].min() > 5
    assert apart[:10, :10][~np.eye(10, dtype=bool)].min() > 40
    assert lab[:, 0].min() > 30
