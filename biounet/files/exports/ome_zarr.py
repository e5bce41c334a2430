"""OME-Zarr 0.5: the image with its labels below it, or labels alone where the image is not there any more.

The words are those of https://ngff.openmicroscopy.org/0.5, its files Zarr v3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid
from biounet.files.exports.colours import object_colours
from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.exports.pyramid import Halve, halve_image, halve_labels, pyramid, pyramid_factors

if TYPE_CHECKING:
    import zarr

_VERSION = "0.5"
_UNITS = {"um": "micrometer", "mm": "millimeter"}
_CHUNKS = {2: (1024, 1024), 3: (64, 128, 128)}  # 2 MB of 16 bits
_ZSTD_LEVEL = 3
_MOST_DESCRIBED = 1000  # objects, whose colours and columns are read with the metadata, before any pixel
_MOST_SAMPLED = 1_000_000  # pixels for the range of intensities that is shown
_SHOWN_PERCENTILES = (0.1, 99.9)
_GREY, _HUES = "FFFFFF", ("0000FF", "00FF00", "FF0000", "FF00FF", "00FFFF", "FFFF00")
_DIRECTIONS = {
    "L": "right-to-left",
    "R": "left-to-right",
    "P": "anterior-to-posterior",
    "A": "posterior-to-anterior",
    "I": "superior-to-inferior",
    "S": "inferior-to-superior",
}
_FORWARD = {"R": 0, "A": 1, "S": 2}  # axes of the world in RAS
_Level = tuple[int, ...]


def write_ome_zarr(image: LabelledImage, path: Path) -> None:
    """Write a folder of the image and ``labels/<name of the element>``, or of labels alone without the image.

    Pixel sizes have their unit; an uncalibrated grid has axes without one, and distances in pixels. Equal input gives
    equal bytes.
    """
    import zarr  # slow to import
    from zarr.storage import LocalStore

    levels = pyramid_factors(image.grid.shape, image.grid.steps)
    root = zarr.create_group(LocalStore(path), zarr_format=3)
    if image.image is None:
        _write_labels(root, image, levels, {})
        return
    channels = image.channels
    _write_levels(root, _axes(image, ["c"]), levels, list(channels.values()), halve_image)
    multiscales = _multiscales(image, _axes(image, ["c"]), levels, "mean")
    omero: dict[str, Any] = {"name": image.title, "channels": _omero_channels(channels)}
    root.attrs["ome"] = {"version": _VERSION, "multiscales": multiscales, "omero": omero}
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": _VERSION, "labels": [image.element]}
    _write_labels(labels.create_group(image.element), image, levels, {"source": {"image": "../../"}})


def _write_labels(group: zarr.Group, image: LabelledImage, levels: list[_Level], source: dict[str, Any]) -> None:
    axes = _axes(image, [])
    _write_levels(group, axes, levels, [image.labels], halve_labels)
    group.attrs["ome"] = {
        "version": _VERSION,
        "multiscales": _multiscales(image, axes, levels, "mode"),
        "image-label": _describe_labels(image) | source,
    }


def _axes(image: LabelledImage, channel: list[str]) -> list[str]:
    return [*(["t"] if image.times else []), *channel, *"zyx"[-image.grid.dims :]]


def _write_levels(
    group: zarr.Group, axes: list[str], levels: list[_Level], channels: list[NDArray[Any]], halve: Halve
) -> None:
    """Write the arrays ``0``, ``1``, … of a pyramid from channels ``([t,] [z,] y, x)``, one frame after another."""
    from zarr.codecs import ZstdCodec

    dims, dtype = len(levels[0]), np.result_type(*channels)
    frames = channels[0].shape[:-dims]
    sizes = [tuple(-(-n // f) for n, f in zip(channels[0].shape[-dims:], level, strict=True)) for level in levels]
    others = [*frames, *([len(channels)] if "c" in axes else [])]
    arrays = [
        group.create_array(
            str(number),
            shape=(*others, *size),
            chunks=(*(1 for _ in others), *map(min, size, _CHUNKS[dims])),
            dtype=dtype,
            compressors=ZstdCodec(level=_ZSTD_LEVEL),
            fill_value=0,
            dimension_names=axes,
        )
        for number, size in enumerate(sizes)
    ]
    for number, channel in enumerate(channels):
        for frame in np.ndindex(frames):
            place = (*frame, number) if "c" in axes else frame
            for array, pixels in zip(arrays, pyramid(channel[frame].astype(dtype), levels, halve), strict=True):
                array[place] = pixels


def _multiscales(image: LabelledImage, axes: list[str], levels: list[_Level], method: str) -> list[dict[str, Any]]:
    datasets = [
        {"path": str(number), "coordinateTransformations": _transformations(image, axes, level)}
        for number, level in enumerate(levels)
    ]
    described = [_describe_axis(name, image) for name in axes]
    return [{"name": image.title, "axes": described, "datasets": datasets, "type": method}]


def _describe_axis(name: str, image: LabelledImage) -> dict[str, Any]:
    grid = image.grid
    if name == "c":
        return {"name": name, "type": "channel"}
    if name == "t":
        return {"name": name, "type": "time"} | ({} if image.interval is None else {"unit": "second"})
    axis: dict[str, Any] = {"name": name, "type": "space"}
    if grid.unit is not None:
        axis["unit"] = _UNITS[grid.unit]
    if grid.affine is not None and grid.axcodes is not None:  # as version 0.6 will have it; 0.5 allows further entries
        axis["orientation"] = {"type": "anatomical", "value": _DIRECTIONS[grid.axcodes["xyz".index(name)]]}
    return axis


def _transformations(image: LabelledImage, axes: list[str], level: _Level) -> list[dict[str, Any]]:
    """Return where the centres of the pixels of a level lie: that of a block of two is half a step further."""
    dims, grid = image.grid.dims, image.grid
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


def _omero_channels(channels: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    hues = (_GREY,) if len(channels) == 1 else _HUES
    return [
        {"label": name, "color": hues[number % len(hues)], "active": True, "window": _window(pixels)}
        for number, (name, pixels) in enumerate(channels.items())
    ]


def _window(pixels: NDArray[Any]) -> dict[str, float]:
    """Return the range that intensities can have, and the one that is shown."""
    flat = pixels.reshape(-1)
    start, end = np.percentile(flat[:: -(-flat.size // _MOST_SAMPLED)], _SHOWN_PERCENTILES)
    limits = np.iinfo(pixels.dtype) if pixels.dtype.kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (flat.min(), flat.max())
    return {"min": float(low), "max": float(high), "start": float(start), "end": float(max(end, start))}


def _describe_labels(image: LabelledImage) -> dict[str, Any]:
    """Return colours and columns of objects or classes, unless there are too many."""
    values = image.values.tolist()
    if not 0 < len(values) <= _MOST_DESCRIBED:
        return {}
    rows, colours = image.rows_by_label(), [[*rgb, 255] for rgb in object_colours(image.values).tolist()]
    return {
        "colors": [{"label-value": value, "rgba": rgba} for value, rgba in zip(values, colours, strict=True)],
        "properties": [{"label-value": value, **rows.get(value, {})} for value in values],
    }
