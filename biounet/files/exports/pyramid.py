"""Levels of lower resolution, as viewers load them: of an image by the mean, of labels by the most frequent one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Halve = Callable[[NDArray[Any], Sequence[int]], NDArray[Any]]
"""What makes an array smaller by a factor of 1 or 2 for each axis."""

_SMALLEST = 256  # pixels of a side, up to which an image is shown as it is
_EXACT = 2**24  # up to which float32 holds all integers


def pyramid_factors(shape: Sequence[int], steps: Sequence[float]) -> list[tuple[int, ...]]:
    """Return by what each level of a pyramid is smaller than the first, along each spatial axis.

    Rows and columns are halved until both have at most 256 pixels. An axis of coarser steps, such as z, waits until the
    others have become as coarse, so that voxels come closer to cubes.

    Parameters
    ----------
    shape
        Lengths of the spatial axes, ``([z,] y, x)``.
    steps
        Distances between voxels along them.
    """
    factors = [(1,) * len(shape)]
    while max(-(-n // f) for n, f in zip(shape[-2:], factors[-1][-2:], strict=True)) > _SMALLEST:
        last = factors[-1]
        now = [step * f for step, f in zip(steps, last, strict=True)]
        is_halved = [step < 2 * min(now) and -(-n // f) > 1 for step, n, f in zip(now, shape, last, strict=True)]
        factors.append(tuple(2 * f if halved else f for f, halved in zip(last, is_halved, strict=True)))
    return factors


def pyramid(pixels: NDArray[Any], factors: Sequence[Sequence[int]], halve: Halve) -> Iterator[NDArray[Any]]:
    """Yield an array ``(..., [z,] y, x)`` and its levels of lower resolution, each made of the one before.

    `factors` are those of `pyramid_factors`; axes in front of them stay as they are.
    """
    yield pixels
    for before, level in pairwise(factors):
        steps = [now // then for then, now in zip(before, level, strict=True)]
        pixels = halve(pixels, [*(1 for _ in pixels.shape[: -len(steps)]), *steps])
        yield pixels


def halve_image(array: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Return the means of blocks of pixels, rounded for integers; `factors` are 1 or 2, one for each axis."""
    if array.dtype.kind in "iu":
        exact = np.iinfo(array.dtype).max * np.prod(factors) < _EXACT
        blocks = _blocks(array, factors, np.float32 if exact else np.float64)
        return np.asarray(np.rint(np.mean(blocks, axis=0)), array.dtype)
    return np.asarray(np.mean(_blocks(array, factors, array.dtype), axis=0, dtype=array.dtype))


def halve_labels(labels: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Return the most frequent label of each block of pixels, of several the first; never one that is not there."""
    first, *others = _corners(labels, factors)
    chosen, is_mixed = first.copy(), np.zeros(first.shape, np.bool_)
    for other in others:
        is_mixed |= first != other
    # A vote is held in mixed blocks only, which are few: three times as fast as in all
    mixed = np.nonzero(is_mixed)
    blocks = np.stack([corner[mixed] for corner in (first, *others)])
    votes = np.stack([(blocks == one).sum(axis=0, dtype=np.int8) for one in blocks])
    chosen[mixed] = np.take_along_axis(blocks, votes.argmax(axis=0)[None], axis=0)[0]
    return np.asarray(chosen)


def _blocks(array: NDArray[Any], factors: Sequence[int], dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - as of astype
    """Return the pixels of all blocks, shape ``(pixels of a block, ...)``."""
    return np.stack([corner.astype(dtype, copy=False) for corner in _corners(array, factors)])


def _corners(array: NDArray[Any], factors: Sequence[int]) -> list[NDArray[Any]]:
    """Return the first pixel of all blocks, the second, and so on, as views; of an odd length, the last is repeated."""
    padding = [(0, -length % factor) for length, factor in zip(array.shape, factors, strict=True)]
    array = np.pad(array, padding, "edge") if any(after for _, after in padding) else array
    corners = product(*(range(factor) for factor in factors))
    return [array[tuple(slice(start, None, f) for start, f in zip(one, factors, strict=True))] for one in corners]
