"""Label images that are too large for memory, unpacked to a file that the system reads from as it is needed."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.files.atomic import translate_write_errors
from biounet.files.formats.raw import translate_errors

_LARGE = 1 << 28  # bytes of a label image from which memory is worth the time of a file


@translate_errors
def map_labels(path: Path) -> NDArray[Any] | None:
    """Return a large label image of one page, or a large label store, as an array that is read from a temporary file.

    The file lies beside it, takes no room where there is no label, and is gone when the array is. None for a label
    image that is small, or stored in another way.
    """
    if path.is_dir():
        return _map_store(path)
    if path.suffix.lower() != ".tif":
        return None
    with tifffile.TiffFile(path) as tif:
        page, dtype = tif.pages.first, tif.pages.first.dtype
        if page.nbytes < _LARGE or len(tif.pages) != 1 or page.ndim != 2 or dtype is None:
            return None
        with tempfile.TemporaryFile(dir=path.parent) as file:
            for segment, (_, _, row, column, _), (_, height, width, _) in page.segments(maxworkers=1):
                if segment is not None:  # else it is empty
                    _write_rows(file, segment[0, :height, :width, 0].astype(dtype, copy=False), (row, column), page)
            file.truncate(page.nbytes)
            file.flush()
            return np.memmap(file, dtype, "r", shape=page.shape)


def _map_store(path: Path) -> NDArray[Any] | None:
    from biounet.files.label_store.store import open_label_store  # which reads formats, as these read labels
    from biounet.files.label_store.streaming import write_voxels

    store = open_label_store(path)
    if math.prod(store.grid.shape) * store.dtype.itemsize < _LARGE:
        return None
    with translate_write_errors(path), tempfile.TemporaryFile(dir=path.parent) as file:
        write_voxels(file, store, b"", store.dtype)
        file.flush()
        return np.memmap(file, store.dtype, "r", shape=store.grid.shape)


def _write_rows(file: BinaryIO, segment: NDArray[Any], at: tuple[int, int], page: tifffile.TiffPage) -> None:
    """Write a strip, or the rows of a tile, where they belong in an array in row order."""
    row, column = at
    width = page.shape[1]
    rows = segment.reshape(1, -1) if segment.shape[1] == width else segment
    for number, pixels in enumerate(rows):
        file.seek(((row + number) * width + column) * segment.itemsize)
        file.write(pixels.tobytes())
