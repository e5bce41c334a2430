"""The parts in which an image is read once, from its first voxel to its last, in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import ArrayImage, Grid, LazyImage, Region, Volume
from biounet.tiling import run_blocks

Found = TypeVar("Found")

_VOXELS = 2**21  # of a part, in all channels: they stay in the cache of the processor between two operations
_GROUP = 16  # pieces of a row that are looked at together, whether the file stores anything of them
_MIN_EDGE = 2  # of a part in y and x, so that a voxel has a neighbour along each axis in its own part


@dataclass(frozen=True)
class Part:
    """A part of an image ``(z, y, x)``, where an image without z has one plane.

    Attributes
    ----------
    constant
        Values of all channels of a part of which the file stores nothing; None where it stores any of it.
    """

    region: Region
    constant: tuple[Any, ...] | None = None

    @property
    def voxels(self) -> int:
        """Number of voxels of one channel."""
        return math.prod(axis.stop - axis.start for axis in self.region)

    def distinct(self, tile: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Return the values of some channels ``(c, z, y, x)`` of this part, and how often each of them occurs."""
        return (tile, 1) if self.constant is None else (tile[:, :1, :1, :1], self.voxels)

    def planes(self, tile: NDArray[Any]) -> NDArray[Any]:
        """Return channels ``(c, z, y, x)`` of this part as planes ``(c * z, y, x)``, without a copy."""
        if self.constant is None:
            return tile.reshape(-1, *tile.shape[2:])
        values = np.repeat(tile[:, 0, 0, 0], tile.shape[1])[:, None, None]
        return np.broadcast_to(values, (len(values), *tile.shape[2:]))


Consumer = Callable[[Part, NDArray[Any]], None]
"""What takes all parts of an image in scan order, with their voxels ``(c, z, y, x)``."""

Search = Generator[Consumer, None, Found]
"""What is found in an image by reading all of it, once for each consumer that is yielded."""


@dataclass(frozen=True)
class PartReader:
    """Reads an image part by part; with an executor, parts are read ahead."""

    image: LazyImage
    executor: Executor | None = None
    stop: Event | None = None

    def run(self, searches: Sequence[Search[Found]]) -> list[Found]:
        """Return what is found by searches that read the image together."""
        parts = image_parts(self.image)
        found: dict[int, Found] = {}
        consumers: dict[int, Consumer] = {}
        while len(found) < len(searches):
            for number, search in enumerate(searches):
                if number not in found:
                    try:
                        consumers[number] = next(search)
                    except StopIteration as end:
                        found[number] = end.value
                        consumers.pop(number, None)
            if consumers:
                self._read(parts, list(consumers.values()))
        return [found[number] for number in range(len(searches))]

    def _read(self, parts: list[Part], consumers: list[Consumer]) -> None:
        tiles = run_blocks(partial(_read_part, self.image), parts, self.executor, self.stop)
        for part, tile in zip(parts, tiles, strict=True):
            for consume in consumers:
                consume(part, tile)


def array_image(array: NDArray[Any]) -> LazyImage:
    """Return an array ``(c, [z,] y, x)`` as an image."""
    return ArrayImage.of(Volume(array, Grid(array.shape[1:])))


def stack_shape(image: LazyImage) -> tuple[int, int, int]:
    """Return the shape ``(z, y, x)`` of an image, which has one plane if it has no z."""
    z, y, x = (1, *image.grid.shape)[-3:]
    return z, y, x


def read_stack(image: LazyImage, region: Region) -> NDArray[Any]:
    """Return a region ``(z, y, x)`` of an image, ``(c, z, y, x)``, in native byte order."""
    values = image.read(region[-image.grid.dims :])
    values = values[:, None] if image.grid.dims == 2 else values
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def image_parts(image: LazyImage) -> list[Part]:
    """Cut an image into parts of whole chunks, in scan order: slabs, in them bands of rows, in them parts along x.

    Along x, chunks that the file does not store are one part as far as they have one value.
    """
    shape = stack_shape(image)
    depth, height, step = _part_size(shape, (1, *image.chunks)[-3:], image.channels)
    limit = max(1, _VOXELS // image.channels // (depth * height))
    parts: list[Part] = []
    for z in _split(shape[0], depth, 1):
        for y in _split(shape[1], height, _MIN_EDGE):
            pieces = _split(shape[2], step, _MIN_EDGE)
            groups = (pieces[start : start + _GROUP] for start in range(0, len(pieces), _GROUP))
            row = [part for group in groups for part in _look_at(image, z, y, group)]
            parts.extend(_merge(row, limit))
    return parts


def _read_part(image: LazyImage, part: Part) -> NDArray[Any]:
    if part.constant is None:
        return read_stack(image, part.region)
    values = np.array(part.constant, image.dtype.newbyteorder("="))[:, None, None, None]
    return np.broadcast_to(values, (len(values), *(axis.stop - axis.start for axis in part.region)))


def _part_size(shape: tuple[int, ...], chunks: tuple[int, ...], channels: int) -> tuple[int, int, int]:
    """Return depth and height of parts, and the width of which theirs is a multiple."""
    limit = max(1, _VOXELS // channels)
    depth, height, width = (min(chunk, size) for chunk, size in zip(chunks, shape, strict=True))
    width = max(min(width, limit // _MIN_EDGE), _MIN_EDGE)
    height = max(min(height, limit // width), _MIN_EDGE)
    depth = max(1, min(depth, limit // (height * width)))
    if depth * height * shape[2] <= limit:
        height *= max(1, limit // (depth * height * shape[2]))
    return depth, height, width


def _split(length: int, step: int, least: int) -> list[slice]:
    """Cut an axis into pieces of a length, of which the last has at least `least` voxels where the axis has them."""
    starts = list(range(0, length, step))
    if len(starts) > 1 and length - starts[-1] < least:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], length], strict=True)]


def _look_at(image: LazyImage, z: slice, y: slice, pieces: list[slice]) -> list[Part]:
    """Return the parts of some pieces along x, and one of all of them where the file stores nothing of any."""
    region = (z, y, slice(pieces[0].start, pieces[-1].stop))
    part = Part(region, image.constant_value(region[-image.grid.dims :]))
    if part.constant is not None or len(pieces) == 1:
        return [part]
    half = len(pieces) // 2
    return [*_look_at(image, z, y, pieces[:half]), *_look_at(image, z, y, pieces[half:])]


def _merge(row: list[Part], limit: int) -> Iterator[Part]:
    """Join neighbours along x: constant ones of one value, and others up to a width."""
    current = row[0]
    for part in row[1:]:
        z, y, x = current.region
        width = part.region[2].stop - x.start
        if current.constant == part.constant and (part.constant is not None or width <= limit):
            current = Part((z, y, slice(x.start, part.region[2].stop)), part.constant)
        else:
            yield current
            current = part
    yield current
