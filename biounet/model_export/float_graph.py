"""The network in float32, with batch norms folded and the first pixel shuffle part of a convolution."""

from __future__ import annotations

from typing import Any

from torch import nn

from biounet.model_export.planes import Planes, first_weight, plane_weight
from biounet.network import UNet


class FloatArithmetic:
    """A network from `fold_batch_norms`, as an `Arithmetic`."""

    def __init__(self, planes: Planes, network: UNet) -> None:
        self.planes, self.graph, self.network = planes, planes.graph, network
        self.depth = len(network.pools)
        self._names = {module: name for name, module in network.named_modules()}

    def first(self, image: str) -> str:
        """Return the features of the first convolution."""
        graph, factors = self.graph, self.network.shuffle_factors
        layer: Any = self.network.encoder[0][0]  # type: ignore[index]
        weight = graph.constant(first_weight(layer.weight.numpy(), factors), name="first.weight")
        bias = graph.constant(layer.bias.numpy(), name="first.bias")
        pads = [factor * edge for factor, edge in zip(factors, layer.padding, strict=True)][-2:] * 2
        planes = self.planes.with_neighbours(self.planes.split(image, factors[0]), layer.padding[0], graph.constant(0))
        convolved = graph.add("Conv", planes, weight, bias, pads=pads, strides=factors[-2:])
        return graph.add("Relu", convolved)

    def _convolve(self, features: str, layer: Any) -> str:  # noqa: ANN401 - Conv2d or Conv3d
        """Return a convolution."""
        graph, name = self.graph, self._names[layer]
        weight = graph.constant(plane_weight(layer.weight.numpy()), name=f"{name}.weight")
        bias = graph.constant(layer.bias.numpy(), name=f"{name}.bias")
        planes = self.planes.with_neighbours(features, layer.padding[0], graph.constant(0))
        return graph.add("Conv", planes, weight, bias, pads=layer.padding[-2:] * 2)

    def _apply(self, features: str, layers: list[nn.Module]) -> str:
        for layer in layers:
            features = self.graph.add("Relu", self._convolve(features, layer))
        return features

    def encode(self, features: str, level: int) -> str:
        """Apply the convolutions of a level of the encoder; at level 0 without the first."""
        return self._apply(features, [*self.network.encoder[level].children()][2 * (level == 0) :: 2])

    def pool(self, features: str, level: int) -> str:
        """Go from a level to the next coarser one."""
        return self.planes.pool(features, self.network.pools[level].kernel_size)  # type: ignore[arg-type]

    def add_upsampled(self, coarse: str, skip: str, level: int) -> str:
        """Project the features of a coarser level, upsample them, and add the skip connection."""
        factors: Any = self.network.pools[level].kernel_size
        projected = self._convolve(coarse, self.network.up_blocks[level].project)
        return self.graph.add("Add", self.planes.upsample(projected, factors), skip)

    def decode(self, features: str, level: int) -> str:
        """Apply the convolutions of a level of the decoder."""
        return self._apply(features, [*self.network.decoder[level].children()][::2])

    def head(self, features: str) -> str:
        """Return shuffled logits, as features."""
        return self._convolve(features, self.network.head)
