"""The values of the pixels of DICOM frames: decoded, and rescaled as their header says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.formats.dicom.headers import DicomFile, Frame, quietly
from biounet.files.formats.raw import translate_errors

# What pip installs so that pydicom decodes a transfer syntax that it cannot by itself, by part of its name
_CODECS = (
    ("JPEG-LS", "pyjpegls"),
    ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG Lossless", "pylibjpeg pylibjpeg-libjpeg"),
    ("RLE", "pylibjpeg pylibjpeg-rle"),
    ("JPEG", "pylibjpeg pylibjpeg-libjpeg"),
)


def rescaled_type(file: DicomFile, frames: Sequence[Frame]) -> np.dtype[Any]:
    """Return the type of the rescaled values: integers where slopes are 1 and intercepts whole numbers."""
    allocated, stored = file.bits
    if allocated > 32:
        return np.dtype(np.float64)
    kind = np.dtype(f"{'i' if file.is_signed else 'u'}{max(1, allocated // 8)}")
    shifts = {frame.intercept for frame in frames}
    if any(frame.slope != 1 for frame in frames) or any(shift % 1 for shift in shifts):
        return np.dtype(np.float32 if allocated <= 16 else np.float64)
    if shifts == {0.0}:
        return kind
    bits = min(stored, allocated)
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if file.is_signed else (0, 2**bits - 1)
    lowest, highest = lowest + int(min(shifts)), highest + int(max(shifts))
    types = (np.int16, np.int32)
    return np.dtype(next((one for one in types if np.iinfo(one).min <= lowest and highest <= np.iinfo(one).max), "f8"))


def check_codec(file: DicomFile, path: Path) -> None:
    """Raise `InputError` if no installed package decodes the transfer syntax of a file, naming one that does."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(file.syntax)
    if not file.syntax or not syntax.is_transfer_syntax or not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        hint = "convert it to an uncompressed series, with dcmdjpeg or gdcmconv for example"
        raise InputError(f"compressed as {syntax.name}, which cannot be decoded", path=path, hint=hint) from None
    if not available:
        package = next((package for name, package in _CODECS if name in syntax.name), "pylibjpeg")
        cause = f"compressed as {syntax.name}, and no package that decodes it is installed"
        raise InputError(cause, path=path, hint=f"pip install {package}")


def load_frames(frames: Sequence[Frame], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the rescaled frames, shape ``(n, y, x)``, in the order given.

    Raise `InputError` if a file cannot be decoded or holds other pixels than its header says.
    """
    array = np.empty((len(frames), *shape), dtype)
    order = sorted(range(len(frames)), key=lambda number: (str(frames[number].file), frames[number].number))
    for path, numbers in groupby(order, key=lambda number: frames[number].file):
        pixels = _decode(path)
        for number in numbers:
            frame = frames[number]
            plane = pixels[frame.number] if pixels.ndim > len(shape) else pixels
            if plane.shape != shape:
                cause = f"damaged: {path.name} declares {shape}, and holds {plane.shape}"
                raise InputError(cause, path=path)
            array[number] = _rescale(plane, frame, dtype)
    return array


def _rescale(plane: NDArray[Any], frame: Frame, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "iu":
        return np.asarray(plane.astype(dtype, copy=False) + dtype.type(frame.intercept))
    return np.asarray(np.multiply(plane, frame.slope, dtype=dtype) + dtype.type(frame.intercept))


@translate_errors
def _decode(path: Path) -> NDArray[Any]:
    """Return the pixels of a file, ``([n,] y, x[, s])``, as they are stored."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    with quietly():
        data = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in data.file_meta:  # a file without preamble
            implicit, _ = data.original_encoding
            data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return np.asarray(data.pixel_array)
