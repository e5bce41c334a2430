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
from biounet.files.formats.ome_xml import Ome, read_ome
from biounet.files.formats.pixel_size import calibration
from biounet.files.formats.raw import RawImage, own_errors
from biounet.files.formats.tiff_integrity import check_complete, count_pages, strict

_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE, PHOTOMETRIC.MASK)
_COLOUR = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
# Codecs that give RGB where the file stores YCbCr
_TURNED_TO_RGB = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_YCBC)
_ALPHA = (1, 2)  # kinds of extra samples that are transparency
_WHITE_IS_ZERO = "white is zero in this file: what is bright in it looks dark in a viewer"
_TABLE_BITS = 16
_PLACE = re.compile(r"^(?:[czt]:\d+/\d+\s*)+-?\s*")  # of a plane in its stack, with which labels may begin
_BESIDE = {"label", "macro", "overview", "thumbnail", "barcode", "preview"}  # what scanners call pictures of the slide
_SAYS_NOTHING = {"image", "images", "slide", "scan", "mask", "tif", "tiff", "ome"}  # beside one of these words
_WORDS = re.compile(r"[^\W\d_]+")
_SAYS = {"ome": "OME-XML", "imagej": "ImageJ tags", "shaped": "description"}


@own_errors
def read_tiff(path: Path) -> RawImage:
    """Read what a TIFF says about its image; the array is read by ``load``.

    Raises
    ------
    InputError
        If the file is no TIFF, is truncated, holds several images, or only a part of one.
    """
    with _opened(path) as (tif, ome):
        pages = count_pages(tif, path)
        if ome is not None:
            ome.refuse_parts(path, pages, lambda page: _planes_of(tif.pages.get(page)))
        series = _only_series(tif, ome, path)
        level = series.levels[0]
        said = ome.about(series) if ome is not None else calibration(tif, level.keyframe)
        damaged = ("OME-XML is damaged and ignored",) if ome is None and _has_ome(tif) else ()
        notes = (*said.notes, *damaged, *check_complete(tif, level, path))
        axes, alpha, remark = _samples(level, path)
        colours = _palette(tif, level)
        white_is_zero = level.keyframe.photometric == PHOTOMETRIC.MINISWHITE and level.dtype.kind != "b"
        inverted = white_is_zero and colours is None
        remarks = tuple(text for text in (remark, _WHITE_IS_ZERO if inverted else "") if text)
        return RawImage(
            axes=axes,
            shape=tuple(level.shape),
            dtype=np.dtype(level.dtype).newbyteorder("="),
            load=lambda: load_tiff(path),
            axes_from=_SAYS.get(level.kind, "TIFF tags"),
            spacing=said.spacing_um,
            spacing_from=said.origin,
            channels=said.channels or _imagej_channels(tif, level),
            colours=colours,
            orientation=_orientation(level.keyframe),
            alpha=alpha,
            notes=(*notes, *remarks),
        )


@own_errors
def load_tiff(path: Path) -> NDArray[Any]:
    """Read the array, in native byte order."""
    with _opened(path) as (tif, ome):
        level = _only_series(tif, ome, path).levels[0]
        # One thread: files are read side by side already, and `strict` hears the thread that reads.
        array = np.asarray(level.asarray(maxworkers=1))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[TiffFile, Ome | None]]:
    """Open a TIFF, of several files this one alone, with what its OME-XML says, which tifffile then goes by."""
    with strict(path), ExitStack() as stack:
        tif = stack.enter_context(TiffFile(path, _multifile=False))
        xml = tif.ome_metadata if tif.is_ome else None
        ome = _ome_of(xml, path) if xml else None
        if xml:
            fits = ome is not None and ome.describes(tif.pages.first)
            about = {"omexml": ome.xml} if ome is not None and fits else {"is_ome": False}
            tif = stack.enter_context(TiffFile(path, _multifile=False, **about))
        yield tif, ome


def _ome_of(xml: str, path: Path) -> Ome | None:
    try:
        return read_ome(xml, path.name)
    except ValueError:  # sizes that are no numbers; text that is no XML may be an attack
        return None


def _planes_of(page: TiffPage | TiffFrame | None) -> int:
    return int(page.samplesperpixel) if isinstance(page, TiffPage) else 1


def _only_series(tif: TiffFile, ome: Ome | None, path: Path) -> TiffPageSeries:
    every = [s for s in tif.series if s.kind != "thumbnail"]
    if not every:
        raise InputError("a TIFF without an image", path=path)
    names = [str(ome.name_of(s) if ome is not None else s.name) for s in every]
    series = [s for s, name in zip(every, names, strict=True) if not _is_beside(name)] or every
    # A smaller copy of the image in front of or behind it, as some microscopes add
    full = [s for s in series if not s.keyframe.is_reduced] or series
    if len(full) > 1:
        shapes = ", ".join(" x ".join(map(str, s.shape)) for s in full[:4])
        raise InputError(f"holds {len(full)} images ({shapes})", path=path, hint="save each as a file of its own")
    return full[0]


def _is_beside(name: str) -> bool:
    """Whether a name says that a picture of the slide is meant, and nothing else."""
    words = {word for word in _WORDS.findall(name.casefold()) if word not in _SAYS_NOTHING}
    return bool(words) and words <= _BESIDE


def _samples(level: TiffPageSeries, path: Path) -> tuple[str, tuple[int, ...], str]:
    """Return the axes, which samples of a pixel are transparency, and a remark."""
    page = level.keyframe
    kind = page.photometric
    stored_as_rgb = kind != PHOTOMETRIC.YCBCR or page.compression in _TURNED_TO_RGB
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
    """Whether tifffile wrote it, which calls any three planes RGB, and masks white-is-zero, without being asked."""
    return str(page.software).startswith("tifffile")


def _palette(tif: TiffFile, level: TiffPageSeries) -> NDArray[Any] | None:
    """Return what values look like where it is not what they are: colours of an indexed picture, inverted grey.

    In microscopy files values are intensities, and colours are display.
    """
    page = level.keyframe
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return None if _by_default(page) and page.bitspersample == 1 else _inverted(page.bitspersample, level.dtype)
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    colours = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    grey = colours[:, 0]
    steps = np.diff(grey.astype(int))
    if (colours != grey[:, None]).any():
        return None if tif.is_imagej or tif.is_ome else np.ascontiguousarray(colours)
    if (steps >= 0).all():
        return None
    if tif.is_imagej or tif.is_ome:
        return _inverted(page.bitspersample, level.dtype) if (steps <= 0).all() else None
    return np.ascontiguousarray(grey)


def _inverted(bits: int, dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """Return the table that exchanges dark and bright; None for values without a largest one, or too many of them."""
    if dtype.kind not in "bu" or bits > _TABLE_BITS:
        return None
    return np.arange(2**bits, dtype=np.uint8 if bits <= 8 else np.uint16)[::-1].copy()


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof("Orientation", 1)
    return int(value) if isinstance(value, int) else 1


def _imagej_channels(tif: TiffFile, level: TiffPageSeries) -> tuple[str, ...]:
    """Return the names of the channels: what ImageJ calls the planes, where all of a channel have one name."""
    labels = (tif.imagej_metadata or {}).get("Labels") if tif.is_imagej else None
    if level.kind != "imagej" or not isinstance(labels, (list, tuple)) or "C" not in level.axes:
        return ()
    at, stacked = level.axes.index("C"), [n for n, letter in enumerate(level.axes) if letter not in "YXS"]
    shape = tuple(level.shape[n] for n in stacked)
    names = np.array([_PLACE.sub("", str(label).partition("\n")[0]).strip() for label in labels], object)
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
