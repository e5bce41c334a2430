"""What the intensities of an image say: percentiles, areas never acquired, hot pixels, offsets."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import NormaliseSettings
from biounet.preprocessing import offset_from_minimum, scale_intensities
from biounet.preprocessing.intensities import find_unacquired, lower_spikes, mirror_into, percentiles
from biounet.preprocessing.normalisation import normalise
from biounet.reporting import draw_overlay
from support.images import discs

TYPES = ["u1", "i1", "u2", "i2", ">u2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8"]
SETTINGS = NormaliseSettings()
SHARES = (0, 1, 50, 99.8, 100)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(TYPES), size=st.integers(1, 400), seed=st.integers(0, 99), wide=st.sampled_from([1, 40, 1e4])
)
def test_percentiles_are_those_of_numpy(kind, size, seed, wide):
    drawn = np.random.default_rng(seed).normal(0, wide, size)
    low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if np.dtype(kind).kind in "iu" else (-6e4, 6e4)
    values = drawn.clip(max(low, -1e6), min(high, 1e6)).astype(kind)
    expected = np.percentile(values.astype(float), SHARES)
    np.testing.assert_allclose(percentiles(values, SHARES), expected, rtol=1e-6, atol=1e-9)
    others = values[values != values[0]]
    if others.size:
        expected = np.percentile(others.astype(float), SHARES)
        np.testing.assert_allclose(percentiles(values, SHARES, (values[0].item(),)), expected, rtol=1e-6, atol=1e-9)


def test_percentiles_of_64_bits_are_exact():
    values = np.array([2**63, 2**63 + 1, 2**63 + 3], np.uint64)
    assert offset_from_minimum(values).tolist() == [0, 1, 3]
    assert offset_from_minimum(np.array([-(2**63), 2**63 - 1])).tolist() == [0, 2**64 - 1]
    assert offset_from_minimum(np.array([3, 5], np.uint16)).tolist() == [3, 5]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("turned", [False, True])
def test_percentiles_take_less_than_a_byte_per_pixel(kind, turned):
    image = np.random.default_rng(0).integers(0, 255, (4000, 6000)).astype(kind)
    image = image.T if turned else image
    tracemalloc.start()
    try:
        percentiles(image, (1, 99.8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / image.size < 1


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["u4", "i4", "u8", "i8", "f8"]),
    offset=st.sampled_from([0, 1000, 2**24, 2**30, 2**31 - 2**16, 2**40, 2**60]),
    method=st.sampled_from(["percentiles", "zscore"]),
)
def test_a_constant_added_to_all_pixels_changes_nothing(kind, offset, method):
    """Law: whatever an integer type holds above an offset is kept, and of a float what its own digits hold."""
    highest = 2**40 if kind == "f8" else np.iinfo(kind).max
    image = (discs((64, 64), 8, 3)[0] // 8)[None]
    moved = image.astype(kind) + np.dtype(kind).type(min(offset, highest - 2**16))
    chosen = NormaliseSettings(method=method)
    np.testing.assert_allclose(normalise(moved, chosen), normalise(image, chosen), atol=1e-5)
    if method == "percentiles":
        labels = np.zeros((64, 64), np.int32)
        assert np.array_equal(draw_overlay(moved, labels), draw_overlay(image, labels))


def test_bright_objects_on_a_constant_background_are_seen_however_few():
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


def mosaic(tile, at, shape=(500, 460), fill=0):
    image = np.full(shape, fill, tile.dtype)
    for y, x in at:
        image[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return image


TILE = discs((150, 170), 25, 4)[0]
LAYOUTS = st.lists(st.tuples(st.integers(0, 350), st.integers(0, 290)), min_size=1, max_size=4)


@settings(max_examples=30, deadline=None)
@given(at=LAYOUTS, fill=st.sampled_from([0, 65535]))
def test_areas_that_were_never_acquired_change_nothing_in_the_tiles(at, fill):
    image = mosaic(TILE, at, fill=fill)
    alone = normalise(image[image != fill][None, None], SETTINGS)
    scaled = scale_intensities(image[None], SETTINGS)
    assert np.array_equal(scaled.acquired, image != fill)
    assert np.array_equal(scaled.image[0][scaled.acquired], alone.ravel())
    assert scaled.image[0][~scaled.acquired].max() <= alone.max()


@pytest.mark.parametrize("angle", [3, 20, 45, 77])
@pytest.mark.parametrize("fill", [0, 65535])
@pytest.mark.parametrize("order", [0, 1])
def test_a_field_that_was_turned_has_corners_that_were_never_acquired(angle, fill, order):
    field = discs((200, 230), 25, 4)[0].astype(float)
    turned = np.rint(ndimage.rotate(field, angle, order=order, cval=fill)).astype(np.uint16)
    assert find_unacquired(turned) == (fill,)
    cut = turned[None, 10:-10, 5:] if angle == 3 else turned[None, 30:-30, 25:]
    assert find_unacquired(cut) == (fill,)


@pytest.mark.parametrize("radius", [30, 60, 120])
def test_a_round_object_on_a_constant_background_is_no_turned_field(radius):
    y, x = np.ogrid[:300, :300]
    ball = np.where((y - 150) ** 2 + (x - 140) ** 2 < radius**2, 500 + y + x, 0)
    assert find_unacquired(ball.astype(np.uint16)) == ()
    stretched = np.where((y - 150) ** 2 + (x - y) ** 2 / 9 < radius**2 / 4, 500 + y + x, 0)
    assert find_unacquired(stretched.astype(np.uint16)) == ()


def test_a_stack_may_lack_a_corner_or_planes():
    stack = np.stack([TILE, TILE + 3, TILE + 7])
    stack[:, :80, :90] = 0
    stack[2] = 0
    assert find_unacquired(stack) == (0,)
    scaled = scale_intensities(stack[None], SETTINGS)
    assert np.array_equal(scaled.acquired, stack > 0)
    both = scale_intensities(np.stack([stack, np.full_like(stack, 9) + TILE]), SETTINGS)
    assert both.acquired is None  # the other channel is there


@pytest.mark.parametrize("cut", [100, 400, 1300])
def test_a_dark_background_cut_off_at_0_is_specimen(cut):
    image = np.maximum(TILE.astype(int) - cut, 0)
    assert find_unacquired(image.astype(np.uint16)) == ()


def test_round_cells_on_a_constant_background_are_no_tiles():
    image, labels = discs((300, 300), 12, 0, (25, 40))
    assert find_unacquired(np.where(labels > 0, image, 100)) == ()
    assert find_unacquired(np.full((90, 90), 7)) == ()


def test_a_large_field_of_noise_or_of_close_cells_is_no_tile_though_each_column_has_much_border():
    draw = np.random.default_rng(0)
    noise = np.clip(draw.normal(0, 5, (1024, 1024)), 0, 255).astype(np.uint8)
    assert find_unacquired(noise) == ()
    cells, disc = np.zeros((2048, 2048), np.uint8), (np.mgrid[-9:10, -9:10] ** 2).sum(0) <= 81
    for y, x in draw.integers(10, 2038, (6000, 2)):
        cells[y - 9 : y + 10, x - 9 : x + 10][disc] = 150
    assert find_unacquired(cells) == ()
    noise[:700, :900] = 0
    noise[:700, 900:] += 9  # of a tile that is not cut off at 0
    noise[700:] += 9
    assert find_unacquired(noise) == (0,)


def test_a_picture_of_two_values_keeps_its_contrast():
    image = np.zeros((1, 128, 128), np.uint8)
    image[0, 30:90, 20:100] = 255
    scaled = scale_intensities(image, SETTINGS)
    assert scaled.acquired is None
    assert np.unique(scaled.image).tolist() == [0, 1]


def test_what_is_missing_goes_on_as_a_mirror_image():
    values = np.array([[0, 0, 0, 5, 6, 7, 8]] * 2, np.float32)
    mirror_into(values == 0, values)
    assert values.tolist() == [[8, 7, 6, 5, 6, 7, 8]] * 2


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_hot_pixels_change_nothing_around_them(share, kind):
    clean = (discs((256, 256), 60, 1)[0] // (8 if kind is np.uint8 else 1)).astype(kind)
    hot = clean.copy()
    places = np.random.default_rng(0).random(hot.shape) < share
    hot[places] = 255 if kind is np.uint8 else 65535
    expected, scaled = normalise(clean[None], SETTINGS), scale_intensities(hot[None], SETTINGS)
    assert scaled.hot == pytest.approx(places.mean(), rel=0.25)
    np.testing.assert_allclose(scaled.image[0][~places], expected[0][~places], atol=0.05)
    assert np.mean(scaled.image > 1.5) < 1e-4


def test_hot_pixels_of_a_camera_are_the_same_in_all_planes():
    stack = np.stack([discs((96, 96), 12, 1)[0]] * 5)
    stack[:, 40, 40] = stack[:, 7, 90] = 60000
    lowered, count = lower_spikes(stack)
    assert count == 10
    assert lowered[:, 40, 40].max() < 2000
    assert stack[0, 40, 40] == 60000  # the input stays


@given(seed=st.integers(0, 50), noise=st.sampled_from([0, 5, 40, 200]), radius=st.sampled_from([(2, 3), (4, 8)]))
@settings(max_examples=30, deadline=None)
def test_images_without_hot_pixels_stay_bit_for_bit(seed, noise, radius):
    image = discs((96, 96), 30, seed, radius)[0] + np.random.default_rng(seed).normal(0, noise, (96, 96))
    lowered, count = lower_spikes(image)
    assert count == 0
    assert lowered.base is image or lowered is image


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 1, 5)])
def test_any_shape(shape):
    image = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    image.flat[-1] = 60000
    assert lower_spikes(image)[0].shape == shape
    assert scale_intensities(image[None], SETTINGS).image.shape == (1, *shape)
