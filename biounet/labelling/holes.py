"""Holes inside objects: background that one object alone encloses.

Background is connected across faces only, since objects are connected across corners. A hole that two objects touch
stays, and so does one that is open at the edge of the image.
"""
# Compiled functions carry no annotations: numba infers its types from the arrays that `fill_holes` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from biounet.core import compiled, find_runs

_OPEN = 0


def fill_holes(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Fill the holes of a label image in place.

    Every row of a hole lies between two voxels of one object. Few rows of background do, so that the cost is little
    more than one reading of the image.

    Parameters
    ----------
    labels
        ``([z,] y, x)``, contiguous, 0 for background.

    Returns
    -------
    (r,) the object and (r,) the number of voxels of each filled row of a hole.
    """
    if not labels.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    volume = labels.reshape((1, *labels.shape) if labels.ndim == 2 else labels.shape)
    flat = volume.reshape(-1)
    gaps = _gaps(flat, find_runs(volume, (0, 0, 0)), volume.shape[2])
    _, height, width = volume.shape
    steps = (-width, width) if labels.ndim == 2 else (-width, width, -width * height, width * height)
    hole = _connect(flat, gaps, volume.shape, np.array(steps)) != _OPEN
    owner: npt.NDArray[np.int64] = _fill(flat, gaps[hole])
    return owner, gaps[hole, 1] - gaps[hole, 0]


@compiled
def _gaps(flat, runs, width):
    """Return begin and end (g, 2) of background between two voxels of one object in a row; number 0 is no gap."""
    gaps = np.zeros((len(runs) + 1, 2), np.int64)
    n = 1
    for r in range(len(runs) - 1):
        begin, end = runs[r, 1], runs[r + 1, 0]
        if flat[begin - 1] == flat[end] and (begin - 1) // width == end // width:
            gaps[n, 0], gaps[n, 1] = begin, end
            n += 1
    return gaps[:n].copy()


@compiled
def _connect(flat, gaps, shape, steps):
    """Return the component of each gap: `_OPEN` where it leads to the edge, to another object, or to no gap."""
    depth, height, width = shape
    root = np.arange(len(gaps))
    for gap in range(1, len(gaps)):
        begin, end = gaps[gap]
        row = begin // width
        z, y = row // height, row % height
        if y in (0, height - 1) or (len(steps) == 4 and z in (0, depth - 1)):
            _unite(root, gap, _OPEN)
            continue
        owner = flat[begin - 1]
        for step in steps:
            voxel = begin
            while voxel < end:
                label = flat[voxel + step]
                if label == 0:
                    other = np.searchsorted(gaps[1:, 1], voxel + step, side="right") + 1
                    known = other < len(gaps) and gaps[other, 0] <= voxel + step
                    same = known and flat[gaps[other, 0] - 1] == owner
                    _unite(root, gap, other if same else _OPEN)
                    # The rest of the other gap tells nothing new.
                    voxel = max(voxel + 1, gaps[other, 1] - step) if known else voxel + 1
                    continue
                if label != owner:
                    _unite(root, gap, _OPEN)
                voxel += 1
    for gap in range(len(gaps)):
        root[gap] = _find(root, gap)
    return root


@compiled
def _find(root, item):
    while root[item] != item:
        root[item] = root[root[item]]
        item = root[item]
    return item


@compiled
def _unite(root, a, b):
    a, b = _find(root, a), _find(root, b)
    root[max(a, b)] = min(a, b)


@compiled
def _fill(flat, gaps):
    owner = np.empty(len(gaps), np.int64)
    for gap in range(len(gaps)):
        begin, end = gaps[gap]
        owner[gap] = flat[begin - 1]
        flat[begin:end] = owner[gap]
    return owner
