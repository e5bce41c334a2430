"""Operators on images, and on volumes plane by plane.

Features of a volume are planes ``(z, c, y, x)``, as if each was an image. A convolution of a volume becomes one of
planes that have the neighbouring planes as further channels: the same sum, in onnxruntime on a CPU twice as fast, and
runtimes that have no operators for volumes, as in browsers, can run it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biounet.model_export.graph import Graph

_END = 2**62  # of a slice that goes to the end of an axis


@dataclass(frozen=True)
class Planes:
    """The operators of a network of a number of dimensions; features are ``(n, c, y, x)`` or ``(z, c, y, x)``."""

    graph: Graph
    dims: int

    def split(self, image: str, factor: int) -> str:
        """Return images ``(n, c, y, x)``, or a volume ``(1, c, z, y, x)``, as features.

        Blocks of `factor` planes along z become channels.
        """
        if self.dims == 2:
            return image
        graph = self.graph
        planes = graph.add("Transpose", graph.add("Squeeze", image, graph.integers(0)), perm=[1, 0, 2, 3])
        if factor == 1:
            return planes
        channels = graph.add("Mul", graph.size(planes, 1), graph.integers(factor))
        return graph.reshape(planes, [-1, channels, graph.size(planes, 2), graph.size(planes, 3)])

    def with_neighbours(self, features: str, reach: int, fill: str) -> str:
        """Return planes that have those within `reach` along z as channels too; beyond the ends these are `fill`."""
        if self.dims == 2 or reach == 0:
            return features
        graph, axis = self.graph, self.graph.integers(0)
        pads = graph.integers(reach, 0, 0, 0, reach, 0, 0, 0)  # onnxruntime moves those of some axes to wrong ones
        padded = graph.add("Pad", features, pads, fill, mode="constant")
        depth = graph.size(features, 0)

        def shift(start: int) -> str:
            end = graph.add("Add", depth, graph.integers(start))
            return graph.add("Slice", padded, graph.integers(start), end, axis)

        parts = [features if start == reach else shift(start) for start in range(2 * reach + 1)]
        return graph.add("Concat", *parts, axis=1)

    def pool(self, features: str, factors: Sequence[int]) -> str:
        """Return maxima over blocks."""
        graph, (*along_z, y, x) = self.graph, factors
        if (y, x) != (1, 1):
            features = graph.add("MaxPool", features, kernel_shape=[y, x], strides=[y, x])
        if math.prod(along_z) == 1:
            return features
        axis, step, end = graph.integers(0), graph.integers(*along_z), graph.integers(_END)
        starts = [graph.integers(start) for start in range(*along_z)]
        return graph.add("Max", *(graph.add("Slice", features, start, end, axis, step) for start in starts))

    def upsample(self, features: str, factors: Sequence[int]) -> str:
        """Repeat each value along the axes."""
        graph, (*along_z, y, x) = self.graph, factors
        if (y, x) != (1, 1):
            scales = graph.constant([1, 1, y, x])
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            features = graph.add("Resize", features, "", scales, **how)
        if math.prod(along_z) == 1:
            return features
        factor = graph.constant(along_z[0], np.int64)
        depth = graph.add("Mul", graph.add("Squeeze", graph.size(features, 0)), factor)
        planes = graph.add("Range", graph.constant(0, np.int64), depth, graph.constant(1, np.int64))
        return graph.add("Gather", features, graph.add("Div", planes, factor), axis=0)

    def shuffle(self, features: str, factors: Sequence[int]) -> str:
        """Move channels back into blocks of voxels; return maps ``(n, k, y, x)`` or ``(1, k, z, y, x)``."""
        graph, (*_, y, x) = self.graph, factors
        if self.dims == 2 and math.prod(factors) == 1:
            return features
        height, width = graph.size(features, 2), graph.size(features, 3)
        sizes = [graph.add("Mul", size, graph.integers(f)) for size, f in ((height, y), (width, x))]
        outputs = graph.add("Div", graph.size(features, 1), graph.integers(math.prod(factors)))
        split = graph.reshape(features, [0, outputs, *factors, height, width])
        if self.dims == 2:
            return graph.reshape(graph.add("Transpose", split, perm=[0, 1, 4, 2, 5, 3]), [0, 0, *sizes])
        blocks = graph.add("Transpose", split, perm=[1, 0, 2, 5, 3, 6, 4])
        return graph.reshape(blocks, [1, outputs, -1, *sizes])


def plane_weight(weight: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the weight of a convolution for planes with their neighbours: ``(outputs, z c, y, x)``."""
    if weight.ndim == 4:
        return weight
    outputs, channels, depth, *kernel = weight.shape
    return weight.transpose(0, 2, 1, 3, 4).reshape(outputs, depth * channels, *kernel)


def first_weight(weight: NDArray[np.generic], factors: Sequence[int]) -> NDArray[np.generic]:
    """Return the weight of a convolution with a stride that does pixel unshuffle as well; for planes as they are split.

    From ``(outputs, c factors, [z,] y, x)`` to ``(outputs, [z,] c, y, x)`` with `factors` times the size.
    """
    outputs, _, *kernel = weight.shape
    dims = len(kernel)
    blocks = weight.reshape(outputs, -1, *factors, *kernel)
    inputs = blocks.shape[1]
    size = [factor * edge for factor, edge in zip(factors[-2:], kernel[-2:], strict=True)]
    if dims == 2:
        return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(outputs, inputs, *size)
    # outputs, c, fz, fy, fx, kz, ky, kx: planes are split into (block of z, plane in it, c)
    ordered = blocks.transpose(0, 5, 2, 1, 6, 3, 7, 4)
    return ordered.reshape(outputs, kernel[0] * factors[0] * inputs, *size)
