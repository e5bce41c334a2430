"""Label images that Fiji, napari and QuPath open with the source's pixel size, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.errors import InputError
from biounet.files.atomic import atomic_path
from biounet.volume import Grid

_FAST = 1  # of deflate: label images shrink 50 times at any level


def write_labels(path: Path, labels: NDArray[Any], grid: Grid) -> None:
    """Write a label image as TIFF, with the pixel size of its source, atomically; equal input gives equal bytes.

    Up to 65 535 objects are an ImageJ TIFF of 16 bits. More need 32 bits, which ImageJ's format does not have: these
    are OME-TIFF.

    Parameters
    ----------
    path
        The final name.
    labels
        Integers from 0, shape ``([z,] y, x)``.
    grid
        Where they are.
    """
    if labels.shape != grid.shape or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise InputError(f"not a label image on grid {grid.shape}: {labels.dtype} of shape {labels.shape}", path=path)
    axes = "ZYX"[-labels.ndim :]
    largest = int(labels.max(initial=0))
    common: dict[str, Any] = {"compression": "zlib", "compressionargs": {"level": _FAST}}
    common["photometric"] = "minisblack"
    with atomic_path(path) as part:
        if largest <= np.iinfo(np.uint16).max:
            _write_imagej(part, labels.astype(np.uint16), grid, axes, common)
        else:
            text = _ome_xml(labels.shape, grid, axes)
            big = {"description": text, "metadata": None, "bigtiff": labels.nbytes > 2**31}
            tifffile.imwrite(part, labels.astype(np.uint32), **common, **big, **_resolution(grid))


def _write_imagej(part: Path, labels: NDArray[np.uint16], grid: Grid, axes: str, common: dict[str, Any]) -> None:
    metadata: dict[str, Any] = {"axes": axes}
    resolution = None
    if grid.spacing is not None:
        metadata["unit"] = grid.unit
        resolution = (1 / grid.spacing[-1], 1 / grid.spacing[-2])
        if len(axes) == 3:
            metadata["spacing"] = grid.spacing[0]
    tifffile.imwrite(part, labels, imagej=True, resolution=resolution, metadata=metadata, **common)


def _resolution(grid: Grid) -> dict[str, Any]:
    if grid.spacing is None:
        return {}
    per_cm = 1e4 if grid.unit == "um" else 10.0
    size = (per_cm / grid.spacing[-1], per_cm / grid.spacing[-2])
    return {"resolution": size, "resolutionunit": "CENTIMETER"}


def _ome_xml(shape: tuple[int, ...], grid: Grid, axes: str) -> str:
    """Return the OME-XML of one label image; tifffile's own has a random identifier, and no two files are equal."""
    sizes = {"Z": 1, "C": 1, "T": 1, **dict(zip(axes, shape, strict=True))}
    attributes = {f"Size{letter}": str(sizes[letter]) for letter in "XYZCT"}
    if grid.spacing is not None:
        unit = "µm" if grid.unit == "um" else "mm"
        for letter, size in zip(axes, grid.spacing, strict=True):
            attributes |= {f"PhysicalSize{letter}": repr(float(size)), f"PhysicalSize{letter}Unit": unit}
    text = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0" Name="labels">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint32" {text}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    ).replace("µ", "&#181;")


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB picture, shape ``(y, x, 3)``, as PNG, atomically."""
    from imagecodecs import png_encode

    with atomic_path(path) as part:
        part.write_bytes(png_encode(np.ascontiguousarray(rgb), level=_FAST))
