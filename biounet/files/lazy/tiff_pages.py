"""Regions of a TIFF, tile by tile or strip by strip: each is found by its offset, so a damaged one has a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, TiffFrame, TiffPage, TiffPageSeries

from biounet.core import InputError
from biounet.files.formats.tiff_integrity import ends_as_jpeg
from biounet.files.formats.tiff_series import open_series
from biounet.files.lazy.flat_file import FlatFile
from biounet.files.lazy.stored_array import Index, StoredArray, chunks_of, grid_shape, overlap

_JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY, 33007)  # whose tables may lie outside of tiles
_OPEN_FILES = 16  # such as channels, whose tables of tiles are kept, 16 bytes for each tile
_DAMAGED = "copy the file again from where it came from, or save it again as OME-TIFF or OME-Zarr"


def stored_pages(path: Path, scene: str, series: TiffPageSeries) -> StoredArray | None:
    """Return the pixels of an image in a TIFF; None if its pages do not follow its axes."""
    dtype = np.dtype(series.dtype)
    if series.dataoffset is not None and series.transform is None and series.keyframe.bitspersample % 8 == 0:
        stored = dtype.newbyteorder(series.keyframe.parent.byteorder)
        return FlatFile(path, series.dataoffset, stored, tuple(series.shape))
    layout = _page_layout(series)
    if layout is None or series.transform is not None:
        return None
    outer, place = layout
    chunk = _segment_shape(series.keyframe)
    chunks = (*(1 for _ in range(outer)), *(1 if at is None else chunk[at] for at in place))
    shape = tuple(series.shape)
    fitting = tuple(min(one, length) for one, length in zip(chunks, shape, strict=True))
    return TiffPages(path, scene, shape, dtype.newbyteorder("="), fitting)


def _page_layout(series: TiffPageSeries) -> tuple[int, tuple[int | None, ...]] | None:
    """Return how many axes count the pages, and what each further axis is of a page, as in `TiffPage.shaped`.

    These are samples one by one, depth, rows, columns, and samples of a pixel; None for an axis of length 1.
    """
    lengths = [(at, length) for at, length in enumerate(series.keyframe.shaped) if length > 1]
    place: list[int | None] = []
    for length in reversed(series.shape):
        if not lengths:
            break
        if length > 1 and length != lengths[-1][1]:
            return None
        place.insert(0, lengths.pop()[0] if length > 1 else None)
    outer = len(series.shape) - len(place)
    fits = not lengths and math.prod(series.shape[:outer]) == len(series.pages)
    return (outer, tuple(place)) if fits else None


def _segment_shape(page: TiffPage) -> tuple[int, ...]:
    """Return the shape of a tile or strip along the axes of `TiffPage.shaped`."""
    *_, width, samples = page.shaped
    if page.is_tiled:
        return (1, page.tiledepth, page.tilelength, page.tilewidth, samples)
    return (1, 1, min(page.rowsperstrip, page.shaped[2]), width, samples)


@dataclass(frozen=True)
class _Page:
    """Where the tiles or strips of a page begin in the file, how many bytes they have, and what decodes them."""

    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode_options: dict[str, Any]


@dataclass(frozen=True)
class _Pages:
    """The pages of an image, which have the layout of the first, `keyframe`, and are decoded as it is."""

    keyframe: TiffPage
    decode: Callable[..., tuple[NDArray[Any] | None, tuple[int, ...], tuple[int, ...]]]
    outer: int
    place: tuple[int | None, ...]
    pages: tuple[_Page, ...]

    @property
    def segment(self) -> tuple[int, ...]:
        return _segment_shape(self.keyframe)

    def index_in_page(self, index: Index) -> Index:
        """Return a part of the image within a page, along the axes of `TiffPage.shaped`."""
        parts = [slice(0, length) for length in self.keyframe.shaped]
        for at, part in zip(self.place, index[self.outer :], strict=True):
            if at is not None:
                parts[at] = part
        return tuple(parts)


@lru_cache(_OPEN_FILES)
def _read_pages(path: Path, scene: str, size: int, mtime_ns: int) -> _Pages:
    """Return the pages of an image in a file of this state."""
    with open_series(path, scene) as series:
        layout = _page_layout(series)
        if layout is None:
            raise InputError("it has changed since it was opened", path=path)
        keyframe = series.keyframe
        pages = tuple(_read_page(page, keyframe) for page in series.pages)
        return _Pages(keyframe, keyframe.decode, *layout, pages)


def _read_page(page: TiffPage | TiffFrame | None, keyframe: TiffPage) -> _Page:
    if page is None:
        raise InputError("a page is missing")
    options: dict[str, Any] = {"_fullsize": False}
    if keyframe.compression in _JPEG:
        options |= {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    return _Page(np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64), options)


@dataclass(frozen=True)
class TiffPages(StoredArray):
    """An image in the tiles or strips of one page or of several."""

    path: Path
    scene: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        table = self._table()
        inside = table.index_in_page(index)
        out = np.empty([part.stop - part.start for part in index], self.dtype)
        by_page = out.reshape(-1, *(part.stop - part.start for part in inside))
        with self.path.open("rb", buffering=0) as file:
            for target, number in zip(by_page, self._page_numbers(index, table.outer), strict=True):
                self._read_page(target, table, number, inside, file)
        return out

    def _read_page(self, target: NDArray[Any], table: _Pages, number: int, inside: Index, file: BinaryIO) -> None:
        page = table.pages[number]
        for at in _segments(table, inside):
            encoded = None
            if count := int(page.counts[at]):
                file.seek(int(page.offsets[at]))
                encoded = file.read(count)
            start, shape, pixels = self._decode(table, number, at, encoded)
            to, of = overlap(inside, start, shape)
            target[to] = table.keyframe.nodata if pixels is None else pixels[of]

    def _decode(
        self, table: _Pages, number: int, at: int, encoded: bytes | None
    ) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[Any] | None]:
        """Return where a tile or strip begins in its page, its shape, and its pixels, None for an absent one."""
        page, keyframe = table.pages[number], table.keyframe
        name = f"{'tile' if keyframe.is_tiled else 'strip'} {at} of {len(page.offsets)}"
        name += f" of page {number}" if len(table.pages) > 1 else ""
        if encoded is not None and len(encoded) < page.counts[at]:
            raise InputError(f"truncated: {name} is not there", path=self.path, hint=_DAMAGED)
        if encoded is not None and keyframe.compression == COMPRESSION.JPEG and not ends_as_jpeg(encoded, keyframe):
            raise InputError(f"truncated: {name} is a JPEG without an end", path=self.path, hint=_DAMAGED)
        try:
            pixels, start, shape = table.decode(encoded, at, **page.decode_options)
        except Exception as error:  # codecs raise more than ten kinds
            text = str(error).strip().partition("\n")[0] or type(error).__name__
            cause = f"damaged: {name}, at row {self._row(table, at)}, cannot be decoded ({text})"
            raise InputError(cause, path=self.path, hint=_DAMAGED) from error
        return start, (1, *shape), None if pixels is None else pixels[None]

    def _row(self, table: _Pages, at: int) -> str:
        """Return where a tile or strip begins, for messages."""
        grid = grid_shape(table.keyframe.shaped, table.segment)
        _, _, row, column, _ = np.unravel_index(at, grid)
        _, _, length, width, _ = table.segment
        return f"{row * length} and column {column * width}"

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        table = self._table()
        segments = [*_segments(table, table.index_in_page(index))]
        numbers = self._page_numbers(index, table.outer)
        if any(table.pages[number].counts[segments].any() for number in numbers):
            return None
        return table.keyframe.nodata

    def _table(self) -> _Pages:
        state = self.path.stat()
        return _read_pages(self.path, self.scene, state.st_size, state.st_mtime_ns)

    def _page_numbers(self, index: Index, outer: int) -> list[int]:
        """Return the numbers of the pages of a part, in their order."""
        numbers = np.arange(math.prod(self.shape[:outer])).reshape(self.shape[:outer])
        return [int(number) for number in np.ravel(numbers[index[:outer]])]


def _segments(table: _Pages, inside: Index) -> Iterator[int]:
    """Yield the numbers of the tiles or strips of a page that a part of it reaches into."""
    grid: Sequence[int] = grid_shape(table.keyframe.shaped, table.segment)
    for place in chunks_of(inside, table.segment):
        yield int(np.ravel_multi_index(place, grid))
