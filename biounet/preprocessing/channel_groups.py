"""Channels of an image that are scaled together, and the extremes of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.preprocessing.image_parts import Part


@dataclass
class ChannelGroup:
    """Channels that are scaled together, of an image ``(z, y, x)``.

    Attributes
    ----------
    offset
        As in `ChannelScale`, once it is known.
    """

    channels: slice
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int = 0

    @property
    def number(self) -> int:
        """Number of channels."""
        return int(self.channels.stop - self.channels.start)

    def of(self, part: Part, tile: NDArray[Any]) -> NDArray[Any]:
        """Return these channels of a part without their offset."""
        values = tile[self.channels]
        if part.constant is None:
            return without_offset(values, self.offset)
        return np.broadcast_to(without_offset(values[:, :1, :1, :1], self.offset), values.shape)


@dataclass
class Extremes:
    """Number of values, lowest and highest of them, and how often each of these occurs."""

    low: Any = None
    high: Any = None
    at_low: int = 0
    at_high: int = 0
    count: int = 0

    def add(self, values: NDArray[Any], times: int) -> None:
        """Take some values, each of which occurs `times` times."""
        if not values.size:
            return
        self.count += times * values.size
        low, high = values.min().item() + 0, values.max().item() + 0  # 0 and not -0
        at_low, at_high = (times * int(np.count_nonzero(values == value)) for value in (low, high))
        self._take(low, at_low, high, at_high)

    def merge(self, other: Extremes) -> None:
        """Take all values that another one has."""
        self.count += other.count
        self._take(other.low, other.at_low, other.high, other.at_high)

    def _take(self, low: Any, at_low: int, high: Any, at_high: int) -> None:  # noqa: ANN401 - integers or floats
        if self.low is None or low < self.low:
            self.low, self.at_low = low, 0
        if self.high is None or high > self.high:
            self.high, self.at_high = high, 0
        self.at_low += at_low if low == self.low else 0
        self.at_high += at_high if high == self.high else 0


def without_offset(values: NDArray[Any], offset: int) -> NDArray[Any]:
    """Return 64-bit integers minus their minimum `offset`, exactly; all other types as they are.

    Float64 has 53 bits: differences above an offset of 2^60 would be lost in it.
    """
    if values.dtype == bool:
        return values.view(np.uint8)
    if not is_offset(values.dtype):
        return values
    return values.view(np.uint64) - np.uint64(offset % 2**64)


def is_offset(dtype: np.dtype[Any]) -> bool:
    """Whether the minimum of such numbers is subtracted first."""
    return dtype.kind in "iu" and dtype.itemsize == 8
