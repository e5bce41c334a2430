"""Percentiles of integers and floats of any size, counted instead of sorted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 2**18  # values that are counted at a time: 8 bytes for each of them instead of for each pixel
_DIGIT = 16  # bits that are counted at a time


def percentiles(values: NDArray[Any], ranks: tuple[float, ...], exclude: tuple[Any, ...] = ()) -> tuple[float, ...]:
    """Return percentiles of finite values, as ``numpy.percentile(method="linear")`` would.

    Values are counted 16 bits at a time: exact, 1.5 ms instead of 40 ms for 4 million pixels of 8 or 16 bits, with less
    than a byte of memory per pixel. Values in `exclude` are left out, unless nothing else is left.
    """
    native = values.dtype.newbyteorder("=")
    excluded = tuple(int(key) for key in _to_keys(np.array(exclude, native)))
    total = sum(len(keys) for keys in _key_chunks(values, excluded)) if excluded else values.size
    if not total:
        return percentiles(values, ranks)
    positions = [(total - 1) * rank / 100 for rank in ranks]
    neighbours = {min(int(position) + up, total - 1) for position in positions for up in (0, 1)}
    found = _order_statistics(values, neighbours, excluded)
    pairs = [(found[int(position)], found[min(int(position) + 1, total - 1)]) for position in positions]
    shares = [position % 1 for position in positions]
    return tuple(float(low + (high - low) * share) for (low, high), share in zip(pairs, shares, strict=True))


def _order_statistics(values: NDArray[Any], positions: set[int], excluded: tuple[int, ...]) -> dict[int, Any]:
    """Return the values at some positions of the sorted values: a radix selection, one digit after the other."""
    native = values.dtype.newbyteorder("=")
    bits = 8 * native.itemsize
    prefixes = dict.fromkeys(positions, (0, 0))  # leading digits of the key, and the number of keys below those
    for shift in range(max(bits - _DIGIT, 0), -1, -_DIGIT):
        size = 2 ** min(_DIGIT, bits)
        counts = {prefix: np.zeros(size, np.int64) for prefix, _ in prefixes.values()}
        for keys in _key_chunks(values, excluded):
            digits = keys >> keys.dtype.type(shift)
            for prefix, count in counts.items():
                matching = digits
                if shift + _DIGIT < bits:
                    matching = digits[(digits >> digits.dtype.type(_DIGIT)) == prefix]
                    matching = matching & digits.dtype.type(2**_DIGIT - 1)
                count += np.bincount(matching, minlength=len(count))
        for position, (prefix, below) in prefixes.items():
            cumulative = counts[prefix].cumsum()
            digit = int(np.searchsorted(cumulative, position - below, side="right"))
            prefixes[position] = (prefix << _DIGIT) | digit, below + int(cumulative[digit - 1] if digit else 0)
    unsigned = np.dtype(f"u{native.itemsize}")
    return {at: _from_keys(np.array([key], unsigned), native)[0].item() for at, (key, _) in prefixes.items()}


def _key_chunks(values: NDArray[Any], excluded: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """Yield the keys of all values in chunks, without excluded keys."""
    chunks = np.nditer(
        values,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=values.dtype.newbyteorder("="),
        buffersize=_CHUNK,
        casting="equiv",
    )
    for chunk in map(np.asarray, chunks):
        for start in range(0, chunk.size, _CHUNK):  # contiguous arrays are not buffered
            keys = _to_keys(chunk[start : start + _CHUNK])
            for key in excluded:
                keys = keys[keys != key]
            yield keys


def _to_keys(values: NDArray[Any]) -> NDArray[Any]:
    """Return unsigned integers of the same order; the bits of floats have it, but for the sign."""
    kind, unsigned = values.dtype.kind, np.dtype(f"u{values.dtype.itemsize}")
    if kind == "u":
        return values
    bits = values.view(unsigned)
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    return bits ^ sign if kind == "i" else np.where(bits & sign, ~bits, bits | sign)


def _from_keys(keys: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo `_to_keys`."""
    if dtype.kind == "u":
        return keys
    sign = keys.dtype.type(1 << (8 * dtype.itemsize - 1))
    return (keys ^ sign if dtype.kind == "i" else np.where(keys & sign, keys ^ sign, ~keys)).view(dtype)
