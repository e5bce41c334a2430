"""The network as a graph of float32, with batch norms folded and pixel shuffles part of the convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from biounet.model_export.graph import Graph
from biounet.network import UNet


def add_network(graph: Graph, image: str, network: UNet) -> str:
    """Add a network from `fold_batch_norms`; return its shuffled logits for ``(n, c, [z,] y, x)``."""
    names = {module: name for name, module in network.named_modules()}

    def convolve(value: str, layer: Any) -> str:  # noqa: ANN401 - Conv2d or Conv3d
        weight = graph.constant(layer.weight.numpy(), name=f"{names[layer]}.weight")
        bias = graph.constant(layer.bias.numpy(), name=f"{names[layer]}.bias")
        return graph.add("Conv", value, weight, bias, kernel_shape=layer.kernel_size, pads=[*layer.padding * 2])

    def convolve_block(value: str, layers: Sequence[nn.Module]) -> str:
        for layer in layers[::2]:
            value = graph.add("Relu", convolve(value, layer))
        return value

    first, *others = network.encoder[0][::2]  # type: ignore[index]
    x = graph.add("Relu", add_first_convolution(graph, image, first, network.shuffle_factors))
    for layer in others:
        x = graph.add("Relu", convolve(x, layer))
    skips = []
    for block, pool in zip(list(network.encoder)[1:], network.pools, strict=True):
        skips.append(x)
        x = graph.add("MaxPool", x, kernel_shape=pool.kernel_size, strides=pool.kernel_size)
        x = convolve_block(x, block)  # type: ignore[arg-type]
    levels = list(zip(network.decoder, network.up_blocks, network.pools, skips, strict=True))
    for block, up, pool, skip in reversed(levels):
        fine = add_upsampling(graph, convolve(x, up.project), pool.kernel_size)  # type: ignore[arg-type]
        x = convolve_block(graph.add("Add", fine, skip), block)  # type: ignore[arg-type]
    return convolve(x, network.head)


def add_first_convolution(graph: Graph, image: str, layer: Any, factors: Sequence[int]) -> str:  # noqa: ANN401
    """Add pixel unshuffle and the convolution after it as one convolution with a stride, which has the same weights."""
    outputs, _, *kernel = layer.weight.shape
    dims = len(kernel)
    weight = layer.weight.numpy().reshape(outputs, -1, *factors, *kernel)
    interleaved = [
        axis for pair in zip(range(2 + dims, 2 + 2 * dims), range(2, 2 + dims), strict=True) for axis in pair
    ]
    size = [factor * edge for factor, edge in zip(factors, kernel, strict=True)]
    weight = weight.transpose(0, 1, *interleaved).reshape(outputs, -1, *size)
    pads = [factor * edge for factor, edge in zip(factors, layer.padding, strict=True)] * 2
    constants = graph.constant(weight, name="first.weight"), graph.constant(layer.bias.numpy(), name="first.bias")
    return graph.add("Conv", image, *constants, kernel_shape=size, pads=pads, strides=[*factors])


def add_upsampling(graph: Graph, value: str, factors: Sequence[int]) -> str:
    """Repeat each value of ``(n, c, [z,] y, x)`` along the axes."""
    scales = graph.constant([1, 1, *factors])
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.add("Resize", value, "", scales, **how)


def add_pixel_shuffle(graph: Graph, value: str, factors: Sequence[int]) -> str:
    """Move channels back into blocks of voxels: undo the pixel unshuffle."""
    if math.prod(factors) == 1:
        return value
    dims = len(factors)
    sizes: list[str | int] = [graph.size(value, axis) for axis in range(2, 2 + dims)]
    split = graph.reshape(value, [0, -1, *factors, *sizes])
    perm = [0, 1, *(axis for n in range(dims) for axis in (2 + dims + n, 2 + n))]
    shape: list[str | int] = [0, 0]
    for size, factor in zip(sizes, factors, strict=True):
        shape.append(graph.add("Mul", str(size), graph.integers(factor)))
    return graph.reshape(graph.add("Transpose", split, perm=perm), shape)
