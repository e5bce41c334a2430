"""The U-Net keeps the grid of its input, in 2D and 3D, and its receptive field is bounded."""

import itertools

import pytest
import torch

from biounet.core import NetworkSettings
from biounet.network import UNet, fold_batch_norms, initialise_weights
from biounet.network.unet import current_name, pixel_shuffle, pixel_unshuffle

SMALL = {"widths": (8, 12, 16)}
SHAPES = {2: (48, 40), 3: (16, 24, 32)}


def _network(dims: int, seed: int = 0, **changes: object) -> UNet:
    network = UNet(dims, 1, 3, NetworkSettings(**{**SMALL, **changes}))
    initialise_weights(network, seed)
    # Running statistics of a trained network are not 0 and 1.
    draw = torch.Generator().manual_seed(seed)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1, generator=draw)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=draw)
    return network.eval()


def _noise(*shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("half", [True, False])
def test_the_output_lies_on_the_grid_of_the_input(dims, half):
    network = _network(dims, half_resolution=half)
    shape = tuple(stride * n for stride, n in zip(network.stride, (2, 3, 2), strict=False))
    assert network(torch.randn(2, 1, *shape)).shape == (2, 3, *shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_pixel_shuffle_undoes_pixel_unshuffle(dims):
    image = torch.randn(2, 3, *SHAPES[dims])
    shuffled = pixel_unshuffle(image, (2,) * dims)
    assert shuffled.shape == (2, 3 * 2**dims, *(size // 2 for size in SHAPES[dims]))
    assert torch.equal(pixel_shuffle(shuffled, (2,) * dims), image)


def test_pixel_unshuffle_is_that_of_torch_in_two_dimensions():
    image = torch.randn(1, 2, 8, 6)
    assert torch.equal(pixel_unshuffle(image, (2, 2)), torch.nn.functional.pixel_unshuffle(image, 2))
    assert torch.equal(
        pixel_shuffle(pixel_unshuffle(image, (2, 2)), (2, 2)),
        torch.nn.functional.pixel_shuffle(pixel_unshuffle(image, (2, 2)), 2),
    )


@pytest.mark.parametrize("half", [True, False])
def test_no_output_depends_on_an_input_beyond_the_receptive_radius(half):
    network = _network(2, half_resolution=half).double()
    (radius, _), (stride, _) = network.receptive_radius, network.stride
    size = -(-(4 * radius) // stride) * stride
    image = _noise(1, 1, size, size)
    middle = size // 2
    network(image)[0, :, middle, middle].sum().backward()
    rows = torch.nonzero(image.grad[0, 0].abs().sum(1)).flatten()
    assert middle - radius <= rows.min() <= rows.max() <= middle + radius
    assert rows.max() - rows.min() > radius  # the bound is not much too large


def test_an_axis_of_thick_slices_is_neither_shuffled_nor_pooled_first():
    settings = NetworkSettings(
        widths=(4, 6, 8), fold=(1, 2, 2), pools=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3))
    )
    network = UNet(3, 1, 2, settings).double().eval()
    initialise_weights(network, 0)
    assert network.stride == (2, 8, 8)
    image = _noise(1, 1, 16, 64, 64)
    out = network(image)
    assert out.shape == (1, 2, 16, 64, 64)
    out[0, :, 8, 32, 32].sum().backward()
    used = torch.nonzero(image.grad[0, 0])
    for axis, (at, radius) in enumerate(zip((8, 32, 32), network.receptive_radius, strict=True)):
        assert at - radius <= used[:, axis].min() <= used[:, axis].max() <= at + radius
    assert network.receptive_radius[0] < network.receptive_radius[1]


@pytest.mark.parametrize("dims", [2, 3])
def test_an_initial_network_has_the_same_output_in_all_voxels_of_a_shuffled_block(dims):
    network = UNet(dims, 1, 2, NetworkSettings(widths=(4, 8))).eval()
    initialise_weights(network, 0)
    with torch.no_grad():
        logits = network(torch.randn(1, 1, *(16,) * dims))
    first = logits[(..., *(slice(None, None, 2),) * dims)]
    assert logits.std() > 0
    for offset in itertools.product(range(2), repeat=dims):
        assert torch.equal(logits[(..., *(slice(at, None, 2) for at in offset))], first)


def test_initial_weights_depend_on_the_seed_alone():
    first = _network(2, 3).state_dict()
    torch.rand(5)
    second = _network(2, 3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], _network(2, 4).state_dict()["head.weight"])


def test_weights_are_loaded_by_the_names_of_earlier_versions():
    assert current_name("rises.0.project.bias") == "up_blocks.0.project.bias"
    assert current_name("encoder.0.1") == "encoder.0.1"
    network, other = _network(2, 3), _network(2, 4)
    weights = network.state_dict()
    other.load_state_dict({name.replace("up_blocks.", "rises."): value for name, value in weights.items()})
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("dims", [2, 3])
def test_folding_batch_norm_into_convolutions_keeps_the_output(dims):
    network = _network(dims).double()
    image = torch.randn(1, 1, *SHAPES[dims], dtype=torch.float64)
    folded = fold_batch_norms(network)
    torch.testing.assert_close(folded(image), network(image))
    assert not any(isinstance(m, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)) for m in folded.modules())
    assert any(isinstance(m, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)) for m in network.modules())


def test_a_trained_network_can_be_exported():
    network = _network(2, widths=(4, 6))
    image = torch.randn(1, 1, 32, 32)
    size = torch.export.Dim("size", min=2, max=64)
    program = torch.export.export(
        network, (image,), dynamic_shapes={"image": {2: size * network.stride[0], 3: size * network.stride[1]}}
    )
    wider = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(program.module()(wider), network(wider))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_region_alone_has_the_logits_that_it_has_in_the_whole(dims):
    network = UNet(dims, 1, 2, NetworkSettings(widths=(4, 6, 8), half_resolution=dims == 2)).eval()
    initialise_weights(network, 0)
    image = torch.rand(1, 1, *(48,) * dims, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network.shuffled_logits(image)
        for start, stop in ((0, 24), (5, 14), (23, 24), (0, 1), (10, 24)):
            keep = (slice(start, stop),) * dims
            part = network.shuffled_logits(image, keep)
            assert torch.allclose(part, whole[(slice(None), slice(None), *keep)], atol=1e-5)
