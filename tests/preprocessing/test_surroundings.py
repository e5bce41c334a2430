"""The surroundings of a body: what is done to them must not move the brain's intensities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import Annotation, DataSettings, Grid, NormaliseSettings, Volume
from biounet.core.recipe import parse_recipe
from biounet.network import Card, build_network, initialise_weights, make_predictor, output_channels
from biounet.preprocessing import body_box
from biounet.preprocessing.normalisation import normalise
from biounet.preprocessing.surroundings import find_body
from biounet.segmentation import segment
from biounet.training import make_case, train

ZSCORE = NormaliseSettings(method="zscore")
SHAPE = (20, 24, 22)
REMARK = "the background is not constant"


def brain(seed=0, level=100.0):
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    inside = (((places - np.array(SHAPE) / 2) / [7, 9, 8]) ** 2).sum(-1) < 1
    values = np.random.default_rng(seed).normal(level, 12, SHAPE)
    return np.where(inside, values, 0)[None].astype(np.float32), inside


def marked(image, inside):
    image[0, 0, 0, 0] = 0.001
    return image


def residue(image, inside):
    return image + (~inside * np.random.default_rng(1).uniform(0, 1e-6, SHAPE)).astype(np.float32)


def shifted(image, inside):
    return np.where(inside, (image - 103) / 12, -0.35).astype(np.float32)


def filled_slice(image, inside):
    image[0, 0] = np.random.default_rng(2).normal(40, 10, SHAPE[1:])
    return image


def text_in_two_corners(image, inside):
    image[0, :, :3, :5] = image[0, :, -3:, -5:] = 70
    return image


@pytest.mark.parametrize("spoil", [marked, residue, shifted])
def test_a_brain_keeps_its_intensities_whatever_happens_around_it(spoil):
    image, inside = brain()
    plain = normalise(image, ZSCORE)[0]
    spoilt = normalise(spoil(*brain()), ZSCORE)[0]
    np.testing.assert_allclose(spoilt[inside], plain[inside], atol=0.01)
    assert np.count_nonzero(spoilt[~inside]) <= 1


@pytest.mark.parametrize("spoil", [marked, residue, shifted, filled_slice, text_in_two_corners])
def test_the_body_is_found_by_the_majority_of_the_border(spoil):
    image, inside = brain()
    body = find_body(spoil(image, inside))
    assert body[0][inside].all()
    assert body.mean() < 0.5


@pytest.mark.parametrize("width", [(3, 3, 3), (0, 0, 4), (5, 0, 0)], ids=str)
@pytest.mark.parametrize("values", [(-7,), (55,), (-1024, 3)], ids=str)
def test_a_field_that_was_padded_with_another_value_keeps_the_brain(width, values):
    """Around the zeros around the brain lies what a program filled the rest of a larger field with, or two did."""
    image, inside = brain()
    spoilt, where = image[0], inside
    for value in values:
        spoilt = np.pad(spoilt, [(w, w) for w in width], constant_values=value)
        where = np.pad(where, [(w, w) for w in width])
    np.testing.assert_array_equal(find_body(spoilt[None])[0], where)
    normalised = normalise(spoilt[None], ZSCORE)[0]
    np.testing.assert_allclose(normalised[where], normalise(image, ZSCORE)[0][inside], atol=1e-5)
    assert not normalised[~where].any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), corners=st.sets(st.integers(0, 7), max_size=3), value=st.floats(-1000, 1000),
       scale=st.floats(1e-3, 1e3), offset=st.integers(-100, 100))  # fmt: skip
def test_no_single_corner_decides(seed, corners, value, scale, offset):
    image, inside = brain(seed % 7)
    image = image * scale + offset * scale
    for corner in corners:
        image[(0, *(-(corner >> bit & 1) for bit in range(3)))] += value * scale
    body = find_body(image)
    assert body is not None
    assert body[0][inside].mean() > 0.999
    assert body[0][~inside].sum() <= len(corners)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_noise_of_a_scanner_is_no_removed_background(dtype):
    rng = np.random.default_rng(0)
    image, _ = brain()
    air = np.abs(rng.normal(0, 3, image.shape)).astype(int)  # a fifth of it is 0
    assert find_body((image + air).astype(dtype)) is None
    assert find_body(rng.normal(100, 20, image.shape)) is None


def test_a_field_of_view_that_is_a_disc_has_surroundings():
    y, x = np.ogrid[:40, :40]
    disc = (y - 19.5) ** 2 + (x - 19.5) ** 2 < 20**2
    image = np.where(disc, np.random.default_rng(0).normal(500, 50, (1, 6, 40, 40)), -2000)
    np.testing.assert_array_equal(find_body(image)[0], np.broadcast_to(disc, (6, 40, 40)))
    np.testing.assert_array_equal(find_body(image[:, 3])[0], disc)  # an image, and channels together
    np.testing.assert_array_equal(find_body(np.concatenate([image, image]))[1], np.broadcast_to(disc, (6, 40, 40)))


def test_of_few_voxels_nothing_is_said():
    assert find_body(np.zeros((1, 1, 1, 1))) is None
    assert not find_body(np.zeros((1, 4, 5, 6), np.uint8)).any()


RECIPE = parse_recipe({
    "data": {"kind": "classes", "dims": 3, "classes": ["lesion"], "channels": ["mri"]},
    "normalise": {"method": "zscore"},
    "network": {"widths": [4, 6]},
    "train": {"epochs": 1, "steps_per_epoch": 2, "patch": 16, "batch": 1},
})  # fmt: skip


def case_of(image):
    labels = np.zeros(SHAPE, np.int32)
    labels[8:12, 8:12, 8:12] = 1
    volume = Volume(image, Grid(SHAPE, (1.0,) * 3, "mm"))
    return make_case(volume, Annotation(labels, "classes", volume.grid), RECIPE)


def test_the_card_says_that_surroundings_were_removed():
    noise = np.random.default_rng(0).normal(100, 9, (1, *SHAPE)).astype(np.float32)
    stripped = [case_of(brain(seed)[0]) for seed in range(2)]
    assert train(stripped, [], RECIPE).card.surroundings_removed
    assert not train([*stripped, case_of(noise)], [], RECIPE).card.surroundings_removed


@pytest.mark.parametrize("alone", [True, False])
def test_a_background_that_is_not_constant_is_said(alone):
    network = build_network(RECIPE)
    initialise_weights(network, 1)
    predictor = make_predictor(network.eval(), "cpu", softmax=True)
    card = Card(recipe=RECIPE, inputs=("mri",), outputs=output_channels(RECIPE), surroundings_removed=alone)
    grid = Grid(SHAPE, (1.0,) * 3, "mm")
    image, inside = brain()
    hazy = image + (~inside * np.random.default_rng(1).uniform(0, 5, SHAPE)).astype(np.float32)
    said = lambda array: any(note.startswith(REMARK) for note in segment(Volume(array, grid), predictor, card).notes)  # noqa: E731
    assert not said(image)
    assert not said(residue(image, inside))
    assert said(hazy) is alone


def test_a_mark_in_a_corner_leaves_the_box_around_the_brain():
    data = DataSettings(kind="classes", classes=("lesion",), dims=3)
    image, inside = brain()
    box = body_box(marked(image, inside), ZSCORE, data)
    held = np.zeros(SHAPE, bool)
    held[box] = True
    assert held[inside].all()
