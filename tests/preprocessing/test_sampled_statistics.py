"""Statistics of an image that is read row by row are those of the whole one, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from biounet.api import volume_from_array
from biounet.core import ArrayImage, DataSettings, Grid, NormaliseSettings, Volume
from biounet.preprocessing import (
    find_scale,
    image_statistics,
    rescale,
    sampled_statistics,
    scale_intensities,
    statistics,
)
from support.images import discs


def specimen(shape, kind, seed=0):
    """Discs with noise, saturated pixels, a hot one, and tiles of a mosaic that were never acquired."""
    planes = [discs(shape[-2:], 20, seed + number, (6, 9))[0] for number in range(int(np.prod(shape[:-2])))]
    array = np.stack(planes).reshape(shape).astype(np.float32)
    array = (array - array.min()) / np.ptp(array) * 200 + 10
    array[..., 50:53, 5:12] = 255
    array[..., 90, 10] = 255
    return array.astype(kind)


def both(volume, settings, zoom=None):
    image = ArrayImage.of(volume)
    streamed = sampled_statistics(image, find_scale(image, settings, DataSettings()), zoom)
    scaled = scale_intensities(volume.array, settings)
    scaled = replace(scaled, image=rescale(scaled.image, zoom or (1.0,) * volume.grid.dims))
    return streamed, image_statistics(volume, scaled)


@pytest.mark.parametrize("shape", [(1, 130, 150), (3, 120, 128), (2, 3, 100, 110), (1, 100, 15)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("unacquired", [False, True])
@pytest.mark.parametrize("large", [2**24, 2**10])
def test_rows_have_the_statistics_of_the_whole_image(shape, kind, unacquired, large, monkeypatch):
    monkeypatch.setattr(statistics, "_LARGE", large)
    array = specimen(shape, kind)
    if unacquired:
        array[..., :60, : shape[-1] // 2] = 0
    streamed, whole = both(volume_from_array(array, array.ndim - 1), NormaliseSettings())
    assert streamed == whole
    assert ("saturated" in whole) == (kind != np.float32)
    assert ("edge" in whole) == (shape[-1] > 16)


@pytest.mark.parametrize("shape", [(1, 130, 150), (2, 3, 100, 110)])
@pytest.mark.parametrize("zoom", [0.43, 1.7])
@pytest.mark.parametrize("unacquired", [False, True])
def test_rows_on_the_working_grid_have_the_same_statistics(shape, zoom, unacquired, monkeypatch):
    monkeypatch.setattr(statistics, "_PIECE", 20)
    array = specimen(shape, np.uint8)
    if unacquired:
        array[..., :60, : shape[-1] // 2] = 0
    zooms = (1.6, zoom, 0.9 * zoom)[-(array.ndim - 1) :]
    streamed, whole = both(volume_from_array(array, array.ndim - 1), NormaliseSettings(), zooms)
    assert streamed == whole
    assert "edge" in whole


def test_an_integer_image_says_what_share_of_its_acquired_pixels_is_saturated():
    array = specimen((1, 128, 128), np.uint8)
    array[..., :64, :64] = 0
    streamed, _ = both(volume_from_array(array, 2), NormaliseSettings())
    acquired = array[array > 0]
    assert streamed["saturated"] == np.count_nonzero(acquired == 255) / acquired.size
    assert streamed["top"] == 255


def test_a_window_of_an_image_has_statistics_of_its_own_rows():
    array = specimen((1, 128, 128), np.uint8)
    array[..., :64, :64] = 0
    volume, window = volume_from_array(array, 2), (slice(32, 128), slice(16, 112))
    scaled = scale_intensities(array, NormaliseSettings())
    part = replace(scaled, image=scaled.image[(slice(None), *window)], acquired=scaled.acquired[window])
    found, whole = image_statistics(volume, part), image_statistics(volume, scaled)
    assert found["saturated"] == whole["saturated"]
    assert found["brightness"] != whole["brightness"]


def test_a_large_image_is_described_by_sixteen_rows():
    assert [len(statistics._sampled_rows((1, size, size))) for size in (1024, 4096, 8192, 320_000)] == [16, 4, 16, 16]


@pytest.mark.parametrize("large", [2**28, 2**12])
def test_a_scan_has_the_statistics_of_the_whole_one(large, monkeypatch):
    monkeypatch.setattr(statistics, "_LARGE_SCAN", large)
    draw = np.random.default_rng(0)
    array = np.zeros((2, 20, 40, 36), np.float32)
    array[:, 3:17, 5:35, 4:30] = draw.gamma(4, 50, (2, 14, 30, 26)) + 20
    streamed, whole = both(
        Volume(array, Grid(array.shape[1:], (3.0, 1.0, 1.0), "mm")), NormaliseSettings(method="zscore")
    )
    assert streamed == whole
    zoom = (1.5, 0.7, 0.7)
    streamed_at_other, at_other = both(
        Volume(array, Grid(array.shape[1:], (3.0, 1.0, 1.0), "mm")), NormaliseSettings(method="zscore"), zoom
    )
    assert streamed_at_other == at_other
    assert whole["view_z"] == 60
    assert {"core_1", "skew_1"} <= whole.keys()
