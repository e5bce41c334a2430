"""What OME-Zarr 0.5 says of an image or label image: its axes, where its pixels lie, and its levels.

The words are those of https://ngff.openmicroscopy.org/0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biounet.core import Grid
from biounet.files.exports.colours import object_colours

VERSION = "0.5"
UNITS = {"um": "micrometer", "mm": "millimeter"}
CHUNKS = {2: (1024, 1024), 3: (64, 128, 128)}
"""Pixels that are stored together along each spatial axis: 2 MB of 16 bits."""

ZSTD_LEVEL = 3
MOST_DESCRIBED = 1000  # objects, whose colours and columns are read with the metadata, before any pixel
_DIRECTIONS = {
    "L": "right-to-left",
    "R": "left-to-right",
    "P": "anterior-to-posterior",
    "A": "posterior-to-anterior",
    "I": "superior-to-inferior",
    "S": "inferior-to-superior",
}
_FORWARD = {"R": 0, "A": 1, "S": 2}  # axes of the world in RAS
Level = tuple[int, ...]


@dataclass(frozen=True)
class OmeImage:
    """An image or label image, as its metadata describe it.

    Attributes
    ----------
    title
        What it is called.
    grid
        Of the spatial axes.
    channels
        Whether it has an axis of channels.
    times, interval
        Numbers of the frames of a time series, and the seconds between two of its file.
    """

    title: str
    grid: Grid
    channels: bool = False
    times: tuple[int, ...] = ()
    interval: float | None = None

    @property
    def axes(self) -> list[str]:
        """Names of the axes, in the order in which they are stored."""
        return [*(["t"] if self.times else []), *(["c"] if self.channels else []), *"zyx"[-self.grid.dims :]]


def multiscales(image: OmeImage, levels: Sequence[Level], method: str) -> list[dict[str, Any]]:
    """Return the entry of this name; `method` is how levels are made, ``mean`` or ``mode``."""
    datasets = [
        {"path": str(number), "coordinateTransformations": _transformations(image, level)}
        for number, level in enumerate(levels)
    ]
    described = [_describe_axis(name, image) for name in image.axes]
    return [{"name": image.title, "axes": described, "datasets": datasets, "type": method}]


def label_colours(values: Sequence[int]) -> list[dict[str, Any]]:
    """Return the colour of each label as an entry of ``image-label``."""
    colours = object_colours(np.asarray(values, np.int64)).tolist()
    return [{"label-value": value, "rgba": [*rgb, 255]} for value, rgb in zip(values, colours, strict=True)]


def _describe_axis(name: str, image: OmeImage) -> dict[str, Any]:
    grid = image.grid
    if name == "c":
        return {"name": name, "type": "channel"}
    if name == "t":
        return {"name": name, "type": "time"} | ({} if image.interval is None else {"unit": "second"})
    axis: dict[str, Any] = {"name": name, "type": "space"}
    if grid.unit is not None:
        axis["unit"] = UNITS[grid.unit]
    if grid.affine is not None and grid.axcodes is not None:  # as version 0.6 will have it; 0.5 allows further entries
        axis["orientation"] = {"type": "anatomical", "value": _DIRECTIONS[grid.axcodes["xyz".index(name)]]}
    return axis


def _transformations(image: OmeImage, level: Level) -> list[dict[str, Any]]:
    """Return where the centres of the pixels of a level lie: that of a block of two is half a step further."""
    dims, grid, axes = image.grid.dims, image.grid, image.axes
    step = 1.0 if image.interval is None else image.interval
    scale = {"t": step, "c": 1.0}
    shift = {"t": image.times[0] * step if image.times else 0.0, "c": 0.0}
    for name, size, factor, first in zip("zyx"[-dims:], grid.steps, level, _origin(grid), strict=True):
        scale[name], shift[name] = float(size * factor), float(first + size * (factor - 1) / 2)
    found: list[dict[str, Any]] = [{"type": "scale", "scale": [scale[name] for name in axes]}]
    if any(shift[name] for name in axes):
        found.append({"type": "translation", "translation": [shift[name] for name in axes]})
    return found


def _origin(grid: Grid) -> tuple[float, ...]:
    """Return where the first voxel lies, along the axes of the grid.

    That of a volume whose axes all lead along the axes of the world, to the right, to the front or upwards; of others a
    shift without the rotation or the reversed direction would be wrong.
    """
    if grid.affine is None:
        return (0.0,) * grid.dims
    matrix = np.array(grid.affine)
    rotation, offset = matrix[:, : grid.dims], matrix[:, 3]
    worlds = [_FORWARD.get(code) for code in grid.axcodes or ""]
    off_axis = rotation.copy()
    for axis, world in enumerate(worlds):
        if world is None:
            return (0.0,) * grid.dims
        off_axis[world, axis] = 0
    if np.abs(off_axis).max() > 1e-6 * np.abs(rotation).max():
        return (0.0,) * grid.dims
    return tuple(float(offset[world]) for world in reversed(worlds) if world is not None)
