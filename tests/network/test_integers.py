"""The network of integers says what the network of real numbers says, and the same in every block."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import NetworkSettings
from biounet.network import (
    UNet,
    calibrate_activations,
    fold_batch_norms,
    has_fast_int8,
    initialise_weights,
    make_predictor,
)
from biounet.network.activation_ranges import channels_observed
from biounet.network.int8 import IntegerUNet, _add_repeated, _pool_cells, _unit_of_sum
from biounet.network.unet import unfold_voxels
from biounet.segmentation import pad_to_stride, predict_image

fast_only = pytest.mark.skipif(not has_fast_int8(), reason="this CPU does not multiply integers of 8 bits natively")
SHAPES = {2: (96, 128), 3: (16, 48, 32)}
ALONG_Z = {"fold": (1, 2, 2), "pools": ((1, 2, 2), (2, 2, 2)), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
NETWORKS = [
    (2, {"widths": (16, 24, 32)}),
    (2, {"widths": (16,), "half_resolution": False}),
    (2, {"widths": (12, 20), "convolutions": 1}),
    (3, {"widths": (16, 24)}),
    (3, {"widths": (16, 24, 32), **ALONG_Z}),
]


def network_of(dims, settings, seed=0):
    """A network whose batch norms have statistics, as after a training."""
    network = UNet(dims, 1, 3, NetworkSettings(**settings))
    initialise_weights(network, seed)
    network.train()
    with torch.no_grad():
        for n in range(20):
            network(image_of(dims, n)[None])
    return network.eval()


def image_of(dims, seed=0):
    noise = torch.randn(1, *SHAPES[dims], generator=torch.Generator().manual_seed(seed))
    return noise.cumsum(-1) / 8


@fast_only
@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dims", "settings"), NETWORKS)
def test_it_says_what_the_network_of_real_numbers_says(dims, settings, real):
    network = fold_batch_norms(network_of(dims, settings))
    ranges = calibrate_activations(network, [image_of(dims, n) for n in range(5)])
    image = image_of(dims, 7)[None]
    with torch.no_grad():
        expected = network(image)
    found = unfold_voxels(IntegerUNet(network, ranges, real).folded(image.to(real)), network.fold)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    # Random weights, not learned ones: any mistake in units, zeros or order makes this about 1.
    assert (found - expected).abs().mean() < 0.15 * expected.std()


@fast_only
@pytest.mark.parametrize(("dims", "settings"), NETWORKS)
def test_blocks_agree_to_the_bit(dims, settings):
    network = network_of(dims, settings)
    ranges = calibrate_activations(fold_batch_norms(network), [image_of(dims)])
    predictor = make_predictor(network, "cpu", ranges=ranges)
    assert isinstance(predictor.network, IntegerUNet)
    image = image_of(dims, 3).numpy()[(slice(None), *(slice(size - 5) for size in SHAPES[dims]))]
    whole = predict_image(image, predictor, block=1000)
    for block in (16, 33):
        assert np.array_equal(predict_image(image, predictor, block), whole)


@fast_only
def test_an_image_far_outside_of_the_ranges_is_cut_off_and_not_wrapped_around():
    network = network_of(2, NETWORKS[0][1])
    predictor = make_predictor(network, "cpu", ranges=calibrate_activations(fold_batch_norms(network), [image_of(2)]))
    image = image_of(2).numpy()
    # A power of two between them, so that bfloat16 rounds both alike.
    bright, brighter = predictor(image * 2**14), predictor(image * 2**20)
    assert np.abs(bright.astype(int) - brighter.astype(int)).mean() < 500


def test_without_ranges_or_without_such_a_cpu_numbers_are_real(monkeypatch):
    network = network_of(2, NETWORKS[0][1])
    ranges = calibrate_activations(fold_batch_norms(network), [image_of(2)])
    assert isinstance(make_predictor(network, "cpu").network, UNet)
    monkeypatch.setattr("biounet.network.predictor.has_fast_int8", lambda: False)
    assert isinstance(make_predictor(network, "cpu", ranges=ranges).network, UNet)


@pytest.mark.parametrize(("dims", "settings"), NETWORKS)
def test_ranges_are_those_of_all_channels_over_all_images(dims, settings):
    network = network_of(dims, settings)
    images = [torch.from_numpy(pad_to_stride(image_of(dims, n).numpy(), network.stride)) for n in range(3)]
    each, together = (
        [calibrate_activations(fold_batch_norms(network), [image]) for image in images],
        calibrate_activations(fold_batch_norms(network), images),
    )
    assert {name: values.shape[1] for name, values in together.items()} == channels_observed(network)
    for name, values in together.items():
        assert torch.equal(values[0], torch.stack([one[name][0] for one in each]).amin(0))
        assert torch.equal(values[1], torch.stack([one[name][1] for one in each]).amax(0))


values_of = st.lists(st.floats(0, 1e4, width=32), min_size=3, max_size=3).map(torch.tensor)


@given(values_of, values_of, values_of, values_of)
def test_a_sum_and_its_parts_fit_between_the_bounds(skip, above, below, coarse):
    unit, zero = _unit_of_sum(torch.stack([torch.zeros(3), skip]), torch.stack([-below, above]), coarse[None])
    fits = 1 + 1e-5
    assert (unit > 0).all()
    assert (skip / unit <= 255 * fits).all()
    assert (coarse / unit <= 127 * fits).all()
    assert (above / unit <= (255 - zero) * fits).all()
    assert (below / unit <= max(zero, 0.5) * fits).all()


def test_the_largest_of_each_cell():
    image = np.array([[[1, 7], [3, 2], [0, 0], [9, 9]], [[5, 5], [1, 1], [2, 0], [0, 3]]], np.uint8)[None]
    assert _pool_cells(image, (1, 2, 2)).tolist() == [[[[5, 7], [9, 9]]]]
    assert _pool_cells(image, (1, 1, 2)).tolist() == [[[[3, 7], [9, 9]], [[5, 5], [2, 3]]]]


def test_repeated_and_added_with_bounds():
    skip = np.array([[[10], [20], [250], [0]], [[10], [20], [250], [0]]], np.uint8)[None]
    _add_repeated(np.array([[[[-30], [9]]]], np.int8), skip, (1, 2, 2), np.int16(5))
    assert skip[..., 0].tolist() == [[[0, 0, 255, 14], [0, 0, 255, 14]]]
