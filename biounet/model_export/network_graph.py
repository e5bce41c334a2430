"""The network as a graph: what its levels do in float32, and in 8-bit integers."""

from __future__ import annotations

from typing import Protocol


class Arithmetic(Protocol):
    """The parts of a network; features are as `Planes` has them."""

    depth: int

    def first(self, image: str) -> str:
        """Return the features of the first convolution."""

    def encode(self, features: str, level: int) -> str:
        """Apply the convolutions of a level of the encoder; at level 0 without the first."""

    def pool(self, features: str, level: int) -> str:
        """Go from a level to the next coarser one."""

    def add_upsampled(self, coarse: str, skip: str, level: int) -> str:
        """Project the features of a coarser level, upsample them, and add the skip connection."""

    def decode(self, features: str, level: int) -> str:
        """Apply the convolutions of a level of the decoder."""

    def head(self, features: str) -> str:
        """Return shuffled logits, as features."""


def add_network(parts: Arithmetic, image: str) -> str:
    """Return the shuffled logits of normalised images, as features."""
    features, skips = parts.first(image), []
    for level in range(parts.depth):
        features = parts.encode(features, level)
        skips.append(features)
        features = parts.pool(features, level)
    features = parts.encode(features, parts.depth)
    for level in reversed(range(parts.depth)):
        features = parts.decode(parts.add_upsampled(features, skips[level], level), level)
    return parts.head(features)
