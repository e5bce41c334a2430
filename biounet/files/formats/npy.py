"""Arrays that NumPy saved, ``.npy``: they state neither axes nor a pixel size; those of Python objects are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from biounet.core import InputError, Note, NoteCode
from biounet.files.formats.raw import RawImage, format_shape
from biounet.files.lazy.changed_arrays import TurnedArray
from biounet.files.lazy.flat_file import FlatFile
from biounet.files.lazy.stored_array import StoredArray

NPY_MAGIC = b"\x93NUMPY"
"""How such a file begins."""


def read_npy(path: Path) -> RawImage:
    """Read the header of an array; the axes in front of y and x are for the user to name."""
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "Python objects" in str(error):  # they may be any code, and NumPy reads none of it
            raise InputError("an array of Python objects, not an image", path=path) from None
        raise
    shape, dtype, offset = mapped.shape, mapped.dtype, int(mapped.offset)
    is_reversed = mapped.flags.f_contiguous and not mapped.flags.c_contiguous
    del mapped
    if len(shape) < 2:
        raise InputError(f"an array of shape {format_shape(shape)}, not an image", path=path)
    order = tuple(reversed(range(len(shape))))
    stored: StoredArray = FlatFile(path, offset, dtype, shape[::-1] if is_reversed else shape)
    stored = TurnedArray(stored, order) if is_reversed else stored
    notes = (Note("pixel size unknown", NoteCode.VOXEL_SIZE_UNKNOWN),)
    axes = "Q" * (len(shape) - 2) + "YX"
    return RawImage(axes, shape, stored.dtype, stored.read_all, "shape", notes=notes, regions=stored)
