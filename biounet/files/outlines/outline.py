"""An object as its outline, as all formats of outlines are read and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""Corners (n, 2) of a closed line, ``(y, x)``; the first is not repeated at the end."""

UNLABELLED_CLASS = "unlabelled"
"""Class of regions in which nobody said what is there."""

WINDOW_CLASS = "looked at"
"""Class or name of regions in which everything was looked at."""

QUPATH_WINDOW, QUPATH_UNLABELLED = "region*", "ignore*"
"""QuPath's own classes for these two, in lower case."""


class Plane(NamedTuple):
    """The plane of a stack that an outline lies in, counted from 0; None: in all of them, or not stated."""

    z: int | None = None
    t: int | None = None
    c: int | None = None


@dataclass(frozen=True, eq=False)
class Outline:
    """An object, or a part of it that lies in one plane, as closed lines.

    Coordinates count the corners of pixels: the image covers 0 to height and 0 to width, and pixel (0, 0) covers [0, 1]
    in both. A pixel belongs to the object if its centre lies within an odd number of rings.

    Attributes
    ----------
    rings
        Closed lines: what is around the object and around its holes, in any order and direction. None for what is in
        the file as a point or an open line, and is no area.
    class_name
        What the object is, as the file says; empty without.
    plane
        Where in a stack it lies; None: the file does not say.
    name
        What the object is called in the file.
    is_window
        Whether it is no object, but a region in which all objects are outlined.
    object_number
        Of its object, where the file says which outlines are slices or pieces of one object; else None, and the outline
        is an object by itself.
    """

    rings: tuple[Ring, ...]
    class_name: str = ""
    plane: Plane | None = None
    name: str = ""
    is_window: bool = False
    object_number: int | None = None
