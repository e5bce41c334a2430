"""Areas that were never acquired are found, and do not change the intensities of the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import ArrayImage, DataSettings, Grid, NormaliseSettings, Volume
from biounet.preprocessing import find_scale, scale_intensities
from biounet.preprocessing.unacquired import fill_with_mirror_image
from support.images import discs

SETTINGS = NormaliseSettings()


def unacquired_value(image):
    """Return, in a tuple of one, the value of areas of ``([z,] y, x)`` that were never acquired; empty without."""
    volume = Volume(image[None], Grid(image.shape))
    return find_scale(ArrayImage.of(volume), SETTINGS, DataSettings()).channels[0].unacquired


def mosaic(tile, at, shape=(500, 460), fill=0):
    image = np.full(shape, fill, tile.dtype)
    for y, x in at:
        image[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return image


TILE = discs((150, 170), 25, 4)[0]
# A stage moves by half a tile: a border in steps of a few pixels is taken for that of a specimen.
LAYOUTS = st.lists(
    st.tuples(st.integers(0, 4).map(lambda n: 75 * n), st.integers(0, 3).map(lambda n: 85 * n)), min_size=1, max_size=4
)


@settings(max_examples=30, deadline=None)
@given(at=LAYOUTS, fill=st.sampled_from([0, 65535]))
def test_unacquired_areas_do_not_change_the_tiles(at, fill):
    image = mosaic(TILE, at, fill=fill)
    cropped = scale_intensities(image[image != fill][None, None], SETTINGS).image
    scaled = scale_intensities(image[None], SETTINGS)
    assert np.array_equal(scaled.acquired, image != fill)
    assert np.array_equal(scaled.image[0][scaled.acquired], cropped.ravel())
    assert scaled.image[0][~scaled.acquired].max() <= cropped.max()


@pytest.mark.parametrize("angle", [3, 20, 45, 77])
@pytest.mark.parametrize("fill", [0, 65535])
@pytest.mark.parametrize("order", [0, 1])
def test_the_corners_around_a_rotated_field_are_unacquired(angle, fill, order):
    field = discs((200, 230), 25, 4)[0].astype(float)
    rotated = np.rint(ndimage.rotate(field, angle, order=order, cval=fill)).astype(np.uint16)
    assert unacquired_value(rotated) == (fill,)
    cropped = rotated[None, 10:-10, 5:] if angle == 3 else rotated[None, 30:-30, 25:]
    assert unacquired_value(cropped) == (fill,)


@pytest.mark.parametrize("radius", [30, 60, 120])
def test_a_round_object_on_a_constant_background_is_not_a_rotated_field(radius):
    y, x = np.ogrid[:300, :300]
    ball = np.where((y - 150) ** 2 + (x - 140) ** 2 < radius**2, 500 + y + x, 0)
    assert unacquired_value(ball.astype(np.uint16)) == ()
    stretched = np.where((y - 150) ** 2 + (x - y) ** 2 / 9 < radius**2 / 4, 500 + y + x, 0)
    assert unacquired_value(stretched.astype(np.uint16)) == ()


def test_corners_and_planes_of_a_stack_may_be_unacquired():
    stack = np.stack([TILE, TILE + 3, TILE + 7])
    stack[:, :80, :90] = 0
    stack[2] = 0
    assert unacquired_value(stack) == (0,)
    scaled = scale_intensities(stack[None], SETTINGS)
    assert np.array_equal(scaled.acquired, stack > 0)
    both = scale_intensities(np.stack([stack, np.full_like(stack, 9) + TILE]), SETTINGS)
    assert both.acquired is None  # the other channel was acquired


@pytest.mark.parametrize("offset", [100, 400, 1300])
def test_a_dark_background_clipped_at_0_is_not_unacquired(offset):
    image = np.maximum(TILE.astype(int) - offset, 0)
    assert unacquired_value(image.astype(np.uint16)) == ()


def test_round_cells_on_a_constant_background_are_not_tiles():
    image, labels = discs((300, 300), 12, 0, (25, 40))
    assert unacquired_value(np.where(labels > 0, image, 100)) == ()
    assert unacquired_value(np.full((90, 90), 7)) == ()


def test_noise_and_dense_cells_are_not_tiles_though_each_column_has_much_border():
    draw = np.random.default_rng(0)
    noise = np.clip(draw.normal(0, 5, (1024, 1024)), 0, 255).astype(np.uint8)
    assert unacquired_value(noise) == ()
    cells, disc = np.zeros((2048, 2048), np.uint8), (np.mgrid[-9:10, -9:10] ** 2).sum(0) <= 81
    for y, x in draw.integers(10, 2038, (6000, 2)):
        cells[y - 9 : y + 10, x - 9 : x + 10][disc] = 150
    assert unacquired_value(cells) == ()
    noise[:700, :900] = 0
    noise[:700, 900:] += 9  # a tile that is not clipped at 0
    noise[700:] += 9
    assert unacquired_value(noise) == (0,)


def test_a_picture_of_two_values_keeps_its_contrast():
    image = np.zeros((1, 128, 128), np.uint8)
    image[0, 30:90, 20:100] = 255
    scaled = scale_intensities(image, SETTINGS)
    assert scaled.acquired is None
    assert np.unique(scaled.image).tolist() == [0, 1]


def test_unacquired_areas_are_filled_with_a_mirror_image():
    values = np.array([[0, 0, 0, 5, 6, 7, 8]] * 2, np.float32)
    fill_with_mirror_image(values == 0, values)
    assert values.tolist() == [[8, 7, 6, 5, 6, 7, 8]] * 2
