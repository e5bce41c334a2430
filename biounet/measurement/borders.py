"""Objects that the edge of an image cuts: which to count, and with what weight, so that density and size are unbiased.

An image shows a part of a specimen. Counting every object in it, those that the edge cuts included, counts too many per
area; leaving all cut ones out counts too few, and large objects fewest. Two estimators have no such bias:

- the **counting frame** (Gundersen 1977, J. Microsc. 111:219) leaves out what touches the last row or column, and
  divides by the area of the frame, ``(height - 1) (width - 1)``; in 3D the same with a brick;
- **weights** (Miles 1974; Lantuéjoul 1978) leave out what touches any edge, and count every other object as often as
  the place for an object of its size in the image is smaller than the image. Means of sizes weighted by them are
  unbiased too, since all weighted objects are whole.

Both fail where objects are larger than the image: then none of them is ever seen as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from biounet.core import Figure, Grid, Note, NoteCode, bounding_box

_DIGITS = 6  # significant ones of densities
_SIZE_DIGITS = 10  # of areas and volumes, from which others compute densities


@dataclass(frozen=True)
class Boxes:
    """Lowest and highest index of each object along each axis ``([z,] y, x)``, shape (n, dims)."""

    low: NDArray[np.integer]
    high: NDArray[np.integer]


def in_counting_frame(high: NDArray[np.integer], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return which objects the counting frame of an image, or the brick of a volume, counts.

    Parameters
    ----------
    high
        Highest index of each object along each axis, shape ``(n, dims)``.
    shape
        Of the image, ``([z,] y, x)``.
    """
    return np.asarray((np.asarray(high) < np.asarray(shape) - 1).all(axis=1))


def frame_size(shape: Sequence[int], steps: Sequence[float] | None = None) -> float:
    """Return the area of the counting frame, or the volume of the brick, by which its count is divided.

    Parameters
    ----------
    shape
        Of the image, ``([z,] y, x)``.
    steps
        Distance between pixels along each axis; None: the result is in pixels.
    """
    return math.prod((n - 1) * step for n, step in zip(shape, steps or (1.0,) * len(shape), strict=True))


def border_weights(boxes: Boxes, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return how often each object counts; 0 for one that touches an edge of the image.

    The weight is the number of pixels of the image divided by the number of places that the bounding box of the object
    has in it without touching an edge.

    Parameters
    ----------
    shape
        Of the image, ``([z,] y, x)``.
    """
    low, high, size = np.asarray(boxes.low), np.asarray(boxes.high), np.asarray(shape)
    places = size - 1 - (high - low + 1)
    touches = np.any((low <= 0) | (high >= size - 1), axis=1)
    ratios = size / np.where(touches[:, None], 1, places)
    # Axis by axis, so that a row does not depend on how many there are.
    return np.where(touches, 0.0, reduce(np.multiply, ratios.T))


def acquired_part(boxes: Boxes, grid: Grid, acquired: NDArray[np.bool_] | None) -> tuple[Boxes, tuple[int, ...]] | None:
    """Return the boxes of objects in the acquired part of an image, and its shape; None if it is no rectangle.

    Parameters
    ----------
    acquired
        ``([z,] y, x)``, such as the tiles of a mosaic; None: all of the image.
    """
    if acquired is None:
        return boxes, grid.shape
    box = bounding_box(acquired)
    if box is None or not acquired[box].all():
        return None
    start = np.array([part.start for part in box])
    return Boxes(boxes.low - start, boxes.high - start), tuple(part.stop - part.start for part in box)


def is_thin(boxes: Boxes, shape: Sequence[int]) -> bool:
    """Whether a stack has one plane, or an object that reaches through all its planes: no brick can count those."""
    return len(shape) == 3 and (
        shape[0] == 1 or bool(((boxes.low[:, 0] <= 0) & (boxes.high[:, 0] >= shape[0] - 1)).any())
    )


def frame_notes(boxes: Boxes, grid: Grid, acquired: NDArray[np.bool_] | None = None) -> list[Note]:
    """Return what to know about `frame_figures`."""
    part = acquired_part(boxes, grid, acquired)
    if part is None:
        what = "parts of the image were not acquired, and the rest is no rectangle: no counting frame, and no density"
        return [Note(what, NoteCode.COUNTING_FRAME)]
    if is_thin(*part):
        return [Note("objects reach through all planes: density is per area", NoteCode.COUNTING_FRAME)]
    return []


def frame_figures(
    boxes: Boxes, grid: Grid, acquired: NDArray[np.bool_] | None = None, *, complete: bool = True
) -> dict[str, Figure]:
    """Return what the counting frame of an image, or the brick of a volume, counts.

    Parameters
    ----------
    boxes
        Of all objects of the image.
    acquired
        As for `acquired_part`.
    complete
        Whether objects at the border are among them; else the frame counts nothing.

    Returns
    -------
    ``count_in_frame`` and, on a calibrated grid, ``area_mm2`` of the frame and ``density_per_mm2``; of a volume
    ``volume_mm3`` and ``density_per_mm3``, unless an object reaches through all its planes: those of a thin stack are
    counted per area. None where the acquired part is no rectangle, or objects at the border are missing.
    """
    part = acquired_part(boxes, grid, acquired) if complete else None
    boxes, shape = part or (boxes, grid.shape)
    first = 1 if is_thin(boxes, shape) else 0
    figures: dict[str, Figure] = {"count_in_frame": None}
    dims = grid.dims - first
    size, density = f"{'area' if dims == 2 else 'volume'}_mm{dims}", f"density_per_mm{dims}"
    if grid.steps_um is not None:
        figures |= {size: None, density: None}
    if part is None:
        return figures
    count = int(in_counting_frame(boxes.high[:, first:], shape[first:]).sum())
    figures["count_in_frame"] = count
    if grid.steps_um is not None:
        extent = frame_size(shape[first:], [step / 1e3 for step in grid.steps_um[first:]])
        figures |= {size: _round(extent, _SIZE_DIGITS), density: _round(count / extent) if extent else None}
    return figures


def _round(value: float, digits: int = _DIGITS) -> float:
    return float(f"{value:.{digits}g}")
