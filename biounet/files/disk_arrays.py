"""Arrays that are too large for memory, in files that are gone when the arrays are."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.files.atomic import translate_write_errors


def disk_zeros(folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of zeros in a file of a folder, which has no name any more; a full disk is a `MachineError`."""
    with translate_write_errors(folder), tempfile.NamedTemporaryFile(dir=folder, prefix=".array-") as file:
        size = max(1, math.prod(shape) * dtype.itemsize)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # else a disk that is full ends the process when it is written
        else:
            file.truncate(size)
        return np.memmap(file.name, dtype, "r+", shape=shape)


def zeros_beside(place: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of zeros in memory, or on the disk where `place` is an array that lies there."""
    file = getattr(place, "filename", None)
    return np.zeros(shape, dtype) if file is None else disk_zeros(Path(file).parent, shape, dtype)


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether the numbers of an array are in a file, and not in memory."""
    return isinstance(getattr(array, "_mmap", None), mmap.mmap)


def forget(array: NDArray[Any]) -> None:
    """Give back the memory of an array in a file, which is read again where it is needed; others stay as they are."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
