"""Curves as rings of straight lines."""

from __future__ import annotations

from itertools import pairwise
from math import asin, ceil, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from biounet.files.outlines.outline import Ring

_SAGITTA = 1e-3  # px: how far a straight line may lie beside its curve
_MAX_POINTS = 20_000
_BEZIER_POINTS = 32  # of each curve of a path


def ellipse(
    centre: tuple[float, float], first: tuple[float, float], second: tuple[float, float], count: int = 0
) -> Ring:
    """Return the ring of an ellipse from its centre and its half axes, all ``(y, x)``.

    It has `count` corners, or without that number so many that it lies within a thousandth of a pixel of the ellipse.
    """
    longest = max(np.hypot(*first), np.hypot(*second), 1.0)
    half_angle = 2 * asin(sqrt(_SAGITTA / longest / 2))  # acos(1 - sagitta / radius), which is 0 of large ones
    count = count or ceil(pi / max(half_angle, pi / _MAX_POINTS))
    angles = np.linspace(0, 2 * pi, count, endpoint=False)
    return np.asarray(centre + np.outer(np.cos(angles), first) + np.outer(np.sin(angles), second))


def rectangle(box: tuple[float, float, float, float], corner_diameter: float = 0) -> Ring:
    """Return the ring of a rectangle ``(top, left, bottom, right)``, whose corners may be rounded."""
    top, left, bottom, right = box
    ry, rx = (min(corner_diameter, side) / 2 for side in (bottom - top, right - left))
    if ry <= 0 or rx <= 0:
        return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], np.float64)
    round_ = ellipse((0.0, 0.0), (ry, 0.0), (0.0, rx))
    y = np.where(round_[:, 0] > 0, bottom - ry, top + ry)
    x = np.where(round_[:, 1] > 0, right - rx, left + rx)
    return np.asarray(round_ + np.stack([y, x], axis=1))


def spline(points: Ring) -> Ring:
    """Return the closed cubic spline through points as ImageJ fits it: along the square root of their distances.

    Like there, it has a corner for every 2 px between the points, and at least 100.
    """
    from scipy.interpolate import CubicSpline  # slow to import

    closed = np.concatenate([points, points[:1]])
    steps = np.maximum(np.sqrt(np.hypot(*np.diff(closed, axis=0).T)), 1e-3)
    position = np.concatenate([[0], np.cumsum(steps)])
    length = np.hypot(*np.diff(closed, axis=0).T).sum()
    at = np.linspace(0, position[-1], int(np.clip(length / 2, 100, _MAX_POINTS)))
    return np.asarray(CubicSpline(position, closed, bc_type="periodic")(at))


def bezier(controls: NDArray[np.float64]) -> Ring:
    """Return points along a Bezier curve of 3 or 4 control points (n, 2), without the first one."""
    t = np.linspace(0, 1, _BEZIER_POINTS + 1)[1:, None]
    points = [np.broadcast_to(one, (len(t), 2)) for one in controls]
    while len(points) > 1:
        points = [a * (1 - t) + b * t for a, b in pairwise(points)]
    return np.asarray(points[0])
