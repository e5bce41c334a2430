"""How large super-blocks are, and how many are worked on at a time, by the memory that there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from biounet.core import LazyImage, SettingsError, free_memory
from biounet.network import UNet
from biounet.tiling import block_lattice

_PROGRAM = 450 * 2**20  # bytes of the libraries
_USABLE_SHARE = 0.8  # of free memory: the rest is for other programs, and for errors of the estimate
# Edges of super-blocks and of the blocks in them that are predicted at a time, in the order in which they are tried.
_EDGES = {
    2: ((4096, 4096), (4096, 2048), (2048, 2048), (2048, 1024), (1024, 1024), (1024, 512)),
    3: ((512, 256), (256, 256), (256, 128), (128, 128), (128, 64)),
}
_BYTES_PER_VOXEL = 8  # of a super-block: its parts twice
_BYTES_PER_BLOCK_VOXEL = 30  # of a block: its maps, and labelling
_BYTES_PER_FEATURE = 5  # of the finest level: the first in bfloat16, and three in 8 bits
_DISK_PER_VOXEL = {2: 1.0, 3: 2.0}  # bytes of labels, levels, parts and tables; in confluent tissue


@dataclass(frozen=True)
class WorkSize:
    """How a large image is cut, and what working on it takes.

    Attributes
    ----------
    edge
        Of a super-block.
    block
        Edge of a block that is predicted at a time.
    workers
        Super-blocks that are worked on at a time.
    memory, disk
        Estimated bytes.
    """

    edge: int
    block: int
    workers: int
    memory: int
    disk: int = 0


def choose_size(image: LazyImage, network: UNet, workers: int, ram: int | None = None) -> WorkSize:
    """Return how to work on an image within `ram` bytes, with up to so many workers.

    All workers are used with smaller super-blocks before fewer are used with larger ones.

    Parameters
    ----------
    ram
        None: most of what is free.

    Raises
    ------
    SettingsError
        If the memory is not enough for the smallest super-blocks.
    """
    limit = ram if ram is not None else usable_memory()
    sizes = [_size(image, network, *choice) for choice in _choices(image.grid.dims, workers)]
    fitting = next((size for size in sizes if limit is None or size.memory <= limit), None)
    if fitting is None:
        cause = f"{(limit or 0) / 2**30:.2g} GiB of memory are too little: it takes {sizes[-1].memory / 2**30:.2g} GiB"
        raise SettingsError(cause, hint="give more with --ram, or work where there is more memory")
    return replace(fitting, disk=_estimate_disk(image, fitting.edge))


def usable_memory() -> int | None:
    """Return the bytes of memory that may be used; None where the free memory is unknown."""
    free = free_memory()
    return None if free is None else int(_USABLE_SHARE * free)


def _choices(dims: int, workers: int) -> Iterator[tuple[int, int, int]]:
    return ((edge, block, number) for number in range(workers, 0, -1) for edge, block in _EDGES[dims])


def _size(image: LazyImage, network: UNet, edge: int, block: int, workers: int) -> WorkSize:
    return WorkSize(edge, block, workers, _PROGRAM + workers * _bytes_of_worker(image, network, edge, block))


def _estimate_disk(image: LazyImage, edge: int) -> int:
    """Return the bytes of results and of the work folder; nothing is written where the image stores nothing."""
    blocks = block_lattice(image.grid.shape, edge)
    stored = (block.core for block in blocks if image.constant_value(block.core) is None)
    voxels = sum(math.prod(part.stop - part.start for part in core) for core in stored)
    return int(_DISK_PER_VOXEL[image.grid.dims] * voxels) + 2**20


def _bytes_of_worker(image: LazyImage, network: UNet, edge: int, block: int) -> int:
    shape, reach = image.grid.shape, network.receptive_radius
    core = math.prod(min(edge, size) for size in shape)
    outer = math.prod(min(edge + 2 * far, size) for far, size in zip(reach, shape, strict=True))
    seen = math.prod(min(block + 2 * far, size) for far, size in zip(reach, shape, strict=True))
    inner = math.prod(min(block, size) for size in shape)
    features = _BYTES_PER_FEATURE * network.head.in_channels * seen // math.prod(network.shuffle_factors)
    pixels = (4 + image.dtype.itemsize) * image.channels * outer
    return int(pixels + _BYTES_PER_VOXEL * core + features + _BYTES_PER_BLOCK_VOXEL * inner)
