"""Super-blocks cannot be told from the whole image in memory, in whatever layout and order they are worked on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from biounet.core import Grid, Volume
from biounet.segmentation import SegmentOptions
from support.whole_engine import MICROSCOPE, card_of, draw_options, draw_volume, in_memory, in_super_blocks


@pytest.mark.parametrize(("dims", "edges"), [(2, st.integers(9, 40)), (3, st.integers(6, 20))])
def test_results_are_those_of_memory(dims, edges):
    @settings(deadline=None, max_examples=8)
    @given(st.integers(0, 2**32 - 1), st.tuples(*[edges] * dims), st.integers(4, 30), st.booleans(), st.booleans())
    def check(seed, edges, block, zoom, turned):
        random = np.random.default_rng(seed)
        volume, options = draw_volume(random, dims, zoom=zoom, turned=turned), draw_options(random)
        found = in_super_blocks(volume, options, edges, block, random)
        assert found.differences(in_memory(volume, options)) == []

    check()


def test_what_one_channel_lacks_is_filled_where_nothing_is_stored(monkeypatch):
    random = np.random.default_rng(3)
    bright = 20 + 200 * (ndimage.gaussian_filter(random.random((64, 64)), 2) > 0.5)
    array = np.stack([bright, random.integers(1, 99, (64, 64))]).astype(np.uint8)
    array[0, :, 24:], array[1, :, 24:] = 0, 50  # one was not acquired there, and the other is as bright as elsewhere
    volume, options = Volume(array, Grid((64, 64), (MICROSCOPE, MICROSCOPE), "um")), SegmentOptions(diameter="native")
    two_channels = card_of(2).model_copy(update={"inputs": ("a", "b")})
    monkeypatch.setattr("support.whole_engine.card_of", lambda dims: two_channels)
    whole = in_memory(volume, options)
    assert whole.labels[:, 40:].any()
    assert in_super_blocks(volume, options, (16, 16), 8, random).differences(whole) == []
