"""The body mask is found whatever happened to the background, and intensities in the body do not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import Annotation, DataSettings, Grid, NormaliseSettings, Volume
from biounet.core.recipe import parse_recipe
from biounet.network import Card, build_network, initialise_weights, make_predictor, output_channels
from biounet.preprocessing import body_box, scale_intensities
from biounet.preprocessing.body_mask import body_mask
from biounet.segmentation import segment
from biounet.training import make_case, train

ZSCORE = NormaliseSettings(method="zscore")
SHAPE = (20, 24, 22)
WARNING = "the background is not constant"


def normalise(image, settings):
    return scale_intensities(image, settings).image


def brain(seed=0, level=100.0):
    positions = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    inside = (((positions - np.array(SHAPE) / 2) / [7, 9, 8]) ** 2).sum(-1) < 1
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


@pytest.mark.parametrize("change", [marked, residue, shifted])
def test_intensities_in_the_brain_do_not_depend_on_the_background(change):
    image, inside = brain()
    plain = normalise(image, ZSCORE)[0]
    changed = normalise(change(*brain()), ZSCORE)[0]
    np.testing.assert_allclose(changed[inside], plain[inside], atol=0.01)
    assert np.count_nonzero(changed[~inside]) <= 1


@pytest.mark.parametrize("change", [marked, residue, shifted, filled_slice, text_in_two_corners])
def test_a_few_filled_voxels_or_slices_do_not_hide_the_body(change):
    image, inside = brain()
    body = body_mask(change(image, inside))
    assert body[0][inside].all()
    assert body.mean() < 0.5


@pytest.mark.parametrize("width", [(3, 3, 3), (0, 0, 4), (5, 0, 0)], ids=str)
@pytest.mark.parametrize("values", [(-7,), (55,), (-1024, 3)], ids=str)
def test_the_brain_is_found_in_an_image_that_was_padded_with_another_value(width, values):
    image, inside = brain()
    changed, where = image[0], inside
    for value in values:
        changed = np.pad(changed, [(w, w) for w in width], constant_values=value)
        where = np.pad(where, [(w, w) for w in width])
    np.testing.assert_array_equal(body_mask(changed[None])[0], where)
    normalised = normalise(changed[None], ZSCORE)[0]
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
    body = body_mask(image)
    assert body is not None
    assert body[0][inside].mean() > 0.999
    assert body[0][~inside].sum() <= len(corners)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_the_noise_of_a_scanner_is_not_a_removed_background(dtype):
    rng = np.random.default_rng(0)
    image, _ = brain()
    air = np.abs(rng.normal(0, 3, image.shape)).astype(int)  # a fifth of it is 0
    assert body_mask((image + air).astype(dtype)) is None
    assert body_mask(rng.normal(100, 20, image.shape)) is None


def test_a_circular_field_of_view_is_a_body():
    y, x = np.ogrid[:40, :40]
    disc = (y - 19.5) ** 2 + (x - 19.5) ** 2 < 20**2
    image = np.where(disc, np.random.default_rng(0).normal(500, 50, (1, 6, 40, 40)), -2000)
    np.testing.assert_array_equal(body_mask(image)[0], np.broadcast_to(disc, (6, 40, 40)))
    np.testing.assert_array_equal(body_mask(image[:, 3])[0], disc)  # an image, and channels together
    np.testing.assert_array_equal(body_mask(np.concatenate([image, image]))[1], np.broadcast_to(disc, (6, 40, 40)))


def test_a_single_voxel_has_no_background():
    assert body_mask(np.zeros((1, 1, 1, 1))) is None
    assert not body_mask(np.zeros((1, 4, 5, 6), np.uint8)).any()


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


def test_the_card_states_whether_all_backgrounds_were_removed():
    noise = np.random.default_rng(0).normal(100, 9, (1, *SHAPE)).astype(np.float32)
    stripped = [case_of(brain(seed)[0]) for seed in range(2)]
    assert train(stripped, [], RECIPE).card.surroundings_removed
    assert not train([*stripped, case_of(noise)], [], RECIPE).card.surroundings_removed


@pytest.mark.parametrize("removed", [True, False])
def test_a_background_that_is_not_constant_gives_a_warning(removed):
    network = build_network(RECIPE)
    initialise_weights(network, 1)
    predictor = make_predictor(network.eval(), "cpu", softmax=True)
    card = Card(recipe=RECIPE, inputs=("mri",), outputs=output_channels(RECIPE), surroundings_removed=removed)
    grid = Grid(SHAPE, (1.0,) * 3, "mm")
    image, inside = brain()
    hazy = image + (~inside * np.random.default_rng(1).uniform(0, 5, SHAPE)).astype(np.float32)

    def warned(array):
        return any(note.startswith(WARNING) for note in segment(Volume(array, grid), predictor, card).notes)

    assert not warned(image)
    assert not warned(residue(image, inside))
    assert warned(hazy) is removed


def test_a_mark_in_a_corner_does_not_shift_the_box_of_the_brain():
    data = DataSettings(kind="classes", classes=("lesion",), dims=3)
    image, inside = brain()
    box = body_box(marked(image, inside), ZSCORE, data)
    covered = np.zeros(SHAPE, bool)
    covered[box] = True
    assert covered[inside].all()


def test_the_box_of_the_body_contains_every_channel_of_it():
    classes = DataSettings(kind="classes", classes=("tumour",), dims=3)
    image = np.zeros((2, 6, 8, 9), np.float32)
    image[0, 2:4, 3:5, 1:6] = 1
    image[1, 1:3, 3:6, 4:8] = 5
    assert body_box(image, ZSCORE, classes) == (slice(1, 4), slice(3, 6), slice(1, 8))
    whole = (slice(0, 6), slice(0, 8), slice(0, 9))
    noise = np.random.default_rng(0).normal(50, 5, image.shape).astype(np.float32)
    assert body_box(noise, ZSCORE, classes) == whole  # with background
    assert body_box(np.stack([image[0], noise[1]]), ZSCORE, classes) == whole
    assert body_box(np.zeros_like(image), ZSCORE, classes) == whole
    assert body_box(image[:1], ZSCORE, DataSettings(dims=3)) == whole
    assert body_box(image[:1], NormaliseSettings(), classes) == whole
