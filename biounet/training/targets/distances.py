"""Exact Euclidean distances to the edge of an object and to the outline of a region, for any voxel lengths."""
# Compiled functions carry no annotations: numba infers its types from the arrays that `edge_distance` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from biounet.core import LENGTH_TOLERANCE, compiled
from biounet.training.targets.boundary_weight import check_spacing


def edge_distance(labels: NDArray[np.int32], spacing: tuple[float, ...] | None = None) -> NDArray[np.float32]:
    """Return the distance of each voxel of an object to the nearest voxel outside that object.

    Exact, for all objects at once (Felzenszwalb and Huttenlocher 2012, along each run of one label). The edge of the
    image is no edge of an object.

    Parameters
    ----------
    labels
        Object ids from 1 on; other values are not objects; shape ``([z,] y, x)``.
    spacing
        Voxel spacing along each axis; None for 1.

    Returns
    -------
    Distance between voxel centres in the unit of `spacing`, shape of `labels`: 0 outside objects, infinite in an object
    that fills the image.
    """
    spacing = check_spacing(labels.ndim, spacing)
    shape = labels.shape
    table = labels.astype(np.int32, order="C", casting="safe", copy=False).reshape(shape[0], -1)
    squares = np.empty(table.shape, np.float32)
    _distance_in_columns(table, squares, np.float32(spacing[0]))
    for axis in range(1, len(shape)):
        lines = -1, shape[axis], math.prod(shape[axis + 1 :])
        _distance_in_lines(table.reshape(lines), squares.reshape(lines), spacing[axis] ** 2)
    return np.sqrt(squares, out=squares).reshape(shape)


def signed_distance(
    region: NDArray[np.bool_], labelled: NDArray[np.bool_], spacing: tuple[float, ...] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the distance to the outline of a region, negative inside, and the mask of the voxels where it is known.

    As Kervadec et al. 2019 define it: the distance to the region outside, and inside minus the distance to the voxels
    around it plus one step, so that the innermost border is 0. A voxel is known when nothing unlabelled is nearer than
    the outline; without an outline none is.

    Parameters
    ----------
    region, labelled
        Masks of shape ``([z,] y, x)``.
    spacing
        Voxel spacing along each axis; None for 1.

    Returns
    -------
    Distances in the unit of `spacing`, 0 where unknown, and weights 1 or 0.
    """
    from scipy.ndimage import distance_transform_edt

    spacing = check_spacing(region.ndim, spacing)
    inside, outside = region & labelled, ~region & labelled
    if not (inside.any() and outside.any()):
        return np.zeros(region.shape, np.float32), np.zeros(region.shape, np.float32)
    to_region = distance_transform_edt(~inside, sampling=spacing)
    to_rest = distance_transform_edt(~outside, sampling=spacing)
    distance = np.where(inside, -to_rest, to_region)
    known = labelled.copy()
    if not labelled.all():
        known &= distance_transform_edt(labelled, sampling=spacing) >= np.abs(distance) * (1 - LENGTH_TOLERANCE)
    distance = np.where(inside, np.minimum(distance + min(spacing), 0), distance)
    return np.where(known, distance, 0).astype(np.float32), known.astype(np.float32)


@compiled
def _distance_in_columns(labels, squares, step):
    """Set the squared distance to the nearest voxel of another label along the first axis, 0 outside objects."""
    height, width = labels.shape
    run = np.full(width, np.inf, np.float32)
    for y in range(height):
        for x in range(width):
            if y > 0:
                run[x] = run[x] + step if labels[y, x] == labels[y - 1, x] else step
            squares[y, x] = run[x]
    run[:] = np.inf
    for y in range(height - 1, -1, -1):
        for x in range(width):
            if y < height - 1:
                run[x] = run[x] + step if labels[y, x] == labels[y + 1, x] else step
            nearest = min(squares[y, x], run[x])
            squares[y, x] = nearest * nearest if labels[y, x] > 0 else 0


@compiled
def _distance_in_lines(labels, squares, square):
    """Take the minimum over the middle axis; `square` is the squared voxel spacing along it."""
    depth, length, width = labels.shape
    values = np.empty(length, np.float32)
    sites, heights, starts = np.empty(length + 2), np.empty(length + 2), np.empty(length + 2)
    for z in range(depth):
        for x in range(width):
            end = 0
            while end < length:
                begin, label = end, labels[z, end, x]
                while end < length and labels[z, end, x] == label:
                    values[end] = squares[z, end, x]
                    end += 1
                if label > 0:
                    _envelope(values, begin, end, square, (sites, heights, starts))
                    for y in range(begin, end):
                        squares[z, y, x] = values[y]


@compiled
def _envelope(values, begin, end, square, buffers):
    """Replace the values of a run by the lower envelope of parabolas on them and on 0 at the voxels beside the run."""
    sites, heights, starts = buffers
    length = values.size
    n = 0
    for site in range(max(begin - 1, 0), min(end + 1, length)):
        height = np.float64(values[site]) if begin <= site < end else 0.0
        if height == np.inf:
            continue
        start = -np.inf
        while n > 0:
            last = sites[n - 1]
            start = (height - heights[n - 1]) / (2 * square * (site - last)) + 0.5 * (site + last)
            if start > starts[n - 1]:
                break
            n -= 1
            start = -np.inf
        sites[n], heights[n], starts[n] = site, height, start
        n += 1
    k = 0
    for site in range(begin, end):
        while k + 1 < n and starts[k + 1] <= site:
            k += 1
        values[site] = heights[k] + square * (site - sites[k]) ** 2 if n > 0 else np.inf
