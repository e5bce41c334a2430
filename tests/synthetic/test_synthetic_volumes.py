"""Stacks and heads that the project makes: exact labels, the same again from a seed, physics that can be seen."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import sample_folder
from biounet.synthetic import StackSettings, draw_stack_settings, make_head, make_stack

SMALL = StackSettings(shape=(16, 40, 40), diameter=7)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_labels_are_1_to_n_and_each_is_one_piece(seed):
    image, labels = make_stack(seed, draw_stack_settings(seed, (14, 40, 40)))
    assert image.shape == labels.shape == (14, 40, 40)
    assert image.dtype == np.uint16
    assert labels.dtype == np.int32
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, labels.max() + 1))
    for nucleus in range(1, labels.max() + 1):
        assert ndimage.label(labels == nucleus)[1] == 1


def test_the_same_seed_makes_the_same_stack_and_head():
    first, again, other = (make_stack(seed, SMALL) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    heads = [make_head(seed, (16, 20, 18)) for seed in (3, 3, 4)]
    assert all(np.array_equal(heads[0][0][name], heads[1][0][name]) for name in ("flair", "t1c"))
    assert not np.array_equal(heads[0][0]["flair"], heads[2][0]["flair"])


def test_nuclei_have_the_diameter_of_the_settings():
    thick = replace(SMALL, shape=(20, 96, 96), spacing=(2.0, 0.5, 0.5), diameter_spread=0, roughness=0, elongation=1)
    _, labels = make_stack(0, replace(thick, closeness=1.0, filling=1.0))
    sizes = np.bincount(labels.ravel())[1:] * 0.5
    inside = np.unique(labels[3:-3, 16:-16, 16:-16])
    diameters = np.cbrt(6 / np.pi * sizes[inside[inside > 0] - 1])
    assert np.median(diameters) == pytest.approx(7, rel=0.05)


def test_light_fades_with_depth_and_blurs_along_it():
    dim = replace(SMALL, shape=(24, 64, 64), attenuation=0.05, photons=1e5, haze=0, background=0, texture=0)
    image, labels = make_stack(1, replace(dim, brightness_spread=0))
    bright = [np.median(image[z][labels[z] > 0]) for z in (2, -3)]
    assert bright[1] < 0.6 * bright[0]
    steps = [np.abs(np.diff(image.astype(float), axis=axis)).mean() for axis in (0, 2)]
    assert steps[0] / 1.0 < steps[1] / 0.5  # per µm


def test_the_layers_of_a_tumour_are_nested():
    images, labels = make_head(1, (28, 48, 44))
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    assert {name: image.shape for name, image in images.items()} == dict.fromkeys(("flair", "t1c"), (28, 48, 44))
    around_rim = ndimage.binary_dilation(labels == 1) & (labels != 1)
    assert (labels[around_rim] == 4).mean() > 0.9
    head = images["flair"] > 0
    assert not labels[~head].any()
    assert np.median(images["t1c"][labels == 4]) > 1.5 * np.median(images["t1c"][head & (labels == 0)])


def test_samples_of_stacks_state_their_voxel_size():
    for path in (sample_folder() / "stacks" / "images").iterdir():
        with tifffile.TiffFile(path) as file:
            assert file.series[0].axes == "ZYX"
            assert file.imagej_metadata["spacing"] in (1.0, 2.0)
            assert file.pages[0].tags["XResolution"].value == (2, 1)


def test_only_the_envelope_is_stained_if_set():
    stack = StackSettings(shape=(24, 48, 48), spacing=(0.5, 0.5, 0.5), filling=1.0, background=0.0, haze=0.0)
    (filled, labels), (hollow, same) = (make_stack(3, replace(stack, envelope=share)) for share in (0.0, 0.25))
    assert np.array_equal(labels, same)
    inside = ndimage.distance_transform_edt(labels > 0) >= 4
    assert hollow[inside].mean() < 0.5 * hollow[(labels > 0) & ~inside].mean()
    assert filled[inside].mean() > filled[(labels > 0) & ~inside].mean()
