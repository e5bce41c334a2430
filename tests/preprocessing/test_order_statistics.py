"""Percentiles by counting agree with those of NumPy."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.preprocessing.order_statistics import percentiles

TYPES = ["u1", "i1", "u2", "i2", ">u2", "u4", "i4", "u8", "i8", "f2", "f4", ">f4", "f8"]
RANKS = (0, 1, 50, 99.8, 100)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(TYPES),
    size=st.integers(1, 400),
    seed=st.integers(0, 99),
    deviation=st.sampled_from([1, 40, 1e4]),
)
def test_percentiles_are_those_of_numpy(kind, size, seed, deviation):
    drawn = np.random.default_rng(seed).normal(0, deviation, size)
    low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if np.dtype(kind).kind in "iu" else (-6e4, 6e4)
    values = drawn.clip(max(low, -1e6), min(high, 1e6)).astype(kind)
    expected = np.percentile(values.astype(float), RANKS)
    np.testing.assert_allclose(percentiles(values, RANKS), expected, rtol=1e-6, atol=1e-9)
    others = values[values != values[0]]
    if others.size:
        expected = np.percentile(others.astype(float), RANKS)
        np.testing.assert_allclose(percentiles(values, RANKS, (values[0].item(),)), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("transposed", [False, True])
def test_percentiles_take_less_than_a_byte_per_pixel(kind, transposed):
    image = np.random.default_rng(0).integers(0, 255, (4000, 6000)).astype(kind)
    image = image.T if transposed else image
    tracemalloc.start()
    try:
        percentiles(image, (1, 99.8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / image.size < 1
