"""OME-Zarr 0.5: the image with its labels below it, or labels alone where the image is not there any more.

The words are those of https://ngff.openmicroscopy.org/0.5, its files Zarr v3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.exports.ome_metadata import (
    CHUNKS,
    MOST_DESCRIBED,
    VERSION,
    ZSTD_LEVEL,
    Level,
    OmeImage,
    label_colours,
    multiscales,
)
from biounet.files.exports.pyramid import Halve, halve_image, halve_labels, pyramid, pyramid_factors

if TYPE_CHECKING:
    import zarr

_MOST_SAMPLED = 1_000_000  # pixels for the range of intensities that is shown
_SHOWN_PERCENTILES = (0.1, 99.9)
_GREY, _HUES = "FFFFFF", ("0000FF", "00FF00", "FF0000", "FF00FF", "00FFFF", "FFFF00")


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
    described = _describe(image, channels=True)
    _write_levels(root, described.axes, levels, list(channels.values()), halve_image)
    omero: dict[str, Any] = {"name": image.title, "channels": _omero_channels(channels)}
    root.attrs["ome"] = {"version": VERSION, "multiscales": multiscales(described, levels, "mean"), "omero": omero}
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": VERSION, "labels": [image.element]}
    _write_labels(labels.create_group(image.element), image, levels, {"source": {"image": "../../"}})


def _write_labels(group: zarr.Group, image: LabelledImage, levels: list[Level], source: dict[str, Any]) -> None:
    described = _describe(image, channels=False)
    _write_levels(group, described.axes, levels, [image.labels], halve_labels)
    group.attrs["ome"] = {
        "version": VERSION,
        "multiscales": multiscales(described, levels, "mode"),
        "image-label": _describe_labels(image) | source,
    }


def _describe(image: LabelledImage, *, channels: bool) -> OmeImage:
    return OmeImage(image.title, image.grid, channels, image.times, image.interval)


def _write_levels(
    group: zarr.Group, axes: list[str], levels: list[Level], channels: list[NDArray[Any]], halve: Halve
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
            chunks=(*(1 for _ in others), *map(min, size, CHUNKS[dims])),
            dtype=dtype,
            compressors=ZstdCodec(level=ZSTD_LEVEL),
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
    if not 0 < len(values) <= MOST_DESCRIBED:
        return {}
    rows = image.rows_by_label()
    return {
        "colors": label_colours(values),
        "properties": [{"label-value": value, **rows.get(value, {})} for value in values],
    }
