"""Arrays in files of which regions are read, and views of them that are rearranged as arrays of NumPy are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = tuple[slice, ...]
"""One slice with start and stop for each axis, inside the array."""


class StoredArray(ABC):
    """An array in a file, which any thread may read; it can be pickled, and the other process opens the file again.

    Attributes
    ----------
    shape, dtype
        As `RawImage` states them, the type in native byte order.
    chunks
        Elements along each axis that the file stores together.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @abstractmethod
    def read(self, index: Index) -> NDArray[Any]:
        """Return a part, with all axes.

        Raises
        ------
        InputError
            If a chunk of it is damaged, naming it.
        """

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401 - a number of any type
        """Return the value of a part of which the file stores nothing; None if it stores any of it."""
        return None

    def read_all(self) -> NDArray[Any]:
        """Return the whole array."""
        return self.read(tuple(slice(0, length) for length in self.shape))


class LazyView(ABC):
    """What is like an array but for `read`, which gives a part of it that is one."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""

    @property
    @abstractmethod
    def chunks(self) -> tuple[int, ...]:
        """Elements that are stored together along each axis."""

    @abstractmethod
    def __getitem__(self, index: Any) -> LazyView:  # noqa: ANN401 - as arrays take it
        """Return a view, by the rules of NumPy."""

    @abstractmethod
    def read(self, index: Index) -> NDArray[Any]:
        """Return a part, with all axes of the view."""

    @abstractmethod
    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401 - a number of any type
        """Return the value of a part of which the file stores nothing; None if it stores any of it."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(frozen=True)
class ArrayView(LazyView):
    """A stored array with axes left out, added, exchanged, cut and reversed; nothing of it is read for that.

    Attributes
    ----------
    ranges
        Which elements along each axis of `stored`, one after another, forwards or backwards.
    axes
        The axis of `stored` behind each axis of the view; None for a new one. Those that are missing have one element.
    """

    stored: StoredArray
    ranges: tuple[range, ...]
    axes: tuple[int | None, ...]

    @classmethod
    def of(cls, stored: StoredArray) -> ArrayView:
        """Return a view of all of an array."""
        return cls(stored, tuple(map(range, stored.shape)), tuple(range(len(stored.shape))))

    @property
    def shape(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return tuple(1 if axis is None else len(self.ranges[axis]) for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:  # noqa: D102 - inherited
        return self.stored.dtype

    @property
    def chunks(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return tuple(1 if axis is None else self.stored.chunks[axis] for axis in self.axes)

    def __getitem__(self, index: Any) -> ArrayView:  # noqa: ANN401 - as arrays take it
        parts = list(index) if isinstance(index, tuple) else [index]
        missing = self.ndim - sum(part is not None and part is not Ellipsis for part in parts)
        at = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
        parts[at : at + 1] = [slice(None)] * missing
        ranges, own = list(self.ranges), iter(self.axes)
        axes: list[int | None] = []
        for part in parts:
            axis = None if part is None else next(own)
            if axis is None:
                axes += [] if isinstance(part, int) else [None]
            elif isinstance(part, slice):
                ranges[axis] = ranges[axis][part]
                axes.append(axis)
            else:
                element = ranges[axis][part]
                ranges[axis] = range(element, element + 1)
        return replace(self, ranges=tuple(ranges), axes=tuple(axes))

    def squeeze(self, removed: Sequence[int]) -> ArrayView:
        """Return a view without these axes of length 1."""
        return self[tuple(0 if number in removed else slice(None) for number in range(self.ndim))]

    def transpose(self, *order: Any) -> ArrayView:  # noqa: ANN401 - as arrays take it
        """Return a view with the axes in another order."""
        numbers = order[0] if len(order) == 1 and isinstance(order[0], Sequence) else order
        return replace(self, axes=tuple(self.axes[number] for number in numbers))

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        ranges = self._ranges(index)
        block = self.stored.read(_slices(ranges))
        there = {axis for axis in self.axes if axis is not None}
        steps = (slice(None, None, -1 if one.step < 0 else 1) if n in there else 0 for n, one in enumerate(ranges))
        block = block[tuple(steps)]
        kept = sorted(there)
        block = block.transpose([kept.index(axis) for axis in self.axes if axis is not None])
        return block[tuple(None if axis is None else slice(None) for axis in self.axes)]

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        return self.stored.constant_value(_slices(self._ranges(index)))

    def _ranges(self, index: Index) -> list[range]:
        ranges = list(self.ranges)
        for axis, part in zip(self.axes, index, strict=True):
            if axis is not None:
                ranges[axis] = ranges[axis][part]
        return ranges


def _slices(ranges: Sequence[range]) -> Index:
    """Return the same elements as slices, forwards."""
    return tuple(slice(min(one[0], one[-1]), max(one[0], one[-1]) + 1) for one in ranges)


@dataclass(frozen=True)
class JoinedView(LazyView):
    """Views one after another along the first axis, as `numpy.concatenate` joins arrays."""

    parts: tuple[LazyView, ...]

    @property
    def shape(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return (sum(map(len, self.parts)), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:  # noqa: D102 - inherited
        return np.result_type(*(part.dtype for part in self.parts))

    @property
    def chunks(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return self.parts[0].chunks

    def __getitem__(self, index: Any) -> LazyView:  # noqa: ANN401 - as arrays take it
        if isinstance(index, int):
            return self._one(index)[0]
        first, *rest = index
        chosen = [self._one(number) for number in range(len(self))[first]]
        return replace(self, parts=tuple(one[(slice(None), *rest)] for one in chosen))

    def _one(self, number: int) -> LazyView:
        """Return the view of an element of the first axis, which it keeps."""
        for part in self.parts:
            if number < len(part):
                return part[number : number + 1]
            number -= len(part)
        raise IndexError(number)

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        return np.concatenate([part.read(inside) for part, inside in self._parts(index)])

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        values = [part.constant_value(inside) for part, inside in self._parts(index)]
        return values[0] if None not in values and len(set(values)) == 1 else None

    def _parts(self, index: Index) -> Iterator[tuple[LazyView, Index]]:
        begin, (first, *rest) = 0, index
        for part in self.parts:
            start, stop = max(first.start - begin, 0), min(first.stop - begin, len(part))
            if start < stop:
                yield part, (slice(start, stop), *rest)
            begin += len(part)


def join_views(views: Sequence[LazyView]) -> LazyView:
    """Return views one after another along the first axis."""
    return views[0] if len(views) == 1 else JoinedView(tuple(views))


def grid_shape(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    """Return the number of chunks along each axis."""
    return tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


def chunks_of(index: Index, chunks: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the chunks that a part of an array reaches into, in their order."""
    spans = zip(index, chunks, strict=True)
    return product(*(range(part.start // chunk, -(-part.stop // chunk)) for part, chunk in spans))


def overlap(index: Index, start: Sequence[int], shape: Sequence[int]) -> tuple[Index, Index]:
    """Return what a part of an array and a block in it share, as an index of an array of the part and of the block."""
    lows = [max(part.start, first) for part, first in zip(index, start, strict=True)]
    sizes = zip(index, start, shape, strict=True)
    highs = [min(part.stop, first + length) for part, first, length in sizes]
    ends = [*zip(lows, highs, strict=True)]
    inside = tuple(slice(a - part.start, b - part.start) for (a, b), part in zip(ends, index, strict=True))
    return inside, tuple(slice(a - first, b - first) for (a, b), first in zip(ends, start, strict=True))
