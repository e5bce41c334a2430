"""The maps of an image, predicted block by block."""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from itertools import chain
from threading import Event

import numpy as np
from numpy.typing import NDArray

from biounet.core import PROBABILITY_MAX
from biounet.network import Predictor
from biounet.tiling import Block, block_lattice, relative_region, run_blocks

Maps = NDArray[np.uint16]

_BLOCK_EDGE = {2: 2048, 3: 256}


def block_edge(wanted: int | None, dims: int) -> int:
    """Return the edge of a block in voxels: `wanted`, or the default for images or volumes."""
    return wanted or _BLOCK_EDGE[dims]


def prediction_blocks(
    shape: tuple[int, ...], predictor: Predictor, edge: int | None = None, margin: int = 0
) -> list[Block]:
    """Cut an image into blocks whose halo is the network's reach and `margin` voxels more."""
    halo = tuple(reach + margin for reach in predictor.network.receptive_radius)
    return block_lattice(shape, block_edge(edge, len(shape)), halo, predictor.network.stride)


def predict_image(
    image: NDArray[np.float32],
    predictor: Predictor,
    block: int | None = None,
    *,
    executor: Executor | None = None,
    stop: Event | None = None,
) -> Maps:
    """Predict a whole image, block by block.

    Parameters
    ----------
    image
        Normalised, on the working grid, shape ``(c, [z,] y, x)``.
    block
        Edge of a block in voxels; None: as in `SegmentOptions`.
    executor, stop
        As in `biounet.tiling.run_blocks`.

    Returns
    -------
    Probabilities ``0 … 65535``, shape ``(k, [z,] y, x)``.
    """
    shape = image.shape[1:]
    blocks = prediction_blocks(shape, predictor, block)
    predict = partial(predict_block, pad_to_stride(image, predictor.network.stride), predictor)
    results = run_blocks(predict, blocks, executor, stop)
    first = next(results)
    if len(blocks) == 1:
        return first
    maps = np.empty((len(first), *shape), np.uint16)
    for part, region in zip(chain([first], results), (each.core for each in blocks), strict=True):
        maps[(slice(None), *region)] = part
    return maps


def predict_block(
    padded: NDArray[np.float32],
    predictor: Predictor,
    block: Block,
    margin: int = 0,
    origin: tuple[int, ...] | None = None,
) -> Maps:
    """Predict the core of a block and `margin` voxels around it.

    Parameters
    ----------
    padded
        The image, from `pad_to_stride`, or a part of it that holds the outer region of the block.
    origin
        Where that part begins in the image, at multiples of the stride; None: it is the whole image.
    """
    begin = origin or (0,) * len(block.shape)
    outer = tuple(
        slice(part.start - first, min(-(-part.stop // stride) * stride - first, size))
        for part, stride, size, first in zip(
            block.outer, predictor.network.stride, padded.shape[1:], begin, strict=True
        )
    )
    keep = relative_region(block.grown(margin), block.outer)
    return predictor(padded[(slice(None), *outer)], keep)


def object_maps(
    maps: Maps, acquired: NDArray[np.bool_] | None, *, has_distance: bool
) -> tuple[Maps, Maps | None, Maps | None]:
    """Return foreground, contour and distance of predicted maps, as objects are labelled from.

    Without a distance, as of a model of scribbles, the first map is the background. Where `acquired` is False, nothing
    is foreground.
    """
    foreground = maps[0] if has_distance else PROBABILITY_MAX - maps[0]
    if acquired is not None:
        foreground = np.where(acquired, foreground, 0)
    return (foreground, maps[1], maps[2]) if has_distance else (foreground, None, None)


def pad_to_stride(image: NDArray[np.float32], strides: tuple[int, ...]) -> NDArray[np.float32]:
    """Mirror the image at the end of each axis up to a multiple of the network's stride."""
    missing = [(0, -size % stride) for size, stride in zip(image.shape[1:], strides, strict=True)]
    return np.pad(image, [(0, 0), *missing], mode="symmetric") if any(after for _, after in missing) else image
