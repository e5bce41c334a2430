"""The network in 8-bit integers predicts what the float network predicts, and the same in every block."""

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
from biounet.network.activation_ranges import calibrated_channels
from biounet.network.int8 import Int8UNet, _add_kernel, _max_pool
from biounet.network.onednn import cpu_supports, has_fused_relu
from biounet.network.quantization import _scale_of_sum
from biounet.network.unet import pixel_shuffle
from biounet.segmentation import pad_to_stride, predict_image

int8_only = pytest.mark.skipif(not has_fast_int8(), reason="this CPU does not multiply 8-bit integers natively")
SHAPES = {2: (96, 128), 3: (16, 48, 32)}
THICK_SLICES = {"fold": (1, 2, 2), "pools": ((1, 2, 2), (2, 2, 2)), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
NETWORKS = [
    (2, {"widths": (16, 24, 32)}),
    (2, {"widths": (16,), "half_resolution": False}),
    (2, {"widths": (12, 20), "convolutions": 1}),
    (3, {"widths": (16, 24)}),
    (3, {"widths": (16, 24, 32), **THICK_SLICES}),
]


def trained_network(dims, settings, seed=0):
    """Return a network whose batch norms have running statistics, as after a training."""
    network = UNet(dims, 1, 3, NetworkSettings(**settings))
    initialise_weights(network, seed)
    network.train()
    with torch.no_grad():
        for n in range(20):
            network(random_image(dims, n)[None])
    return network.eval()


def random_image(dims, seed=0):
    noise = torch.randn(1, *SHAPES[dims], generator=torch.Generator().manual_seed(seed))
    return noise.cumsum(-1) / 8


@int8_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dims", "settings"), NETWORKS)
def test_int8_and_float_predictions_agree(dims, settings, dtype):
    network = fold_batch_norms(trained_network(dims, settings))
    ranges = calibrate_activations(network, [random_image(dims, n) for n in range(5)])
    image = random_image(dims, 7)[None]
    with torch.no_grad():
        expected = network(image)
    logits = Int8UNet(network, ranges, dtype).shuffled_logits(image.to(dtype))
    found = pixel_shuffle(logits, network.shuffle_factors)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    # With random weights; a wrong scale, zero point or order makes this about 1.
    assert (found - expected).abs().mean() < 0.15 * expected.std()


@int8_only
@pytest.mark.parametrize(("dims", "settings"), NETWORKS)
def test_predictions_do_not_depend_on_the_block_size(dims, settings):
    network = trained_network(dims, settings)
    ranges = calibrate_activations(fold_batch_norms(network), [random_image(dims)])
    predictor = make_predictor(network, "cpu", activation_ranges=ranges)
    assert isinstance(predictor.network, Int8UNet)
    image = random_image(dims, 3).numpy()[(slice(None), *(slice(size - 5) for size in SHAPES[dims]))]
    whole = predict_image(image, predictor, block=1000)
    for block in (16, 33):
        assert np.array_equal(predict_image(image, predictor, block), whole)


@int8_only
def test_activations_beyond_the_calibrated_ranges_saturate():
    network = trained_network(2, NETWORKS[0][1])
    predictor = make_predictor(
        network, "cpu", activation_ranges=calibrate_activations(fold_batch_norms(network), [random_image(2)])
    )
    image = random_image(2).numpy()
    # They differ by a power of two, so that bfloat16 rounds both alike.
    bright, brighter = predictor(image * 2**14), predictor(image * 2**20)
    assert np.abs(bright.astype(int) - brighter.astype(int)).mean() < 500


def test_without_activation_ranges_the_network_stays_float():
    assert isinstance(make_predictor(trained_network(2, NETWORKS[0][1]), "cpu").network, UNet)


class _Gone:
    """Operators of a version of torch that does not have them any more."""


class _Changed:
    """Operators of a version of torch in which they take other arguments."""

    def __getattr__(self, name):
        return lambda x: x


@pytest.mark.parametrize("operators", [_Gone(), _Changed()], ids=["gone", "changed"])
@pytest.mark.parametrize(("dims", "settings"), NETWORKS[::3])
def test_without_private_operators_the_float_result_is_the_same(monkeypatch, dims, settings, operators):
    network = trained_network(dims, settings)
    ranges = calibrate_activations(fold_batch_norms(network), [random_image(dims)])
    image = random_image(dims, 3).numpy()
    expected = make_predictor(network, "cpu")(image)
    for name in ("onednn", "mkldnn"):
        monkeypatch.setattr(torch.ops, name, operators)
    for check in (has_fast_int8, has_fused_relu):
        monkeypatch.setattr(f"biounet.network.onednn.{check.__name__}", check.__wrapped__)
        monkeypatch.setattr(f"biounet.network.predictor.{check.__name__}", check.__wrapped__)
    predictor = make_predictor(network, "cpu", activation_ranges=ranges)
    assert isinstance(predictor.network, UNet)
    # Sums of floats may be taken in another order, which moves a probability to the next of its 65536 steps.
    np.testing.assert_allclose(predictor(image).astype(int), expected.astype(int), atol=1)


def test_a_cpu_check_that_torch_does_not_have_is_false(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_vnni_supported", raising=False)
    assert not cpu_supports("vnni")
    assert not has_fast_int8.__wrapped__()


@pytest.mark.parametrize(("dims", "settings"), NETWORKS)
def test_activation_ranges_cover_all_channels_and_images(dims, settings):
    network = trained_network(dims, settings)
    images = [torch.from_numpy(pad_to_stride(random_image(dims, n).numpy(), network.stride)) for n in range(3)]
    each = [calibrate_activations(fold_batch_norms(network), [image]) for image in images]
    together = calibrate_activations(fold_batch_norms(network), images)
    assert {name: values.shape[1] for name, values in together.items()} == calibrated_channels(network)
    for name, values in together.items():
        assert torch.equal(values[0], torch.stack([one[name][0] for one in each]).amin(0))
        assert torch.equal(values[1], torch.stack([one[name][1] for one in each]).amax(0))


per_channel = st.lists(st.floats(0, 1e4, width=32), min_size=3, max_size=3).map(torch.tensor)


@given(per_channel, per_channel, per_channel, per_channel)
def test_the_scale_of_a_sum_fits_the_sum_and_both_terms(skip, above, below, coarse):
    scale, zero_point = _scale_of_sum(torch.stack([torch.zeros(3), skip]), torch.stack([-below, above]), coarse[None])
    tolerance = 1 + 1e-5
    assert (scale > 0).all()
    assert (skip / scale <= 255 * tolerance).all()
    assert (coarse / scale <= 127 * tolerance).all()
    assert (above / scale <= (255 - zero_point) * tolerance).all()
    assert (below / scale <= max(zero_point, 0.5) * tolerance).all()


@pytest.mark.parametrize("pool", [(2, 2), (3, 3), (1, 2), (2, 3)])
def test_max_pooling_of_integers_is_that_of_floats(pool):
    image = torch.randint(0, 256, (1, 5, 12, 18), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    pooled = _max_pool(image, pool)
    assert torch.equal(pooled.float(), torch.nn.functional.max_pool2d(image.float(), pool))
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_upsampling_and_adding_saturates():
    skip = np.array([[[10], [20], [250], [0]], [[10], [20], [250], [0]]], np.uint8)[None]
    _add_kernel(np.array([[[[-30], [9]]]], np.int8), skip, (1, 2, 2), np.int16(5))
    assert skip[..., 0].tolist() == [[[0, 0, 255, 14], [0, 0, 255, 14]]]
