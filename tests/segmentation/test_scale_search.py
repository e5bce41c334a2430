import numpy as np
import pytest

from biounet.segmentation.scale_search import (
    Look,
    best_zoom,
    count_instability,
    densest_window,
    is_closer,
    largest_zoom,
    zooms_to_try,
)


def test_small_objects_are_enlarged_and_all_else_is_made_smaller():
    small, large = Look(1, False, 0.5, 6.0), Look(1, False, 0.5, 60.0)
    assert zooms_to_try(small, (128, 200), 8.8) == (2.0, 4.0)
    assert zooms_to_try(large, (512, 700), 8.8) == (1 / 2, 1 / 4, 1 / 8)
    assert zooms_to_try(Look(1, False, 0.0), (512, 700), 8.8) == (1 / 2, 1 / 4, 1 / 8)


def test_what_would_be_too_large_or_without_texture_is_not_tried():
    assert zooms_to_try(Look(1, False, 0.5, 6.0), (900, 200), 8.8) == (2.0,)
    assert zooms_to_try(Look(1, False, 0.5, 6.0), (2000, 200), 8.8) == ()
    assert zooms_to_try(Look(1, False, 0.5, 60.0), (128, 5000), 8.8) == (1 / 2,)
    assert zooms_to_try(Look(1, False, 0.5, 60.0), (30, 256, 256), 8.8) == (1 / 2, 1 / 4)
    assert (largest_zoom((512, 512)), largest_zoom((513, 9)), largest_zoom((3000, 3000))) == (4.0, 2.0, 0.5)


def test_the_most_confident_of_familiar_looks_is_best():
    looks = [Look(1, False, 0.9), Look(1 / 2, True, 0.6), Look(1 / 4, True, 0.7)]
    assert best_zoom(looks) == 1 / 4
    assert (
        best_zoom([Look(1, False, 0.6), Look(1 / 2, False, 0.6), Look(1 / 4, False, 0.5)]) == 1
    )  # the first of equals


@pytest.mark.parametrize(("diameter", "zoom"), [(12.0, 1 / 2), (8.5, 1 / 4), (13.0, 2.0), (None, 1 / 8), (2.0, 1)])
def test_objects_closer_to_the_typical_size_are_likely(diameter, zoom):
    assert is_closer(diameter, zoom, 16.0)


@pytest.mark.parametrize(("diameter", "zoom"), [(11.0, 1 / 2), (7.5, 1 / 4), (30.0, 2.0)])
def test_objects_farther_from_the_typical_size_are_not(diameter, zoom):
    assert not is_closer(diameter, zoom, 16.0)


def test_counts_that_are_alike_at_half_or_twice_the_size_are_stable():
    looks = [Look(zoom, True, 0.5, 20.0, count) for zoom, count in ((1, 40), (1 / 2, 22), (1 / 4, 20), (1 / 8, 5))]
    assert count_instability(looks, 1 / 4) == pytest.approx(1 / 11)
    assert count_instability(looks, 1 / 8) == 0.75
    assert count_instability(looks[:1], 1) == 0


def test_the_densest_window_of_a_large_image():
    labels = np.zeros((5000, 3000), np.int32)
    labels[4000:4100, 2000:2100] = 1
    labels[10:50, 10:50] = 2
    window = densest_window(labels)
    assert labels[window].max() == 1
    assert all(part.stop - part.start <= 2048 for part in window)
    assert densest_window(labels[:2048, :2048]) == (slice(0, 2048), slice(0, 2048))


@pytest.mark.parametrize("shape", [(2049, 10), (300, 200, 10)])
def test_windows_cover_an_image_without_objects(shape):
    assert all(part.start == 0 for part in densest_window(np.zeros(shape, np.uint8)))
