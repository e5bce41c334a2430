"""Checks that a TIFF is complete: tifffile reads what is left of a damaged one, and only logs what is missing."""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tifffile import COMPRESSION, TiffFile, TiffFrame, TiffPage, TiffPageSeries

from biounet.core import InputError, Note, NoteCode

_JPEG_END, _RESTART_OR_END = re.compile(rb"\xff\xd9"), re.compile(rb"\xff[\xd0-\xd7\xd9]")
_JPEG_TAIL = 4  # bytes: the marker, and two that some programs add to a strip
_log = threading.local()  # `problems`: of the file that this thread reads


def _collect(record: logging.LogRecord) -> bool:
    """Collect what tifffile logs in this thread within `raise_logged_errors`; other records pass."""
    problems: list[str] | None = getattr(_log, "problems", None)
    if problems is None:
        return True
    text = record.getMessage()
    if record.levelno >= logging.ERROR or "missing" in text.lower():
        problems.append(text.splitlines()[0].rpartition("> ")[2].strip())
    return False


# Never removed: while one thread removed its filter, a record of another thread could be lost.
logging.getLogger("tifffile").addFilter(_collect)


@contextmanager
def raise_logged_errors(path: Path) -> Iterator[None]:
    """Raise, after the block, the first problem that tifffile only logs in this thread: damage or missing planes."""
    problems: list[str] = []
    _log.problems = problems
    try:
        yield
    finally:
        _log.problems = None
    if problems:
        raise InputError(f"damaged: {problems[0]}", path=path)


def count_pages(tif: TiffFile, path: Path) -> int:
    """Count the pages by following their chain; tifffile only logs a broken chain, and never ends a circular one."""
    layout, file = tif.tiff, tif.filehandle
    try:
        at = tif.pages.first.offset
    except IndexError:
        raise InputError("a TIFF without an image", path=path) from None
    visited: set[int] = set()
    while at:
        if at in visited:
            raise InputError(f"damaged: page {len(visited)} leads back to an earlier one", path=path)
        visited.add(at)
        try:
            file.seek(at)
            (tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
            file.seek(at + layout.tagnosize + tags * layout.tagsize)
            (at,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
        except struct.error:
            raise InputError(f"truncated: page {len(visited) - 1} is not there", path=path) from None
    return len(visited)


def check_complete(tif: TiffFile, series: TiffPageSeries, path: Path) -> str:
    """Compare what the headers declare with the bytes in the file; return a remark, empty if nothing is missing."""
    page, size = series.keyframe, tif.filehandle.size
    declared = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
    planes = series.size // max(1, page.size)
    if isinstance(declared, int) and planes < declared:
        raise InputError(f"truncated: {declared} planes declared, {planes} readable", path=path)
    uncompressed = page.bitspersample % 8 == 0 and not page.is_tiled
    if uncompressed and "Compression" not in page.tags and sum(page.databytecounts) != page.nbytes:
        cause = f"damaged: {sum(page.databytecounts)} bytes of pixels and no word on how they are compressed"
        raise InputError(cause, path=path)
    if series.dataoffset is not None:
        needed = series.dataoffset + series.nbytes
        if needed > size:
            raise InputError(f"truncated: needs {needed} bytes, has {size}", path=path)
        return ""
    absent = 0
    for number, plane in enumerate(series.pages):
        name = f"plane {number} of {len(series.pages)}"
        if plane is None:
            raise InputError(f"{name} is missing", path=path)
        absent += _check_plane(plane, name, path)
    return Note(f"{absent} tiles are absent and read as 0", NoteCode.TILES_ABSENT, figure=absent) if absent else ""


def _check_plane(page: TiffPage | TiffFrame, name: str, path: Path) -> int:
    """Check the strips or tiles of a plane, and return how many are declared to be empty."""
    offsets, counts = page.dataoffsets, page.databytecounts
    expected = math.prod(page.chunked)
    if min(len(offsets), len(counts)) < expected:
        cause = f"truncated: {name} has {min(len(offsets), len(counts))} of {expected} strips or tiles"
        raise InputError(cause, path=path)
    if min(*offsets, *counts) < 0:
        raise InputError(f"damaged: {name} begins before the file", path=path)
    if not any(counts):
        raise InputError(f"{name} has no pixels", path=path)
    file = page.parent.filehandle
    needed = max(offset + count for offset, count in zip(offsets, counts, strict=False))
    if needed > file.size:
        raise InputError(f"truncated: {name} needs {needed} bytes, the file has {file.size}", path=path)
    return sum(count == 0 for count in counts)


def check_jpegs(series: TiffPageSeries, path: Path) -> None:
    """Raise `InputError` if a JPEG in the pages of an image is cut off: the decoder fills up with grey."""
    if series.keyframe.compression != COMPRESSION.JPEG:
        return
    file = series.keyframe.parent.filehandle
    for number, page in enumerate(series.pages):
        if page is None:
            continue  # told by `check_complete`
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            tail = min(count, _JPEG_TAIL)
            file.seek(offset + count - tail)
            if count and not ends_as_jpeg(file.read(tail), series.keyframe):
                cause = f"truncated: plane {number} of {len(series.pages)} is a JPEG without an end"
                raise InputError(cause, path=path)


def ends_as_jpeg(encoded: bytes, keyframe: TiffPage) -> bool:
    """Whether a tile or strip ends as a JPEG does, or, of slides of Hamamatsu, with a restart marker inside of one."""
    return bool((_RESTART_OR_END if keyframe.jpegheader else _JPEG_END).search(encoded[-_JPEG_TAIL:]))
