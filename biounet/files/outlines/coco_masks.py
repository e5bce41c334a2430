"""Run-length coding of the masks of COCO: all objects of a plane in one scan over its labels, and back.

A mask is the lengths of its runs down one column after the other, beginning with background. As text, each length less
that of the run two before it is written in groups of 5 bits, the lowest first: 16 in the last group is the sign, 32
says that another follows, and 48 makes a character of it (COCO API, ``maskApi.c``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import find_label_runs

_BITS, _SIGN, _MORE, _ZERO = 5, 16, 32, 48
_MOST_GROUPS = 7  # of a number that is the length of a run in a picture

Ints = NDArray[np.int64]


class Masks(NamedTuple):
    """The objects of a plane: labels, areas (n,) in pixels, boxes (n, 4) of x, y, width and height, and masks."""

    labels: Ints
    areas: Ints
    boxes: Ints
    texts: list[str]


def encode_masks(plane: NDArray[np.integer]) -> Masks:
    """Return the objects of a label image (y, x) in ascending order, each mask as compressed text."""
    height = plane.shape[0]
    begin, end, label = find_label_runs(np.ascontiguousarray(plane.T)[None]).T
    order = np.argsort(label, kind="stable")
    begin, end, label = begin[order], end[order], label[order]
    first = np.flatnonzero(np.diff(label, prepend=0))
    if not first.size:
        return Masks(first, first, np.zeros((0, 4), np.int64), [])
    x, y = np.divmod(begin, height)
    bottom = (end - 1) % height + 1
    left, top = np.minimum.reduceat(x, first), np.minimum.reduceat(y, first)
    sizes = np.maximum.reduceat(x, first) + 1 - left, np.maximum.reduceat(bottom, first) - top
    boxes = np.stack([left, top, *sizes], axis=1)
    return Masks(label[first], np.add.reduceat(end - begin, first), boxes, _as_texts(begin, end, label, plane.size))


def _as_texts(begin: Ints, end: Ints, label: Ints, size: int) -> list[str]:
    """Return the masks of runs that are sorted by label and then by place."""
    is_new = np.diff(label, prepend=0) != 0
    is_first = is_new | (begin != np.roll(end, 1))  # what goes on in the next column is one run
    begin, is_new, end = begin[is_first], is_new[is_first], end[np.roll(is_first, -1)]
    first = np.flatnonzero(is_new)
    last = np.append(first[1:], len(begin)) - 1
    # Each object has the lengths of background and of itself in turn, and then of the background that is left.
    place = 2 * np.arange(len(begin)) + np.cumsum(is_new) - 1
    lengths = np.empty(2 * len(begin) + len(first), np.int64)
    lengths[place] = begin - np.where(is_new, 0, np.roll(end, 1))
    lengths[place + 1] = end - begin
    lengths[place[last] + 2] = size - end[last]
    number = np.arange(len(lengths)) - np.repeat(place[first], np.diff(place[first], append=len(lengths)))
    deltas = lengths - np.where(number > 2, np.roll(lengths, 2), 0)
    groups = _as_groups(deltas)
    groups[place[last] + 2] *= (lengths[place[last] + 2] > 0)[:, None].astype(np.uint8)  # none is left
    used = groups > 0
    stops = np.cumsum(np.add.reduceat(used.sum(axis=1), place[first]))
    text = groups[used].tobytes().decode("ascii")
    return [text[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _as_groups(numbers: Ints) -> NDArray[np.uint8]:
    """Return the characters of each number, (n, groups); 0 where it has no more."""
    groups = np.zeros((len(numbers), _MOST_GROUPS), np.uint8)
    rest, goes_on = numbers.copy(), np.ones(len(numbers), np.bool_)
    for column in range(_MOST_GROUPS):
        bits = rest & (_MORE - 1)
        rest >>= _BITS
        more = np.where(bits & _SIGN, rest != -1, rest != 0)
        groups[:, column] = np.where(goes_on, bits + _MORE * more + _ZERO, 0)
        goes_on &= more
    return groups


def decode_lengths(text: str) -> Ints:
    """Return the lengths of runs in compressed text; raise `ValueError` if it is none."""
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _ZERO
    is_last = groups & _MORE == 0
    if not groups.size or groups.min() < 0 or groups.max() >= 2 * _MORE or not is_last[-1]:
        raise ValueError
    first = np.flatnonzero(np.append(True, is_last[:-1]))
    place = np.arange(len(groups)) - np.repeat(first, np.diff(first, append=len(groups)))
    if place.max() >= _MOST_GROUPS:
        raise ValueError
    numbers = np.add.reduceat((groups & (_MORE - 1)) << _BITS * place, first)
    last = np.flatnonzero(is_last)
    numbers -= np.where(groups[last] & _SIGN, np.int64(1) << _BITS * (place[last] + 1), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def masked_pixels(lengths: Sequence[int] | Ints, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat indices, in rows, of the pixels of a mask (y, x); raise `ValueError` if it does not fit."""
    runs, size = np.asarray(lengths), shape[0] * shape[1]
    if runs.size and runs.dtype.kind not in "iu":  # fractions, which would be cut, or larger than any picture
        raise ValueError
    runs = runs.astype(np.int64)
    # Each by itself as well: the sum of numbers beyond all sense goes round to a small one.
    if runs.ndim != 1 or runs.min(initial=0) < 0 or runs.max(initial=0) > size or runs.sum() > size:
        raise ValueError
    ends = np.cumsum(runs)[1::2]
    inside = runs[1::2]
    down = np.arange(inside.sum()) + np.repeat(ends - np.cumsum(inside), inside)  # in columns
    x, y = np.divmod(down, shape[0])
    return np.asarray(y * shape[1] + x)
