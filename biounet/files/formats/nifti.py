"""NIfTI in one file, plain or gzipped, of version 1 or 2, of either byte order.

NIfTI counts x first and stores it fastest: its bytes are an array ``(z, y, x)`` as they are.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.formats.nifti_affines import add_geometry
from biounet.files.formats.raw import RawImage
from biounet.files.lazy.changed_arrays import ScaledArray, scale_values
from biounet.files.lazy.flat_file import FlatFile
from biounet.files.lazy.stored_array import StoredArray

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

GZIP_MAGIC = b"\x1f\x8b"
NIFTI_MAGIC = tuple(struct.pack(f"{order}i", size) for size in (348, 540) for order in "<>")

_SINGLE_FILE = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}  # header size: offset of the magic, and its value
_MAX_HEADER = 540
_READ_AHEAD = 2**17  # bytes of a gzip file that hold its own header and the beginning of the content
_PADDING = 512  # bytes that programs may add behind the voxels
PACKED_LEVEL = 6  # of gzip, as other programs write volumes
_LABEL_INTENT = 1002


def read_nifti(path: Path) -> RawImage:
    """Read the header of a NIfTI file, which must hold numbers and not be one of the two files of a pair."""
    with path.open("rb") as file:
        start = file.read(_READ_AHEAD)
    packed = start.startswith(GZIP_MAGIC)
    with _gzip_errors(path):
        header = parse_header(zlib.decompressobj(31).decompress(start, _MAX_HEADER) if packed else start, path)
    shape, dtype, offset = _layout(header, path)
    size = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not packed:
        _check_size(path.stat().st_size, size, path)
    slope, inter = header.get_slope_inter()
    scaled = (slope, inter) not in ((None, None), (1.0, 0.0))
    declared = dtype.newbyteorder("=")
    if scaled:
        declared = np.dtype(np.float32 if declared.itemsize <= 2 or declared == np.float32 else np.float64)

    def load() -> NDArray[Any]:
        content = _unpack(path, size) if packed else np.fromfile(path, np.uint8, size)
        array = content[offset:].view(dtype).reshape(shape)
        if scaled:
            array = scale_values(array, declared, slope, inter)
        return array.astype(declared, copy=False)

    stored: StoredArray | None = None if packed else FlatFile(path, offset, dtype, shape)
    if stored is not None and scaled:
        stored = ScaledArray(stored, declared, slope, inter)
    raw = RawImage(
        "WVCTZYX"[-len(shape) :], shape, declared, load, "NIfTI", unit="mm", header=header.binaryblock, regions=stored
    )
    with np.errstate(all="ignore"):
        return add_geometry(raw, header)


def parse_header(start: bytes, path: Path | None = None) -> Nifti1Header:
    """Parse the header at the start of a file."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    order = "<" if start[:4] in NIFTI_MAGIC[::2] else ">"
    length = int.from_bytes(start[:4], "little" if order == "<" else "big")
    if length not in _SINGLE_FILE:
        raise InputError("a gzip file, but no NIfTI in it", path=path)
    if len(start) < length:
        raise InputError(f"truncated: a header of {length} bytes, {len(start)} are there", path=path)
    at, magic = _SINGLE_FILE[length]
    if not start.startswith(magic, at):
        cause = "the header of an image in two files (.hdr and .img), or damaged"
        raise InputError(cause, path=path, hint="convert it to .nii.gz, which is one file")
    kind = Nifti1Header if length < _MAX_HEADER else Nifti2Header
    return kind(start[:length], endianness=order, check=False)


def _layout(header: Nifti1Header, path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return the shape of the array as it is stored, its type, and its offset in the file."""
    dim = [int(length) for length in header["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise InputError(f"damaged: sizes {dim[1:]}, of which {dim[0]} count", path=path)
    shape = (*dim[1 : dim[0] + 1], 1, 1)[: max(3, dim[0])][::-1]
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise InputError(f"damaged: voxels of an unknown type, {header['datatype']}", path=path) from None
    if dtype.fields is not None:
        raise InputError("colours (RGB) are not supported", path=path, hint="save each channel as a grey volume")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"voxels of type {dtype} are not supported", path=path, hint="save them as 32-bit floats")
    if header["bitpix"] != 8 * dtype.itemsize:
        raise InputError(f"damaged: {header['bitpix']} bits for a voxel of type {dtype}", path=path)
    offset = float(header["vox_offset"])
    if not header.single_vox_offset <= offset < 2**28 or offset % 1:
        raise InputError(f"damaged: voxels begin at byte {offset:g}", path=path)
    return shape, dtype, int(offset)


@contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise InputError("truncated: the compressed data break off", path=path) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"damaged: {error}", path=path, hint="copy it again from where it came from") from None


def _unpack(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the first `size` bytes of the unpacked content, after reading all of it and comparing the checksum."""
    data, content = path.read_bytes(), np.empty(size, np.uint8)
    if int.from_bytes(data[-4:], "little") == size % 2**32:
        # 25 ms for a brain of 36 MB where Python's gzip takes 160; but its errors are not specific
        with suppress(imagecodecs.DeflateError):
            imagecodecs.gzip_decode(data, out=content.data)
            return content
    with _gzip_errors(path), gzip.open(path) as file:
        found = file.readinto(content.data) + len(file.read(_PADDING + 1))
    _check_size(found, size, path)
    return content


def _check_size(found: int, size: int, path: Path) -> None:
    if found < size:
        raise InputError(f"truncated: needs {size} bytes, has {found}", path=path)
    if found > size + _PADDING:
        raise InputError(f"damaged: declares {size} bytes and holds more", path=path)


def write_nifti(
    path: Path, labels: NDArray[Any], source: bytes, *, packed: bool, values: str = "", frames: int = 0
) -> None:
    """Write labels ``([t,] [z,] y, x)`` with the header, and so the geometry, of their source.

    `values` names the intent; `frames` is the length of axis t, 0 where there is none.
    """
    start, dtype = label_header(source, labels.shape[frames > 0 :], int(labels.max()), values, frames)
    content = start + labels.astype(dtype).tobytes()
    path.write_bytes(imagecodecs.gzip_encode(content, level=PACKED_LEVEL) if packed else content)


def label_header(
    source: bytes, shape: tuple[int, ...], largest: int, values: str = "", frames: int = 0
) -> tuple[bytes, np.dtype[Any]]:
    """Return what precedes the voxels of labels ``([z,] y, x)`` in their file, and the type of these, as `write_nifti`.

    `largest` is the largest label.
    """
    header = parse_header(source)
    dim = header["dim"]
    sizes = [int(length) for length in dim[1 : min(int(dim[0]), 3) + 1]]
    if [size for size in sizes[::-1] if size > 1] != [size for size in shape if size > 1]:
        raise InputError(f"labels of shape {shape} under the header of a volume {sizes[::-1]}")
    dim[0], dim[4:] = 4 if frames else len(sizes), 1
    if frames:
        dim[len(sizes) + 1 : 4], dim[4] = 1, frames
    # The smallest type that viewers open; signed at 32 bits, which more of them support
    header.set_data_dtype(next(t for t in (np.uint8, np.uint16, np.int32, np.uint32) if largest <= np.iinfo(t).max))
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0  # display range of the image
    header["intent_code"], header["intent_name"] = _LABEL_INTENT, values.encode()
    header["intent_p1"] = header["intent_p2"] = header["intent_p3"] = 0
    return header.binaryblock + bytes(4), header.get_data_dtype()
