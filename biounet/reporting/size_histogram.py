"""Sizes of objects as counts in logarithmic bins, which take little room however many objects there are.

The edges of bins are powers of two and their roots, the same for all images: histograms of many images add up exactly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biounet.measurement import SIZE_COLUMNS, Table

_FINEST = 16  # bins for each doubling: 4 % wide
_MOST_BINS = 96  # of an image; where its sizes span more than six doublings, bins are wider
_LONGEST = 4 * _MOST_BINS  # of a record, which anybody can write


@dataclass(frozen=True)
class SizeHistogram:
    """How many objects have which size.

    Bin ``n`` holds sizes from ``2 ** (n / steps)`` up to the next bin.

    Attributes
    ----------
    column
        Of the table that the sizes are from, such as ``area_um2``.
    steps
        Bins for each doubling: a power of two.
    first
        Number of the first bin.
    counts
        Objects in that bin and the following ones; empty without objects.
    low, high
        The smallest and the largest size; 0 without objects.
    """

    column: str
    steps: int = _FINEST
    first: int = 0
    counts: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(self.counts)

    @classmethod
    def of(cls, column: str, sizes: ArrayLike, counts: NDArray[np.int64] | None = None) -> SizeHistogram:
        """Return the histogram of positive sizes (n,), in as fine bins as fit into a record.

        `counts` says how many objects have each size; None: one.
        """
        values = np.asarray(sizes, np.float64)
        if not values.size:
            return cls(column)
        low, high = float(values.min()), float(values.max())
        bins, steps = np.floor(np.log2(values) * _FINEST).astype(np.int64), _FINEST
        while bins.max() - bins.min() >= _MOST_BINS:
            bins, steps = bins // 2, steps // 2
        first = int(bins.min())
        return cls(column, steps, first, tuple(np.bincount(bins - first, counts).astype(np.int64).tolist()), low, high)

    def bins(self, steps: int) -> Counter[int]:
        """Return the counts by the number of the bin, for as many bins for each doubling or fewer."""
        found: Counter[int] = Counter()
        for place, count in enumerate(self.counts, self.first):
            found[place * steps // self.steps] += count
        return found

    def edges(self) -> list[float]:
        """Return where bins begin and the last one ends, none of them outside of the sizes that there are."""
        places = range(self.first, self.first + len(self.counts) + 1)
        inner = [min(max(2.0 ** (place / self.steps), self.low), self.high) for place in places]
        return [self.low, *inner[1:-1], self.high]

    def grouped(self, most: int) -> list[tuple[float, float, int]]:
        """Return begin, end and count of at most so many bins, each of which joins equally many."""
        width = -(-len(self.counts) // most)
        edges = self.edges()
        starts = range(0, len(self.counts), width) if width else ()
        return [
            (edges[start], edges[min(start + width, len(edges) - 1)], sum(self.counts[start : start + width]))
            for start in starts
        ]

    def median(self) -> float:
        """Return the median, as if sizes were spread evenly over the logarithm in a bin: a few percent off at most."""
        half, edges, below = self.total / 2, self.edges(), 0
        for begin, end, count in zip(edges, edges[1:], self.counts, strict=False):
            if count and below + count >= half:
                return float(begin * (end / begin) ** ((half - below) / count))
            below += count
        return math.nan

    def encode(self) -> list[Any]:
        """Return the histogram as JSON."""
        return [self.column, self.steps, self.first, list(self.counts), self.low, self.high]

    @classmethod
    def decode(cls, raw: list[Any]) -> SizeHistogram:
        """Return the histogram of `encode`, or of sizes as earlier versions wrote them; `ValueError` for all else."""
        if len(raw) == 2:
            column, values = raw
            sizes = np.array(values, np.float32).reshape(len(values))
            found = cls.of(column, sizes) if (np.isfinite(sizes) & (sizes > 0)).all() else None
        else:
            column, steps, first, counts, low, high = raw
            found = cls(column, steps, first, tuple(counts), float(low), float(high))
        if found is None or not found._is_sound():
            raise ValueError("no histogram of sizes")
        return found

    def _is_sound(self) -> bool:
        good = self.column in SIZE_COLUMNS and self.steps in (2**n for n in range(5)) and len(self.counts) <= _LONGEST
        good = good and all(type(number) is int for number in (self.steps, self.first, *self.counts))
        good = good and all(count >= 0 for count in self.counts) and abs(self.first) < 2**16
        return good and (0 < self.low <= self.high < math.inf if self.counts else self.low == self.high == 0)


def object_sizes(table: Table) -> SizeHistogram:
    """Return the areas or volumes of the counted objects or lesions of a table, in a unit of length if it has one."""
    name = table.size_column
    return SizeHistogram.of(name, table.columns[name][table.counted].astype(np.float32))


def join_histograms(histograms: Iterable[SizeHistogram]) -> list[SizeHistogram]:
    """Return one histogram for each column, of the objects of all images: in the widest bins of any of them."""
    found: dict[str, _Sum] = {}
    for one in histograms:
        if one.counts:
            found.setdefault(one.column, _Sum()).add(one)
    return [parts.result(column) for column, parts in found.items()]


class _Sum:
    """Histograms of one column added up, while they come."""

    def __init__(self) -> None:
        self._steps, self._low, self._high = _FINEST, math.inf, 0.0
        self._bins: Counter[int] = Counter()

    def add(self, other: SizeHistogram) -> None:
        if other.steps < self._steps:
            wider: Counter[int] = Counter()
            for place, count in self._bins.items():
                wider[place * other.steps // self._steps] += count
            self._bins, self._steps = wider, other.steps
        self._bins.update(other.bins(self._steps))
        self._low, self._high = min(self._low, other.low), max(self._high, other.high)

    def result(self, column: str) -> SizeHistogram:
        first, last = min(self._bins), max(self._bins)
        counts = tuple(self._bins[place] for place in range(first, last + 1))
        return SizeHistogram(column, self._steps, first, counts, self._low, self._high)
