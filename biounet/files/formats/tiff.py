"""TIFF as microscopes and Fiji write it: plain, ImageJ, OME, BigTIFF, tiled, pyramidal, compressed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffFrame, TiffPage, TiffPageSeries

from biounet.core import InputError
from biounet.files.formats.ome_xml import OmeMetadata, parse_ome
from biounet.files.formats.pixel_size import read_calibration
from biounet.files.formats.raw import RawImage, translate_errors
from biounet.files.formats.tiff_integrity import check_complete, count_pages, raise_logged_errors

_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE, PHOTOMETRIC.MASK)
_COLOUR = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
# Codecs that give RGB where the file stores YCbCr
_DECODED_AS_RGB = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_YCBC)
_ALPHA = (1, 2)  # kinds of extra samples that are transparency
_WHITE_IS_ZERO = "white is zero in this file: what is bright in it looks dark in a viewer"
_TABLE_BITS = 16
_POSITION = re.compile(r"^(?:[czt]:\d+/\d+\s*)+-?\s*")  # prefix of labels: the position of a plane in its stack
_OVERVIEWS = {"label", "macro", "overview", "thumbnail", "barcode", "preview"}  # names by scanners
_FILLERS = {"image", "images", "slide", "scan", "mask", "tif", "tiff", "ome"}  # words beside one of these
_WORDS = re.compile(r"[^\W\d_]+")
_SOURCES = {"ome": "OME-XML", "imagej": "ImageJ tags", "shaped": "description"}


@translate_errors
def read_tiff(path: Path) -> RawImage:
    """Read the metadata of a TIFF; ``load`` reads the array.

    Raises
    ------
    InputError
        If the file is no TIFF, is truncated, holds several images, or only a part of one.
    """
    with _open_tiff(path) as (tif, ome):
        pages = count_pages(tif, path)
        if ome is not None:
            ome.check_complete(path, pages, lambda page: _samples_of(tif.pages.get(page)))
        series = _find_series(tif, ome, path)
        level = series.levels[0]
        calibration = ome.calibration_of(series) if ome is not None else read_calibration(tif, level.keyframe)
        damaged = ("OME-XML is damaged and ignored",) if ome is None and _has_ome(tif) else ()
        notes = (*calibration.notes, *damaged, *check_complete(tif, level, path))
        axes, alpha, note = _samples(level, path)
        palette = _palette(tif, level)
        white_is_zero = level.keyframe.photometric == PHOTOMETRIC.MINISWHITE and level.dtype.kind != "b"
        inverted = white_is_zero and palette is None
        notes += tuple(text for text in (note, _WHITE_IS_ZERO if inverted else "") if text)
        return RawImage(
            axes=axes,
            shape=tuple(level.shape),
            dtype=np.dtype(level.dtype).newbyteorder("="),
            load=lambda: load_tiff(path),
            axes_source=_SOURCES.get(level.kind, "TIFF tags"),
            spacing=calibration.spacing_um,
            channel_names=calibration.channel_names or _imagej_channels(tif, level),
            palette=palette,
            orientation=_orientation(level.keyframe),
            alpha=alpha,
            notes=notes,
        )


@translate_errors
def load_tiff(path: Path) -> NDArray[Any]:
    """Read the array, in native byte order."""
    with _open_tiff(path) as (tif, ome):
        level = _find_series(tif, ome, path).levels[0]
        # One thread: files are read in parallel already, and `raise_logged_errors` is about the thread that reads.
        array = np.asarray(level.asarray(maxworkers=1))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _open_tiff(path: Path) -> Iterator[tuple[TiffFile, OmeMetadata | None]]:
    """Open a TIFF, without the other files of a set, with its OME-XML, which tifffile then follows."""
    with raise_logged_errors(path), ExitStack() as stack:
        tif = stack.enter_context(TiffFile(path, _multifile=False))
        xml = tif.ome_metadata if tif.is_ome else None
        ome = _parse_ome(xml, path) if xml else None
        if xml:
            matches = ome is not None and ome.matches(tif.pages.first)
            options = {"omexml": ome.xml} if ome is not None and matches else {"is_ome": False}
            tif = stack.enter_context(TiffFile(path, _multifile=False, **options))
        yield tif, ome


def _parse_ome(xml: str, path: Path) -> OmeMetadata | None:
    try:
        return parse_ome(xml, path.name)
    except ValueError:  # sizes that are no numbers; malformed XML may be an attack, and is an error
        return None


def _samples_of(page: TiffPage | TiffFrame | None) -> int:
    return int(page.samplesperpixel) if isinstance(page, TiffPage) else 1


def _find_series(tif: TiffFile, ome: OmeMetadata | None, path: Path) -> TiffPageSeries:
    every = [s for s in tif.series if s.kind != "thumbnail"]
    if not every:
        raise InputError("a TIFF without an image", path=path)
    names = [str(ome.name_of(s) if ome is not None else s.name) for s in every]
    series = [s for s, name in zip(every, names, strict=True) if not _is_overview(name)] or every
    # A smaller copy of the image in front of or behind it, as some microscopes add
    full = [s for s in series if not s.keyframe.is_reduced] or series
    if len(full) > 1:
        shapes = ", ".join(" x ".join(map(str, s.shape)) for s in full[:4])
        raise InputError(f"holds {len(full)} images ({shapes})", path=path, hint="save each as a file of its own")
    return full[0]


def _is_overview(name: str) -> bool:
    """Whether the name of an image is that of a picture of the whole slide or its label."""
    words = {*_WORDS.findall(name.casefold())} - _FILLERS
    return bool(words) and words <= _OVERVIEWS


def _samples(level: TiffPageSeries, path: Path) -> tuple[str, tuple[int, ...], str]:
    """Return the axes, which samples of a pixel are transparency, and a note."""
    page = level.keyframe
    kind = page.photometric
    stored_as_rgb = kind != PHOTOMETRIC.YCBCR or page.compression in _DECODED_AS_RGB
    if kind not in (*_GREY, *_COLOUR) or not stored_as_rgb:
        name = getattr(kind, "name", str(kind))
        raise InputError(f"colours stored as {name} are not supported", path=path, hint="save it as RGB")
    axes = level.axes
    if "S" not in axes:
        return axes, (), ""
    separate = page.planarconfig == PLANARCONFIG.SEPARATE
    if separate and (kind in _GREY or (level.kind != "ome" and _by_default(page))):
        return axes.replace("S", "Q"), (), ""  # some programs store a stack of planes this way
    first_extra = 3 if kind in _COLOUR else 1
    extras = page.extrasamples or (1,) * (level.shape[axes.index("S")] - 3 if kind in _COLOUR else 0)
    alpha = tuple(first_extra + n for n, extra in enumerate(extras) if int(extra) in _ALPHA)
    return axes, alpha, "planes stored one by one are read as red, green and blue" if separate else ""


def _by_default(page: TiffPage) -> bool:
    """Whether tifffile wrote it, which declares any three planes RGB, and masks white-is-zero, by default."""
    return str(page.software).startswith("tifffile")


def _palette(tif: TiffFile, level: TiffPageSeries) -> NDArray[Any] | None:
    """Return the palette by which the values of an indexed picture, or of inverted grey, become what people see.

    In microscopy files values are intensities, and colours are display.
    """
    page = level.keyframe
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return None if _by_default(page) and page.bitspersample == 1 else _inverted(page.bitspersample, level.dtype)
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    grey = palette[:, 0]
    steps = np.diff(grey.astype(int))
    if (palette != grey[:, None]).any():
        return None if tif.is_imagej or tif.is_ome else np.ascontiguousarray(palette)
    if (steps >= 0).all():
        return None
    if tif.is_imagej or tif.is_ome:
        return _inverted(page.bitspersample, level.dtype) if (steps <= 0).all() else None
    return np.ascontiguousarray(grey)


def _inverted(bits: int, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return the palette that inverts grey; None for values without a maximum, or too many of them."""
    if dtype.kind not in "bu" or bits > _TABLE_BITS:
        return None
    return np.arange(2**bits, dtype=np.uint8 if bits <= 8 else np.uint16)[::-1].copy()


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof("Orientation", 1)
    return int(value) if isinstance(value, int) else 1


def _imagej_channels(tif: TiffFile, level: TiffPageSeries) -> tuple[str, ...]:
    """Return the names of the channels: the labels of planes, where all planes of a channel have the same."""
    labels = (tif.imagej_metadata or {}).get("Labels") if tif.is_imagej else None
    if level.kind != "imagej" or not isinstance(labels, (list, tuple)) or "C" not in level.axes:
        return ()
    at, stacked = level.axes.index("C"), [n for n, letter in enumerate(level.axes) if letter not in "YXS"]
    shape = tuple(level.shape[n] for n in stacked)
    names = np.array([_POSITION.sub("", str(label).partition("\n")[0]).strip() for label in labels], object)
    if names.size == level.shape[at]:
        each = names.reshape(-1, 1)
    elif names.size == math.prod(shape):
        each = np.moveaxis(names.reshape(shape), stacked.index(at), 0).reshape(level.shape[at], -1)
    else:
        return ()
    found = tuple(str(row[0]) for row in each if row[0] and (row == row[0]).all())
    return found if len(set(found)) == level.shape[at] else ()


def _has_ome(tif: TiffFile) -> bool:
    return "<OME" in tif.pages.first.description[:2000]
