"""Outlines from the JSON files of LabelMe."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biounet.core import InputError
from biounet.files.formats.raw import translate_errors
from biounet.files.outlines.curves import ellipse, rectangle
from biounet.files.outlines.json_stream import JsonList
from biounet.files.outlines.outline import WINDOW_CLASS, Outline, Ring
from biounet.files.outlines.trace import trace

_POLYGONS = ("polygon", "oriented_rectangle")
_NO_AREA = ("point", "points", "line", "linestrip")
_PNG_SIZE = slice(16, 24)  # where a PNG says how wide and high it is
_MARGIN = 2  # pixels, by which a mask may be larger than its box: corners that were moved are no whole numbers


@dataclass
class _Reading:
    """One file being read."""

    path: Path
    number: int = 0  # of the present shape, from 1

    def rings(self, shape: dict[str, Any]) -> tuple[Ring, ...]:
        """Return the outline of a shape; nothing for what encloses no area."""
        kind = shape.get("shape_type") or "polygon"  # the first versions had only those
        points = self._points(shape)
        if kind == "mask":
            return self._mask(shape, points)
        if kind in _NO_AREA:
            return ()
        if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):
            return (points,)
        if kind == "rectangle" and len(points) == 2:
            (top, left), (bottom, right) = points.tolist()
            return (rectangle((top, left, bottom, right)),)
        if kind == "circle" and len(points) == 2:
            (y, x), radius = points[0].tolist(), float(np.hypot(*(points[1] - points[0])))
            return (ellipse((y, x), (radius, 0.0), (0.0, radius)),)
        raise self.error(f"is a {kind} of {len(points)} points")

    def _points(self, shape: dict[str, Any]) -> Ring:
        """Return the points (n, 2) of a shape as (y, x)."""
        try:
            points = np.array(shape["points"], np.float64)
            is_list = points.ndim == 2 and points.shape[1] == 2 and bool(np.isfinite(points).all())
        except (KeyError, TypeError, ValueError):
            is_list = False
        if not is_list:
            raise self.error("has no list of points with x and y")
        return np.ascontiguousarray(points[:, ::-1])

    def _mask(self, shape: dict[str, Any], points: Ring) -> tuple[Ring, ...]:
        """Return the outlines of a mask: a PNG of the box from the first point to the second."""
        from imagecodecs import PngError, png_decode  # slow to import

        try:
            data = base64.b64decode(shape["mask"], validate=True)
            width, height = struct.unpack(">2I", data[_PNG_SIZE])
            # A small file may declare any size.
            is_within = bool((np.ptp(points, axis=0) + 1 + _MARGIN >= (height, width)).all())
            mask = np.asarray(png_decode(data)) if is_within else None
        except (KeyError, TypeError, ValueError, struct.error, PngError) as error:
            raise self.error("is a mask without a PNG") from error
        if mask is None:
            raise self.error(f"is a mask of {width} x {height} pixels, which is larger than its box")
        mask = mask.reshape(*mask.shape[:2], -1)[..., 0] != 0
        traced = trace(mask.astype(np.uint8))
        return tuple(ring + np.rint(points[0]) for polygon in traced.polygons(1) for ring in polygon)

    def error(self, cause: str) -> InputError:
        """Return an error about the present shape."""
        return InputError(f"shape {self.number} {cause}", path=self.path, hint="draw it again, or remove it")


@translate_errors
def read_labelme(
    path: str | Path, shape: tuple[int, int] | None = None, window_class: str = WINDOW_CLASS
) -> list[Outline]:
    """Read outlines from LabelMe JSON: polygons, rectangles, circles and masks; their labels are the classes.

    Parameters
    ----------
    shape
        Height and width of the image; None: not compared with those in the file.
    window_class
        Label of regions in which everything was looked at; upper and lower case are the same.

    Returns
    -------
    The outlines, in the order of the file. Those of one label and ``group_id`` have the number of one object; points
    and lines have no rings.

    Raises
    ------
    InputError
        If the file is no LabelMe JSON, cut short, belongs to an image of another size, or a shape is not valid.
    """
    reading = _Reading(Path(path))
    groups: dict[tuple[str, str], int] = {}
    outlines = []
    shapes = JsonList(reading.path, "shapes")
    for one in shapes:
        reading.number += 1
        if not isinstance(one, dict):
            raise reading.error("is no shape of LabelMe")
        rings, label, group = reading.rings(one), str(one.get("label") or ""), one.get("group_id")
        number = None if group is None else groups.setdefault((label, str(group)), len(groups) + 1)
        is_window = label.casefold() == window_class.casefold() and bool(rings)
        name = "" if rings else f"{one.get('shape_type')} {label}"
        outlines.append(Outline(rings, label, None, name, is_window, None if is_window else number))
    if not shapes.has_list:
        names = ", ".join(shapes.members) or "nothing"
        raise InputError(f"is JSON, but not of LabelMe: it has {names}", path=reading.path)
    _check_size(reading.path, shapes.members, shape)
    return outlines


def _check_size(path: Path, members: dict[str, Any], shape: tuple[int, int] | None) -> None:
    height, width = members.get("imageHeight"), members.get("imageWidth")
    if shape is not None and None not in (height, width) and (str(height), str(width)) != tuple(map(str, shape)):
        cause = f"was drawn on an image of {width} x {height} pixels, and its image has {shape[1]} x {shape[0]}"
        raise InputError(cause, path=path, hint="does it belong to another image?")
