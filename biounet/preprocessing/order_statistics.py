"""Percentiles of integers and floats of any size, counted instead of sorted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import compiled

_CHUNK = 2**18  # values that are counted at a time: 8 bytes for each of them instead of for each pixel
_DIGIT = 16  # bits that are counted at a time


def percentiles(values: NDArray[Any], ranks: tuple[float, ...], exclude: tuple[Any, ...] = ()) -> tuple[float, ...]:
    """Return percentiles of finite values, as ``numpy.percentile(method="linear")`` would.

    Values are counted 16 bits at a time: exact, 2 ms instead of 40 ms for 4 million pixels of 8 or 16 bits, with less
    than a byte of memory per pixel. Values in `exclude` are left out, unless nothing else is left.
    """
    counts = RankCounts(values.dtype, ranks, exclude)
    while counts.unfinished:
        for chunk in _chunks(values):
            counts.add(chunk)
        counts.finish_pass()
    return counts.percentiles


class RankCounts:
    """Percentiles of finite numbers that come in pieces, in any order, as often as `unfinished` says.

    A radix selection, one digit after the other: one pass over the numbers for types of 8 and 16 bits, two for 32 bits
    and four for 64 bits. Numbers in `exclude` are left out, unless nothing else is left.
    """

    def __init__(self, dtype: np.dtype[Any], ranks: tuple[float, ...], exclude: tuple[Any, ...] = ()) -> None:
        self._native = dtype.newbyteorder("=")
        self._unsigned = np.dtype(f"u{dtype.itemsize}")
        self._bits = 8 * dtype.itemsize
        self._ranks = ranks
        self._excluded = tuple(int(key) for key in to_keys(np.array(exclude, self._native)))
        self._shift = max(self._bits - _DIGIT, 0)
        self._prefixes: dict[int, tuple[int, int]] = {}  # of each rank: leading digits, the number of lower keys
        self._counts = {0: self._zeros()}
        self._all: NDArray[np.int64] | None = None  # of types of one digit, with what is excluded
        self._total = -1

    @property
    def unfinished(self) -> bool:
        """Whether all numbers have to be added, once more if they were, and then `finish_pass` to be called."""
        return self._shift >= 0

    def add(self, values: NDArray[Any], times: int = 1) -> None:
        """Count each of some numbers `times` times; a negative number takes back what was counted."""
        keys = to_keys(np.ascontiguousarray(values).ravel())
        if self._bits > _DIGIT:
            for key in self._excluded:
                keys = keys[keys != key]
        digits = keys >> keys.dtype.type(self._shift) if self._shift else keys
        for prefix, counts in self._counts.items():
            matching = digits
            if self._shift + _DIGIT < self._bits:
                matching = digits[(digits >> digits.dtype.type(_DIGIT)) == prefix]
                matching = matching & digits.dtype.type(2**_DIGIT - 1)
            _count(matching.astype(np.uint8 if self._bits == 8 else np.uint16, copy=False), counts, times)

    def finish_pass(self) -> None:
        """Find the next digit of all ranks."""
        if self._total < 0 and not self._begin():
            return
        for position, (prefix, below) in self._prefixes.items():
            cumulative = self._counts[prefix].cumsum()
            digit = int(np.searchsorted(cumulative, position - below, side="right"))
            self._prefixes[position] = (prefix << _DIGIT) | digit, below + int(cumulative[digit - 1] if digit else 0)
        self._shift -= _DIGIT
        if self._shift >= 0:
            self._counts = {prefix: self._zeros() for prefix, _ in self._prefixes.values()}

    def excluding(self, exclude: tuple[Any, ...]) -> RankCounts:
        """Return the percentiles of the same numbers without others; finished where one pass counts all digits."""
        other = RankCounts(self._native, self._ranks, exclude)
        if self._all is not None:
            other._counts = {0: self._all}
            other.finish_pass()
        return other

    @property
    def passed(self) -> list[Any]:
        """What the finished passes found, for JSON; `resume` goes on from there."""
        return [self._shift, self._total, [[position, *found] for position, found in self._prefixes.items()]]

    @classmethod
    def resume(cls, dtype: np.dtype[Any], ranks: tuple[float, ...], passed: Sequence[Any]) -> RankCounts:
        """Return percentiles of which earlier passes found `passed`; without numbers that are left out."""
        counts = cls(dtype, ranks)
        counts._shift, counts._total, found = passed
        counts._prefixes = {position: (prefix, below) for position, prefix, below in found}
        if counts._total >= 0:
            counts._counts = {prefix: counts._zeros() for prefix, _ in counts._prefixes.values()}
        return counts

    @property
    def counted(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """What was counted in this pass: leading digits of numbers, and how often they occur; `merge` takes them."""
        digits = {prefix: np.flatnonzero(counts) for prefix, counts in self._counts.items()}
        keys = [np.uint64(prefix << _DIGIT) | found.astype(np.uint64) for prefix, found in digits.items()]
        return np.concatenate(keys), np.concatenate([self._counts[prefix][found] for prefix, found in digits.items()])

    def merge(self, keys: NDArray[np.uint64], times: NDArray[np.int64]) -> None:
        """Add what another one counted in the same pass of its numbers."""
        prefixes, digits = keys >> np.uint64(_DIGIT), (keys & np.uint64(2**_DIGIT - 1)).astype(np.intp)
        for prefix, counts in self._counts.items():
            own = prefixes == prefix
            counts[digits[own]] += times[own]

    @property
    def value_counts(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Values of types of 8 and 16 bits that occur, in their order, and how often they do."""
        counts = self._counts[0] if self._all is None else self._all
        keys = np.flatnonzero(counts)
        return from_keys(keys.astype(self._unsigned), self._native), counts[keys]

    @property
    def percentiles(self) -> tuple[float, ...]:
        """Percentiles at the ranks, in the order of these."""
        shares, found = [], []
        for rank in self._ranks:
            position = (self._total - 1) * rank / 100
            shares.append(position % 1)
            found.append([self._value(min(int(position) + up, self._total - 1)) for up in (0, 1)])
        return tuple(float(low + (high - low) * share) for (low, high), share in zip(found, shares, strict=True))

    def _begin(self) -> bool:
        """Find which positions of the sorted numbers are needed; False where all have to be added once more."""
        if self._bits <= _DIGIT:
            self._all = kept = self._counts[0]
            if self._excluded:
                kept = kept.copy()
                kept[list(self._excluded)] = 0
            self._counts = {0: kept if kept.any() else self._all}
        total = int(self._counts[0].sum())
        if not total and self._excluded:
            self._excluded = ()
            return False
        self._total = total
        positions = [(total - 1) * rank / 100 for rank in self._ranks]
        neighbours = {min(int(position) + up, total - 1) for position in positions for up in (0, 1)}
        self._prefixes = dict.fromkeys(neighbours, (0, 0))
        return True

    def _value(self, position: int) -> Any:  # noqa: ANN401 - an integer or a float
        key = np.array([self._prefixes[position][0]], self._unsigned)
        return from_keys(key, self._native)[0].item()

    def _zeros(self) -> NDArray[np.int64]:
        return np.zeros(2 ** min(_DIGIT, self._bits), np.int64)


@compiled
def _count(values: NDArray[Any], counts: NDArray[np.int64], times: int) -> None:
    """Add to `counts` how often each value occurs; `numpy.bincount` takes 25 times as long for 16 bits."""
    for value in values:
        counts[value] += times


def _chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield all values in chunks."""
    chunks = np.nditer(
        values,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=values.dtype.newbyteorder("="),
        buffersize=_CHUNK,
        casting="equiv",
    )
    for chunk in map(np.asarray, chunks):
        for start in range(0, chunk.size, _CHUNK):  # contiguous arrays are not buffered
            yield chunk[start : start + _CHUNK]


def to_keys(values: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers of the same order; the bits of floats have it, but for the sign, and -0 is 0."""
    kind, unsigned = values.dtype.kind, np.dtype(f"u{values.dtype.itemsize}")
    if kind == "u":
        return values
    bits = values.view(unsigned)
    if kind == "b":
        return bits
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    if kind == "i":
        return np.asarray(bits ^ sign)
    return np.asarray(np.where(bits > sign, ~bits, bits | sign))


def from_keys(keys: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo `to_keys`."""
    if dtype.kind in "ub":
        return keys.view(dtype)
    sign = keys.dtype.type(1 << (8 * dtype.itemsize - 1))
    return (keys ^ sign if dtype.kind == "i" else np.where(keys & sign, keys ^ sign, ~keys)).view(dtype)
