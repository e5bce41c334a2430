"""One file of a label image that does not fit in memory: a TIFF or NIfTI, as `write_labels` writes it."""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.core import Grid, InputError, Region, ResultKind
from biounet.files.atomic import atomic_path
from biounet.files.dataset_index.names import NIFTI
from biounet.files.formats.nifti import PACKED_LEVEL, label_header
from biounet.files.label_store.lazy_labels import LazyLabels, StoredOrder
from biounet.files.write import DEFLATE_LEVEL, TiffLayout, check_largest, tiff_layout

_SPOOLED = 1 << 26  # bytes of packed tiles up to which they are kept in memory until it is their turn
_GZIP = 31  # of zlib's window bits: with the header and checksum of gzip
_REGION = 1 << 24  # voxels that are read at a time
_COPIED = 1 << 20  # bytes


def stream_labels(path: Path, labels: LazyLabels, grid: Grid, largest: int, kind: ResultKind | None = None) -> None:
    """Write labels to one file, atomically, in the format that `write_labels` chooses for the same labels.

    A TIFF has the same bytes. Memory is that of a row of chunks, packed.

    Parameters
    ----------
    labels
        On `grid`, or in its canonical order.
    grid
        Grid of the source.
    largest
        The largest label.

    Raises
    ------
    InputError
        If the labels do not lie on this grid, a shard of them is damaged, or the suffix is that of a NIfTI and the
        source is none.
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    labels = StoredOrder.of(labels, grid)
    if labels.grid.shape != grid.shape:
        raise InputError(f"not a label image on grid {grid.shape}: shape {labels.grid.shape}", path=path)
    check_largest(path, largest)
    if path.name.lower().endswith(NIFTI):
        _stream_nifti(path, labels, grid, largest, kind)
        return
    layout = tiff_layout(grid.shape, grid, largest, kind)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, **layout.file) as tif:
        tif.write(_packed_pieces(labels, layout), shape=grid.shape, dtype=layout.dtype, **layout.tags)


def _packed_pieces(labels: LazyLabels, layout: TiffLayout) -> Iterator[bytes]:
    """Yield the tiles or strips of all planes in the order of a TIFF.

    Each chunk is read once: rows of chunks, or slabs of a volume, are packed before the first of their pieces is due.
    """
    *depth, height, width = labels.grid.shape
    piece = layout.piece
    step = tuple(max(1, chunk // size) * size for chunk, size in zip(labels.chunk[-2:], piece, strict=True))
    empty = _pack(np.zeros(piece, layout.dtype))
    slab = labels.chunk[0] if depth else height
    groups = [(slice(z, min(z + slab, depth[0])), slice(0, height)) for z in range(0, depth[0], slab)] if depth else []
    groups = groups or [(slice(0, 1), slice(y, min(y + step[0], height))) for y in range(0, height, step[0])]
    for planes, rows in groups:
        with tempfile.SpooledTemporaryFile(_SPOOLED) as spool:
            places: dict[tuple[int, int, int], tuple[int, int]] = {}
            for y, x in product(range(rows.start, rows.stop, step[0]), range(0, width, step[1])):
                area = (slice(y, min(y + step[0], height)), slice(x, min(x + step[1], width)))
                region = (planes, *area) if depth else area
                for at, content in _pack_region(labels, region, layout, empty):
                    places[at] = (spool.tell(), len(content))
                    spool.write(content)
            for place in sorted(places):
                offset, length = places[place]
                spool.seek(offset)
                yield spool.read(length)


def _pack_region(
    labels: LazyLabels, region: Region, layout: TiffLayout, empty: bytes
) -> Iterator[tuple[tuple[int, int, int], bytes]]:
    """Yield the plane, row and column at which each piece of a region begins, and what it is packed to."""
    *planes, rows, columns = region
    first = planes[0].start if planes else 0
    has_labels = labels.has_labels(region)
    values = labels.read(region).astype(layout.dtype, copy=False) if has_labels else None
    count = planes[0].stop - first if planes else 1
    height, width = layout.piece
    for z, y, x in product(
        range(count), range(0, rows.stop - rows.start, height), range(0, columns.stop - columns.start, width)
    ):
        at = (first + z, rows.start + y, columns.start + x)
        tall = height if layout.is_tiled else min(height, rows.stop - at[1])
        if values is None:
            yield at, empty if tall == height else _pack(np.zeros((tall, width), layout.dtype))
            continue
        piece = values.reshape(count, *values.shape[-2:])[z, y : y + height, x : x + width]
        if layout.is_tiled and piece.shape != layout.piece:
            piece = np.pad(piece, [(0, height - piece.shape[0]), (0, width - piece.shape[1])])
        yield at, _pack(piece)


def _pack(piece: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.deflate_encode(piece.tobytes(), level=DEFLATE_LEVEL))


def _stream_nifti(path: Path, labels: LazyLabels, grid: Grid, largest: int, kind: ResultKind | None) -> None:
    if grid.header is None:
        raise InputError("its image has no NIfTI header to write with", path=path, hint="name it .tif")
    start, dtype = label_header(grid.header, grid.shape, largest, kind or "")
    with atomic_path(path) as temporary:
        if path.suffix.lower() != ".gz":
            with temporary.open("wb") as file:
                write_voxels(file, labels, start, dtype)
            return
        # Voxels are packed in their order, and chunks read in theirs: the disk holds what memory may not
        with tempfile.TemporaryFile(dir=path.parent) as file, temporary.open("wb") as packed:
            write_voxels(file, labels, start, dtype)
            file.seek(0)
            packer = zlib.compressobj(PACKED_LEVEL, zlib.DEFLATED, _GZIP)
            while piece := file.read(_COPIED):
                packed.write(packer.compress(piece))
            packed.write(packer.flush())


def write_voxels(file: BinaryIO, labels: LazyLabels, start: bytes, dtype: np.dtype[Any]) -> None:
    """Write voxels where they belong behind the header, one region of whole chunks after another."""
    file.write(start)
    shape = labels.grid.shape
    file.truncate(len(start) + math.prod(shape) * dtype.itemsize)  # background is what is not written
    for region in _long_regions(shape, labels.chunk):
        if not labels.has_labels(region):
            continue
        values = labels.read(region).astype(dtype)
        is_wide = values.shape[-1] == shape[-1]
        runs = values.reshape(*values.shape[:-2], 1, -1) if is_wide else values
        for place in np.ndindex(runs.shape[:-1]):
            corner = [part.start + at for part, at in zip(region, place, strict=False)] + [region[-1].start]
            file.seek(len(start) + int(np.ravel_multi_index(corner, shape)) * dtype.itemsize)
            file.write(runs[place].tobytes())


def _long_regions(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[Region]:
    """Yield regions of whole chunks that are long in x, up to a number of voxels."""
    width = max(1, _REGION // math.prod(chunk)) * chunk[-1]
    step = (*chunk[:-1], width)
    for corner in product(*(range(0, length, size) for length, size in zip(shape, step, strict=True))):
        yield tuple(slice(at, min(at + size, length)) for at, size, length in zip(corner, step, shape, strict=True))
