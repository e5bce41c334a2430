"""Hot pixels: single bright outliers of a camera, which are replaced by their neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.preprocessing.order_statistics import percentiles

_CHUNK = 2**18  # candidates per pass
CONTRAST_SAMPLE = 2**15  # pixels from which the contrast is estimated
HOT_PIXEL_SIGMAS = 7.0  # standard deviations of the noise by which no pixel of a million exceeds its neighbours
MAD_OF_NORMAL = 0.6745  # median of the absolute value of a standard normal variable
_NEIGHBOURS = tuple((y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1))  # in a window of 3 x 3


def remove_hot_pixels(values: NDArray[Any], exclude: tuple[Any, ...] = ()) -> tuple[NDArray[Any], int]:
    """Replace hot pixels of ``([c,] [z,] y, x)`` by their third-highest neighbour; also return their number.

    A hot pixel exceeds all but two of its eight neighbours in the plane by more than the contrast of the whole image,
    and by more than these exceed the dark. An image in focus has none, since an optic blurs each point over a few
    pixels. `exclude` has the value of areas that were never acquired.
    """
    planes = values.reshape(-1, *values.shape[-2:])
    low, contrast = _robust_contrast(planes, exclude)
    bright = low + contrast
    candidates = np.flatnonzero(planes > (math.floor(bright) if planes.dtype.kind in "iu" else bright))
    cleaned, count = planes, 0
    for start in range(0, len(candidates), _CHUNK):
        chunk = candidates[start : start + _CHUNK]
        z, y, x = np.unravel_index(chunk, planes.shape)
        rows = [_reflect(y + step, planes.shape[1]) for step in (-1, 0, 1)]
        columns = [_reflect(x + step, planes.shape[2]) for step in (-1, 0, 1)]
        third = _third_highest(planes[z, rows[row], columns[column]] for row, column in _NEIGHBOURS)
        excess = planes[z, y, x].astype(np.float64) - third
        hot = (excess > contrast) & (excess > third.astype(np.float64) - low)
        if exclude:
            hot &= planes[z, y, x] != exclude[0]
        if hot.any():
            cleaned = cleaned if count else planes.copy()
            cleaned.reshape(-1)[chunk[hot]] = third[hot]
            count += int(np.count_nonzero(hot))
    return (cleaned.reshape(values.shape) if count else values), count


def _robust_contrast(planes: NDArray[Any], exclude: tuple[Any, ...]) -> tuple[float, float]:
    """Return the dark level, and the difference of the bright level to it, from some rows without their outliers."""
    height, width = planes.shape[1:]
    chosen = np.arange(0, len(planes) * height, max(1, planes.size // CONTRAST_SAMPLE))
    z, y = chosen // height, chosen % height
    padded = _reflect(np.arange(-1, width + 1), width)
    bands = [planes[z, _reflect(y + step, height)][:, padded] for step in (-1, 0, 1)]
    third = _third_highest(bands[row][:, column : width + column] for row, column in _NEIGHBOURS)
    rows = bands[1][:, 1 : width + 1]
    cleaned = np.minimum(rows, third)
    cleaned = cleaned[rows != exclude[0]] if exclude else cleaned.ravel()
    if not cleaned.size:
        return float(planes.min()), 0.0
    low, high = percentiles(cleaned, (1, 99.8))
    differences = np.abs(np.diff(rows.astype(np.float32 if rows.dtype.itemsize < 3 else np.float64), axis=1))
    noise = float(np.median(differences)) / MAD_OF_NORMAL / math.sqrt(2) if differences.size else 0.0
    return low, max(high - low, HOT_PIXEL_SIGMAS * noise)


def _third_highest(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return the third highest of three or more arrays at each position; ``numpy.partition`` takes 14 times as long."""
    highest: list[NDArray[Any]] = []
    for value in arrays:
        rest = value
        for rank, current in enumerate(highest):
            highest[rank], rest = np.maximum(current, rest), np.minimum(current, rest)
        highest = [*highest, rest][:3]
    return highest[2]


def _reflect(indices: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Return indices with those just beyond an end reflected, as ``numpy.pad(mode="reflect")`` does."""
    return np.clip(np.where(indices >= size, 2 * size - 2 - indices, np.abs(indices)), 0, size - 1)
