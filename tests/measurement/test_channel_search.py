"""Backgrounds of channels that are counted in parts, in any number of processes, are those of the whole image."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from biounet.core import ArrayImage, Grid, Volume
from biounet.measurement import ChannelSearch, MeasuredChannels, Ring, count_channels
from biounet.measurement.intensities import background_median, has_wide_sums
from support.super_blocks import StoredLabels, lattice

TYPES = ["b", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


class StoresNothingDark(ArrayImage):
    """An image that stores no region of which all pixels are 0."""

    def constant_measured(self, region):
        found = self.read_measured(region)
        return {name: values.dtype.type(0) for name, values in found.items() if not values.any()}


def search_in_parts(labels, image, channels, edges):
    """Count each part by a search of its own, which knows what the passes before found from JSON alone."""
    search = ChannelSearch(channels.types(image), background=channels.ring is not None)
    while search.unfinished:
        state, passes = json.dumps(search.as_dict()), []
        for core in lattice(labels.shape, edges):
            worker = ChannelSearch.from_dict(json.loads(state))
            count_channels(worker, core, StoredLabels(labels), image, channels)
            passes.append(worker.counted())
        for counted in passes[::-1]:
            search.merge(counted)
        search.finish_pass()
    return ChannelSearch.from_dict(json.loads(json.dumps(search.as_dict())))


@given(
    st.sampled_from(TYPES).flatmap(
        lambda dtype: st.tuples(
            arrays(
                dtype,
                (5, 6),
                elements={"allow_nan": False, "allow_infinity": False} if dtype[0] == "f" else None,
            ),
            arrays(np.uint8, (5, 6), elements=st.integers(0, 1)),
        )
    ),
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_parts_give_the_background_and_the_width_of_the_whole(pair, edges, wants_background):
    channel, labels = pair
    image = StoresNothingDark.of(Volume(np.zeros((1, 5, 6), np.uint8), Grid((5, 6)), measured={"GFP": channel}))
    channels = MeasuredChannels(("DNA",), further=True, ring=Ring() if wants_background else None)
    search = search_in_parts(labels, image, channels, edges)
    whole = background_median(channel, labels > 0)
    found = search.backgrounds
    assert set(found) == (set() if not wants_background or labels.all() else {"DNA", "GFP"})
    if "GFP" in found:
        assert found["GFP"] == whole
    assert search.wide(channel.size) == ({"GFP"} if has_wide_sums(channel) else set())


@pytest.mark.parametrize(("dtype", "passes"), [("u1", 1), ("u2", 1), ("f4", 2), ("f8", 4), ("i8", 4)])
def test_pixels_are_read_as_often_as_their_digits_need(dtype, passes):
    channel = np.arange(30).reshape(5, 6).astype(dtype)
    image = ArrayImage.of(Volume(channel[None], Grid((5, 6))))
    search = search_in_parts(np.zeros((5, 6), np.uint8), image, MeasuredChannels(("a",), ring=Ring()), (2, 3))
    assert search.passes == passes
    assert search.backgrounds == {"a": 14.5}


def test_without_rings_only_integers_of_64_bits_are_read():
    types = {"small": np.dtype("u2"), "float": np.dtype("f8"), "large": np.dtype("u8")}
    assert ChannelSearch(types, background=False).unfinished == ("large",)
