"""The lattice of blocks that an image is cut into, and how a function is run over it.

The cores of the blocks tile the image exactly. Around its core a block brings a halo, the voxels that its result also
depends on, cut off where the image ends. The same code serves images (y, x) and volumes (z, y, x).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from biounet.core import SettingsError, raise_if_stopped

Region = tuple[slice, ...]
Result = TypeVar("Result")

IN_FLIGHT = 16
"""Blocks handed to an executor before a result is taken: enough to keep it busy, few enough to fit in memory."""


@dataclass(frozen=True)
class Block:
    """One cell of the lattice.

    Attributes
    ----------
    index
        Place in the lattice, one number per axis.
    core
        Voxels of the image that this block answers for.
    outer
        `core` and its halo, cut off where the image ends.
    shape
        Of the whole image, ``([z,] y, x)``.
    """

    index: tuple[int, ...]
    core: Region
    outer: Region
    shape: tuple[int, ...]

    def grown(self, margin: int) -> Region:
        """Return the core with `margin` more voxels on every side, as far as the image goes."""
        return tuple(
            slice(max(part.start - margin, 0), min(part.stop + margin, length))
            for part, length in zip(self.core, self.shape, strict=True)
        )

    def within_outer(self, region: Region) -> Region:
        """Return where `region` of the image lies in an array that holds `outer`."""
        return tuple(
            slice(part.start - outer.start, part.stop - outer.start)
            for part, outer in zip(region, self.outer, strict=True)
        )


def block_lattice(
    shape: tuple[int, ...],
    size: int | tuple[int, ...],
    halo: int | tuple[int, ...] = 0,
    align: int | tuple[int, ...] = 1,
) -> list[Block]:
    """Cut an image into blocks, in scan order.

    Parameters
    ----------
    shape
        Of the image, ``([z,] y, x)``.
    size
        Edge of a core in voxels, for all axes or for each. The last core of an axis takes what is left.
    halo
        Voxels around a core that its result depends on, for all axes or for each.
    align
        Stride of the network, for all axes or for each: every outer region starts at a multiple of it, so that a voxel
        meets the same phase of the network's pooling in every block. The halo grows at its start by up to
        ``align - 1`` voxels.

    Raises
    ------
    SettingsError
        If `size` or `align` is not positive, `halo` is negative, or they do not have one number per axis.
    """
    sizes, halos = _per_axis(size, len(shape), "block size"), _per_axis(halo, len(shape), "halo")
    strides = _per_axis(align, len(shape), "stride")
    if min(sizes) < 1 or min(halos) < 0 or min(strides) < 1:
        raise SettingsError(f"blocks of {sizes} voxels with a halo of {halos} and stride {align} cannot be laid")
    axes = [_cut(*axis) for axis in zip(shape, sizes, halos, strides, strict=True)]
    blocks = []
    for cell in itertools.product(*(list(enumerate(axis)) for axis in axes)):
        index = tuple(number for number, _ in cell)
        core, outer = (tuple(pair[side] for _, pair in cell) for side in (0, 1))
        blocks.append(Block(index, core, outer, tuple(shape)))
    return blocks


def run_blocks(
    function: Callable[[Block], Result],
    blocks: Iterable[Block],
    executor: Executor | None = None,
    stop: Event | None = None,
) -> Iterator[Result]:
    """Yield ``function(block)`` for each block, in the order of `blocks`.

    Parameters
    ----------
    function
        What is done with a block. It must be picklable where the executor's workers are other processes.
    blocks
        Usually from `block_lattice`.
    executor
        Any ``concurrent.futures.Executor``, such as a pool of threads, of processes, or a Dask client's. None runs
        the blocks one after the other in this thread.
    stop
        When it is set, the next block is not begun.

    Raises
    ------
    Stopped
        If `stop` was set.

    Notes
    -----
    At most `IN_FLIGHT` blocks are under way or waiting to be taken. After the first error, or when the iterator is
    closed, blocks that have not begun are cancelled; the error is raised as the block raised it.
    """
    if executor is None:
        for block in blocks:
            raise_if_stopped(stop)
            yield function(block)
        return
    waiting: deque[Future[Result]] = deque()
    todo = iter(blocks)
    try:
        waiting.extend(executor.submit(function, block) for block in itertools.islice(todo, IN_FLIGHT))
        while waiting:
            raise_if_stopped(stop)
            result = waiting.popleft().result()
            waiting.extend(executor.submit(function, block) for block in itertools.islice(todo, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def _per_axis(value: int | tuple[int, ...], axes: int, name: str) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes:
        raise SettingsError(f"{name} {values} does not have one number for each of {axes} axes")
    return values


def _cut(length: int, size: int, halo: int, align: int) -> list[tuple[slice, slice]]:
    """Return core and outer slice of each block along one axis."""
    cuts = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        outer_start = max(start - halo, 0) // align * align
        cuts.append((slice(start, stop), slice(outer_start, min(stop + halo, length))))
    return cuts
