"""The U-Net boundary weight map: thin gaps between objects weigh more, so that the network learns to keep them open.

``w0 exp(-(d1 + d2)² / (2 sigma²))`` (Ronneberger, Fischer and Brox 2015, eq. 2), where d1 and d2 are the distances of a
voxel to the nearest and to the second nearest object. One distance transform per object costs time in proportion to the
number of objects. Here each voxel keeps the distances to the two nearest *distinct* objects while they are spread along
one axis after the other, as far as the weight matters: exact there, and as fast for 10 000 objects as for 10.
"""
# Compiled functions carry no annotations: numba infers its types from the arrays that `two_nearest` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202, PLR0913

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from biounet.core import LENGTH_TOLERANCE, UNLABELLED, InputError, compiled

_NEGLIGIBLE = 5e-5  # of w0: smaller weights are set to 0
_CHUNK = 512  # voxels whose state stays in the innermost cache
_CHECK_EVERY = 8  # offsets after which it is tested whether farther ones can still matter


def border_weight(
    labels: NDArray[np.int32],
    w0: float,
    sigma: float,
    spacing: tuple[float, ...] | None = None,
    known_only: bool = True,
) -> NDArray[np.float32]:
    """Return the U-Net boundary weight of each voxel.

    The formula holds for every voxel: inside an object d1 is 0 and d2 the distance to the nearest other object. If two
    objects touch without background between them, the voxels on both sides of the border weigh most.

    Parameters
    ----------
    labels
        Object ids from 1 on, 0 background, -1 unlabelled; shape ``([z,] y, x)``.
    w0, sigma
        Height and width of the weight; `sigma` in the unit of `spacing`.
    spacing
        Voxel spacing along each axis; None for 1, that is lengths in voxels.
    known_only
        Whether a weight is 0 if an object hidden in unlabelled space could raise it, that is, if an unlabelled voxel is
        nearer than d2. Otherwise unlabelled space is background.

    Returns
    -------
    Weight between 0 and `w0`, shape of `labels`; 0 instead of anything below ``5e-5 w0``.

    Raises
    ------
    InputError
        If `spacing` does not fit `labels`.
    """
    reach = sigma * math.sqrt(-2 * math.log(_NEGLIGIBLE))
    first, second = two_nearest(labels, reach, spacing)
    certain = second <= reach**2
    if known_only and (unlabelled := labels == UNLABELLED).any():
        certain &= two_nearest(unlabelled, reach, spacing)[0] >= second * np.float32((1 - LENGTH_TOLERANCE) ** 2)
    # In place, since on large images memory is slower than arithmetic.
    np.sqrt(first, out=first)
    np.sqrt(second, out=second)
    first += second
    first *= first
    first *= np.float32(-0.5 / sigma**2)
    np.exp(first, out=first)
    first *= certain
    first *= np.float32(w0)
    return first


def two_nearest(
    labels: NDArray[np.int32 | np.bool_], reach: float, spacing: tuple[float, ...] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the squared distances of each voxel to the two nearest distinct labels from 1 on.

    Separable, as the exact distance transform of Felzenszwalb and Huttenlocher (2012): a voxel's two nearest labels are
    among the two nearest labels, along the first axes, of the voxels in its line along the next axis.

    Parameters
    ----------
    labels
        Labels; values below 1 are ignored; shape ``([z,] y, x)``.
    reach
        Distance up to which the result is exact. Distances above it may be any value above it, or infinite.
    spacing
        Voxel spacing along each axis; None for 1.

    Returns
    -------
    Squared distances, first and second, shape of `labels`. A voxel's own label is at distance 0.
    """
    spacing = check_spacing(labels.ndim, spacing)
    shape = labels.shape
    table = labels.astype(np.int32, order="C", casting="safe", copy=False).reshape(shape[0], -1)
    first, second = np.empty(table.size, np.float32), np.empty(table.size, np.float32)
    nearest = np.empty(table.size, np.int32)
    in_columns = first.reshape(table.shape), nearest.reshape(table.shape), second.reshape(table.shape)
    _nearest_in_columns(table, in_columns, np.float32(spacing[0] ** 2))
    for axis in range(1, len(shape)):
        stride = math.prod(shape[axis + 1 :])
        offsets = min(int(reach / spacing[axis] * (1 + LENGTH_TOLERANCE)), shape[axis] - 1)
        _nearest_along_axis(first, nearest, second, stride, stride * shape[axis], spacing[axis] ** 2, offsets)
    return first.reshape(shape), second.reshape(shape)


def check_spacing(ndim: int, spacing: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the voxel spacing along each axis, 1 if it is None.

    Raises
    ------
    InputError
        If there is not one positive length for each axis.
    """
    if spacing is None:
        return (1.0,) * ndim
    if len(spacing) != ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise InputError(f"labels of {ndim} axes need {ndim} positive voxel lengths, not {spacing}")
    return spacing


@compiled
def _nearest_in_columns(labels, found, square):
    """Find the two nearest labels along the first axis: of all columns at once, down and then up again."""
    first, nearest, second = found
    height, width = labels.shape
    at, before = np.full(width, -np.inf, np.float32), np.full(width, -np.inf, np.float32)
    last = np.zeros(width, np.int32)
    for y in range(height):
        _update_last_seen(labels[y], np.float32(y), at, last, before)
        for x in range(width):
            first[y, x] = y - at[x]
            nearest[y, x] = last[x]
            second[y, x] = y - before[x]
    at[:], before[:], last[:] = np.inf, np.inf, 0
    above, beyond = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(height - 1, -1, -1):
        _update_last_seen(labels[y], np.float32(y), at, last, before)
        for x in range(width):
            above[x] = at[x] - y
            beyond[x] = before[x] - y
        _merge(above, last, beyond, first[y], nearest[y], second[y], np.float32(0))
        for x in range(width):
            first[y, x] *= first[y, x] * square
            second[y, x] *= second[y, x] * square


@compiled
def _update_last_seen(row, y, at, last, before):
    """Update for each column where its latest label was last seen, and where the latest one before that was."""
    for x in range(row.size):
        label = row[x]
        before[x] = at[x] if (label > 0) & (label != last[x]) else before[x]
        at[x] = y if label > 0 else at[x]
        last[x] = label if label > 0 else last[x]


@compiled
def _nearest_along_axis(first, nearest, second, stride, block, square, offsets):
    """Merge into each voxel those up to `offsets` away along the axis of that stride, in place, nearest first."""
    for begin in range(0, first.size, block):
        end = begin + block
        near1, label, near2 = first[begin:end].copy(), nearest[begin:end].copy(), second[begin:end].copy()
        for a in range(0, block, _CHUNK):
            b = min(a + _CHUNK, block)
            part = slice(begin + a, begin + b)
            to1, to_label, to2 = first[part], nearest[part], second[part]
            for k in range(1, offsets + 1):
                far = np.float32(k * k * square)
                # Nothing at that offset is nearer than the second nearest label so far.
                if k % _CHECK_EVERY == 0 and _maximum(to2) <= far:
                    break
                shift = k * stride
                skip, stop = max(0, shift - a), max(0, min(b, block - shift) - a)
                if skip < b - a:
                    c, d = a + skip - shift, b - shift
                    _merge(near1[c:d], label[c:d], near2[c:d], to1[skip:], to_label[skip:], to2[skip:], far)
                if stop > 0:
                    c, d = a + shift, a + shift + stop
                    _merge(near1[c:d], label[c:d], near2[c:d], to1[:stop], to_label[:stop], to2[:stop], far)


@compiled
def _maximum(values):
    # Floats that are not negative are in the order of their bits, and only the maximum of integers is vectorised.
    bits = values.view(np.int32)
    largest = np.int32(0)
    for i in range(bits.size):
        largest = max(largest, bits[i])
    return np.array([largest]).view(np.float32)[0]


@compiled
def _merge(near1, label, near2, first, nearest, second, far):
    """Merge the two nearest labels of other voxels, `far` away, into those of these voxels.

    The label of the second nearest is never needed: it only has to differ from that of the nearest. Written without
    branches, on slices that start at 0, because only this way it is compiled to vector instructions (7 times faster).
    """
    for i in range(first.size):
        other1, other2 = near1[i] + far, near2[i] + far
        own1, own2 = first[i], second[i]
        nearer = other1 < own1
        if_same = other2 if other2 < own2 else own2
        loser = own1 if nearer else other1
        winners_second = other2 if nearer else own2
        if_distinct = loser if loser < winners_second else winners_second
        second[i] = if_same if label[i] == nearest[i] else if_distinct
        first[i] = other1 if nearer else own1
        nearest[i] = label[i] if nearer else nearest[i]
