"""Areas of an image that were never acquired, such as the black around the tiles of a mosaic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_EDGE = 8  # pixels along an edge of an image that may have such areas
_MIN_AREA = 0.002  # share of the pixels below which percentiles hardly change
_STRAIGHT = 0.75  # share of a border that runs along rows and columns
_RUN = 64  # pixels over which the border of a tile is straight, or a quarter of a smaller image; cells are round
_MAX_SIDES = 8  # of a rotated rectangle that is cropped by the borders of the image
_TOLERANCE = 1.5  # pixels by which a side may deviate from a straight line; a disc of radius 20 then needs 9 sides
_OUTSIDE, _LARGE = 0.75, 0.25  # share of the area that lies outside of the polygon, and of the image that is inside


def find_unacquired(values: NDArray[Any]) -> tuple[Any, ...]:
    """Return, as a tuple of one, the value of areas of ``([c,] [z,] y, x)`` that were never acquired; empty without.

    They have the lowest or highest value, and their borders run along rows and columns, or they are the corners around
    one rotated field with straight sides. Dark background that is clipped at 0 has a ragged border, and cells on a
    constant background have round ones.
    """
    if min(values.shape[-2:]) < _MIN_EDGE:
        return ()
    for value in (values.min(), values.max()):
        area = values == value
        if _MIN_AREA <= np.count_nonzero(area) / area.size < 1:
            planes = area.reshape(-1, *area.shape[-2:])
            if _has_straight_borders(planes) or _surrounds_rotated_field(planes):
                return (value.item(),)
    return ()


def _has_straight_borders(planes: NDArray[np.bool_]) -> bool:
    """Whether most of the border of an area ``(n, y, x)`` runs straight along rows, columns or planes."""
    height, width = planes.shape[1:]
    rows, columns = max(min(_RUN, height / 4), 2), max(min(_RUN, width / 4), 2)
    straight = total = 0
    for axis, across, run in ((1, 2, rows), (2, 1, columns)):
        border = np.diff(planes, axis=across)
        total += int(np.count_nonzero(border))
        straight += _count_in_runs(border, axis, math.ceil(run))
    between = np.diff(planes, axis=0).sum((1, 2))
    straight += int(between[between >= rows * columns].sum())
    total += int(between.sum())
    return total > 0 and straight >= _STRAIGHT * total


def _count_in_runs(border: NDArray[np.bool_], axis: int, run: int) -> int:
    """Return how many elements lie in unbroken runs of at least `run`; opening with ``scipy.ndimage`` takes 2.6 times.

    Noise that is clipped at 0, and cells that stand close, have as much border in a column, but in short pieces.
    """
    sums = np.count_nonzero(border, axis=axis)
    if border.shape[axis] < run or not (sums >= run).any():
        return 0
    lines = np.moveaxis(border, axis, -1)[sums >= run]  # the few that can have such a run
    edges = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return int(lengths[lengths >= run].sum())


def _surrounds_rotated_field(planes: NDArray[np.bool_]) -> bool:
    """Whether the complement of an area is, in each plane, one polygon of few long sides, as in registered images."""
    area = planes[0]
    if not all(np.array_equal(area, plane) for plane in planes[1:]) or area.all():
        return False
    border = sum(np.count_nonzero(np.diff(area, axis=axis)) for axis in (0, 1))
    if border > 2 * sum(area.shape):  # more than anything convex has, as in most dark backgrounds
        return False
    from scipy.spatial import ConvexHull, QhullError  # slow to import, and rarely needed
    from skimage.measure import approximate_polygon

    rows = np.flatnonzero(~area.all(1))
    left, right = (~area[rows]).argmax(1), area.shape[1] - (~area[rows, ::-1]).argmax(1)
    ends = np.concatenate([np.stack([rows + up, side], 1) for up in (0, 1) for side in (left, right)])
    try:
        hull = ConvexHull(ends)
    except QhullError:  # a line
        return False
    corners = hull.points[hull.vertices]
    sides = len(approximate_polygon(np.concatenate([corners, corners[:1]]), _TOLERANCE)) - 1
    missing, outside = np.count_nonzero(area), area.size - hull.volume
    filled = missing - outside <= sum(area.shape)  # but for pixels that a side of the polygon goes through
    return bool(sides <= _MAX_SIDES and hull.volume >= _LARGE * area.size and filled and outside >= _OUTSIDE * missing)


def fill_with_mirror_image(area: NDArray[np.bool_], values: NDArray[np.float32]) -> None:
    """Fill an area of ``([c,] [z,] y, x)``, in place, with the mirror image of its surroundings.

    A constant would be an edge at the border of a tile, and what it surrounds would look like an object.
    """
    from scipy.ndimage import distance_transform_edt  # slow to import, and rarely needed

    pairs = zip(values.reshape(-1, *values.shape[-2:]), area.reshape(-1, *area.shape[-2:]), strict=True)
    for plane, missing in pairs:
        if missing.all():
            plane[...] = 0
        elif missing.any():
            nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
            at, border = np.stack(np.nonzero(missing)), nearest[:, missing]
            source = 2 * border - at
            valid = ((source >= 0) & (source < np.array(plane.shape)[:, None])).all(0)
            valid[valid] = ~missing[tuple(source[:, valid])]
            plane[missing] = plane[tuple(np.where(valid, source, border))]
