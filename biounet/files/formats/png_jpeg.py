"""PNG and JPEG. Neither holds a pixel size: what they call resolution is that of a screen or a printer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.formats.raw import RawImage, own_errors

_NOTES = ("pixel size unknown",)
_PNG_PALETTE = 3
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, grey + alpha, RGB + alpha
_PNG_ALPHA = {4: (1,), 6: (3,)}
_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that state the size
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_ORIENTATION = 274  # number of the tag
_PNG_FIRST = 8  # where the first chunk of a PNG begins
_SCAN, _END = 0xDA, b"\xff\xd9"
_ALONE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without content


@own_errors
def read_png(path: Path) -> RawImage:
    """Read what a PNG says about its image; palettes are kept apart from the numbers that are stored."""
    with path.open("rb") as file:
        width, height, bits, kind = struct.unpack(">IIBB", file.read(26)[16:])
        orientation = _png_orientation(file)
    if kind == _PNG_PALETTE:
        return _indexed_png(path, height, width, orientation)
    samples = _PNG_SAMPLES[kind]
    return RawImage(
        axes="YXS" if samples > 1 else "YX",
        shape=(height, width, samples) if samples > 1 else (height, width),
        dtype=np.dtype(np.uint16 if bits == 16 else np.uint8),
        load=lambda: load_png(path, samples, bits),
        axes_from="PNG",
        orientation=orientation,
        alpha=_PNG_ALPHA.get(kind, ()),
        notes=_NOTES,
    )


@own_errors
def load_png(path: Path, samples: int, bits: int) -> NDArray[Any]:
    """Read the pixels."""
    from imagecodecs import png_decode

    array = np.asarray(png_decode(path.read_bytes()))
    if array.ndim == 3:
        array = array[..., :samples]  # libpng adds alpha where one colour is declared to be transparent
        array = array[..., 0] if samples == 1 else array
    # libpng spreads grey of 1, 2 and 4 bits over 0 to 255: divided again, labels stay what they were.
    return array // (255 // (2**bits - 1)) if samples == 1 and bits < 8 else array


def _indexed_png(path: Path, height: int, width: int, orientation: int) -> RawImage:
    from PIL.PngImagePlugin import PngImageFile  # the one reader that gives the indices

    with PngImageFile(path) as image:
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if (colours == colours[:, :1]).all():
        colours = colours[:, 0]
    full = np.zeros((256, *colours.shape[1:]), np.uint8)
    full[: len(colours)] = colours
    return RawImage(
        axes="YX",
        shape=(height, width),
        dtype=np.dtype(np.uint8),
        load=lambda: load_indices(path),
        axes_from="PNG",
        colours=full,
        orientation=orientation,
        notes=_NOTES,
    )


@own_errors
def load_indices(path: Path) -> NDArray[np.uint8]:
    """Read the numbers of an indexed PNG."""
    from PIL.PngImagePlugin import PngImageFile  # without the size limit of Image.open, which is not the user's

    with PngImageFile(path) as image:
        return np.array(image, np.uint8)


@own_errors
def read_jpeg(path: Path) -> RawImage:
    """Read what a JPEG says about its image."""
    (bits, height, width, samples), orientation = _jpeg_frame(path.read_bytes(), path)
    if samples not in (1, 3):
        raise InputError(f"{samples} colours (CMYK) are not supported", path=path, hint="save it as RGB")
    return RawImage(
        axes="YXS" if samples > 1 else "YX",
        shape=(height, width, samples) if samples > 1 else (height, width),
        dtype=np.dtype(np.uint8 if bits == 8 else np.uint16),
        load=lambda: load_jpeg(path),
        axes_from="JPEG",
        orientation=orientation,
        notes=_NOTES,
    )


@own_errors
def load_jpeg(path: Path) -> NDArray[Any]:
    """Read the pixels."""
    from imagecodecs import jpeg_decode

    return np.asarray(jpeg_decode(path.read_bytes()))


def _jpeg_frame(data: bytes, path: Path) -> tuple[tuple[int, int, int, int], int]:
    """Return bits, height, width and samples, and the orientation.

    A truncated file is refused: the decoder would fill it up with grey.
    """
    frame, at, orientation = None, 2, 1
    while at + 9 < len(data):
        if data[at] != 0xFF or data[at + 1] in _ALONE or data[at + 1] == 0xFF:
            at += 2 if data[at] == 0xFF and data[at + 1] != 0xFF else 1
            continue
        marker = data[at + 1]
        if marker in _FRAME:
            frame = struct.unpack(">BHHB", data[at + 4 : at + 10])
        if marker == _SCAN:
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _APP1 and data.startswith(_EXIF, at + 4):
            orientation = exif_orientation(data[at + 4 + len(_EXIF) : at + 2 + length])
        at += 2 + length
    if frame is None or data.rfind(_END) < at:
        raise InputError("truncated: the end of the JPEG is missing", path=path)
    bits, height, width, samples = frame
    return (bits, height, width, samples), orientation


def _png_orientation(file: BinaryIO) -> int:
    """Return what the chunk of EXIF says, wherever it is; 1 without one."""
    at = _PNG_FIRST
    file.seek(at)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return exif_orientation(file.read(length).removeprefix(_EXIF))
        at += length + 12
        file.seek(at)
    return 1


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that EXIF gives to the image; 1, which is as stored, where it says none."""
    order: Literal["little", "big"] = "little" if exif[:2] == b"II" else "big"
    first = int.from_bytes(exif[4:8], order)
    for n in range(int.from_bytes(exif[first : first + 2], order)):
        entry = exif[first + 2 + 12 * n : first + 14 + 12 * n]
        if len(entry) < 12:
            break
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            kind = int.from_bytes(entry[8:10], order)
            return kind if kind in range(1, 9) else 1
    return 1
