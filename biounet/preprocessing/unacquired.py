"""Areas of an image that were never acquired, such as the black around the tiles of a mosaic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Region, compiled

_MIN_EDGE = 8  # pixels along an edge of an image that may have such areas
_MIN_AREA = 0.002  # share of the pixels below which percentiles hardly change
_STRAIGHT = 0.75  # share of a border that runs along rows and columns
_RUN = 64  # pixels over which the border of a tile is straight, or a quarter of a smaller image; cells are round
_MAX_SIDES = 8  # of a rotated rectangle that is cropped by the borders of the image
_TOLERANCE = 1.5  # pixels by which a side may deviate from a straight line; a disc of radius 20 then needs 9 sides
MIRROR_REACH = 256
"""Pixels from the nearest acquired one up to which an area is filled: more than a network with a `receptive_radius` of
less than 256 sees."""
_OUTSIDE, _LARGE = 0.75, 0.25  # share of the area that lies outside of the polygon, and of the image that is inside


def may_be_unacquired(count: int, size: int, shape: tuple[int, ...]) -> bool:
    """Whether so many pixels of the lowest or highest value, of `size` in planes ``(…, y, x)``, may be such areas."""
    return min(shape[-2:]) >= _MIN_EDGE and _MIN_AREA <= count / size < 1


class BorderTest:
    """Whether the pixels of one value are areas that were never acquired, of planes whose parts come in scan order.

    The borders of such areas run along rows and columns, or they are the corners around one rotated field with straight
    sides. Dark background that is clipped at 0 has a ragged border, and cells on a constant background have round ones.

    Parameters
    ----------
    value
        Lowest or highest value of the image.
    channels, shape
        Number of planes at each z, and shape ``(z, y, x)`` of an image.
    """

    def __init__(self, value: Any, channels: int, shape: tuple[int, ...]) -> None:  # noqa: ANN401 - of any type
        self.value = value
        self._channels, self._shape = channels, shape
        depth, height, width = shape
        self._rows, self._columns = max(min(_RUN, height / 4), 2), max(min(_RUN, width / 4), 2)
        self._least = math.ceil(self._rows), math.ceil(self._columns)
        self._borders = np.zeros((2, 2), np.int64)  # of the first plane and the others: in long runs, and all
        self._between = np.zeros(depth * channels, np.int64)  # of each plane and the one before
        self._previous = np.empty((height, width), bool) if depth > 1 else None  # the last plane of the slab before
        self._first, self._last = np.full(height, width), np.full(height, -1)  # of a row of the first plane: acquired
        self._missing = 0  # in the first plane
        self._down = self._along = np.empty(0, np.int32)

    def add(self, tile: NDArray[Any], region: Region, constant: bool) -> None:
        """Take a part ``(c, z, y, x)``."""
        depth, rows, columns = region
        area = np.moveaxis(np.equal(tile[..., :1, :1] if constant else tile, self.value, order="C"), 0, 1)
        planes = area.reshape(-1, *area.shape[2:])
        self._compare_planes(planes, region)
        if rows.start == columns.start == 0:  # for each column, whether it was missing, and the run of its border
            self._down = np.zeros((len(planes), self._shape[2], 2), np.int32)
        if columns.start == 0:  # and for each row
            self._along = np.zeros((len(planes), rows.stop - rows.start, 2), np.int32)
        for number, plane in enumerate(planes.view(np.uint8)):
            if rows.start == 0:
                self._down[number, columns, 0] = plane[0]
            if columns.start == 0:
                self._along[number, :, 0] = plane[:, 0]
            is_first = depth.start == number == 0
            follow = self._follow_constant if constant else self._follow
            follow(number, plane, columns, self._borders[0 if is_first else 1])
            if is_first:
                self._measure_first(plane, region, constant)
        if columns.stop == self._shape[2]:
            self._end(self._along, self._least[1])
            if rows.stop == self._shape[1]:
                self._end(self._down, self._least[0])

    @property
    def passed(self) -> bool:
        """Whether they are, once all parts were added."""
        return self._has_straight_borders() or self._surrounds_rotated_field()

    def _follow(self, number: int, plane: NDArray[np.uint8], columns: slice, borders: NDArray[np.int64]) -> None:
        _follow_borders(plane, self._down[number, columns], self._along[number], self._least, borders)

    def _follow_constant(
        self, number: int, plane: NDArray[np.uint8], columns: slice, borders: NDArray[np.int64]
    ) -> None:
        """Follow the borders of a part of one value, which are along its first column and its first row."""
        down, along = self._down[number, columns], self._along[number]
        _follow_borders(np.full((len(along), 1), plane[0, 0]), down[:1], along, self._least, borders)
        if len(down) > 1:
            _follow_borders(np.full((1, len(down) - 1), plane[0, 0]), down[1:], along[:1], self._least, borders)
        self._end(along[1:], self._least[1])

    def _end(self, runs: NDArray[np.int32], least: int) -> None:
        """End all runs."""
        lengths = runs[..., 1]
        self._borders[1, 0] += int(lengths[lengths >= least].sum())
        lengths[...] = 0

    def _compare_planes(self, area: NDArray[np.bool_], region: Region) -> None:
        """Count where planes differ from those before them; `area` has a single pixel where all are the same."""
        depth, rows, columns = region
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start) // math.prod(area.shape[1:])
        start = depth.start * self._channels
        differing = np.count_nonzero(area[1:] != area[:-1], axis=(1, 2))
        self._between[start + 1 : start + len(area)] += differing * pixels
        if self._previous is not None:
            previous = self._previous[rows, columns]
            if depth.start:
                self._between[start] += np.count_nonzero(previous != area[0])
            previous[...] = area[-1]

    def _measure_first(self, plane: NDArray[np.uint8], region: Region, constant: bool) -> None:
        _, rows, columns = region
        if constant:
            plane = np.broadcast_to(plane, (rows.stop - rows.start, 1))
        pixels = columns.stop - columns.start if constant else 1
        self._missing += int(np.count_nonzero(plane)) * pixels
        acquired = ~plane.all(1)
        first, last = self._first[rows], self._last[rows]
        left = columns.start + plane.argmin(1)
        right = columns.stop - 1 - plane[:, ::-1].argmin(1)
        first[acquired] = np.minimum(first, left)[acquired]
        last[acquired] = np.maximum(last, right)[acquired]

    def _has_straight_borders(self) -> bool:
        """Whether most of the borders runs straight along rows, columns or planes."""
        straight, total = (int(each) for each in self._borders.sum(0))
        between = self._between
        straight += int(between[between >= self._rows * self._columns].sum())
        total += int(between.sum())
        return total > 0 and straight >= _STRAIGHT * total

    def _surrounds_rotated_field(self) -> bool:
        """Whether the complement is, in each plane, one polygon of few long sides, as in registered images."""
        shape = self._shape[1:]
        size = math.prod(shape)
        if self._between.any() or self._missing == size:
            return False
        if self._borders[0, 1] > 2 * sum(shape):  # more than anything convex has, as in most dark backgrounds
            return False
        from scipy.spatial import ConvexHull, QhullError  # slow to import, and rarely needed
        from skimage.measure import approximate_polygon

        rows = np.flatnonzero(self._last >= 0)
        sides = self._first[rows], self._last[rows] + 1
        ends = np.concatenate([np.stack([rows + up, side], 1) for up in (0, 1) for side in sides])
        try:
            hull = ConvexHull(ends)
        except QhullError:  # a line
            return False
        corners = hull.points[hull.vertices]
        number = len(approximate_polygon(np.concatenate([corners, corners[:1]]), _TOLERANCE)) - 1
        outside = size - hull.volume
        filled = self._missing - outside <= sum(shape)  # but for pixels that a side of the polygon goes through
        is_large = hull.volume >= _LARGE * size
        return bool(number <= _MAX_SIDES and is_large and filled and outside >= _OUTSIDE * self._missing)


@compiled
def _follow_borders(
    area: NDArray[np.uint8],
    down: NDArray[np.int32],
    along: NDArray[np.int32],
    least: tuple[int, int],
    borders: NDArray[np.int64],
) -> None:
    """Follow the borders of an area through a part of a plane, and count those in unbroken runs of a length.

    Noise that is clipped at 0, and cells that stand close, have as much border in a column, but in short pieces.
    `down` and `along` have, for each column and row, whether the last pixel was missing and the run that ends there.
    """
    straight = total = 0
    for y in range(area.shape[0]):
        before, run = along[y]
        for x in range(area.shape[1]):
            missing = area[y, x]
            if missing != down[x, 0]:
                run += 1
                total += 1
                down[x, 0] = missing
            elif run:
                if run >= least[1]:
                    straight += run
                run = 0
            if missing != before:
                down[x, 1] += 1
                total += 1
                before = missing
            elif down[x, 1]:
                if down[x, 1] >= least[0]:
                    straight += down[x, 1]
                down[x, 1] = 0
        along[y, 0], along[y, 1] = before, run
    borders[0] += straight
    borders[1] += total


def fill_with_mirror_image(area: NDArray[np.bool_], values: NDArray[np.float32], core: Region | None = None) -> None:
    """Fill an area of ``([c,] [z,] y, x)``, in place, with the mirror image of its surroundings, and 0 far from these.

    A constant would be an edge at the border of a tile, and what it surrounds would look like an object. Farther than
    `MIRROR_REACH` from an acquired pixel none is near enough to see it.

    Parameters
    ----------
    core
        Region ``(y, x)`` that is filled, if not all: it depends on twice `MIRROR_REACH` around it.
    """
    planes = values.reshape(-1, *values.shape[-2:])
    core = core or (slice(0, planes.shape[1]), slice(0, planes.shape[2]))
    for plane, missing in zip(planes, area.reshape(planes.shape), strict=True):
        if missing[core].any():
            _fill_plane(plane, missing, core)


def _fill_plane(plane: NDArray[np.float32], missing: NDArray[np.bool_], core: Region) -> None:
    from scipy.ndimage import distance_transform_edt  # slow to import, and rarely needed

    # Around all that was acquired and all that is filled there is nothing to find
    shown = [np.flatnonzero(~missing.all(axis)) for axis in (1, 0)]
    if not shown[0].size:
        plane[core] = 0
        return
    inner = tuple(
        slice(min(int(at[0]), part.start), max(int(at[-1]) + 1, part.stop))
        for at, part in zip(shown, core, strict=True)
    )
    nearest = distance_transform_edt(missing[inner], return_distances=False, return_indices=True)
    ends = [(part.start - at.start, part.stop - at.start) for part, at in zip(core, inner, strict=True)]
    _write_mirror_image(plane[inner], missing[inner], nearest, (ends[0], ends[1]))


@compiled
def _write_mirror_image(
    plane: NDArray[np.float32],
    missing: NDArray[np.bool_],
    nearest: NDArray[np.int32],
    core: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    """Fill missing pixels of a region by their `nearest` ones (2, y, x); NumPy takes several times as long."""
    height, width = plane.shape
    for y in range(core[0][0], core[0][1]):
        for x in range(core[1][0], core[1][1]):
            if not missing[y, x]:
                continue
            row, column = nearest[0, y, x], nearest[1, y, x]
            if (row - y) ** 2 + (column - x) ** 2 > MIRROR_REACH**2:
                plane[y, x] = 0
                continue
            mirrored_y, mirrored_x = 2 * row - y, 2 * column - x
            is_inside = 0 <= mirrored_y < height and 0 <= mirrored_x < width
            if is_inside and not missing[mirrored_y, mirrored_x]:
                row, column = mirrored_y, mirrored_x
            plane[y, x] = plane[row, column]
