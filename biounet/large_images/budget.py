"""How large super-blocks are, and how many are worked on at a time, by the memory that there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from biounet.core import PROGRAM_RAM, LazyImage, SettingsError, least_ram, usable_memory
from biounet.network import Model, bytes_per_feature, pick_device
from biounet.preprocessing import Zoom, rescaled_shape
from biounet.tiling import block_lattice

# Bytes of the command that waits and its readers; of a process with the libraries that predict, not those that measure
_COMMAND, _PREDICTING = 305 * 2**20, 480 * 2**20
_BYTES_OF_THREAD = 50 * 2**20  # of each worker, whatever it works on
_ESTIMATED_SHARE = 0.8  # of what a process may take: the rest is for an error of the estimate
# Edges of super-blocks and of the blocks in them that are predicted at a time, in the order in which they are tried.
_EDGES = {
    2: ((4096, 4096), (4096, 2048), (2048, 2048), (2048, 1024), (1024, 1024), (1024, 512)),
    3: ((512, 256), (256, 256), (256, 128), (128, 128), (128, 64)),
}
_BYTES_PER_VOXEL = 4  # of a super-block: its parts
_BYTES_PER_JOINED_VOXEL = 15  # of a super-block of a volume besides, until its blocks are joined: their faces are large
_BYTES_PER_FOUND_VOXEL = 13  # of a super-block that is measured; holes and labels take less
_MEASURED_REACH = 1.3  # times a super-block: what is read around it, of objects that begin in it
_BYTES_PER_MEASURED_VOXEL = 16  # without the pixels of channels: labels as they are and numbered anew, runs, rings
_BYTES_PER_BLOCK_VOXEL = 26  # of a block: its maps, and labelling
# Of a block besides, where its maps come from another grid: bytes of its voxels, and of those of the other grid
_BYTES_PER_RESAMPLED_VOXEL, _BYTES_PER_WORKING_VOXEL = 12, 6
_DRAWN_VOXELS, _BYTES_PER_DRAWN_VOXEL = 2**24, 18  # of the level of a volume that is drawn, at most
_RESAMPLED_BAND = 2**24  # values of the image that are resampled at a time, and the bytes of each
_BYTES_PER_BAND_VALUE = 16
_BYTES_PER_INPUT = 8  # of what is predicted of a block: as it is, and as the network takes it
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
    stored
        Voxels of the super-blocks of which the image stores any; the others are background.
    """

    edge: int
    block: int
    workers: int
    memory: int
    disk: int = 0
    stored: int = 0


@dataclass(frozen=True)
class Means:
    """What an image may be worked on with.

    Attributes
    ----------
    workers
        Super-blocks at a time, at most.
    ram
        Bytes of memory; None: most of what is free.
    processes
        Whether workers are processes, not threads: none fewer, each with the libraries, and ended when it takes more
        than its part of `ram`, so that an error of the estimate needs room in each.
    pictures
        Whether the image is drawn.
    """

    workers: int
    ram: int | None = None
    processes: bool = False
    pictures: bool = False


def choose_size(
    image: LazyImage, model: Model, means: Means, zoom: Zoom | None = None, whole: int | None = None
) -> WorkSize:
    """Return how to work on an image within the memory that there is, with up to so many workers.

    All workers are used with smaller super-blocks before fewer are used with larger ones, and there is one for each.

    Parameters
    ----------
    zoom
        From the grid of the image to the working grid, with the axes of `image`; None: it is the same.
    whole
        Bytes that the command would take with the image as a whole in memory, if that is a way.

    Raises
    ------
    SettingsError
        If the memory is not enough for the smallest super-blocks; it says what would be.
    """
    limit = means.ram if means.ram is not None else usable_memory()
    seen = _Seen(image, model, zoom or (1.0,) * image.grid.dims)
    sizes = []
    for edge, block, number in _choices(image.grid.shape, means.workers, means.workers if means.processes else 1):
        each = seen.bytes_of_worker(edge, block)
        found = _bytes_of_measuring(image, edge)
        if means.processes:
            memory = number * max(_PREDICTING + each, PROGRAM_RAM + found) / _ESTIMATED_SHARE
        else:
            drawn = _bytes_of_drawing(image) if means.pictures else 0
            memory = _COMMAND + max(_PREDICTING + number * each, PROGRAM_RAM + number * found, PROGRAM_RAM + drawn)
        sizes.append(WorkSize(edge, block, number, int(memory)))
    fitting = next((size for size in sizes if limit is None or size.memory <= limit), None)
    if fitting is None:
        least = min([size.memory for size in sizes] + ([] if whole is None else [whole]))
        cause = f"{(limit or 0) // 2**20} MiB of memory are too little for the smallest super-blocks"
        raise SettingsError(cause, hint=least_ram(least))
    stored = _count_stored(image, fitting.edge)
    return replace(fitting, disk=int(_DISK_PER_VOXEL[image.grid.dims] * stored) + 2**20, stored=stored)


def _choices(shape: tuple[int, ...], most: int, fewest: int) -> Iterator[tuple[int, int, int]]:
    """Yield edges of super-blocks and blocks, and numbers of workers, each of which has a super-block if any can."""
    edges = _EDGES[len(shape)]
    for number in range(most, fewest - 1, -1):
        for edge, block in edges:
            if math.prod(-(-length // edge) for length in shape) >= number or edge == edges[-1][0]:
                yield edge, block, number


def _count_stored(image: LazyImage, edge: int) -> int:
    """Return the number of voxels of super-blocks of which an image stores any; of others nothing is written."""
    blocks = block_lattice(image.grid.shape, edge)
    stored = (block.core for block in blocks if image.constant_value(block.core) is None)
    return sum(math.prod(part.stop - part.start for part in core) for core in stored)


@dataclass(frozen=True)
class _Seen:
    """What a worker sees of an image at a time."""

    image: LazyImage
    model: Model
    zoom: Zoom

    def bytes_of_worker(self, edge: int, block: int) -> int:
        """Estimate what one super-block takes to be predicted."""
        image, network = self.image, self.model.network
        core, inner = (math.prod(min(length, size) for size in image.grid.shape) for length in (edge, block))
        features = network.head.in_channels * self._predicted(block) // math.prod(network.shuffle_factors)
        feature = bytes_per_feature(pick_device("cpu"), in_8_bits=bool(self.model.activation_ranges))
        network_bytes = feature * features + _BYTES_PER_INPUT * image.channels * self._predicted(block)
        labelling = _BYTES_PER_BLOCK_VOXEL * inner
        read = image.dtype.itemsize * image.channels * self._predicted(edge)  # until it is scaled
        if rescaled_shape(image.grid.shape, self.zoom) != image.grid.shape:
            read = _BYTES_PER_BAND_VALUE * min(image.channels * self._read(edge), _RESAMPLED_BAND)
            labelling += int(_BYTES_PER_WORKING_VOXEL * math.prod(self.zoom) + _BYTES_PER_RESAMPLED_VOXEL) * inner
        scaled = 4 * image.channels * self._predicted(edge)
        joined = _BYTES_PER_JOINED_VOXEL if image.grid.dims == 3 and block < edge else 0
        kept = (_BYTES_PER_VOXEL + joined) * core
        return int(_BYTES_OF_THREAD + scaled + kept + max(read, network_bytes, labelling))

    def _read(self, edge: int) -> int:
        """Return the voxels of the image from which a cube of it is predicted."""
        axes = zip(self.image.grid.shape, self.zoom, self._halos(edge), strict=True)
        return int(math.prod(min(edge + halo / factor, size) for size, factor, halo in axes))

    def _predicted(self, edge: int) -> int:
        """Return the voxels of the working grid from which a cube of the image is predicted, padded to the stride."""
        network = self.model.network
        axes = zip(self.image.grid.shape, self.zoom, self._halos(edge), network.stride, strict=True)
        lengths = ((min(edge * factor + halo, size * factor), stride) for size, factor, halo, stride in axes)
        return math.prod(math.ceil(length / stride) * stride for length, stride in lengths)

    def _halos(self, edge: int) -> list[int]:
        """Return what the network sees along each axis beyond a cube: on the sides where there are others, at most."""
        numbers = (-(-size // edge) for size in self.image.grid.shape)
        reaches = self.model.network.receptive_radius
        return [min(number - 1, 2) * reach for number, reach in zip(numbers, reaches, strict=True)]


def _bytes_of_drawing(image: LazyImage) -> int:
    """Return what it takes to draw a volume; other images are drawn region by region."""
    return _BYTES_PER_DRAWN_VOXEL * min(math.prod(image.grid.shape), _DRAWN_VOXELS) if image.grid.dims == 3 else 0


def _bytes_of_measuring(image: LazyImage, edge: int) -> float:
    """Return what it takes to measure a super-block."""
    core = math.prod(min(edge, size) for size in image.grid.shape)
    if not image.measured:
        return _BYTES_PER_FOUND_VOXEL * core
    read = image.channels * image.dtype.itemsize + sum(dtype.itemsize for dtype in image.measured.values())
    return _MEASURED_REACH * core * (_BYTES_PER_MEASURED_VOXEL + read)
