"""PNG and JPEG. Neither holds a pixel size: their resolution is that of a screen or a printer."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, Note, NoteCode
from biounet.files.formats.raw import COLOURS, RawImage

_NOTES = (Note("pixel size unknown", NoteCode.VOXEL_SIZE_UNKNOWN),)
_PNG_PALETTE = 3
_PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type: grey, RGB, grey + alpha, RGB + alpha
_PNG_ALPHA = {4: (1,), 6: (3,)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that state the size
_APP1, _EXIF = 0xE1, b"Exif\0\0"
_ORIENTATION_TAG = 274
_PNG_CHUNKS = 8  # offset of the first one
_SCAN, _END = 0xDA, b"\xff\xd9"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # JPEG markers


def read_png(path: Path) -> RawImage:
    """Read the header of a PNG, and its palette if it has one."""
    with path.open("rb") as file:
        width, height, bits, kind = struct.unpack(">IIBB", file.read(26)[16:])
        orientation = _png_orientation(file)
    is_indexed = kind == _PNG_PALETTE
    samples = 1 if is_indexed else _PNG_SAMPLES[kind]
    return RawImage(
        axes="YXS" if samples > 1 else "YX",
        shape=(height, width, samples) if samples > 1 else (height, width),
        dtype=np.dtype(np.uint16 if bits == 16 and not is_indexed else np.uint8),
        load=lambda: _load_indices(path) if is_indexed else _load_png(path, samples, bits),
        axes_source="PNG",
        channel_names=COLOURS if samples > 2 else (),
        palette=_png_palette(path) if is_indexed else None,
        orientation=orientation,
        alpha=_PNG_ALPHA.get(kind, ()),
        notes=_NOTES,
    )


def _load_png(path: Path, samples: int, bits: int) -> NDArray[Any]:
    array = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if array.ndim == 3:
        array = array[..., :samples]  # libpng adds alpha where one colour is declared to be transparent
        array = array[..., 0] if samples == 1 else array
    # libpng spreads grey of 1, 2 and 4 bits over 0 to 255: divided again, labels stay what they were.
    return array // (255 // (2**bits - 1)) if samples == 1 and bits < 8 else array


def _load_indices(path: Path) -> NDArray[np.uint8]:
    from PIL.PngImagePlugin import PngImageFile  # without the size limit of Image.open, which is not the user's

    with PngImageFile(path) as image:
        return np.array(image, np.uint8)


def _png_palette(path: Path) -> NDArray[np.uint8]:
    from PIL.PngImagePlugin import PngImageFile  # the only reader that returns indices

    with PngImageFile(path) as image:
        colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    return palette[:, 0].copy() if (colours == colours[:, :1]).all() else palette


def read_jpeg(path: Path) -> RawImage:
    """Read the header of a JPEG."""
    bits, height, width, samples, orientation = _jpeg_frame(path.read_bytes(), path)
    if samples not in (1, 3):
        raise InputError(f"{samples} colours (CMYK) are not supported", path=path, hint="save it as RGB")
    return RawImage(
        axes="YXS" if samples > 1 else "YX",
        shape=(height, width, samples) if samples > 1 else (height, width),
        dtype=np.dtype(np.uint8 if bits == 8 else np.uint16),
        load=lambda: np.asarray(imagecodecs.jpeg_decode(path.read_bytes())),
        axes_source="JPEG",
        channel_names=COLOURS if samples > 1 else (),
        orientation=orientation,
        notes=_NOTES,
    )


def _jpeg_frame(data: bytes, path: Path) -> tuple[int, int, int, int, int]:
    """Return bits, height, width, samples and orientation; the decoder would fill up a truncated file with grey."""
    frame, at, orientation = None, 2, 1
    while at + 9 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in _FRAMES:
            frame = struct.unpack(">BHHB", data[at + 4 : at + 10])
        if marker == _SCAN:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _APP1 and data.startswith(_EXIF, at + 4):
            orientation = _exif_orientation(data[at + 4 + len(_EXIF) : end])
        at = end
    if frame is None or data.rfind(_END) < at:
        raise InputError("truncated: the end of the JPEG is missing", path=path)
    return *frame, orientation


def _png_orientation(file: BinaryIO) -> int:
    """Return the orientation in the EXIF chunk, wherever it is; 1 without one."""
    at = _PNG_CHUNKS
    file.seek(at)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return _exif_orientation(file.read(length).removeprefix(_EXIF))
        at += length + 12
        file.seek(at)
    return 1


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF, 1 to 8; 1, which is as stored, without one."""
    little = exif.startswith(b"II")
    first = int.from_bytes(exif[4:8], "little" if little else "big")
    count = int.from_bytes(exif[first : first + 2], "little" if little else "big")
    entries = exif[first + 2 : first + 2 + 12 * count]
    entry_format = f"{'<' if little else '>'}H6xH2x"
    whole = entries[: len(entries) // 12 * 12]
    kinds = (value for tag, value in struct.iter_unpack(entry_format, whole) if tag == _ORIENTATION_TAG)
    kind = next(kinds, 1)
    return kind if kind in range(1, 9) else 1
