"""The images in a TIFF: which of its pages belong together, and which of them are only pictures of the slide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tifffile import TiffFile, TiffPageSeries

from biounet.core import InputError
from biounet.files.formats.ome_xml import OmeMetadata, parse_ome
from biounet.files.formats.raw import format_shape
from biounet.files.formats.scenes import Scene, choose_scene
from biounet.files.formats.tiff_integrity import raise_logged_errors

_OVERVIEWS = {"label", "macro", "map", "overview", "thumbnail", "barcode", "preview"}  # names by scanners
_FILLERS = {"image", "images", "slide", "scan", "mask", "tif", "tiff", "ome"}  # words beside one of these
_WORDS = re.compile(r"[^\W\d_]+")


@contextmanager
def open_series(path: Path, scene: str) -> Iterator[TiffPageSeries]:
    """Open the image of a TIFF that a scene says."""
    with open_tiff(path) as (tif, ome):
        every = list_series(tif, ome, path)
        yield every[choose_scene([*every], scene, path)]


@contextmanager
def open_tiff(path: Path) -> Iterator[tuple[TiffFile, OmeMetadata | None]]:
    """Open a TIFF, without the other files of a set, with its OME-XML, which tifffile then follows."""
    with raise_logged_errors(path), ExitStack() as stack:
        tif = stack.enter_context(TiffFile(path, _multifile=False))
        ome = None
        if tif.is_ome and (xml := tif.ome_metadata):
            with suppress(ValueError):  # sizes that are no numbers; malformed XML may be an attack, and is an error
                ome = parse_ome(xml, path.name)
            matches = ome is not None and ome.matches(tif.pages.first)
            options = {"omexml": ome.xml} if ome is not None and matches else {"is_ome": False}
            tif = stack.enter_context(TiffFile(path, _multifile=False, **options))
        yield tif, ome


def list_series(tif: TiffFile, ome: OmeMetadata | None, path: Path) -> dict[Scene, TiffPageSeries]:
    """Return the images that are no overviews or smaller copies of others, by their numbers and names."""
    every = [s for s in tif.series if s.kind != "thumbnail"]
    if not every:
        raise InputError("a TIFF without an image", path=path)
    series = [s for s in every if not _is_overview(s.name if ome is None else ome.name_of(s))] or every
    # A smaller copy of the image in front of or behind it, as some microscopes add
    full = [s for s in series if not s.keyframe.is_reduced] or series
    names = ["" if ome is None else ome.name_of(s) for s in full]
    return {Scene(str(n), name, format_shape(s.shape)): s for n, (s, name) in enumerate(zip(full, names, strict=True))}


def _is_overview(name: str) -> bool:
    """Whether the name of an image is that of a picture of the whole slide or its label."""
    words = {*_WORDS.findall(name.casefold())} - _FILLERS
    return bool(words) and words <= _OVERVIEWS
