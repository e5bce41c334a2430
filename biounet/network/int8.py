"""The U-Net in 8-bit integers, for CPUs that multiply those twice as fast as bfloat16 (AVX-512 VNNI, AMX).

How its numbers become integers is in `quantization`. Sums of integers are exact in any order, so that blocks agree to
the bit. Input and output stay floats: images have more than 256 levels, and objects are found by steepest ascent on the
output.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biounet.core import Region, compiled
from biounet.network.activation_ranges import ActivationRanges
from biounet.network.onednn import Int8Convolution, conv_relu
from biounet.network.quantization import UINT8_MAX, FloatConvolution, quantize_network
from biounet.network.unet import Axes, UNet, crop_features, decoder_crops, pixel_unshuffle


class Int8UNet:
    """A network from `fold_batch_norms` for prediction on a CPU; `dtype` is that of the image and first convolution."""

    def __init__(self, network: UNet, ranges: ActivationRanges, dtype: torch.dtype) -> None:
        self.stride, self.receptive_radius = network.stride, network.receptive_radius
        self.shuffle_factors = network.shuffle_factors
        self.pool_factors, self.decoder_reach = network.pool_factors, network.decoder_reach
        quantized = quantize_network(network, ranges)
        self.pools, self.zero_points = quantized.pools, quantized.zero_points
        self.first = _FirstConvolution(quantized.first, dtype)
        self.encoder = [[Int8Convolution(each) for each in block] for block in quantized.encoder]
        self.decoder = [[Int8Convolution(each) for each in block] for block in quantized.decoder]
        self.projects = [Int8Convolution(each) for each in quantized.projects]
        self.head = Int8Convolution(quantized.head)

    def shuffled_logits(self, image: Tensor, keep: Region | None = None) -> Tensor:
        """Map a float image ``(1, inputs, [z,] y, x)`` to logits, float32, as `UNet.shuffled_logits` does."""
        x = pixel_unshuffle(image, self.shuffle_factors)
        crops = decoder_crops(x.shape[2:], keep, self.pool_factors, self.decoder_reach)
        x = self.first(x)
        skips: list[Tensor] = []
        for block, pool in zip(self.encoder, [*self.pools, None], strict=True):
            for convolution in block:
                x = convolution(x)
            if pool is not None:
                skips.append(x)
                x = _max_pool(x, pool)
        x = crop_features(x, crops.coarsest)
        levels = zip(self.decoder, self.projects, self.pools, self.zero_points, skips, crops.levels, strict=True)
        for block, project, pool, zero_point, skip, (inputs, outputs) in reversed([*levels]):
            x = _add_upsampled(project(x), crop_features(skip, inputs), pool, zero_point)
            for convolution in block:
                x = convolution(x)
            x = crop_features(x, outputs)
        return self.head(x)


class _FirstConvolution:
    """A convolution of floats and its ReLU, whose output is integers."""

    def __init__(self, layer: FloatConvolution, dtype: torch.dtype) -> None:
        self.layout = torch.channels_last if layer.weight.ndim == 4 else torch.channels_last_3d
        self.weight = layer.weight.to(dtype).contiguous(memory_format=self.layout)
        self.bias, self.geometry = layer.bias.to(dtype), layer.geometry

    def __call__(self, x: Tensor) -> Tensor:
        features = conv_relu(x.contiguous(memory_format=self.layout), self.weight, self.bias, self.geometry)
        return features.clamp_(max=UINT8_MAX).round_().to(torch.uint8)


def _max_pool(x: Tensor, pool: Axes) -> Tensor:
    """Return maxima over windows, one axis after the other: torch's own max pooling refuses integers on a CPU."""
    for axis, size in enumerate(pool, 2):
        slices = [x[(slice(None),) * axis + (slice(start, None, size),)] for start in range(size)]
        x = reduce(torch.maximum, slices)
    return x


def _add_upsampled(coarse: Tensor, skip: Tensor, pool: Axes, zero_point: int) -> Tensor:
    """Return `skip`, which is overwritten, plus `coarse`, upsampled by `pool`, plus the zero point."""
    _add_kernel(_channels_last(coarse), _channels_last(skip), (1, *pool)[-3:], np.int16(zero_point))
    return skip


def _channels_last(x: Tensor) -> NDArray[Any]:
    """Return features ``(1, c, [z,] y, x)``, channels last in memory, as ``(z, y, x, c)`` over the same bytes."""
    array: NDArray[Any] = x[0].movedim(0, -1).numpy()
    return array if array.ndim == 4 else array[None]


@compiled
def _add_kernel(coarse, skip, pool, zero_point):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add in one pass over memory: 3 ms for 32 channels of 512 x 512, with the operators of torch 50 ms."""
    depth, height, width, channels = skip.shape
    for z in range(depth):
        for y in range(height):
            upsampled, line = coarse[z // pool[0], y // pool[1]], skip[z, y]
            for cell in range(width // pool[2]):
                for at in range(cell * pool[2], (cell + 1) * pool[2]):
                    for c in range(channels):
                        total = np.int16(upsampled[cell, c]) + np.int16(line[at, c]) + zero_point
                        line[at, c] = np.uint8(min(max(total, np.int16(0)), np.int16(UINT8_MAX)))
