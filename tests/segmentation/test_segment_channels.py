"""Channels to measure beside a model of classes: means of classes in images, and of lesions in volumes."""

import numpy as np
import pytest

from biounet.core import Grid, Volume
from biounet.core.recipe import parse_recipe
from biounet.network import Card, build_network, initialise_weights, output_channels
from biounet.network.predictor import make_predictor
from biounet.segmentation import segment


def segment_classes(dims, measured):
    """Return what a model of random weights finds in noise, with a channel to measure."""
    data = {"kind": "classes", "classes": ["a", "b"], "dims": dims}
    recipe = parse_recipe({"data": data, "network": {"widths": [4, 4]}})
    network = build_network(recipe)
    initialise_weights(network, 6)
    card = Card(recipe=recipe, inputs=("t1",), outputs=output_channels(recipe))
    shape = (24,) * dims
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    volume = Volume(image, Grid(shape, (1.0,) * dims, "mm"), measured=measured(shape))
    return segment(volume, make_predictor(network.eval(), "cpu", softmax=True), card)


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_are_measured_in_each_class(dims):
    found = segment_classes(dims, lambda shape: {"adc": np.arange(24**dims, dtype=float).reshape(shape)})
    adc, columns = found.volume.measured["adc"], found.columns
    assert {"intensity_mean_t1", "intensity_mean_adc"} <= {*columns}
    whole = columns["lesion"] == 0 if dims == 3 else np.ones(2, bool)
    for k, value in zip(np.flatnonzero(whole), (1, 2), strict=True):
        inside = adc[found.labels == value]
        expected = inside.mean() if inside.size else np.nan
        np.testing.assert_allclose(columns["intensity_mean_adc"][k], expected)
    assert (found.labels > 0).any()


def test_without_such_channels_there_are_no_intensities():
    assert not [name for name in segment_classes(2, lambda shape: {}).columns if name.startswith("intensity")]
