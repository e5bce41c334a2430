"""How much memory an image takes, and what is done when there is not enough of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Event

import numpy as np
import torch

from biounet.core import (
    InputError,
    Volume,
    canonical_grid,
    canonical_transform,
    free_address_space,
    free_memory,
    is_out_of_memory,
    raise_if_stopped,
)
from biounet.network import Card, Predictor, UNet, has_fast_bfloat16, pick_device
from biounet.preprocessing import Zoom
from biounet.segmentation.pipeline import (
    Segmentation,
    SegmentOptions,
    block_size,
    check_model_fits,
    model_zoom,
    segment,
)

_SMALLER = {2: (512, 256), 3: (128, 64)}  # edges of blocks to try when memory runs out
_COPIES_OF_READER = 2  # of an image that the process that reads it has: packed or arranged, and as it is given on
_SHARE = 0.9  # of what is free that images may take: estimates are not exact
_LARGE = 2 * 2**30
_LATER = 2**28  # bytes of addresses for libraries that are loaded with the first image, and for stacks of threads
_LOOK = 0.5  # seconds between looks at whether other programs gave memory back
_LIVE = 5  # layers of the finest level that are in memory at a time: the skip, two inputs, an output, a work space


def segment_within_memory(volume: Volume, predictor: Predictor, card: Card, options: SegmentOptions) -> Segmentation:
    """Segment an image, in smaller blocks when memory runs out: the labels are the same, and a remark says so.

    Raises
    ------
    MemoryError
        If it is not enough for the smallest blocks.
    InputError
        As `biounet.segmentation.segment` does.
    """
    first = block_size(options, volume.grid.dims)
    for block in _blocks(first, volume.grid.dims):
        try:
            found = segment(volume, predictor, card, replace(options, block=block))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            note = () if block == first else (f"memory ran out: worked through in blocks of {block}",)
            return replace(found, notes=(*found.notes, *note))
        if predictor.device.type == "cuda":  # outside of the except, where the error no longer holds the arrays
            torch.cuda.empty_cache()
    raise MemoryError


def _blocks(first: int, dims: int) -> tuple[int, ...]:
    """Return the edges of blocks to work in: the wanted one, and smaller ones for when memory runs out."""
    return (first, *(size for size in _SMALLER[dims] if size < first))


@dataclass(frozen=True)
class MemoryNeed:
    """What an image takes.

    Attributes
    ----------
    own
        Bytes of this process.
    reader
        Bytes of the process that reads it.
    """

    own: int
    reader: int

    @property
    def is_large(self) -> bool:
        """Whether the machine, when its memory runs out, would end the process that works on it."""
        return self.own + self.reader > _LARGE

    def __str__(self) -> str:
        return f"about {(self.own + self.reader) / 2**30:.2g} GiB"


class MemoryBudget:
    """The memory that images which are worked on at the same time share.

    What they need is known from their headers, before a pixel is read. One that does not fit beside the others waits
    for them; one that does not fit alone is refused.

    Parameters
    ----------
    free
        Returns how many bytes are free; None: what the machine says.
    """

    def __init__(self, free: Callable[[], int | None] | None = None) -> None:
        self._free = free or free_memory
        self._changed = Condition()
        self._taken: list[int] = []
        self._most = self._free()

    @contextmanager
    def take(self, needs: Sequence[MemoryNeed], path: Path | None, stop: Event) -> Iterator[int]:
        """Wait until one of several needs fits, take it, and give its number.

        Raises
        ------
        InputError
            If even the last, which is the smallest, does not fit when nothing else is worked on.
        Stopped
            If work is to end.
        """
        with self._changed:
            while (number := self._fitting(needs)) is None:
                raise_if_stopped(stop)
                if not self._taken:
                    hint = "cut it into parts, or work where there is more memory"
                    raise InputError(self._lacking(needs[-1]), path=path, hint=hint)
                self._changed.wait(_LOOK)
            taken = needs[number].own + needs[number].reader
            self._taken.append(taken)
        try:
            yield number
        finally:
            with self._changed:
                self._taken.remove(taken)
                self._changed.notify_all()

    def _fitting(self, needs: Sequence[MemoryNeed]) -> int | None:
        """Return the number of the first need that fits beside what is taken; None where none does."""
        free, limited = self._free(), free_address_space()
        if free is None or self._most is None:
            return 0
        beside = self._most - sum(self._taken) if self._taken else free  # what is taken may not be used yet
        for number, need in enumerate(needs):
            fits = need.own + need.reader <= _SHARE * min(free, beside)
            if fits and (limited is None or need.own + _LATER <= limited):
                return number
        return None

    def _lacking(self, need: MemoryNeed) -> str:
        limited = free_address_space()
        if limited is not None and need.own + _LATER > limited:
            left = f"{limited / 2**30:.2g} GiB of addresses (ulimit -v) are left"
            return f"not enough memory: it needs {(need.own + _LATER) / 2**30:.2g} GiB, {left}"
        return f"not enough memory: it needs {need}, {(self._free() or 0) / 2**30:.2g} GiB are free"


def memory_needs(
    volume: Volume, card: Card, network: UNet, options: SegmentOptions, device: str
) -> list[tuple[SegmentOptions, MemoryNeed]]:
    """Return what an image takes, in blocks as wanted and in smaller ones, the largest need first.

    Raises
    ------
    InputError
        If the image does not fit the model.
    """
    check_model_fits(volume, card)
    grid, kind = canonical_grid(volume.grid), volume.array.dtype
    blank = np.broadcast_to(np.zeros((), kind), (volume.channels, *grid.shape))  # takes no memory
    turned = replace(volume, array=blank, grid=grid)
    zoom = model_zoom(turned, card, options.diameter)
    image = kind.itemsize * math.prod(blank.shape)
    copy = image if canonical_transform(volume.grid).changes else 0
    found = []
    for block in _blocks(block_size(options, grid.dims), grid.dims):
        chosen = replace(options, block=block)
        own = expected_bytes(turned, zoom, network, chosen, device) + copy
        found.append((chosen, MemoryNeed(own, _COPIES_OF_READER * image)))
    return found


def expected_bytes(volume: Volume, zoom: Zoom, network: UNet, options: SegmentOptions, device: str) -> int:
    """Return about how many bytes an image takes at the peak, beside those of the program itself.

    Parameters
    ----------
    volume
        The image; only its shape and type matter.
    zoom
        From its grid to the one that the model works on, from `biounet.segmentation.model_zoom`.
    network, options, device
        How it is worked through.

    Notes
    -----
    Images with edges of 1024 and 2048 pixels took 146 and 512 MiB with `nuclei` on a CPU with bfloat16; this says 140
    and 560.
    """
    shape = volume.grid.shape
    voxels = math.prod(shape)
    working = tuple(max(1, round(size * factor)) for size, factor in zip(shape, zoom, strict=True))
    padded = tuple(-(-size // stride) * stride for size, stride in zip(working, network.stride, strict=True))
    edge = block_size(options, len(shape))
    outer = math.prod(min(size, edge + 2 * reach) for size, reach in zip(padded, network.reach, strict=True))
    outputs = network.head.out_channels // math.prod(network.fold)
    width = 2 if has_fast_bfloat16(pick_device(device)) else 4
    layers = width * _LIVE * network.head.in_channels * outer // math.prod(network.fold)
    image = volume.array.itemsize * volume.channels * voxels
    normalised = 4 * volume.channels * (math.prod(working) + (math.prod(padded) if padded != working else 0))
    maps = 2 * outputs * (math.prod(working) + voxels if working != shape else outer)
    return image + normalised + maps + layers + 12 * outputs * outer + 12 * voxels
