"""Mean and standard deviation that do not depend on the order in which numbers come."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import compiled

_CHUNK = 2**18  # numbers that are added at a time
_MOST = 2**35  # numbers whose halves of 27 bits add up in 64 bits
_MANTISSA, _HALF, _EXPONENTS = 52, 26, 2048  # bits of a float64 and of a half of it; its exponents
_UNIT = 1 - 1023 - _MANTISSA  # exponent of the last bit of the smallest of them


class Moments:
    """Mean and standard deviation of finite numbers that come in pieces, in any order and of any size.

    Differences to a reference and their squares are added exactly: mantissas as integers, for each exponent.

    Parameters
    ----------
    reference
        Some number of the same size: squares of differences to it keep their digits.
    """

    def __init__(self, reference: float) -> None:
        self._reference = np.float64(reference)
        self._sums = np.zeros((2, _EXPONENTS, 2), np.int64)  # of differences and squares: upper and lower half
        self._summed = 0  # numbers in these sums
        self._totals = [0, 0]  # of those before, in units of the last bit
        self.count = 0

    def add(self, values: NDArray[Any], times: int = 1) -> None:
        """Add each of some numbers `times` times."""
        flat = np.ravel(values)
        self.count += times * flat.size
        for start in range(0, flat.size, _CHUNK):
            differences = flat[start : start + _CHUNK].astype(np.float64) - self._reference
            most = _MOST // differences.size
            for already in range(0, times, most):
                self._add(differences, min(most, times - already))

    def _add(self, differences: NDArray[np.float64], times: int) -> None:
        self._summed += times * differences.size
        if self._summed > _MOST:
            self._totals = [self._total(0), self._total(1)]
            self._sums[...] = 0
            self._summed = times * differences.size
        _add_bits(differences.view(np.int64), self._sums[0], times)
        _add_bits(np.square(differences).view(np.int64), self._sums[1], times)

    @property
    def mean(self) -> float:
        """Mean of all numbers, rounded once."""
        return float(Fraction(float(self._reference)) + self._mean(0))

    @property
    def deviation(self) -> float:
        """Standard deviation of all numbers; 0 where they are the same."""
        variance = self._mean(1) - self._mean(0) ** 2
        return math.sqrt(max(variance, Fraction(0)))

    def _mean(self, power: int) -> Fraction:
        return Fraction(self._total(power), self.count << -_UNIT)

    def _total(self, power: int) -> int:
        """Return the sum of all differences or squares, in units of the last bit of the smallest float."""
        sums = self._sums[power]
        used = np.flatnonzero(sums.any(1))
        new = sum(((int(sums[e, 0]) << _HALF) + int(sums[e, 1])) << (int(e) - 1) for e in used)
        return self._totals[power] + new


@compiled
def _add_bits(bits: NDArray[np.int64], sums: NDArray[np.int64], times: int) -> None:
    for each in bits:
        exponent = (each >> _MANTISSA) & (_EXPONENTS - 1)
        mantissa = each & ((1 << _MANTISSA) - 1)
        if exponent:
            mantissa |= 1 << _MANTISSA
        else:
            exponent = 1
        if each < 0:
            mantissa = -mantissa
        sums[exponent, 0] += times * (mantissa >> _HALF)
        sums[exponent, 1] += times * (mantissa & ((1 << _HALF) - 1))
