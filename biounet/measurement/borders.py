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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Figure, Grid, Note, NoteCode, bounding_box

_VOLUME = 3  # axes
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


@dataclass(frozen=True)
class AcquiredPart:
    """The rectangle or brick of an image that was acquired, by its first voxel and its shape ``([z,] y, x)``."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, grid: Grid) -> AcquiredPart:
        """Return all of an image."""
        return cls((0,) * grid.dims, grid.shape)

    def boxes(self, boxes: Boxes) -> Boxes:
        """Return boxes of the image as boxes of the part."""
        return Boxes(boxes.low - np.array(self.start), boxes.high - np.array(self.start))


@dataclass(frozen=True)
class AcquiredExtent:
    """Where acquired voxels lie, from regions of an image in any order.

    Attributes
    ----------
    low, high
        Lowest and highest index along each axis; empty without any voxel.
    voxels
        Their number.
    """

    low: tuple[int, ...] = ()
    high: tuple[int, ...] = ()
    voxels: int = 0

    @classmethod
    def of(cls, acquired: NDArray[np.bool_], start: Sequence[int]) -> AcquiredExtent:
        """Return the extent in a region of an image that begins at `start`."""
        box = bounding_box(acquired)
        if box is None:
            return cls()
        low = tuple(int(first + part.start) for first, part in zip(start, box, strict=True))
        high = tuple(int(first + part.stop) - 1 for first, part in zip(start, box, strict=True))
        return cls(low, high, int(np.count_nonzero(acquired)))

    def __add__(self, other: AcquiredExtent) -> AcquiredExtent:
        """Return the extent in both regions, which do not overlap."""
        if not (self.low and other.low):
            return self if self.low else other
        low = tuple(map(min, self.low, other.low))
        return AcquiredExtent(low, tuple(map(max, self.high, other.high)), self.voxels + other.voxels)

    @property
    def part(self) -> AcquiredPart | None:
        """The acquired part of the image; None if it is no rectangle or brick, or empty."""
        shape = tuple(high - low + 1 for low, high in zip(self.low, self.high, strict=True))
        return AcquiredPart(self.low, shape) if self.low and math.prod(shape) == self.voxels else None


def acquired_part(grid: Grid, acquired: NDArray[np.bool_] | None) -> AcquiredPart | None:
    """Return the acquired part of an image; None if it is no rectangle.

    Parameters
    ----------
    acquired
        ``([z,] y, x)``, such as the tiles of a mosaic; None: all of the image.
    """
    return AcquiredPart.whole(grid) if acquired is None else AcquiredExtent.of(acquired, (0,) * grid.dims).part


def weights_in_part(boxes: Boxes, part: AcquiredPart | None) -> NDArray[np.float64]:
    """Return the `border_weights` in the acquired part of an image; NaN where it is no rectangle."""
    return np.full(len(boxes.low), np.nan) if part is None else border_weights(part.boxes(boxes), part.shape)


@dataclass(frozen=True)
class FrameCounts:
    """What the counting frame counts among objects, or those of a part of an image.

    Attributes
    ----------
    shape
        Of the acquired part of the image, or else of all of it, ``([z,] y, x)``.
    is_rectangle
        Whether the acquired part is one; else nothing can be counted.
    in_frame
        Objects in the frame, or of a volume in the brick.
    in_area
        Those of a volume in the frame of its planes; of an image the same as `in_frame`.
    through
        Objects that reach through all planes of a volume.
    """

    shape: tuple[int, ...]
    is_rectangle: bool = True
    in_frame: int = 0
    in_area: int = 0
    through: int = 0

    @classmethod
    def of(cls, boxes: Boxes, grid: Grid, part: AcquiredPart | None) -> FrameCounts:
        """Count the objects with these boxes in the acquired part of a grid; None where it is no rectangle."""
        found = part or AcquiredPart.whole(grid)
        boxes, shape = found.boxes(boxes), found.shape
        in_frame = in_counting_frame(boxes.high, shape)
        in_area = in_counting_frame(boxes.high[:, -2:], shape[-2:])
        through = (boxes.low[:, 0] <= 0) & (boxes.high[:, 0] >= shape[0] - 1) & (len(shape) == _VOLUME)
        return cls(shape, part is not None, int(in_frame.sum()), int(in_area.sum()), int(through.sum()))

    def __add__(self, other: FrameCounts) -> FrameCounts:
        """Return the counts of the objects of both."""
        in_area, through = self.in_area + other.in_area, self.through + other.through
        return FrameCounts(self.shape, self.is_rectangle, self.in_frame + other.in_frame, in_area, through)

    @property
    def is_thin(self) -> bool:
        """Whether a stack has one plane, or an object that reaches through all planes: no brick can count those."""
        return len(self.shape) == _VOLUME and (self.shape[0] == 1 or self.through > 0)

    def encode(self) -> list[Any]:
        """Return the counts as JSON."""
        return [list(self.shape), self.is_rectangle, self.in_frame, self.in_area, self.through]

    @classmethod
    def decode(cls, raw: list[Any]) -> FrameCounts:
        """Return the counts of `encode`."""
        shape, *counts = raw
        return cls(tuple(shape), *counts)


def frame_notes(counts: FrameCounts) -> list[Note]:
    """Return what to know about `frame_figures`."""
    if not counts.is_rectangle:
        what = "parts of the image were not acquired, and the rest is no rectangle: no counting frame, and no density"
        return [Note(what, NoteCode.COUNTING_FRAME)]
    if counts.is_thin:
        return [Note("objects reach through all planes: density is per area", NoteCode.COUNTING_FRAME)]
    return []


def frame_figures(counts: FrameCounts, grid: Grid, *, complete: bool = True) -> dict[str, Figure]:
    """Return what the counting frame of an image, or the brick of a volume, counts.

    Parameters
    ----------
    counts
        Of all objects of the image.
    complete
        Whether objects at the border are among them; else the frame counts nothing.

    Returns
    -------
    ``count_in_frame`` and, on a calibrated grid, ``area_mm2`` of the frame and ``density_per_mm2``; of a volume
    ``volume_mm3`` and ``density_per_mm3``, unless an object reaches through all its planes: those of a thin stack are
    counted per area. None where the acquired part is no rectangle, or objects at the border are missing.
    """
    first = 1 if counts.is_thin else 0
    figures: dict[str, Figure] = {"count_in_frame": None}
    dims = grid.dims - first
    size, density = f"{'area' if dims == 2 else 'volume'}_mm{dims}", f"density_per_mm{dims}"
    if grid.steps_um is not None:
        figures |= {size: None, density: None}
    if not (complete and counts.is_rectangle):
        return figures
    count = counts.in_area if counts.is_thin else counts.in_frame
    figures["count_in_frame"] = count
    if grid.steps_um is not None:
        extent = frame_size(counts.shape[first:], [step / 1e3 for step in grid.steps_um[first:]])
        figures |= {size: _round(extent, _SIZE_DIGITS), density: _round(count / extent) if extent else None}
    return figures


def _round(value: float, digits: int = _DIGITS) -> float:
    return float(f"{value:.{digits}g}")
