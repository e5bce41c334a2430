"""PNG and JPEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.errors import InputError
from biounet.files.raw import RawImage, own_errors, refuse_size

_MODES: dict[str, tuple[str, tuple[int, ...], type[np.generic]]] = {
    "1": ("YX", (), np.uint8),
    "L": ("YX", (), np.uint8),
    "I;16": ("YX", (), np.uint16),
    "I;16B": ("YX", (), np.uint16),
    "I": ("YX", (), np.int32),
    "F": ("YX", (), np.float32),
    "RGB": ("YXS", (3,), np.uint8),
    "RGBA": ("YXS", (4,), np.uint8),
}


@own_errors
def read_picture(path: Path, *, palette_as_colours: bool = True) -> RawImage:
    """Read what a PNG or JPEG says about its image.

    Parameters
    ----------
    palette_as_colours
        Whether a picture with a palette gives colours; label images give the numbers.
    """
    from PIL import Image

    with Image.open(path) as image:
        mode = image.mode
        if mode in ("P", "LA", "CMYK", "YCbCr"):
            mode = "L" if mode == "LA" or (mode == "P" and not palette_as_colours) else "RGB"
        if mode not in _MODES:
            raise InputError(f"pixels of type {image.mode} are not supported", path=path)
        axes, more, dtype = _MODES[mode]
        shape = (image.height, image.width, *more)
    refuse_size(shape, np.dtype(dtype), path)
    notes = ("pixel size unknown",)
    return RawImage(axes, shape, np.dtype(dtype), lambda: load_picture(path, mode, dtype), notes=notes)


@own_errors
def load_picture(path: Path, mode: str, dtype: type[np.generic]) -> NDArray[Any]:
    """Read the pixels."""
    from PIL import Image

    with Image.open(path) as image:
        same = image if image.mode in (mode, "P" if mode == "L" else mode) else image.convert(mode)
        return np.asarray(same).astype(dtype)
