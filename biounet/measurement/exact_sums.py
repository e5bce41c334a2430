"""Sums of floats that are the same in any order, because they are exact until they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHIFT = 1127  # all floats of 64 bits, and half their smallest one, are integers times 2 ** -_SHIFT
_MANTISSA, _LOW = 53, 26  # bits
_AT_ONCE = 2**25  # values whose halves of 27 bits add up in 53 bits


@dataclass(frozen=True)
class ExactSum:
    """The exact sum of floats, to which those of other parts of a table can be added.

    Attributes
    ----------
    count
        Number of values.
    total
        Sum of the finite ones, times 2 ** 1127.
    infinite
        Sum of the others: 0.0 without any, else an infinity or NaN.
    """

    count: int = 0
    total: int = 0
    infinite: float = 0.0

    @classmethod
    def of(cls, values: NDArray[Any]) -> ExactSum:
        """Return the sum of values (n,)."""
        floats = np.asarray(values, np.float64)
        finite = np.isfinite(floats)
        infinite = 0.0 if finite.all() else float(sum(np.unique(floats[~finite]).tolist()))
        chosen = floats[finite]
        starts = range(0, len(chosen), _AT_ONCE)
        return cls(len(floats), sum(_sum_exactly(chosen[start : start + _AT_ONCE]) for start in starts), infinite)

    def __add__(self, other: ExactSum) -> ExactSum:
        """Return the sum of the values of both."""
        return ExactSum(self.count + other.count, self.total + other.total, self.infinite + other.infinite)

    @property
    def mean(self) -> float:
        """The mean, rounded once; NaN of no values."""
        if not self.count or self.infinite != 0:
            return self.infinite if self.count else math.nan
        return self.total / (self.count << _SHIFT)

    def encode(self) -> list[Any]:
        """Return the sum as JSON."""
        return [self.count, hex(self.total), repr(self.infinite)]

    @classmethod
    def decode(cls, raw: list[Any]) -> ExactSum:
        """Return the sum of `encode`."""
        count, total, infinite = raw
        return cls(int(count), int(total, 16), float(infinite))


def _sum_exactly(values: NDArray[np.float64]) -> int:
    """Return the sum of finite values, times 2 ** `_SHIFT`: integers of one exponent add up as their two halves."""
    fractions, exponents = np.frexp(values)
    integers = (fractions * 2.0**_MANTISSA).astype(np.int64)
    found, place = np.unique(exponents, return_inverse=True)
    high = np.bincount(place, (integers >> _LOW).astype(np.float64), len(found))
    low = np.bincount(place, (integers & (2**_LOW - 1)).astype(np.float64), len(found))
    sums = zip(found.tolist(), high.tolist(), low.tolist(), strict=True)
    return sum(((int(top) << _LOW) + int(rest)) << (power - _MANTISSA + _SHIFT) for power, top, rest in sums)
