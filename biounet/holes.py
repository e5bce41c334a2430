"""Holes inside objects: background that one object alone encloses.

Background is connected across faces only, since objects are connected across corners. A hole that two objects touch
stays, and so does one that is open at the edge of the image.
"""
# Compiled functions carry no annotations: numba infers its types from the arrays that `fill_holes` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from biounet.ascent import find_runs

_OUTSIDE = 0


def fill_holes(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Fill the holes of a label image in place.

    Works on runs of background along x rather than on voxels, so that its cost is little more than one reading.

    Parameters
    ----------
    labels
        ``([z,] y, x)``, contiguous, 0 for background.

    Returns
    -------
    (h,) the object and (h,) the number of voxels of each hole that was filled.
    """
    volume = labels.reshape((1, *labels.shape) if labels.ndim == 2 else labels.shape)
    ends = np.array([labels.ndim == 3, True, True])
    runs, first_of_row = _gaps(volume.shape, find_runs(volume, (0, 0, 0)))
    root = _connect(volume.shape, ends, runs, first_of_row)
    inner = np.flatnonzero(root != _OUTSIDE)
    if not inner.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    owner = _owners(volume, runs, inner, root)
    return _fill(volume, runs, inner, root, owner)


@numba.njit(cache=True, nogil=True)
def _gaps(shape, objects):
    """Return begin and end (r, 2) of each run between those of `objects`, and the first of each row.

    Run number 0 is none of the image: it stands for the outside.
    """
    depth, height, width = shape
    rows = depth * height
    gaps = np.zeros((len(objects) + rows + 1, 2), np.int64)
    first_of_row = np.empty(rows + 1, np.int64)
    n, k = 1, 0
    for row in range(rows):
        first_of_row[row] = n
        begin, end = row * width, (row + 1) * width
        while k < len(objects) and objects[k, 0] < end:
            if objects[k, 0] > begin:
                gaps[n, 0], gaps[n, 1] = begin, objects[k, 0]
                n += 1
            begin = np.int64(objects[k, 1])
            k += 1
        if begin < end:
            gaps[n, 0], gaps[n, 1] = begin, end
            n += 1
    first_of_row[rows] = n
    return gaps[:n].copy(), first_of_row


@numba.njit(cache=True, nogil=True)
def _find(parent, item):
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@numba.njit(cache=True, nogil=True)
def _unite(parent, a, b):
    a, b = _find(parent, a), _find(parent, b)
    parent[max(a, b)] = min(a, b)


@numba.njit(cache=True, nogil=True)
def _connect(shape, ends, runs, first_of_row):
    """Return the component of each run, 0 where it is open at an edge of the image along the axes in `ends`."""
    depth, height, width = shape
    parent = np.arange(len(runs))
    for row in range(depth * height):
        z, y = row // height, row % height
        open_row = (ends[0] and (z == 0 or z == depth - 1)) or y == 0 or y == height - 1
        for run in range(first_of_row[row], first_of_row[row + 1]):
            if open_row or runs[run, 0] == row * width or runs[run, 1] == (row + 1) * width:
                _unite(parent, run, _OUTSIDE)
        if y > 0:
            _connect_rows(runs, first_of_row, parent, row - 1, row, width)
        if z > 0:
            _connect_rows(runs, first_of_row, parent, row - height, row, width)
    for run in range(len(runs)):
        parent[run] = _find(parent, run)
    return parent


@numba.njit(cache=True, nogil=True)
def _connect_rows(runs, first_of_row, parent, above, row, width):
    """Unite the runs of two rows that face each other."""
    a, b = first_of_row[above], first_of_row[row]
    shift = (row - above) * width
    while a < first_of_row[above + 1] and b < first_of_row[row + 1]:
        if runs[a, 0] + shift < runs[b, 1] and runs[b, 0] < runs[a, 1] + shift:
            _unite(parent, a, b)
        if runs[a, 1] + shift < runs[b, 1]:
            a += 1
        else:
            b += 1


@numba.njit(cache=True, nogil=True)
def _owners(volume, runs, inner, root):
    """Return the only object that touches each component, -1 where there are several."""
    depth, height, width = volume.shape
    flat = volume.ravel()
    owner = np.zeros(len(runs), np.int64)
    for run in inner:
        begin, end = runs[run]
        hole = root[run]
        for step in (-1, 1, -width, width, -width * height, width * height):
            if depth == 1 and abs(step) == width * height:
                continue
            for voxel in range(begin, end):
                label = flat[voxel + step]
                if label != 0 and label != owner[hole]:
                    owner[hole] = label if owner[hole] == 0 else -1
    return owner


@numba.njit(cache=True, nogil=True)
def _fill(volume, runs, inner, root, owner):
    flat = volume.reshape(-1)
    filled = np.zeros(len(runs), np.int64)
    for run in inner:
        label = owner[root[run]]
        if label > 0:
            flat[runs[run, 0] : runs[run, 1]] = label
            filled[root[run]] += runs[run, 1] - runs[run, 0]
    holes = np.flatnonzero(filled)
    return owner[holes], filled[holes]
