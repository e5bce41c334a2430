"""Ranges of the activations over training images, for prediction in integers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from biounet.network import UNet, calibrate_activations, fold_batch_norms
from biounet.segmentation import pad_to_stride
from biounet.training.cases import Case

MAX_VOXELS = 8_000_000  # that are calibrated on: some seconds
LARGE_WINDOW = {2: 1024, 3: 128}  # largest edge of the window taken from each image, by number of axes
SMALL_WINDOW = {2: 256, 3: 64}  # the same if time is short


def calibrate(network: UNet, cases: Sequence[Case], deadline: float | None = None) -> dict[str, Tensor]:
    """Return the ranges of the activations over windows of evenly chosen training cases.

    With a deadline, by `time.perf_counter`, windows are smaller, and none but the first is begun after it.
    """
    windows = [central_window(case, LARGE_WINDOW if deadline is None else SMALL_WINDOW) for case in cases]
    every = math.ceil(sum(map(window_size, windows)) / MAX_VOXELS)
    chosen = list(zip(cases, windows, strict=True))[::every]

    def images() -> Iterator[Tensor]:
        order = range(len(chosen)) if deadline is None else np.random.default_rng(0).permutation(len(chosen))
        for count, number in enumerate(order):
            if count and deadline is not None and time.perf_counter() > deadline:
                return
            case, window = chosen[number]
            image = case.image[(slice(None), *window)].float().numpy()
            yield torch.from_numpy(pad_to_stride(image, network.stride))

    return calibrate_activations(fold_batch_norms(network), images())


def central_window(case: Case, edges: Mapping[int, int]) -> tuple[slice, ...]:
    """Return a window around the median voxel of the objects, or around the middle of the image if there are none."""
    shape, edge = case.labels.shape, edges[case.labels.ndim]
    middle: tuple[int, ...] = tuple(size // 2 for size in shape)
    if case.object_voxels:
        voxels = case.object_voxels[0]
        middle = tuple(int(index) for index in np.unravel_index(voxels[len(voxels) // 2], shape))
    starts = [max(min(index - edge // 2, size - edge), 0) for index, size in zip(middle, shape, strict=True)]
    return tuple(slice(start, min(start + edge, size)) for start, size in zip(starts, shape, strict=True))


def window_size(window: tuple[slice, ...]) -> int:
    """Return the number of voxels in a window."""
    return math.prod(part.stop - part.start for part in window)
