"""What automatic counts are worth: intervals that cover as often as they say, and means that hand counts correct."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import SettingsError
from biounet.evaluation.count_statistics import calibrate_counts, corrected_mean


def test_the_largest_of_nine_errors_bounds_ninety_percent():
    hand = [10, 20, 30, 40, 50, 60, 70, 80, 99]
    calibration = calibrate_counts([8, 20, 30, 40, 50, 60, 70, 80, 99], hand)
    assert calibration.scores == (0.0,) * 8 + (2 / 3,)
    assert calibration.interval(8) == (6, 10)
    assert calibration.interval(0) == (0, 0)
    assert calibration.interval(3) == (2, 4)  # 3 ± 1.33


@pytest.mark.parametrize(("n", "coverage"), [(8, 0.9), (18, 0.95), (0, 0.5), (9, 1.0), (9, 0.0)])
def test_too_few_hand_counts_give_no_interval(n, coverage):
    with pytest.raises(SettingsError, match="no interval of"):
        calibrate_counts([5] * n, [5] * n).interval(5, coverage)


@pytest.mark.parametrize(("coverage", "fewest"), [(0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_as_many_hand_counts_as_the_error_asks_for_are_enough(coverage, fewest):
    with pytest.raises(SettingsError, match=f"at least {fewest} are needed"):
        calibrate_counts([5] * (fewest - 1), [5] * (fewest - 1)).interval(5, coverage)
    assert calibrate_counts([5] * fewest, [5] * fewest).interval(5, coverage) == (5, 5)


def test_intervals_cover_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), []
    for _ in range(2000):
        truth = rng.poisson(rng.gamma(2.0, 30.0, 30))
        found = np.maximum(np.rint(truth * rng.normal(0.9, 0.1, 30)), 0)  # a tenth is missed
        low, high = calibrate_counts(found[:29], truth[:29]).interval(found[29])
        covered.append(low <= truth[29] <= high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_perfect_counts_need_no_correction():
    found = corrected_mean([3, 5, 7, 9], [0, 3], [3, 9])
    assert (found.automatic, found.corrected, found.low, found.high, found.bias) == (6, 6, 6, 6, 0)
    assert (found.hand_only, found.correlation, found.counts_needed(0.1)) == (6, pytest.approx(1), 2)
    assert math.isnan(found.gain)


def test_as_many_counts_as_needed_give_the_wanted_interval():
    rng = np.random.default_rng(0)
    hand = rng.poisson(50, 200)
    found = hand + rng.integers(-4, 5, 200)
    first = corrected_mean(found, range(10), hand[:10])
    n = first.counts_needed(0.6)
    assert 10 < n < 80
    again = corrected_mean(found, range(n), hand[:n])
    assert again.half_width / again.error_sd == pytest.approx(0.6 / first.error_sd, rel=0.05)
    assert (first.counts_needed(0.0), first.counts_needed(1e9)) == (200, 2)


def test_a_constant_bias_is_removed():
    found = corrected_mean([13, 15, 17, 19], [0, 3], [3, 9])
    assert (found.automatic, found.corrected, found.bias) == (16, 6, 10)


def test_all_images_counted_by_hand_leave_no_doubt_about_these_images():
    hand = [4, 4, 9]
    found = corrected_mean([3, 5, 7], [0, 1, 2], hand)
    assert found.corrected == found.low == found.high == pytest.approx(np.mean(hand))
    assert corrected_mean([3, 5, 7], [0, 1, 2], hand, of_population=True).half_width > 0


@pytest.mark.parametrize("n", [5, 10, 20, 55])
def test_the_interval_of_a_corrected_mean_covers_whatever_the_bias(n):
    rng, covered = np.random.default_rng(n), []
    for _ in range(1500):
        truth = rng.poisson(rng.gamma(3.0, 20.0, 80))
        found = 0.7 * truth + 12 + rng.normal(0, 5, 80)
        drawn = rng.choice(80, n, replace=False)
        mean = corrected_mean(np.maximum(found, 0), drawn, truth[drawn], confidence=0.9)
        covered.append(mean.low <= truth.mean() <= mean.high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


@given(st.lists(st.integers(0, 500), min_size=4, max_size=30), st.integers(0, 2**31))
def test_the_order_of_images_does_not_matter(counts, seed):
    rng = np.random.default_rng(seed)
    hand = np.maximum(np.array(counts) + rng.integers(-5, 6, len(counts)), 0)
    drawn = rng.choice(len(counts), 3, replace=False)
    there = rng.permutation(len(counts))
    moved = [int(np.flatnonzero(there == n)[0]) for n in drawn]
    one = corrected_mean(counts, drawn, hand[drawn])
    other = corrected_mean(np.array(counts)[there], moved, hand[drawn])
    assert one.corrected == pytest.approx(other.corrected)
    assert one.half_width == pytest.approx(other.half_width)


@pytest.mark.parametrize(
    ("automatic", "drawn", "hand"),
    [
        ([1, 2, 3], [0], [1]),
        ([1, 2, 3], [0, 0], [1, 1]),
        ([1, 2, 3], [0, 1], [1]),
        ([1, 2, 3], [0, 1], [1, -2]),
        ([1, 2, math.nan], [0, 2], [1, 2]),
    ],
)
def test_hand_counts_that_cannot_be_used(automatic, drawn, hand):
    with pytest.raises(SettingsError):
        corrected_mean(automatic, drawn, hand)
