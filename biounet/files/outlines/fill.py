"""Outlines as label images: a pixel belongs to an object if its centre lies within an odd number of its rings.

A ring crosses the line through the centres of a row an even number of times, and what lies between every second two is
inside. Where a ring runs exactly through a centre, the pixel belongs to what is left of or above it, as in ImageJ, so
that objects with a side in common neither share pixels nor leave any out.
"""

# Compiled functions carry no annotations: numba infers its types from the arrays that they get.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, InputError, compiled, list_some
from biounet.files.outlines.outline import Outline, Plane

OverlapRule = Literal["later", "unlabelled"]
"""Whose is a pixel within several outlines: that of the later one, or unlabelled."""

_MANY = 1 << 14  # outlines that are divided into runs at a time, which bounds the memory for it
_ROUNDING = 1e-8  # of a position that is calculated from those of two corners, as in ImageJ
_FARTHEST = 2.0**53  # of a coordinate: beyond, float64 does not tell pixels apart
_MAX_NAMES = 3  # that a note lists


class Overlap(NamedTuple):
    """Two outlines, by their position among those that were filled, and how many pixels are within both."""

    first: int
    second: int
    pixels: int


@dataclass(frozen=True, eq=False)
class Filled:
    """Outlines as a label image.

    Attributes
    ----------
    labels
        Shape ``([z,] y, x)``: 0 background, -1 (`UNLABELLED`) where outlines overlap and the rule says so.
    values
        The label of each outline, in their order; 0 of those that are left out.
    overlaps
        Pairs of outlines of different labels that share pixels.
    notes
        What is left out or cut, a line each.
    """

    labels: NDArray[np.int32]
    values: NDArray[np.int32]
    overlaps: tuple[Overlap, ...] = ()
    notes: tuple[str, ...] = ()


def fill(
    outlines: Sequence[Outline],
    shape: tuple[int, ...],
    overlap: OverlapRule = "later",
    values: Sequence[int] | None = None,
) -> Filled:
    """Fill outlines; only pixels within the boxes around them are touched.

    Parameters
    ----------
    outlines
        In the order in which they lie on each other; open ones are closed. Windows (`Outline.is_window`) are left out.
    shape
        Of the label image, ``([z,] y, x)``; in a volume, the plane of each outline states its slice.
    values
        The label of each outline; None: as `number_objects`.

    Raises
    ------
    InputError
        If no outline lies within the image, as happens with outlines of another one, or slices do not fit.
    """
    volume_shape = shape if len(shape) == 3 else (1, *shape)
    slices, problems = _slices(outlines, shape), _Problems(outlines)
    numbers = np.array(number_objects(outlines) if values is None else values, np.int32)
    labels = np.zeros(volume_shape, np.int32)
    parts, n_shared = [], 0
    for first in range(0, len(outlines), _MANY):
        rings = _usable_rings(outlines, range(first, min(first + _MANY, len(outlines))), volume_shape, problems)
        runs = _divide_into_runs(rings, slices, volume_shape, problems)
        n_shared += _paint(labels.reshape(-1), runs, numbers, overlap == "unlabelled")
        parts.append(runs)
    problems.raise_if_all_outside(shape)
    all_runs = np.concatenate([np.zeros((0, 3), np.int64), *parts])
    is_filled = np.zeros(len(outlines), np.bool_)
    is_filled[all_runs[:, 0]] = True
    return Filled(
        labels=labels.reshape(shape),
        values=np.where(is_filled, numbers, 0),
        overlaps=_find_overlaps(all_runs, numbers) if n_shared else (),
        notes=tuple(problems.notes()),
    )


def fill_windows(outlines: Sequence[Outline], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return what lies within the windows among outlines, shape ``([z,] y, x)``; None if none is a window."""
    windows = [Outline(one.rings, plane=one.plane) for one in outlines if one.is_window]
    return fill(windows, shape, values=[1] * len(windows)).labels > 0 if windows else None


def number_objects(outlines: Sequence[Outline]) -> list[int]:
    """Return the label of each outline: the number of its object if all have one, else 1, 2, … as they come.

    Outlines with the same number of an object have the same label; windows, points and lines have 0.
    """
    objects = [one for one in outlines if one.rings and not one.is_window]
    numbers = [one.object_number for one in objects if one.object_number is not None and one.object_number > 0]
    if objects and len(numbers) == len(objects):
        return [0 if one.is_window or not one.rings else one.object_number or 0 for one in outlines]
    known: dict[int, int] = {}
    labels, largest = [], 0
    for one in outlines:
        label = 0 if one.is_window or not one.rings else known.get(one.object_number or 0) or largest + 1
        largest = max(largest, label)
        if one.object_number:
            known[one.object_number] = label
        labels.append(label)
    return labels


@dataclass
class _Problems:
    """Positions of outlines with which something is wrong, by what it is."""

    outlines: Sequence[Outline]

    def __post_init__(self) -> None:
        self.lines: list[int] = []
        self.short: list[int] = []
        self.endless: list[int] = []
        self.outside: list[int] = []
        self.cut: list[int] = []
        self.empty: list[int] = []
        self.crossing: list[int] = []

    def notes(self) -> Iterator[str]:
        """Return a line for each kind of problem."""
        texts = (
            (self.lines, "points or lines, which are no areas: left out"),
            (self.short, "fewer than 3 points: left out"),
            (self.endless, "coordinates that are no numbers, or beyond any image: left out"),
            (self.outside, "outside the image: left out"),
            (self.empty, "no centre of a pixel within: left out"),
            (self.cut, "beyond the edge of the image: cut there"),
            (self.crossing, "crosses itself: where it lies on itself is left out"),
        )
        for numbers, text in texts:
            if numbers:
                names = [self.outlines[n].name or f"number {n + 1}" for n in numbers]
                plural = "outlines" if len(numbers) > 1 else "outline"
                yield f"{len(numbers)} {plural} ({list_some(names, _MAX_NAMES)}): {text}"

    def raise_if_all_outside(self, shape: tuple[int, ...]) -> None:
        """Raise an `InputError` if nothing is within the image, though something was outlined."""
        if self.outside and len(self.outside) == sum(not one.is_window for one in self.outlines):
            size = " x ".join(map(str, shape[::-1]))
            cause = f"all {len(self.outside)} outlines lie outside the image, which is {size} pixels"
            raise InputError(cause, hint="are they those of another image, or of one of another size?")


def _slices(outlines: Sequence[Outline], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the slice of each outline, 0 in an image of one."""
    planes = [one.plane or Plane() for one in outlines]
    z, t = ({getattr(plane, axis) for plane in planes} - {None} for axis in "zt")
    for name, stated in (("slices", z if len(shape) == 2 else set()), ("frames", t)):
        if len(stated) > 1:
            hint = "choose those of the plane of the stack that the image is"
            raise InputError(f"outlines of {len(stated)} {name}, but the image has one", hint=hint)
    if len(shape) == 2:
        return np.zeros(len(outlines), np.int64)
    for outline, plane in zip(outlines, planes, strict=True):
        if plane.z is None or not 0 <= plane.z < shape[0]:
            where = "no slice" if plane.z is None else f"slice {plane.z}"
            who = f"outline {outline.name}" if outline.name else "an outline"
            raise InputError(f"{who} states {where}, and the volume has slices 0 to {shape[0] - 1}")
    return np.array([plane.z for plane in planes], np.int64)


@dataclass(frozen=True, eq=False)
class _Rings:
    """Rings one after another: their points (p, 2), and of each ring how many it has and of which outline it is."""

    points: NDArray[np.float64]
    lengths: NDArray[np.int64]
    outline: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.lengths) - self.lengths

    def select(self, is_kept: NDArray[np.bool_]) -> _Rings:
        """Return some of the rings."""
        return _Rings(self.points[np.repeat(is_kept, self.lengths)], self.lengths[is_kept], self.outline[is_kept])

    def without(self, outlines: NDArray[np.int64]) -> _Rings:
        """Return the rings of other outlines."""
        return self.select(~np.isin(self.outline, outlines))


def _usable_rings(outlines: Sequence[Outline], part: range, shape: tuple[int, ...], problems: _Problems) -> _Rings:
    """Return the rings of some outlines that enclose something within the image; add what is wrong to the problems."""
    objects = [n for n in part if not outlines[n].is_window]
    problems.lines += [n for n in objects if not outlines[n].rings]
    own = [(n, np.asarray(ring, np.float64).reshape(-1, 2)) for n in objects for ring in outlines[n].rings]
    points = np.concatenate([np.zeros((0, 2)), *(ring for _, ring in own)])
    rings = _Rings(points, np.array([len(ring) for _, ring in own], np.int64), np.array([n for n, _ in own], np.int64))
    is_endless = ~(np.abs(points) < _FARTHEST).all(axis=1)  # so is what is no number
    endless = np.unique(np.repeat(rings.outline, rings.lengths)[is_endless])
    rings = _open(rings.without(endless))
    drawn, rings = np.unique(rings.outline), rings.select(rings.lengths >= 3)
    short = np.setdiff1d(drawn, rings.outline)
    outside, cut = _find_outside(rings, shape)
    problems.endless += endless.tolist()
    problems.short += short.tolist()
    problems.outside += outside.tolist()
    problems.cut += cut.tolist()
    return rings.without(outside)


def _open(rings: _Rings) -> _Rings:
    """Return rings without their last points where these are the first ones again."""
    is_filled = rings.lengths > 1
    first = rings.starts[is_filled]
    last = first + rings.lengths[is_filled] - 1
    closed = (rings.points[first] == rings.points[last]).all(axis=1)
    lengths = rings.lengths.copy()
    lengths[np.flatnonzero(is_filled)[closed]] -= 1
    return _Rings(np.delete(rings.points, last[closed], axis=0), lengths, rings.outline)


def _find_outside(rings: _Rings, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the outlines that lie outside the image, and those cut at its edge."""
    if not len(rings.outline):
        return rings.outline, rings.outline
    outline, first = np.unique(rings.outline, return_index=True)  # their rings come one after another
    low, high = (
        bound.reduceat(bound.reduceat(rings.points, rings.starts), first) for bound in (np.minimum, np.maximum)
    )
    size = np.array(shape[1:], np.float64)
    is_outside = (high <= 0).any(axis=1) | (low >= size).any(axis=1)
    # Half a pixel beyond the edge is a matter of convention.
    is_beyond = (low < -1).any(axis=1) | (high > size + 1).any(axis=1)
    return outline[is_outside], outline[is_beyond & ~is_outside]


def _divide_into_runs(
    rings: _Rings, slices: NDArray[np.int64], shape: tuple[int, ...], problems: _Problems
) -> NDArray[np.int64]:
    """Return outline, begin and end (r, 3), as flat indices, of runs of pixels, by outline and row.

    Outlines without a pixel and those that cross themselves are added to the problems.
    """
    _, height, width = shape
    outline, crossings, is_down = _find_crossings(rings, height, width)
    row = (outline * height + crossings[:, 0]) * (width + 1)
    keys = np.sort((row + crossings[:, 1]) * 2 + is_down)
    winding = np.cumsum(np.where(keys & 1, 1, -1))  # of what follows each crossing; 0 after the last of a row
    row, x = np.divmod(keys >> 1, width + 1)
    outline, y = np.divmod(row, height)
    flat = (slices[outline] * height + y) * width + x
    runs = np.stack([outline[::2], flat[::2], flat[1::2]], axis=1)
    runs = runs[runs[:, 1] < runs[:, 2]]
    problems.empty += np.setdiff1d(rings.outline, runs[:, 0]).tolist()
    is_wide = np.diff(x, append=-1) != 0
    problems.crossing += _find_self_crossing(outline[is_wide], winding[is_wide], rings).tolist()
    return runs


def _find_self_crossing(outline: NDArray[np.int64], winding: NDArray[np.int64], rings: _Rings) -> NDArray[np.int64]:
    """Return the outlines whose ring runs around pixels twice, or around some one way and around others the other."""
    both_ways = np.intersect1d(outline[winding > 0], outline[winding < 0])
    crossing = np.union1d(both_ways, outline[np.abs(winding) > 1])
    # The rings of an outline of several may lie in any direction.
    single, count = np.unique(rings.outline, return_counts=True)
    return np.intersect1d(crossing, single[count == 1])


def _find_crossings(
    rings: _Rings, height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return where rings cross the centres of rows: outline, row and first pixel right of it, and whether downwards."""
    following = np.arange(1, len(rings.points) + 1)
    following[rings.starts + rings.lengths - 1] = rings.starts
    start, stop = rings.points, rings.points[following]
    is_down = stop[:, 0] > start[:, 0]
    # Both directions are calculated from the upper end, so that both objects at a side have the same crossings.
    upper, lower = np.where(is_down[:, None], start, stop), np.where(is_down[:, None], stop, start)
    first, last = (_next_centre(end[:, 0], height) for end in (upper, lower))
    counts = last - first
    edge = np.repeat(np.arange(len(start)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (lower[:, 1] - upper[:, 1]) / (lower[:, 0] - upper[:, 0])
    pixel = _next_centre(upper[edge, 1] + (row + 0.5 - upper[edge, 0]) * slope[edge], width)
    outline = np.repeat(rings.outline, rings.lengths)
    return outline[edge], np.stack([row, pixel], axis=1), is_down[edge]


def _next_centre(position: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return the first pixel whose centre lies behind a position, within 0 to `size`."""
    return np.clip(np.floor(position + (0.5 + _ROUNDING)), 0, size).astype(np.int64)


@compiled
def _paint(flat, runs, values, is_unlabelled):
    """Write the value of its outline to each run; return how many pixels had another one."""
    n_shared = 0
    for n in range(len(runs)):
        value = values[runs[n, 0]]
        for pixel in range(runs[n, 1], runs[n, 2]):
            is_shared = flat[pixel] != 0 and flat[pixel] != value
            n_shared += is_shared
            flat[pixel] = UNLABELLED if is_shared and is_unlabelled else value
    return n_shared


def _find_overlaps(runs: NDArray[np.int64], values: NDArray[np.int32]) -> tuple[Overlap, ...]:
    """Return the pairs of outlines whose runs share pixels and whose values differ."""
    runs = runs[np.argsort(runs[:, 1], kind="stable")]
    shared = np.zeros((_list_shared(runs, values, np.zeros((0, 3), np.int64)), 3), np.int64)
    _list_shared(runs, values, shared)
    pairs, position = np.unique(shared[:, :2], axis=0, return_inverse=True)
    pixels = np.bincount(position.reshape(-1), weights=shared[:, 2]).astype(np.int64)
    return tuple(Overlap(a, b, n) for (a, b), n in zip(pairs.tolist(), pixels.tolist(), strict=True))


@compiled
def _list_shared(runs, values, shared):
    """Write two outlines and how many pixels two of their runs share, as far as there is room; return their number."""
    n_shared = 0
    for n in range(len(runs)):
        other = n + 1
        while other < len(runs) and runs[other, 1] < runs[n, 2]:
            a, b = runs[n, 0], runs[other, 0]
            if values[a] != values[b]:
                if n_shared < len(shared):
                    shared[n_shared, 0], shared[n_shared, 1] = min(a, b), max(a, b)
                    shared[n_shared, 2] = min(runs[n, 2], runs[other, 2]) - runs[other, 1]
                n_shared += 1
            other += 1
    return n_shared
