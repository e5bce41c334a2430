"""Memory: how much an image needs, how images share it, and smaller blocks when it runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Condition, Event

import numpy as np

from biounet.core import (
    InputError,
    Note,
    NoteCode,
    Volume,
    available_cores,
    canonical_grid,
    canonical_transform,
    free_address_space,
    free_memory,
    is_device_out_of_memory,
    is_out_of_memory,
    raise_if_stopped,
)
from biounet.network import Card, Model, Predictor, bytes_per_feature, pick_device
from biounet.preprocessing import Zoom
from biounet.segmentation.model_fit import check_model_fits, model_zoom, resolve_diameter
from biounet.segmentation.options import SegmentOptions
from biounet.segmentation.pipeline import LARGEST_SEARCHED, segment
from biounet.segmentation.prediction import block_edge
from biounet.segmentation.result import Segmentation
from biounet.segmentation.scale_search import largest_zoom
from biounet.tiling import MAX_PENDING

_SMALLER_EDGES = {2: (512, 256), 3: (128, 64)}  # of blocks, tried in turn when memory runs out
_READER_COPIES = 2  # copies of an image in the process that reads it: compressed or rearranged, and as sent on
_USABLE_SHARE = 0.9  # of free memory: estimates are not exact
_SHARE_TOGETHER = 0.8  # of what was free at the start, for several images: their errors add up
_LARGE = 2 * 2**30  # bytes
_ADDRESS_RESERVE = 2**28  # bytes, for libraries that are loaded with the first image, and for stacks of threads
_POLL_SECONDS = 0.5  # between checks whether other programs freed memory
_LABEL_BYTES = 4  # of a voxel in the label image of a time series
_BYTES_PER_INPUT = 12  # of what is predicted of a block: as it is, its voxels moved into channels, and channels last
_BYTES_PER_BLOCK_VOXEL = 30  # of a block: its maps, and labelling
_BYTES_PER_LABELLED_VOXEL = 10  # of blocks that are done: foreground and basins, and what the allocator retains
_BYTES_PER_STITCHED_VOXEL = 12


def segment_within_memory(
    volume: Volume,
    predictor: Predictor,
    card: Card,
    options: SegmentOptions,
    *,
    executor: Executor | None = None,
    stop: Event | None = None,
) -> Segmentation:
    """Segment an image, in smaller blocks when memory runs out: the labels are the same, and a note says so.

    When the memory of a GPU runs out, blocks are alone there, then smaller, and then computed on the CPU: in other
    numbers, which a note says too. Images that follow begin with what was found to fit.

    Raises
    ------
    MemoryError
        If there is not enough memory for the smallest blocks.
    InputError, Stopped
        As `biounet.segmentation.segment`.
    """
    for attempt in block_attempts(predictor, options.block, volume.grid.dims):
        try:
            chosen = replace(options, block=attempt.edge)
            result = segment(volume, attempt.predictor, card, chosen, executor=executor, stop=stop)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            attempt.check(error)
        else:
            notes = tuple(dict.fromkeys(attempt.succeed()))
            return replace(result, notes=(*result.notes, *notes)) if notes else result
        attempt.release_memory()  # after the except clause, where the error no longer refers to the arrays
    raise MemoryError


@dataclass(frozen=True)
class BlockAttempt:
    """Who predicts blocks, how large they are, and what is kept and noted when that succeeds."""

    predictor: Predictor
    edge: int
    notes: tuple[Note, ...] = ()
    keep: Callable[[], None] = lambda: None
    is_last_of_device: bool = False

    def succeed(self) -> tuple[Note, ...]:
        """Let later images begin with what was found to fit; return what is to be noted for this one."""
        if self.notes:
            self.keep()
        return (*self.predictor.shortages, *self.notes)

    def check(self, error: Exception) -> None:
        """Raise `MemoryError` if the memory of this machine ran out, and computing on its CPU would take more of it."""
        if self.is_last_of_device and not is_device_out_of_memory(error):
            raise MemoryError from error

    def release_memory(self) -> None:
        """Give back what the attempt has left on the device."""
        if self.predictor.pipeline is not None:
            self.predictor.pipeline.device.release_memory()


def block_attempts(predictor: Predictor, edge: int | None, dims: int) -> Iterator[BlockAttempt]:
    """Yield what to try in turn, as long as memory runs out: smaller blocks on the device, then all on the CPU.

    Parameters
    ----------
    edge
        Of the largest blocks; None: the default for images or volumes, by `dims`.
    """
    edges = _block_edges(edge, dims)
    pipeline, first = predictor.pipeline, edges[0]
    if pipeline is None:
        yield from (BlockAttempt(predictor, edge, _notes(first, edge, "memory")) for edge in edges)
        return
    largest = min(pipeline.largest_block or first, first)
    fitting = [edge for edge in edges if edge <= largest] or [largest]
    for edge in () if pipeline.is_given_up else fitting:
        notes = _notes(first, edge, "memory of the device")
        yield BlockAttempt(predictor.watched(), edge, notes, partial(pipeline.shrink, edge), edge == fitting[-1])
    if predictor.make_substitute is not None:
        substitute = predictor.make_substitute()
        text = f"memory of the device ran out: computed on the CPU ({substitute.arithmetic})"
        for edge in edges:
            notes = (Note(text, NoteCode.ON_CPU), *_notes(first, edge, "memory"))
            yield BlockAttempt(substitute, edge, notes, pipeline.give_up)


def _notes(first: int, edge: int, what: str) -> tuple[Note, ...]:
    """Return the note of blocks that are smaller than they should be."""
    text = f"{what} ran out: worked through in blocks of {edge}"
    return () if edge == first else (Note(text, NoteCode.SMALLER_BLOCKS, figure=edge),)


def _block_edges(wanted: int | None, dims: int) -> tuple[int, ...]:
    """Return the edges of blocks to try: the chosen one, then smaller ones."""
    first = block_edge(wanted, dims)
    return (first, *(edge for edge in _SMALLER_EDGES[dims] if edge < first))


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that an image needs in this process, and in the one that reads it."""

    process: int
    reader: int

    @property
    def total(self) -> int:
        """Bytes of both processes."""
        return self.process + self.reader

    @property
    def is_large(self) -> bool:
        """Whether the system may kill the process that segments the image, when memory runs out."""
        return self.total > _LARGE

    def __str__(self) -> str:
        return f"about {_gib(self.total)} GiB"


class MemoryBudget:
    """Memory shared by the images that are segmented at the same time.

    An image that does not fit next to the others waits for them; one that does not fit by itself is refused. `free`
    returns the number of free bytes, or None where it is unknown; by default that of the machine. `limit` is how many
    bytes the images may take together; one that takes more by itself, in the smallest blocks, is worked on alone.
    """

    def __init__(self, free: Callable[[], int | None] | None = None, limit: int | None = None) -> None:
        self._free = free or free_memory
        self._limit = math.inf if limit is None else limit
        self._changed = Condition()
        self._reserved: list[int] = []
        self._free_at_start = self._free()

    @contextmanager
    def reserve(self, needs: Sequence[MemoryNeed], path: Path | None, stop: Event) -> Iterator[int]:
        """Wait until one of `needs`, largest first, fits; reserve it and yield its index.

        Raises
        ------
        InputError
            If not even the last fits when nothing else is reserved.
        Stopped
            If `stop` is set.
        """
        with self._changed:
            while (index := self._first_fit(needs)) is None:
                raise_if_stopped(stop)
                if not self._reserved:
                    hint = "cut it into parts, or work where there is more memory"
                    raise InputError(self._shortage(needs[-1]), path=path, hint=hint)
                self._changed.wait(_POLL_SECONDS)
            self._reserved.append(needs[index].total)
        try:
            yield index
        finally:
            with self._changed:
                self._reserved.remove(needs[index].total)
                self._changed.notify_all()

    def _first_fit(self, needs: Sequence[MemoryNeed]) -> int | None:
        """Return the index of the first need that fits next to what is reserved; None if none does."""
        usable, addresses, reserved = self._usable(), free_address_space(), sum(self._reserved)
        fitting = [n for n, need in enumerate(needs) if need.total <= usable and not _exceeds(addresses, need)]
        within = (index for index in fitting if needs[index].total <= self._limit - reserved)
        return next(within, None if self._reserved or not fitting else fitting[-1])

    def _usable(self) -> float:
        """Return how many bytes there are for a further image, whatever the limit is."""
        free = self._free()
        if free is None or self._free_at_start is None:
            return math.inf
        if not self._reserved:
            return _USABLE_SHARE * free
        together = _SHARE_TOGETHER * self._free_at_start - sum(self._reserved)  # it may not be allocated yet
        return min(_USABLE_SHARE * free, together)

    def _shortage(self, need: MemoryNeed) -> str:
        addresses = free_address_space()
        if addresses is not None and _exceeds(addresses, need):
            left = f"{_gib(addresses)} GiB of addresses (ulimit -v) are left"
            return f"not enough memory: it needs {_gib(need.process + _ADDRESS_RESERVE)} GiB, {left}"
        return f"not enough memory: it needs {need}, {_gib(self._free() or 0)} GiB are free"


def _exceeds(addresses: int | None, need: MemoryNeed) -> bool:
    """Whether this process needs more than the bytes of address space that are left; None: no limit."""
    return addresses is not None and need.process + _ADDRESS_RESERVE > addresses


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g}"


def memory_needs(
    volume: Volume, model: Model, options: SegmentOptions, device: str
) -> list[tuple[SegmentOptions, MemoryNeed]]:
    """Return what an image needs with blocks as chosen, and with smaller ones; the largest need first.

    Raises
    ------
    InputError
        If the image does not fit the model.
    """
    card = model.card
    check_model_fits(volume, card)
    grid, dtype, frames = canonical_grid(volume.grid), volume.array.dtype, max(1, len(volume.times))
    blank = np.broadcast_to(np.zeros((), dtype), (volume.channels, *grid.shape))  # takes no memory
    canonical = replace(volume, array=blank, grid=grid, measured={}, times=())
    zoom = model_zoom(canonical, card, options.diameter)
    measured = sum(channel.itemsize for channel in volume.measured.values()) * math.prod(grid.shape)
    image = dtype.itemsize * math.prod(blank.shape)
    copy = image if canonical_transform(volume.grid).changes else 0
    others = (frames - 1) * (image + measured + _LABEL_BYTES * math.prod(grid.shape))  # frames are worked on one by one
    choices = [replace(options, block=edge) for edge in _block_edges(options.block, grid.dims)]

    zooms = [zoom]
    if resolve_diameter(options.diameter, card) == "auto" and math.prod(grid.shape) <= LARGEST_SEARCHED:
        zooms += [(largest_zoom(grid.shape),) * grid.dims]

    def need(chosen: SegmentOptions) -> MemoryNeed:
        process = max(expected_bytes(canonical, each, model, chosen, device) for each in zooms)
        return MemoryNeed(process + copy + measured + others, _READER_COPIES * (image + measured) * frames)

    return [(chosen, need(chosen)) for chosen in choices]


def expected_bytes(volume: Volume, zoom: Zoom, model: Model, options: SegmentOptions, device: str) -> int:
    """Estimate the peak memory of segmenting an image, in bytes on top of the program itself.

    Only the shape and the data type of `volume` matter; `zoom` leads from its grid to the working grid. What images
    took is in benchmarks/RESULTS.md (benchmarks/memory_estimate.py).
    """
    shape, network = volume.grid.shape, model.network
    voxels = math.prod(shape)
    working = tuple(max(1, round(size * factor)) for size, factor in zip(shape, zoom, strict=True))
    padded = tuple(-(-size // stride) * stride for size, stride in zip(working, network.stride, strict=True))
    image = volume.array.itemsize * volume.channels * voxels
    normalised = 4 * volume.channels * (math.prod(working) + (math.prod(padded) if padded != working else 0))
    outputs, has_objects = len(model.card.outputs), model.card.recipe.data.kind != "classes"
    block, done = _bytes_of_block(volume.channels, padded, model, options, device)
    on_gpu, maps = pick_device(device).type == "cuda", 2 * outputs * math.prod(working)
    if has_objects and working != shape:  # labelled at once, from maps that are collected and then joined
        most = max(maps + block, maps + 4 * outputs * voxels, _BYTES_PER_BLOCK_VOXEL * voxels)
    elif has_objects and not on_gpu:
        most = block + int(_BYTES_PER_LABELLED_VOXEL * done * voxels)
    else:
        most = maps + block
    return image + normalised + max(most, _BYTES_PER_STITCHED_VOXEL * voxels)


def _bytes_of_block(
    channels: int, padded: tuple[int, ...], model: Model, options: SegmentOptions, device: str
) -> tuple[int, float]:
    """Return the bytes that blocks take which are predicted or labelled, and the share of others that are done."""
    target, network, edge = pick_device(device), model.network, block_edge(options.block, len(padded))
    blocks = [-(-size // edge) for size in padded]
    inner = math.prod(min(size, edge) for size in padded)
    reaches = (min(number - 1, 2) * reach for number, reach in zip(blocks, network.receptive_radius, strict=True))
    outer = math.prod(min(size, edge + reach) for size, reach in zip(padded, reaches, strict=True))
    values = network.head.in_channels * outer // math.prod(network.shuffle_factors)
    features = bytes_per_feature(target, in_8_bits=bool(model.activation_ranges)) * values
    inputs, labelling = _BYTES_PER_INPUT * channels * outer, _BYTES_PER_BLOCK_VOXEL * inner
    if target.type == "cuda":  # where the layers are, while many threads label blocks
        pending = max(1, min(available_cores(), MAX_PENDING, math.prod(blocks)))
        return pending * max(inputs, labelling), 1.0
    return max(features + inputs, labelling), 1 - 1 / math.prod(blocks)
