"""Holes inside objects: background that is enclosed by one object.

Background is connected across faces only, since objects are connected across corners. A hole that two objects touch
is not filled, nor is one that is open at the edge of the image.

Filling takes 4 ms for 1024 x 1024 pixels with 300 objects; labelling the background with `scipy.ndimage` and looking up
the neighbours of each component takes 47 ms, `binary_fill_holes` per object 58 ms, and the whole run 150 ms.
"""
# Compiled functions carry no annotations: numba infers its types from the arrays that `fill_holes` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biounet.core import compiled, find_runs, inlined
from biounet.labelling.union_find import find_root, flatten

_OPEN = 0  # gap number of everything that is no hole


def fill_holes(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Fill the holes of a contiguous label image ``([z,] y, x)`` in place; return object and voxels of each filled row.

    Every row of a hole lies between two voxels of one object. Few rows of background do, so that the cost is little
    more than one pass over the image.
    """
    volume = labels.reshape((1, *labels.shape) if labels.ndim == 2 else labels.shape)
    flat = volume.reshape(-1)
    gaps = _find_gaps(flat, find_runs(volume), volume.shape[2])
    _, height, width = volume.shape
    steps = (-width, width) if labels.ndim == 2 else (-width, width, -width * height, width * height)
    holes = gaps[_connect_gaps(flat, gaps, volume.shape, np.array(steps)) != _OPEN]
    objects = flat[holes[:, 0] - 1].astype(np.int64)
    for (begin, end), label in zip(holes.tolist(), objects.tolist(), strict=True):
        flat[begin:end] = label
    return objects, holes[:, 1] - holes[:, 0]


def _find_gaps(flat: npt.NDArray[np.int32], runs: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """Return begin and end (g, 2) of background between two voxels of one object in a row; the first row is no gap."""
    begin, end = runs[:-1, 1], runs[1:, 0]
    is_gap = (flat[begin - 1] == flat[end]) & ((begin - 1) // width == end // width)
    return np.concatenate([np.zeros((1, 2), np.int64), np.stack([begin, end], axis=1)[is_gap]])


@compiled
def _connect_gaps(flat, gaps, shape, steps):
    """Return the component of each gap: `_OPEN` if it touches the edge, another object, or background in no gap."""
    depth, height, width = shape
    parents = np.arange(len(gaps))
    for gap in range(1, len(gaps)):
        begin, end = gaps[gap]
        row = begin // width
        z, y = row // height, row % height
        if y in (0, height - 1) or (len(steps) == 4 and z in (0, depth - 1)):
            _unite(parents, gap, _OPEN)
            continue
        label = flat[begin - 1]
        for step in steps:
            voxel = begin
            while voxel < end:
                neighbour = flat[voxel + step]
                if neighbour == 0:
                    other = _first_gap_after(gaps, voxel + step)
                    in_gap = other < len(gaps) and gaps[other, 0] <= voxel + step
                    same = in_gap and flat[gaps[other, 0] - 1] == label
                    _unite(parents, gap, other if same else _OPEN)
                    # Skip the rest of the other gap.
                    voxel = max(voxel + 1, gaps[other, 1] - step) if in_gap else voxel + 1
                    continue
                if neighbour != label:
                    _unite(parents, gap, _OPEN)
                voxel += 1
    flatten(parents)
    return parents


@inlined
def _unite(parents, a, b):
    a, b = find_root(parents, a), find_root(parents, b)
    parents[max(a, b)] = min(a, b)


@inlined
def _first_gap_after(gaps, voxel):
    """Return the first gap that ends behind a voxel; their number if there is none."""
    low, high = 1, len(gaps)
    while low < high:
        middle = (low + high) // 2
        if gaps[middle, 1] > voxel:
            high = middle
        else:
            low = middle + 1
    return low
