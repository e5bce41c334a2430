"""Super-blocks cannot be told from the whole image in memory, in whatever layout and order they are worked on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.whole_engine import draw_options, draw_volume, in_memory, in_super_blocks


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
