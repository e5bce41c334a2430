"""How much memory an image takes, and what is done when there is not enough of it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from biounet.model import Card
from biounet.network import UNet
from biounet.normalise import Zoom
from biounet.predict import Predictor, has_fast_bfloat16, pick_device
from biounet.segment import Segmentation, SegmentOptions, block_size, segment
from biounet.volume import Volume

_SMALLER = {2: (512, 256), 3: (128, 64)}  # edges of blocks to try when memory runs out
_ON_A_CPU = "DefaultCPUAllocator:"  # torch has no class of its own for this one
_LIVE = 5  # layers of the finest level that are in memory at a time: the skip, two inputs, an output, a work space


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, and nothing else."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _ON_A_CPU in str(error)


def segment_within_memory(volume: Volume, predictor: Predictor, card: Card, options: SegmentOptions) -> Segmentation:
    """Segment an image, in smaller blocks when memory runs out: the labels are the same, and a remark says so.

    Raises
    ------
    MemoryError
        If it is not enough for the smallest blocks.
    InputError
        As `biounet.segment.segment` does.
    """
    first = block_size(options, volume.grid.dims)
    for block in (first, *(size for size in _SMALLER[volume.grid.dims] if size < first)):
        try:
            found = segment(volume, predictor, card, replace(options, block=block))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            note = () if block == first else (f"memory ran out: worked through in blocks of {block}",)
            return replace(found, notes=(*found.notes, *note))
        if predictor.device.type == "cuda":  # outside of the except, where the error no longer holds the arrays
            torch.cuda.empty_cache()
    raise MemoryError


def expected_bytes(volume: Volume, zoom: Zoom, network: UNet, options: SegmentOptions, device: str) -> int:
    """Return about how many bytes an image takes at the peak, beside those of the program itself.

    Parameters
    ----------
    volume
        The image; only its shape and type matter.
    zoom
        From its grid to the one that the model works on, from `biounet.segment.zoom_for`.
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
    edge = block_size(options, len(shape))
    outer = math.prod(min(size, edge + 2 * reach) for size, reach in zip(working, network.reach, strict=True))
    outputs = network.head.out_channels // math.prod(network.fold)
    width = 2 if has_fast_bfloat16(pick_device(device)) else 4
    layers = width * _LIVE * network.head.in_channels * outer // math.prod(network.fold)
    image = volume.array.itemsize * volume.channels * voxels
    normalised = 4 * volume.channels * math.prod(working)
    maps = 2 * outputs * (math.prod(working) + voxels if working != shape else outer)
    return image + normalised + maps + layers + 12 * outputs * outer + 12 * voxels
