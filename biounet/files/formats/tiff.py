"""TIFF as microscopes and Fiji write it: plain, ImageJ, OME, BigTIFF, tiled, pyramidal, compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage, TiffPageSeries

from biounet.core import InputError, Note, NoteCode
from biounet.files.formats.imagej import imagej_channel_names
from biounet.files.formats.pixel_size import read_calibration
from biounet.files.formats.raw import COLOURS, RawImage
from biounet.files.formats.scenes import Scene, choose_scene
from biounet.files.formats.tiff_integrity import check_complete, check_jpegs, count_pages
from biounet.files.formats.tiff_series import list_series, open_series, open_tiff
from biounet.files.lazy.tiff_pages import stored_pages

_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE, PHOTOMETRIC.MASK)
_COLOUR = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
# Codecs that give RGB where the file stores YCbCr
_DECODED_AS_RGB = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_YCBC)
_ALPHA = (1, 2)  # kinds of extra samples that are transparency
_WHITE_IS_ZERO = Note("white is zero in this file: what is bright in it looks dark in a viewer", NoteCode.WHITE_IS_ZERO)
_OME_DAMAGED = Note("OME-XML is damaged and ignored", NoteCode.HEADER_DAMAGED)
_COLOURS = Note("planes stored one by one are read as red, green and blue", NoteCode.PLANES_ARE_COLOURS)
_TABLE_BITS = 16
_SOURCES = {"ome": "OME-XML", "imagej": "ImageJ tags", "shaped": "description"}


def list_tiff(path: Path) -> tuple[Scene, ...]:
    """Return the images in a TIFF, without overviews, with their names in OME-XML."""
    with open_tiff(path) as (tif, ome):
        return tuple(list_series(tif, ome, path))


def read_tiff(path: Path, scene: str = "") -> RawImage:
    """Read the metadata of a TIFF; which of several images that is about, `scene` says."""
    with open_tiff(path) as (tif, ome):
        pages = count_pages(tif, path)
        if ome is not None:
            ome.check_complete(tif, pages, path)
        every = list_series(tif, ome, path)
        series = every[choose_scene([*every], scene, path)]
        page = series.keyframe
        calibration = read_calibration(tif, page) if ome is None else ome.calibration_of(series)
        is_damaged = ome is None and "<OME" in tif.pages.first.description[:2000]
        incomplete = check_complete(tif, series, path)
        axes, alpha, separate = _samples(series, path)
        palette = _palette(tif, series)
        is_inverted = page.photometric == PHOTOMETRIC.MINISWHITE and series.dtype.kind != "b" and palette is None
        damaged, inverted = _OME_DAMAGED if is_damaged else "", _WHITE_IS_ZERO if is_inverted else ""
        orientation = page.tags.valueof("Orientation", 1)
        is_colour = "S" in axes and page.photometric in _COLOUR
        return RawImage(
            axes=axes,
            shape=series.shape,
            dtype=series.dtype.newbyteorder("="),
            load=lambda: _load(path, scene),
            axes_source=_SOURCES.get(series.kind, "TIFF tags"),
            spacing=calibration.spacing_um,
            channel_names=COLOURS if is_colour else calibration.channel_names or imagej_channel_names(tif, series),
            palette=palette,
            orientation=orientation if isinstance(orientation, int) else 1,
            alpha=alpha,
            notes=(*calibration.notes, *filter(None, (damaged, incomplete, separate, inverted))),
            interval=calibration.interval,
            shares_file=len(every) > 1,
            regions=stored_pages(path, scene, series),
        )


def _load(path: Path, scene: str) -> NDArray[Any]:
    with open_series(path, scene) as series:
        check_jpegs(series, path)
        # One thread: files are read in parallel already, and `raise_logged_errors` is about the thread that reads.
        array = np.asarray(series.asarray(maxworkers=1))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _samples(series: TiffPageSeries, path: Path) -> tuple[str, tuple[int, ...], str]:
    """Return the axes, which samples of a pixel are transparency, and a note."""
    page = series.keyframe
    kind = page.photometric
    stored_as_rgb = kind != PHOTOMETRIC.YCBCR or page.compression in _DECODED_AS_RGB
    if kind not in (*_GREY, *_COLOUR) or not stored_as_rgb:
        name = getattr(kind, "name", str(kind))
        raise InputError(f"colours stored as {name} are not supported", path=path, hint="save it as RGB")
    axes = series.axes
    if "S" not in axes:
        return axes, (), ""
    separate = page.planarconfig == PLANARCONFIG.SEPARATE
    if separate and (kind in _GREY or (series.kind != "ome" and _by_default(page))):
        return axes.replace("S", "Q"), (), ""  # some programs store a stack of planes this way
    first_extra = 3 if kind in _COLOUR else 1
    extras = page.extrasamples or (1,) * (series.shape[axes.index("S")] - 3 if kind in _COLOUR else 0)
    alpha = tuple(first_extra + n for n, extra in enumerate(extras) if int(extra) in _ALPHA)
    return axes, alpha, _COLOURS if separate else ""


def _by_default(page: TiffPage) -> bool:
    """Whether tifffile wrote it, which declares any three planes RGB, and masks white-is-zero, by default."""
    return str(page.software).startswith("tifffile")


def _palette(tif: TiffFile, series: TiffPageSeries) -> NDArray[Any] | None:
    """Return the palette by which the values of an indexed picture, or of inverted grey, become what people see."""
    page = series.keyframe
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return None if _by_default(page) and page.bitspersample == 1 else _inverted(series)
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    is_microscopy = tif.is_imagej or tif.is_ome  # where values are intensities, and colours are display
    palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    grey = palette[:, 0]
    if (palette != grey[:, None]).any():
        return None if is_microscopy else np.ascontiguousarray(palette)
    steps = np.diff(grey.astype(int))
    if (steps >= 0).all():
        return None
    if is_microscopy:
        return _inverted(series) if (steps <= 0).all() else None
    return np.ascontiguousarray(grey)


def _inverted(series: TiffPageSeries) -> NDArray[Any] | None:
    """Return the palette that inverts grey; None for values without a maximum, or too many of them."""
    bits = series.keyframe.bitspersample
    if series.dtype.kind not in "bu" or bits > _TABLE_BITS:
        return None
    return np.arange(2**bits, dtype=np.uint8 if bits <= 8 else np.uint16)[::-1].copy()
