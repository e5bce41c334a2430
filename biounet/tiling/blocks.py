"""Cut an image or a volume into blocks, and run a function on them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from biounet.core import Region, SettingsError, raise_if_stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_PENDING = 16
"""Blocks submitted to an executor ahead of the results taken: enough to keep it busy, few enough to fit in memory."""


@dataclass(frozen=True)
class Block:
    """One block of a lattice.

    Attributes
    ----------
    core
        Region of the image whose result this block gives; cores tile the image exactly.
    outer
        `core` and its halo, the voxels around it that the result depends on, cropped at the edge of the image.
    shape
        Of the whole image, ``([z,] y, x)``.
    """

    core: Region
    outer: Region
    shape: tuple[int, ...]

    def grown(self, margin: int) -> Region:
        """Return the core extended by `margin` voxels on every side, cropped at the edge of the image."""
        return tuple(
            slice(max(part.start - margin, 0), min(part.stop + margin, length))
            for part, length in zip(self.core, self.shape, strict=True)
        )


def relative_region(region: Region, origin: Region) -> Region:
    """Return `region` of an image as a region of an array that holds `origin` of it."""
    return tuple(slice(r.start - o.start, r.stop - o.start) for r, o in zip(region, origin, strict=True))


def block_lattice(
    shape: tuple[int, ...],
    size: int | tuple[int, ...],
    halo: int | tuple[int, ...] = 0,
    align: int | tuple[int, ...] = 1,
) -> list[Block]:
    """Cut an image ``([z,] y, x)`` into blocks, in scan order; lengths in voxels, for all axes or for each.

    Parameters
    ----------
    size
        Edge of a core. The last core of an axis may be smaller.
    halo
        Voxels around a core that its result depends on.
    align
        Stride of the network: every outer region starts at a multiple of it, up to ``align - 1`` voxels before the
        halo, so that a voxel has the same phase in the network's pooling in every block.

    Raises
    ------
    SettingsError
        If `size` or `align` is not positive, `halo` is negative, or they do not have one number per axis.
    """
    sizes, halos = _per_axis(size, len(shape), "block size"), _per_axis(halo, len(shape), "halo")
    strides = _per_axis(align, len(shape), "stride")
    if min(sizes) < 1 or min(halos) < 0 or min(strides) < 1:
        raise SettingsError(f"blocks of {sizes} voxels with a halo of {halos} and stride {align} cannot tile an image")
    axes = [_split_axis(*axis) for axis in zip(shape, sizes, halos, strides, strict=True)]
    regions = (zip(*parts, strict=True) for parts in itertools.product(*axes))
    return [Block(core, outer, tuple(shape)) for core, outer in regions]


def run_blocks(
    function: Callable[[Item], Result],
    blocks: Iterable[Item],
    executor: Executor | None = None,
    stop: Event | None = None,
) -> Iterator[Result]:
    """Yield ``function(block)`` for each block, in the order of `blocks`.

    At most `MAX_PENDING` blocks are running or have results that are not yet taken. After the first error, which is
    raised unchanged, or when the iterator is closed, blocks that have not started are cancelled.

    Parameters
    ----------
    function
        Must be picklable if the executor's workers are other processes.
    executor
        Such as a pool of threads or processes, or that of a Dask client. None runs the blocks in this thread.
    stop
        When it is set, no further block is started.

    Raises
    ------
    Stopped
        If `stop` was set.
    """
    if executor is None:
        for block in blocks:
            raise_if_stopped(stop)
            yield function(block)
        return
    pending: deque[Future[Result]] = deque()
    remaining = iter(blocks)
    try:
        pending.extend(executor.submit(function, block) for block in itertools.islice(remaining, MAX_PENDING))
        while pending:
            raise_if_stopped(stop)
            result = pending.popleft().result()
            pending.extend(executor.submit(function, block) for block in itertools.islice(remaining, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()


def _per_axis(value: int | tuple[int, ...], axes: int, name: str) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes:
        raise SettingsError(f"{name} {values} does not have one number for each of {axes} axes")
    return values


def _split_axis(length: int, size: int, halo: int, align: int) -> list[tuple[slice, slice]]:
    """Return core and outer slice of each block along one axis."""
    cores = (slice(start, min(start + size, length)) for start in range(0, length, size))
    return [(core, slice(max(core.start - halo, 0) // align * align, min(core.stop + halo, length))) for core in cores]
