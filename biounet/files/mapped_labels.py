"""Label images that are too large for memory, unpacked to a file that the system reads from as it is needed."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.files.formats.raw import translate_errors

_LARGE = 1 << 28  # bytes of a label image from which memory is worth the time of a file


@translate_errors
def map_labels(path: Path) -> NDArray[Any] | None:
    """Return a large label image of one page as an array that is read from a temporary file beside it.

    The file is gone when the array is. None for a label image that is small, or stored in another way.
    """
    if path.suffix.lower() != ".tif":
        return None
    with tifffile.TiffFile(path) as tif:
        page, dtype = tif.pages.first, tif.pages.first.dtype
        is_plain = len(tif.pages) == 1 and page.ndim == 2 and not page.is_tiled
        if page.nbytes < _LARGE or not is_plain or dtype is None:
            return None
        row_bytes = page.nbytes // page.shape[0]
        with tempfile.TemporaryFile(dir=path.parent) as file:
            for strip, (_, _, row, *_), _ in page.segments(maxworkers=1):
                if strip is not None:  # else it is empty
                    file.seek(row * row_bytes)
                    file.write(np.ascontiguousarray(strip, dtype).tobytes())
            file.truncate(page.nbytes)
            file.flush()
            return np.memmap(file, dtype, "r", shape=page.shape)


def forget(labels: NDArray[Any]) -> None:
    """Give back the memory of an array of `map_labels`, which is read again where it is needed."""
    mapped = getattr(labels, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
