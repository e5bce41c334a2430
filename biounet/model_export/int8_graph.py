"""The network in 8-bit integers: the same ones as in biounet, between ``QuantizeLinear`` and ``DequantizeLinear``.

That is how runtimes know operators that they have in integers. The scales of activations are in the weights: all are 1.
"""

from __future__ import annotations

import numpy as np
import torch

from biounet.model_export.planes import Planes, first_weight, plane_weight
from biounet.network import INT8_MAX, QuantizedConvolution, QuantizedUNet

_SIGNED_ZERO = INT8_MAX + 1  # what stands for 0 in uint8 where biounet has int8: runtimes add numbers of one type only


class Int8Arithmetic:
    """A network from `quantize_network`, as an `Arithmetic`; features are uint8."""

    def __init__(self, planes: Planes, network: QuantizedUNet, factors: tuple[int, ...]) -> None:
        self.planes, self.graph, self.network, self.factors = planes, planes.graph, network, factors
        self.depth = len(network.pools)
        self._one = self.graph.constant(1.0)

    def first(self, image: str) -> str:
        """Return the features of the first convolution, which is in float32."""
        graph, factors, layer = self.graph, self.factors, self.network.first
        _, padding, _ = layer.geometry
        weight = graph.constant(first_weight(layer.weight.numpy(), factors), name="first.weight")
        bias = graph.constant(layer.bias.numpy(), name="first.bias")
        pads = [factor * edge for factor, edge in zip(factors, padding, strict=True)][-2:] * 2
        planes = self.planes.with_neighbours(self.planes.split(image, factors[0]), padding[0], graph.constant(0))
        convolved = graph.add("Conv", planes, weight, bias, pads=pads, strides=factors[-2:])
        return self._quantize(graph.add("Relu", convolved), 0)

    def _zero(self, zero_point: int) -> str:
        return self.graph.constant(zero_point, np.uint8)

    def _quantize(self, value: str, zero_point: int) -> str:
        return self.graph.add("QuantizeLinear", value, self._one, self._zero(zero_point))

    def _dequantize(self, value: str, zero_point: int) -> str:
        return self.graph.add("DequantizeLinear", value, self._one, self._zero(zero_point))

    def _convolve(self, features: str, layer: QuantizedConvolution, name: str) -> str:
        """Return a convolution, in uint8 where the layer's output is not float."""
        graph = self.graph
        _, padding, _ = layer.geometry
        integers = graph.constant(plane_weight(layer.weight.numpy()), np.int8, name=f"{name}.weight")
        scale = graph.constant(layer.scale.numpy(), name=f"{name}.scale")
        rounded = np.rint(layer.bias.numpy().astype(np.float64) / layer.scale.numpy())
        bias = graph.constant(rounded, np.int32, name=f"{name}.bias")
        planes = self.planes.with_neighbours(features, padding[0], self._zero(layer.zero_point))
        convolved = graph.add(
            "Conv",
            self._dequantize(planes, layer.zero_point),
            graph.add("DequantizeLinear", integers, scale, axis=0),
            graph.add("DequantizeLinear", bias, scale, axis=0),
            pads=padding[-2:] * 2,
        )
        if layer.dtype.is_floating_point:
            return convolved
        return self._quantize(convolved, _SIGNED_ZERO if layer.dtype == torch.int8 else 0)

    def _apply(self, features: str, layers: tuple[QuantizedConvolution, ...], name: str) -> str:
        for n, layer in enumerate(layers):
            features = self._convolve(features, layer, f"{name}.{n}")
        return features

    def encode(self, features: str, level: int) -> str:
        """Apply the convolutions of a level of the encoder; at level 0 without the first."""
        return self._apply(features, self.network.encoder[level], f"encoder.{level}")

    def pool(self, features: str, level: int) -> str:
        """Go from a level to the next coarser one."""
        return self.planes.pool(features, self.network.pools[level])

    def add_upsampled(self, coarse: str, skip: str, level: int) -> str:
        """Project the features of a coarser level, upsample them, and add the skip connection."""
        factors, zero_point = self.network.pools[level], self.network.zero_points[level]
        projected = self._convolve(coarse, self.network.projects[level], f"project.{level}")
        fine = self._dequantize(self.planes.upsample(projected, factors), _SIGNED_ZERO)
        return self._quantize(self.graph.add("Add", fine, self._dequantize(skip, 0)), zero_point)

    def decode(self, features: str, level: int) -> str:
        """Apply the convolutions of a level of the decoder."""
        return self._apply(features, self.network.decoder[level], f"decoder.{level}")

    def head(self, features: str) -> str:
        """Return shuffled logits, as features, in float32."""
        return self._convolve(features, self.network.head, "head")
