"""The numbers of a network in 8-bit integers, which are the same for whatever multiplies them.

Activations are 0..255 and weights -127..127, each output channel with a scale of its own (Jacob et al. 2018,
arXiv:1712.05877). The scales of activations are multiplied into the weights, so that between two convolutions only
saturation is left; that at 0 is the ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from biounet.network.activation_ranges import ActivationRanges
from biounet.network.unet import Axes, UNet

Convolution = Any  # a Conv2d or a Conv3d, which have no useful class in common
Geometry = tuple[list[int], list[int], list[int]]  # stride, padding and dilation, each with a number for every axis

UINT8_MAX, INT8_MAX = 255, 127
_ZERO_POINTS = range(0, 136, 8)  # integers that may stand for 0 in the sums of the decoder


@dataclass(frozen=True)
class FloatConvolution:
    """A convolution of floats whose output, rounded and saturated, is 0..255; no output is below 0, as after a ReLU."""

    weight: Tensor
    bias: Tensor
    geometry: Geometry


@dataclass(frozen=True)
class QuantizedConvolution:
    """A convolution of 8-bit integers.

    Attributes
    ----------
    weight, scale
        Integers (int8), and the factor of each output channel.
    bias
        Float, in units of the output.
    geometry
        Stride, padding and dilation.
    zero_point
        What stands for 0 in the input.
    dtype
        Of the output, which saturates at its bounds; floats are left as they are.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    geometry: Geometry
    zero_point: int
    dtype: torch.dtype


@dataclass(frozen=True)
class QuantizedUNet:
    """The convolutions of a network: of the encoder without the first, and of each level.

    A level of the decoder begins with the sum of a skip connection, of the output of its project after upsampling, and
    of its zero point; the sum saturates at 0 and 255.
    """

    pools: tuple[Axes, ...]
    first: FloatConvolution
    encoder: tuple[tuple[QuantizedConvolution, ...], ...]
    decoder: tuple[tuple[QuantizedConvolution, ...], ...]
    projects: tuple[QuantizedConvolution, ...]
    zero_points: tuple[int, ...]
    head: QuantizedConvolution


def quantize_network(network: UNet, ranges: ActivationRanges) -> QuantizedUNet:
    """Return the integers of a network from `fold_batch_norms`, by the ranges of its activations."""
    scales, zero_points = _activation_scales(network, ranges)
    depth, last = len(network.pools), _last_layer(network)
    encoded = [scales[f"encoder.{n}.{last}"] for n in range(depth + 1)]
    decoded = [scales[f"decoder.{n}.{last}"] for n in range(depth)]
    first: Any = network.encoder[0][0]  # type: ignore[index]
    inputs, coarse = [scales["encoder.0.1"], *encoded[:-1]], [*decoded, encoded[-1]]
    head_scale = torch.ones(network.head.out_channels)
    return QuantizedUNet(
        pools=tuple(pool.kernel_size for pool in network.pools),  # type: ignore[misc]
        first=FloatConvolution(*_rescale(first, torch.ones(first.in_channels), inputs[0]), conv_geometry(first)),
        encoder=tuple(_quantize_block(network, f"encoder.{n}", scales, scale) for n, scale in enumerate(inputs)),
        decoder=tuple(
            _quantize_block(network, f"decoder.{n}", scales, scales[f"up_blocks.{n}"], zero_point)
            for n, zero_point in enumerate(zero_points)
        ),
        projects=tuple(
            _quantize_layer(up.project, coarse[n + 1], scales[f"up_blocks.{n}"], dtype=torch.int8)
            for n, up in enumerate(network.up_blocks)
        ),
        zero_points=tuple(zero_points),
        head=_quantize_layer(network.head, coarse[0], head_scale, dtype=torch.float32),
    )


def quantize_convolution(
    weight: Tensor, bias: Tensor, geometry: Geometry, zero_point: int, dtype: torch.dtype
) -> QuantizedConvolution:
    """Round a float weight that has the scales of input and output in it, as the bias has that of the output."""
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / INT8_MAX
    rounded = (weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))).round().to(torch.int8)
    return QuantizedConvolution(rounded, scale, bias, geometry, zero_point, dtype)


def conv_geometry(layer: Convolution) -> Geometry:
    """Return stride, padding and dilation of a layer."""
    return list(layer.stride), list(layer.padding), list(layer.dilation)


def _quantize_layer(
    layer: Convolution, scale: Tensor, output: Tensor, zero_point: int = 0, dtype: torch.dtype = torch.uint8
) -> QuantizedConvolution:
    """Return an integer convolution with these scales of input and output."""
    return quantize_convolution(*_rescale(layer, scale, output), conv_geometry(layer), zero_point, dtype)


def _rescale(layer: Convolution, scale: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution between channels with these scales."""
    spatial = (1,) * (layer.weight.ndim - 2)
    weight = layer.weight.float() * scale.reshape(-1, *spatial) / output.reshape(-1, 1, *spatial)
    return weight, layer.bias.float() / output


def _last_layer(network: UNet) -> int:
    """Return the index of the last layer of each block."""
    return len(network.encoder[0]) - 1  # type: ignore[arg-type]


def _quantize_block(
    network: UNet, name: str, scales: ActivationRanges, scale: Tensor, zero_point: int = 0
) -> tuple[QuantizedConvolution, ...]:
    """Return the integer convolutions of a block whose input has the scales `scale`; not the first of the network."""
    convolutions = []
    for at, layer in enumerate(network.get_submodule(name).children()):
        if isinstance(layer, nn.ReLU) or (name, at) == ("encoder.0", 0):
            continue
        output = scales[f"{name}.{at + 1}"]
        convolutions.append(_quantize_layer(layer, scale, output, zero_point))
        scale, zero_point = output, 0
    return tuple(convolutions)


def _activation_scales(network: UNet, ranges: ActivationRanges) -> tuple[dict[str, Tensor], list[int]]:
    """Return the scales of the channels after each layer, and the zero point of the sum of each level.

    A skip connection and the sum that it is part of have the same scales, so that they can be added as they are.
    """
    scales = {name: _positive(values[1] / UINT8_MAX) for name, values in ranges.items()}
    zero_points = []
    for n in range(len(network.up_blocks)):
        skip, total = f"encoder.{n}.{_last_layer(network)}", f"up_blocks.{n}"
        scales[skip], zero_point = _scale_of_sum(ranges[skip], ranges[total], ranges[f"{total}.project"])
        scales[total] = scales[skip]
        zero_points.append(zero_point)
    return scales, zero_points


def _scale_of_sum(skip: Tensor, total: Tensor, coarse: Tensor) -> tuple[Tensor, int]:
    """Return the finest scale, and its zero point, at which both terms of a sum and the sum fit between the bounds."""
    terms = torch.maximum(skip[1] / UINT8_MAX, coarse.abs().amax(0) / INT8_MAX)
    choices = []
    for zero_point in _ZERO_POINTS:
        above, below = total[1] / (UINT8_MAX - zero_point), -total[0] / max(zero_point, 0.5)
        choices.append((_positive(torch.maximum(terms, torch.maximum(above, below))), zero_point))
    return min(choices, key=lambda choice: float(choice[0].log().sum()))


def _positive(scale: Tensor) -> Tensor:
    """Give channels that were always 0 the largest scale of the others."""
    return torch.where(scale > 0, scale, scale.max().clamp(min=1e-6))
