"""Labels as OME-TIFF, which Bio-Formats opens in Fiji, QuPath, OMERO and others with pixel size and names.

The labels alone: with the image in the same file they would become a channel of it, which viewers mix with the others
and programs average in lower resolutions. Pixels are signed integers of 32 bits, since QuPath shows no unsigned ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import tifffile

from biounet.files.exports.labelled_image import LabelledImage
from biounet.files.exports.pyramid import halve_labels, pyramid, pyramid_factors

_TILE = (512, 512)
_TILED_FROM = 2048  # rows or columns, above which a viewer had better read a part
_MAX_CLASSIC = 2**31  # bytes of pixels, from which a TIFF has 64-bit offsets
_DEFLATE_LEVEL = 1  # label images shrink 50 times at any level
_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_UNITS = {"um": "µm", "mm": "mm"}


def write_ome_tiff(image: LabelledImage, path: Path) -> None:
    """Write labels as OME-TIFF of 32 bits: large ones in tiles, with levels of lower resolution of the same labels.

    Equal input gives equal bytes.
    """
    labels = np.ascontiguousarray(image.labels, np.int32)
    is_large = max(labels.shape[-2:]) > _TILED_FROM
    levels = pyramid_factors(labels.shape[-2:], (1, 1)) if is_large else [(1, 1)]
    options: dict[str, Any] = {
        "photometric": "minisblack",
        "compression": "zlib",
        "compressionargs": {"level": _DEFLATE_LEVEL},
        "tile": _TILE if is_large else None,
        "metadata": None,
        "software": False,
    }
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=labels.nbytes >= _MAX_CLASSIC) as tif:
        description = _describe(image).encode("ascii", "xmlcharrefreplace")
        for number, level in enumerate(pyramid(labels, levels, halve_labels)):
            place = {"subfiletype": 1} if number else {"subifds": len(levels) - 1, "description": description}
            tif.write(level, **place, **options)


def _describe(image: LabelledImage) -> str:
    """Return the description as OME-XML; that of tifffile has a random identifier, and no two files would be equal."""
    grid, shape = image.grid, image.labels.shape
    axes = ("T" if image.times else "") + "ZYX"[-grid.dims :]
    sizes = dict.fromkeys("XYZCT", 1) | dict(zip(axes, shape, strict=True))
    pixels: dict[str, Any] = {"ID": "Pixels:0", "DimensionOrder": "XYZCT", "Type": "int32", "BigEndian": "false"}
    pixels |= {f"Size{letter}": size for letter, size in sizes.items()}
    if grid.spacing is not None and grid.unit is not None:
        for letter, size in zip(axes[-grid.dims :], grid.spacing, strict=True):
            pixels |= {f"PhysicalSize{letter}": float(size), f"PhysicalSize{letter}Unit": _UNITS[grid.unit]}
    if image.interval is not None:
        pixels |= {"TimeIncrement": float(image.interval), "TimeIncrementUnit": "s"}
    planes = sizes["Z"] * sizes["T"]
    channel = _tag("Channel", {"ID": "Channel:0:0", "Name": image.element, "SamplesPerPixel": 1})
    stored = _tag("Pixels", pixels, channel + _tag("TiffData", {"IFD": 0, "PlaneCount": planes}))
    reference = _tag("AnnotationRef", {"ID": "Annotation:0"}) if image.class_names else ""
    content = _tag("Image", {"ID": "Image:0", "Name": image.title}, stored + reference) + _class_map(image.class_names)
    return f'<?xml version="1.0" encoding="UTF-8"?>{_tag("OME", {"xmlns": _NAMESPACE}, content)}'


def _class_map(names: Mapping[int, str]) -> str:
    """Return the names of classes by their values, as a map annotation."""
    if not names:
        return ""
    entries = "".join(_tag("M", {"K": value}, escape(name)) for value, name in names.items())
    return _tag("StructuredAnnotations", {}, _tag("MapAnnotation", {"ID": "Annotation:0"}, _tag("Value", {}, entries)))


def _tag(name: str, attributes: Mapping[str, Any], content: str = "") -> str:
    shown = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items())
    return f"<{name}{shown}>{content}</{name}>" if content else f"<{name}{shown}/>"
