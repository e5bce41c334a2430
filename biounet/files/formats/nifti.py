"""NIfTI in one file, plain or gzipped, of version 1 or 2, of either byte order.

NIfTI counts x first and stores it fastest: its bytes are an array ``(z, y, x)`` as they are.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.formats.nifti_affines import LARGEST, SMALLEST, STATE, choose, matrices_of, unit_of
from biounet.files.formats.raw import RawImage, own_errors

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

GZIP = b"\x1f\x8b"
BEGINNINGS = tuple(struct.pack(f"{order}i", size) for size in (348, 540) for order in "<>")

_SINGLE = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}  # header size: where the magic is, and what
_LONGEST = 540
_AHEAD = 2**17  # bytes of a gzip file that hold its names and remarks and the beginning of the content
_PADDING = 512  # bytes that programs may add behind the voxels
_LABEL_INTENT = 1002
_NOWHERE = "orientation unknown: the header has neither a sform nor a qform, and voxels are taken in the stored order"


@own_errors
def read_nifti(path: Path) -> RawImage:
    """Read what a NIfTI file says about its volume; the array is read by ``load``.

    Raises
    ------
    InputError
        If it is no NIfTI, one of the two files of a pair, truncated, or holds no numbers.
    """
    with path.open("rb") as file:
        start = file.read(_AHEAD)
    packed = start.startswith(GZIP)
    with _gzip_errors(path):
        header = parse_header(zlib.decompressobj(31).decompress(start, _LONGEST) if packed else start, path)
    shape, dtype, offset = _layout(header, path)
    slope, inter = header.get_slope_inter()
    scaled = (slope, inter) not in ((None, None), (1.0, 0.0))
    size = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not packed:
        _check_size(path.stat().st_size, size, path)

    def load() -> NDArray[Any]:
        array = _content(path, size, packed=packed)[offset:].view(dtype).reshape(shape)
        if scaled:
            with np.errstate(all="ignore"):  # what becomes infinite is refused with all that is
                array = np.multiply(array, slope, dtype=declared)
                array += inter
        return array.astype(declared, copy=False)

    declared = dtype.newbyteorder("=")
    if scaled:
        declared = np.dtype(np.float32 if declared.itemsize <= 2 or declared == np.float32 else np.float64)
    raw = RawImage("WVCTZYX"[-len(shape) :], shape, declared, load, "NIfTI", unit="mm", header=header.binaryblock)
    with np.errstate(all="ignore"):
        return _placed(raw, header)


def parse_header(start: bytes, path: Path | None = None) -> Nifti1Header:
    """Return the header that a file starts with."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    order = "<" if start[:4] in BEGINNINGS[::2] else ">"
    length = int.from_bytes(start[:4], "little" if order == "<" else "big")
    if length not in _SINGLE:
        raise InputError("a gzip file, but no NIfTI in it", path=path)
    if len(start) < length:
        raise InputError(f"truncated: a header of {length} bytes, {len(start)} are there", path=path)
    at, magic = _SINGLE[length]
    if not start.startswith(magic, at):
        cause = "the header of an image in two files (.hdr and .img), or damaged"
        raise InputError(cause, path=path, hint="convert it to .nii.gz, which is one file")
    kind = Nifti1Header if length < _LONGEST else Nifti2Header
    return kind(start[:length], endianness=order, check=False)


def _layout(header: Nifti1Header, path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return the shape of the array as it is stored, its type, and where it begins."""
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


@own_errors
def _content(path: Path, size: int, *, packed: bool) -> NDArray[np.uint8]:
    """Return the first `size` bytes of the unpacked content, read to its end and compared with the checksum."""
    from imagecodecs import DeflateError, gzip_decode

    if not packed:
        return np.fromfile(path, np.uint8, size)
    data, content = path.read_bytes(), np.empty(size, np.uint8)
    if int.from_bytes(data[-4:], "little") == size % 2**32:
        try:  # 25 ms for a brain of 36 MB where Python's own takes 160; it says little about what is wrong
            gzip_decode(data, out=content.data)
            return content
        except DeflateError:
            pass
    with _gzip_errors(path), gzip.open(path) as file:
        there = file.readinto(content.data) + len(file.read(_PADDING + 1))
    _check_size(there, size, path)
    return content


def _check_size(there: int, size: int, path: Path) -> None:
    if there < size:
        raise InputError(f"truncated: needs {size} bytes, has {there}", path=path)
    if there > size + _PADDING:
        raise InputError(f"damaged: declares {size} bytes and holds more", path=path)


def _placed(raw: RawImage, header: Nifti1Header) -> RawImage:
    """Add where the voxels are, or what is wrong with what the header says about it."""
    count = min(int(header["dim"][0]), 3)
    sizes = np.asarray(header["pixdim"][1 : count + 1], float)
    code, factor = unit_of(header)
    coded = header["sform_code"] > 0 or header["qform_code"] > 0
    if not coded and code not in (1, 2, 3):
        return replace(raw, notes=("voxel size unknown: the header has neither an affine nor a unit", _NOWHERE))
    if not ((sizes > SMALLEST) & (sizes < LARGEST)).all():
        shown = " x ".join(f"{size:g}" for size in sizes)
        return replace(raw, fault=(f"the header gives a voxel size of {shown}", STATE))
    letters = "XYZ"[:count]
    if not coded:
        spacing = dict(zip(letters, (sizes * factor).tolist(), strict=True))
        return replace(raw, spacing=spacing, spacing_from="pixdim", notes=(_NOWHERE,))
    used, notes = choose(matrices_of(header), sizes * factor)
    if used.fault is not None:
        return replace(raw, fault=used.fault)
    return replace(
        raw,
        spacing=dict(zip(letters, used.lengths.tolist(), strict=True)),
        spacing_from=used.name,
        affine=tuple(map(tuple, used.affine.tolist())),
        frame=used.frame,
        notes=notes,
    )


def write_nifti(part: Path, labels: NDArray[Any], source: bytes, *, packed: bool, values: str = "") -> None:
    """Write a label volume ``([z,] y, x)`` under the header of its source: its place in space, bit for bit.

    The header says that they are labels, and of what: `values` is the name of the intent.

    Raises
    ------
    InputError
        If the header is of a volume of another shape.
    """
    from imagecodecs import gzip_encode

    header = parse_header(source)
    dim = header["dim"]
    sizes = [int(length) for length in dim[1 : min(int(dim[0]), 3) + 1]]
    if [size for size in sizes[::-1] if size > 1] != [size for size in labels.shape if size > 1]:
        raise InputError(f"labels of shape {labels.shape} under the header of a volume {sizes[::-1]}")
    dim[0], dim[4:] = len(sizes), 1
    header.set_data_dtype(_label_type(int(labels.max())))
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0  # the intensities that a viewer shows, of the image
    header["intent_code"], header["intent_name"] = _LABEL_INTENT, values.encode()
    for name in ("intent_p1", "intent_p2", "intent_p3"):
        header[name] = 0
    content = header.binaryblock + bytes(4) + labels.astype(header.get_data_dtype()).tobytes()
    part.write_bytes(gzip_encode(content, level=6) if packed else content)


def _label_type(largest: int) -> type[np.integer[Any]]:
    """Return the smallest type that viewers open; signed at 32 bits, which more of them know."""
    kinds = (np.uint8, np.uint16, np.int32, np.uint32)
    return next(kind for kind in kinds if largest <= np.iinfo(kind).max)
