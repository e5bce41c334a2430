"""TIFF as microscopes and Fiji write it: plain, ImageJ, OME, BigTIFF, tiled, pyramidal, compressed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.errors import InputError
from biounet.files.raw import RawImage, micrometres, own_errors, refuse_size

_PRINTER_DPI = {72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 220, 240, 300, 360, 400, 600, 720, 1200, 2400}
_LARGEST_UM = 1000.0  # no microscope has larger pixels
_NO_PIXEL_SIZE = "pixel size unknown"


@own_errors
def read_tiff(path: Path) -> RawImage:
    """Read what a TIFF says about its image; the array is read by ``load``.

    Raises
    ------
    InputError
        If the file is no TIFF, is truncated, or holds several images.
    """
    with _strict(path), tifffile.TiffFile(path, _multifile=False) as tif:
        level = _only_series(tif, path).levels[0]
        _check_complete(tif, level, path)
        refuse_size(level.shape, np.dtype(level.dtype), path)
        spacing, channels = _calibration(tif)
        colours = _palette(level)
        axes, shape = level.axes, tuple(level.shape)
        notes = () if {"X", "Y"} <= spacing.keys() else (_NO_PIXEL_SIZE,)
    dtype = np.dtype(level.dtype)
    if colours is not None:
        axes, shape, dtype = axes + "S", (*shape, 3), np.dtype(np.uint8)
    return RawImage(axes, shape, dtype, lambda: load_tiff(path, colours), spacing, channels, notes)


@own_errors
def load_tiff(path: Path, colours: NDArray[np.uint8] | None = None) -> NDArray[Any]:
    """Read the array, in native byte order.

    Parameters
    ----------
    colours
        Palette ``(n, 3)`` to look values up in.
    """
    with _strict(path), tifffile.TiffFile(path, _multifile=False) as tif:
        level = _only_series(tif, path).levels[0]
        array = np.asarray(level.asarray(maxworkers=1))
        if array.shape != tuple(level.shape):
            raise InputError(f"truncated: {level.shape} declared, {array.shape} readable", path=path)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array if colours is None else colours[array]


@contextmanager
def _strict(path: Path) -> Iterator[None]:
    """Turn what tifffile only logs about damage and missing planes into an error."""
    watch = _Watch()
    logger = logging.getLogger("tifffile")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(watch)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(watch)
        logger.setLevel(level)
        logger.propagate = propagate
    if watch.problems:
        raise InputError(f"damaged: {watch.problems[0]}", path=path)


class _Watch(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.problems: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR or "missing" in text.lower():
            self.problems.append(text.splitlines()[0].removeprefix("<tifffile.").strip())


def _only_series(tif: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    series = [s for s in tif.series if s.kind != "thumbnail" and s.name.lower() not in ("label", "macro", "thumbnail")]
    if not series:
        raise InputError("a TIFF without an image", path=path)
    if len(series) > 1:
        shapes = ", ".join(" x ".join(map(str, s.shape)) for s in series[:4])
        raise InputError(f"holds {len(series)} images ({shapes})", path=path, hint="save each as a file of its own")
    return series[0]


def _check_complete(tif: tifffile.TiffFile, level: tifffile.TiffPageSeries, path: Path) -> None:
    size = tif.filehandle.size
    if level.dataoffset is not None:
        needed = level.dataoffset + int(np.prod(level.shape, dtype=object)) * np.dtype(level.dtype).itemsize
        if needed > size:
            raise InputError(f"truncated: needs {needed} bytes, has {size}", path=path)
    for number, page in enumerate(level.pages):
        if page is None:
            raise InputError(f"plane {number} of {len(level.pages)} is missing", path=path)
        ends = [o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or min(page.databytecounts, default=0) == 0 and level.dataoffset is None:
            raise InputError(f"plane {number} of {len(level.pages)} has no pixels", path=path)
        if level.dataoffset is None and max(ends) > size:
            raise InputError(f"truncated: plane {number} needs {max(ends)} bytes, the file has {size}", path=path)


def _palette(level: tifffile.TiffPageSeries) -> NDArray[np.uint8] | None:
    page = level.keyframe
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colours = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    grey = (colours == colours[:, :1]).all()
    return None if grey else np.ascontiguousarray(colours)


def _calibration(tif: tifffile.TiffFile) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return pixel sizes in µm by axis, and names of channels, from the most explicit source that the file has."""
    if tif.is_ome and tif.ome_metadata:
        return _from_ome(tif.ome_metadata)
    if tif.is_imagej and tif.imagej_metadata is not None:
        return _from_imagej(tif), ()
    return _from_resolution(tif), ()


def _from_ome(xml: str) -> tuple[dict[str, float], tuple[str, ...]]:
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - expat refuses entity bombs and outside entities
    except ElementTree.ParseError:
        return {}, ()
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return {}, ()
    spacing = {}
    for axis in "XYZ":
        unit = micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        _keep(spacing, axis, pixels.get(f"PhysicalSize{axis}"), unit)
    channels = [e for e in pixels if e.tag.rpartition("}")[2] == "Channel"]
    return spacing, tuple(e.get("Name") or f"channel_{n}" for n, e in enumerate(channels))


def _from_imagej(tif: tifffile.TiffFile) -> dict[str, float]:
    metadata: dict[str, Any] = tif.imagej_metadata or {}
    spacing: dict[str, float] = {}
    unit = micrometres(str(metadata.get("unit") or "pixel"))
    if unit is None:
        return spacing
    _keep(spacing, "Z", metadata.get("spacing"), unit)
    for axis, tag in (("X", "XResolution"), ("Y", "YResolution")):
        _keep(spacing, axis, _per_pixel(tif, tag), unit)
    return spacing


def _from_resolution(tif: tifffile.TiffFile) -> dict[str, float]:
    tags = tif.pages.first.tags
    unit = {2: 25400.0, 3: 1e4}.get(int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2)
    spacing: dict[str, float] = {}
    for axis, tag in (("X", "XResolution"), ("Y", "YResolution")):
        size = _per_pixel(tif, tag)
        if unit is None or size is None or round(25400 / (size * unit)) in _PRINTER_DPI or size * unit > 20:
            return {}  # the resolution of a printer or a screen, not of a microscope
        _keep(spacing, axis, size, unit)
    return spacing


def _per_pixel(tif: tifffile.TiffFile, name: str) -> float | None:
    """Return the length of a pixel in the file's unit, from a resolution tag in pixels per unit."""
    tag = tif.pages.first.tags.get(name)
    if tag is None:
        return None
    pixels, units = (tag.value, 1) if np.isscalar(tag.value) else tag.value
    return units / pixels if pixels else None


def _keep(spacing: dict[str, float], axis: str, value: Any, unit: float | None) -> None:  # noqa: ANN401
    try:
        size = float(value) * (unit or math.nan)
    except (TypeError, ValueError):
        return
    if math.isfinite(size) and 0 < size <= _LARGEST_UM:
        spacing[axis] = size
