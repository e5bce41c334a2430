"""Panels of a picture in rows of equal width: each row is scaled until it fills the picture, and each panel named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.reporting.overlays import Canvas

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_GAP = 4  # pixels between panels
_MAX_STRETCH = 3.0  # of a row, relative to the first one: a strip of few pixels is not blown up
_FONT_SIZE = 13
_NICE_LENGTHS = (1, 2, 5)


class Panel(NamedTuple):
    """A canvas and the size at which it is shown.

    Attributes
    ----------
    size
        Height and width in pixels of the picture at a zoom of 1.
    pixel, unit
        Length of a pixel at a zoom of 1; `unit` is None where it is unknown.
    """

    canvas: Canvas
    name: str
    size: tuple[float, float]
    pixel: float
    unit: str | None


class _Placed(NamedTuple):
    panel: Panel
    top: int
    left: int
    height: int
    width: int
    zoom: float


def arrange(
    rows: Sequence[Sequence[Panel]], zoom: float, sides: tuple[int, int], bright: bool, *, names: bool = True
) -> Canvas:
    """Return one canvas of rows of panels, all as wide as the first row is at `zoom`, in which panels are equally high.

    It is at least as wide as the first of `sides`, unless a side would be longer than the second one. With `names`,
    panels are named, and the first of each row has a bar of scale where the size of its voxels is known.
    """
    min_width, max_side = sides
    width = min(max(_natural_width(rows[0], zoom), min_width), max_side)
    placed = _place(rows, round(width))
    height = placed[-1].top + placed[-1].height
    if height > max_side:
        placed = _place(rows, int(width * max_side / height))
        height = placed[-1].top + placed[-1].height
    right = max(place.left + place.width for place in placed)
    picture = np.zeros((min(height, max_side), right, 3), np.uint8)
    labels = np.zeros(picture.shape[:2], np.int32)
    for place in placed:
        _paste(picture, labels, place)
    if names:
        picture = _write_names(picture, placed)
    return Canvas(picture, labels, bright)


def _natural_width(row: Sequence[Panel], zoom: float) -> float:
    """Return the width of a row of which the highest panel has its own size at `zoom`, and the others are as high."""
    height = zoom * max(panel.size[0] for panel in row)
    return sum(panel.size[1] * height / panel.size[0] for panel in row) + _GAP * (len(row) - 1)


def _place(rows: Sequence[Sequence[Panel]], width: int) -> list[_Placed]:
    placed: list[_Placed] = []
    top, first_zoom = 0, 0.0
    for row in rows:
        aspect = sum(panel.size[1] / panel.size[0] for panel in row)
        height = max(1.0, (width - _GAP * (len(row) - 1)) / aspect)
        zoom = height / max(panel.size[0] for panel in row)
        first_zoom = first_zoom or zoom
        if zoom > _MAX_STRETCH * first_zoom:
            height *= _MAX_STRETCH * first_zoom / zoom
        left = 0.0
        for panel in row:
            breadth = height * panel.size[1] / panel.size[0]
            begin, end = round(left), max(round(left) + 1, round(left + breadth))
            rounded = max(1, round(height))
            placed.append(_Placed(panel, top, begin, rounded, end - begin, height / panel.size[0]))
            left += breadth + _GAP
        top += max(1, round(height)) + _GAP
    return placed


def _paste(picture: NDArray[np.uint8], labels: NDArray[np.int32], place: _Placed) -> None:
    """Copy the nearest pixels of a panel to its place."""
    canvas = place.panel.canvas
    sizes = zip((place.height, place.width), canvas.labels.shape, strict=True)
    rows, columns = (((np.arange(to) + 0.5) * n / to).astype(np.intp) for to, n in sizes)
    there = (slice(place.top, place.top + place.height), slice(place.left, place.left + place.width))
    picture[there] = canvas.picture[rows[:, None], columns][: picture.shape[0] - place.top]
    labels[there] = canvas.labels[rows[:, None], columns][: picture.shape[0] - place.top]


def _write_names(picture: NDArray[np.uint8], placed: Sequence[_Placed]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw  # slow to import

    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), _font()
    for place in placed:
        name = place.panel.name
        while name and draw.textlength(name, font) > place.width - 10:
            name = name.rpartition(" ")[0]
        _write(draw, (place.left + 5, place.top + 3), name, font)
        if place.left == 0 and place.panel.unit is not None:
            length, pixels = nice_length(place.panel.pixel / place.zoom, place.width / 3)
            y = place.top + place.height - 9
            draw.rectangle((place.left + 7, y - 1, place.left + 9 + pixels, y + 4), fill="black")
            draw.rectangle((place.left + 8, y, place.left + 8 + pixels, y + 3), fill="white")
            text = f"{length:g} {'µm' if place.panel.unit == 'um' else place.panel.unit}"
            _write(draw, (place.left + 8, y - 20), text, font)
    return np.asarray(image)


@cache
def _font() -> FreeTypeFont:
    """Return the font of matplotlib, without importing it: that of Pillow has no µ."""
    from PIL import ImageFont  # slow to import

    spec = find_spec("matplotlib")
    folder = Path(str(spec and spec.origin)).parent
    return ImageFont.truetype(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", _FONT_SIZE)


def _write(draw, place, text, font) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - of Pillow
    draw.text(place, text, fill="white", font=font, stroke_width=2, stroke_fill="black")


def nice_length(pixel: float, most: float) -> tuple[float, int]:
    """Return the longest length of 1, 2 or 5 times a power of ten within `most` pixels, and its pixels."""
    whole = pixel * most
    power = 10.0 ** math.floor(math.log10(whole))
    length = max(factor * power for factor in _NICE_LENGTHS if factor * power <= whole * (1 + 1e-9))
    return length, round(length / pixel)
