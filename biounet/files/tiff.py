"""TIFF as microscopes and Fiji write it: plain, ImageJ, OME, BigTIFF, tiled, pyramidal, compressed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPageSeries

from biounet.errors import InputError
from biounet.files.calibration import calibration
from biounet.files.ome import Ome, read_ome
from biounet.files.raw import RawImage, own_errors
from biounet.files.whole import check_complete, count_pages, strict

_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE, PHOTOMETRIC.MASK)
_COLOUR = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
# Codecs that give RGB where the file stores YCbCr
_TURNED_TO_RGB = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_YCBC)
_ALPHA = (1, 2)  # kinds of extra samples that are transparency
_BESIDE = ("label", "macro", "overview", "thumbnail")  # what scanners call pictures of the slide beside the image
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
            ome.refuse_parts(path, pages * tif.pages.first.samplesperpixel)
        series = _only_series(tif, ome, path)
        level = series.levels[0]
        said = ome.about(series) if ome is not None else calibration(tif, level.keyframe)
        damaged = ("OME-XML is damaged and ignored",) if ome is None and _has_ome(tif) else ()
        notes = (*said.notes, *damaged, *check_complete(tif, level, path))
        axes, alpha, remark = _samples(level, path)
        colours = _palette(tif, level)
        remarks = (remark,) if remark else ()
        return RawImage(
            axes=axes,
            shape=tuple(level.shape),
            dtype=np.dtype(level.dtype).newbyteorder("="),
            load=lambda: load_tiff(path),
            axes_from=_SAYS.get(level.kind, "TIFF tags"),
            spacing=said.spacing_um,
            spacing_from=said.origin,
            channels=said.channels,
            colours=colours,
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
        ome = read_ome(tif.ome_metadata, path.name) if tif.is_ome and tif.ome_metadata else None
        if ome is not None:
            about = {"omexml": ome.xml} if ome.describes(tif.pages.first) else {"is_ome": False}
            tif = stack.enter_context(TiffFile(path, _multifile=False, **about))
        yield tif, ome


def _only_series(tif: TiffFile, ome: Ome | None, path: Path) -> TiffPageSeries:
    every = [s for s in tif.series if s.kind != "thumbnail"]
    if not every:
        raise InputError("a TIFF without an image", path=path)
    names = [(ome.name_of(s) if ome is not None else s.name).casefold().removesuffix(" image") for s in every]
    series = [s for s, name in zip(every, names, strict=True) if name not in _BESIDE] or every
    # A smaller copy of the image in front of or behind it, as some microscopes add
    full = [s for s in series if not s.keyframe.is_reduced] or series
    if len(full) > 1:
        shapes = ", ".join(" x ".join(map(str, s.shape)) for s in full[:4])
        raise InputError(f"holds {len(full)} images ({shapes})", path=path, hint="save each as a file of its own")
    return full[0]


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
    if kind in _GREY and separate:
        return axes.replace("S", "Q"), (), ""  # some programs store a stack of planes this way
    first_extra = 3 if kind in _COLOUR else 1
    extras = page.extrasamples or (1,) * (level.shape[axes.index("S")] - 3 if kind in _COLOUR else 0)
    alpha = tuple(first_extra + n for n, extra in enumerate(extras) if int(extra) in _ALPHA)
    return axes, alpha, "planes stored one by one are read as red, green and blue" if separate else ""


def _palette(tif: TiffFile, level: TiffPageSeries) -> NDArray[np.uint8] | None:
    """Return the colours of an indexed picture. In microscopy files values are intensities and colours are display."""
    page = level.keyframe
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None or tif.is_imagej or tif.is_ome:
        return None
    colours = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    grey = (colours == colours[:, :1]).all()
    return None if grey else np.ascontiguousarray(colours)


def _has_ome(tif: TiffFile) -> bool:
    return "<OME" in tif.pages.first.description[:2000]
