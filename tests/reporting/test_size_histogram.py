"""Sizes of objects in bins: no object is lost, histograms of images add up, and the median is near."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biounet.reporting import SizeHistogram
from biounet.reporting.size_histogram import join_histograms

SIZES = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=60)


@given(SIZES)
def test_every_object_is_in_the_bin_of_its_size(sizes):
    found = SizeHistogram.of("area_px", sizes)
    edges = found.edges()
    assert found.total == len(sizes)
    assert (found.low, found.high) == (edges[0], edges[-1]) == (min(sizes), max(sizes))
    assert edges == sorted(edges)
    assert len(found.counts) <= 96
    assert np.histogram(sizes, found.edges())[0].sum() == len(sizes)


@given(SIZES, SIZES)
def test_histograms_of_two_images_add_up_to_that_of_all_objects(one, other):
    (joined,) = join_histograms([SizeHistogram.of("area_px", one), SizeHistogram.of("area_px", other)])
    alone = SizeHistogram.of("area_px", [*one, *other])
    steps = min(joined.steps, alone.steps)
    assert +joined.bins(steps) == +alone.bins(steps)
    assert (joined.low, joined.high) == (alone.low, alone.high)


@given(SIZES)
def test_the_median_is_within_the_bin_of_the_true_one(sizes):
    found = SizeHistogram.of("area_px", sizes)
    low, high = np.quantile(sizes, 0.5, method="lower"), np.quantile(sizes, 0.5, method="higher")
    width = 2 ** (1 / found.steps)
    assert low / width * (1 - 1e-9) <= found.median() <= high * width * (1 + 1e-9)


@given(SIZES)
def test_it_comes_back_from_a_record_and_takes_little_room(sizes):
    found = SizeHistogram.of("area_px", sizes)
    text = json.dumps(found.encode())
    assert SizeHistogram.decode(json.loads(text)) == found
    assert len(text) < 500


def test_equal_sizes_are_one_bin_with_its_exact_median():
    found = SizeHistogram.of("area_px", [37, 37, 37])
    assert (found.counts, found.median()) == ((3,), 37)
    assert SizeHistogram.of("area_px", []).total == 0


@given(SIZES, st.integers(1, 50))
def test_joined_bins_are_few_and_hold_all(sizes, most):
    spans = SizeHistogram.of("area_px", sizes).grouped(most)
    assert 1 <= len(spans) <= most
    assert sum(count for *_, count in spans) == len(sizes)
    assert all(one[1] == pytest.approx(another[0]) for one, another in pairwise(spans))
