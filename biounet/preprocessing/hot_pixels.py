"""Hot pixels: single bright outliers of a camera, which are replaced by their neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Region, compiled
from biounet.preprocessing.order_statistics import percentiles

_BAND = 2**18  # pixels of the rows that are looked at together
CONTRAST_SAMPLE = 2**15  # pixels from which the contrast is estimated
CONTRAST_ROWS = 16  # of these pixels, in images whose rows are long
HOT_PIXEL_SIGMAS = 7.0  # standard deviations of the noise by which no pixel of a million exceeds its neighbours
MAD_OF_NORMAL = 0.6745  # median of the absolute value of a standard normal variable
_NEIGHBOURS = tuple((y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1))  # in a window of 3 x 3


@dataclass(frozen=True)
class HotPixelRule:
    """Which pixels of an image are hot: those that exceed their neighbours by more than its contrast.

    A hot pixel exceeds all but two of its eight neighbours in the plane by more than the contrast of the whole image,
    and by more than these exceed the dark; the third highest of them replaces it. An image in focus has none, since an
    optic blurs each point over a few pixels.

    Attributes
    ----------
    low, contrast
        Dark level of the image, and the difference of its bright level to it.
    exclude
        Value of areas that were never acquired, in a tuple of one; empty without.
    """

    low: float
    contrast: float
    exclude: tuple[Any, ...] = ()

    def is_needed(self, highest: float) -> bool:
        """Whether an image whose highest value is `highest` may have hot pixels."""
        return bool(highest > self.low + self.contrast)

    def find(self, padded: NDArray[Any]) -> tuple[tuple[NDArray[np.intp], ...], NDArray[Any]]:
        """Return where hot pixels are in planes ``(n, y + 2, x + 2)`` with their neighbours, and what replaces them.

        Positions are those in `padded`, whose border is only looked at.
        """
        step = max(1, _BAND // padded.shape[2])
        positions, values = [], []
        for plane, start in product(range(len(padded)), range(0, padded.shape[1] - 2, step)):
            at, third = self._find_in_band(padded[plane, start : start + step + 2])
            if third.size:
                positions.append(np.stack([np.full(third.size, plane), at[0] + start, at[1]]))
                values.append(third)
        if not positions:
            return (np.empty(0, np.intp),) * 3, np.empty(0, padded.dtype)
        return tuple(np.concatenate(positions, 1)), np.concatenate(values)

    def _find_in_band(self, band: NDArray[Any]) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], NDArray[Any]]:
        """Return the same of rows of one plane."""
        native: np.dtype[Any] = np.dtype(np.float32) if band.dtype == np.float16 else band.dtype.newbyteorder("=")
        limit: Any = self.low + self.contrast
        if native.kind in "iu":
            limit = min(max(math.floor(limit), np.iinfo(native).min), np.iinfo(native).max)
        hot = np.zeros(band.shape, np.bool_)
        pixels = np.ascontiguousarray(band, native)
        _mark_hot(pixels, native.type(limit), float(self.low), float(self.contrast), hot)
        if self.exclude:
            hot &= band != self.exclude[0]
        y, x = np.nonzero(hot)
        if not y.size:
            return (y, x), np.empty(0, band.dtype)
        return (y, x), _third_highest(band[y + row - 1, x + column - 1] for row, column in _NEIGHBOURS)


@compiled
def _mark_hot(pixels, limit, low, contrast, hot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mark pixels above a limit of which at most two of the neighbours are too bright for them to be hot.

    NumPy takes 0.4 s for a million bright pixels.
    """
    for y in range(1, pixels.shape[0] - 1):
        for x in range(1, pixels.shape[1] - 1):
            if pixels[y, x] <= limit:
                continue
            value = float(pixels[y, x])
            bright = 0
            for near in range(9):
                neighbour = float(pixels[y - 1 + near // 3, x - 1 + near % 3])
                excess = value - neighbour
                if near != 4 and not (excess > contrast and excess > neighbour - low):
                    bright += 1
                    if bright > 2:
                        break
            hot[y, x] = bright <= 2


def contrast_rows(planes: int, height: int, width: int) -> NDArray[np.intp]:
    """Return which rows, counted over all planes, the contrast of an image is estimated from."""
    rows = planes * height
    step = max(1, min(rows * width // CONTRAST_SAMPLE, rows // CONTRAST_ROWS))
    return np.arange(0, rows, step)


def neighbour_rows(rows: NDArray[np.intp], height: int) -> list[NDArray[np.intp]]:
    """Return the rows of their planes above, at and below some rows that are counted over all planes."""
    return [_reflect(rows % height + step, height) for step in (-1, 0, 1)]


def hot_pixel_rule(bands: list[NDArray[Any]], minimum: Any, exclude: tuple[Any, ...] = ()) -> HotPixelRule:  # noqa: ANN401
    """Estimate the contrast of an image from some of its rows, without their outliers.

    Parameters
    ----------
    bands
        The rows above, at and below `contrast_rows`, ``(n, x)`` each.
    minimum
        Lowest value of the image.
    """
    width = bands[0].shape[1]
    padded = [band[:, _reflect(np.arange(-1, width + 1), width)] for band in bands]
    third = _third_highest(padded[row][:, column : width + column] for row, column in _NEIGHBOURS)
    rows = bands[1]
    cleaned = np.minimum(rows, third)
    cleaned = cleaned[rows != exclude[0]] if exclude else cleaned.ravel()
    if not cleaned.size:
        return HotPixelRule(float(minimum), 0.0, exclude)
    low, high = percentiles(cleaned, (1, 99.8))
    differences = np.abs(np.diff(rows.astype(np.float32 if rows.dtype.itemsize < 3 else np.float64), axis=1))
    noise = float(np.median(differences)) / MAD_OF_NORMAL / math.sqrt(2) if differences.size else 0.0
    return HotPixelRule(low, max(high - low, HOT_PIXEL_SIGMAS * noise), exclude)


class HotPixelSearch:
    """Finds the hot pixels of planes whose parts come in scan order, over the borders of these.

    A pixel is looked at once those below and to the right of it are there: two rows of the planes and two columns of a
    part are kept.
    """

    def __init__(self, rule: HotPixelRule, shape: tuple[int, ...]) -> None:
        self._rule = rule
        self._height, self._width = shape[-2:]
        self._above = np.empty(0)  # (n, 2, x): the last two rows of the band before
        self._left = np.empty(0)  # (n, rows, 2): the last two columns of the part before, with the rows above

    def add(self, tile: NDArray[Any], region: Region, constant: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Take planes ``(n, y, x)`` of a part, and return hot pixels that were found, and what replaces them."""
        _, rows, columns = region
        if rows.start == columns.start == 0:
            self._above = np.empty((len(tile), 2, self._width), tile.dtype)
        pieces = self._strips(tile, rows, columns) if constant else [self._extended(tile, rows, columns)]
        found = []
        for piece in pieces:
            positions, third = self._rule.find(piece)
            found.append((piece[positions], third))
        self._above[:, :, columns] = tile[:, -2:]
        if not found:
            return np.empty(0, tile.dtype), np.empty(0, tile.dtype)
        return np.concatenate([values for values, _ in found]), np.concatenate([thirds for _, thirds in found])

    def _extended(self, tile: NDArray[Any], rows: slice, columns: slice) -> NDArray[Any]:
        """Return a part with the rows and columns before it, and with reflected ones at the borders of the image."""
        ends = rows.stop == self._height, columns.stop == self._width
        before = 2 if rows.start else 1, 2 if columns.start else 1
        count, height, width = tile.shape
        out = np.empty((count, before[0] + height + ends[0], before[1] + width + ends[1]), tile.dtype)
        body = out[:, :, before[1] : before[1] + width]
        body[:, before[0] : before[0] + height] = tile
        body[:, : before[0]] = self._above[:, :, columns] if rows.start else tile[:, [min(1, height - 1)]]
        if ends[0]:
            body[:, -1] = tile[:, max(height - 2, 0)]
        out[:, :, : before[1]] = self._left if columns.start else body[:, :, [min(1, width - 1)]]
        if ends[1]:
            out[:, :, -1] = body[:, :, max(width - 2, 0)]
        self._left = body[:, :, -2:].copy()
        return out

    def _strips(self, tile: NDArray[Any], rows: slice, columns: slice) -> list[NDArray[Any]]:
        """Return the column and the row before a part of one value, with their neighbours; in it nothing is hot."""
        above, narrow = self._above[:, :, columns], tile[:, :, :2]
        before = above[:, :, -2:] if rows.start else narrow[:, :1]
        after = narrow[:, : rows.stop == self._height]
        strips = []
        if columns.start:
            first = above[:, :, :1] if rows.start else narrow[:, :1, :1]
            column = np.concatenate([first, narrow[:, :, :1], after[:, :, :1]], 1)
            strips.append(np.concatenate([self._left, column], 2))
        if rows.start:
            row = np.concatenate([above, tile[:, :1]], 1)
            left = self._left[:, :3, 1:] if columns.start else row[:, :, 1:2]
            right = row[:, :, -2:-1] if columns.stop == self._width else row[:, :, :0]
            strips.append(np.concatenate([left, row, right], 2))
        self._left = np.concatenate([before, narrow, after], 1)
        return strips


def pad_at_borders(planes: NDArray[Any], sides: tuple[bool, ...]) -> NDArray[Any]:
    """Reflect planes ``(n, y, x)`` by a pixel at some of their sides: top, bottom, left and right."""
    if not any(sides):
        return planes
    top, bottom, left, right = sides
    height, width = planes.shape[1:]
    rows = _reflect(np.arange(-top, height + bottom), height)
    columns = _reflect(np.arange(-left, width + right), width)
    return planes[:, rows[:, None], columns]


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
