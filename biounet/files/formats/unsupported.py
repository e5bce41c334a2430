"""File formats that are recognised and not read, each with a way to one that is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from biounet.core import InputError
from biounet.files.retry import read_first_bytes

_BIOFORMATS = "save each image as OME-TIFF, in Fiji with Bio-Formats"
_SLICER = "save it as .nii.gz, in 3D Slicer for example"
_TIFF = "save it as TIFF or PNG"
_HEAD = 132  # bytes that distinguish all of them
_MAX_FILES = 200  # of a folder that are opened


class Unsupported(NamedTuple):
    """A format that is recognised and not read, and how to convert it."""

    name: str
    advice: str


_DICOM = Unsupported("DICOM", "convert the series to .nii.gz, with dcm2niix for example")
_ZARR = Unsupported("Zarr", "save it as OME-TIFF or .nii.gz")
_META = Unsupported("MetaImage", _SLICER)
_NRRD = Unsupported("NRRD", _SLICER)
_LIF = Unsupported("LIF (Leica)", _BIOFORMATS)
_CZI = Unsupported("CZI (Zeiss)", _BIOFORMATS)
_ND2 = Unsupported("ND2 (Nikon)", _BIOFORMATS)
_BY_MAGIC = {
    b"NRRD000": _NRRD,
    b"ObjectType": _META,
    b"NDims": _META,
    b"ZISRAWFILE": _CZI,
    b"\xda\xce\xbe\x0a": _ND2,
    b"\x00\x00\x00\x0cjP  ": Unsupported("JPEG 2000 or an early ND2 (Nikon)", _BIOFORMATS),
    b"OLYMPUSRAWFORMAT": Unsupported("OIR (Olympus)", _BIOFORMATS),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Unsupported("OIB (Olympus), ZVI (Zeiss) or the like", _BIOFORMATS),
    b"\x89HDF\r\n\x1a\n": Unsupported("HDF5, such as IMS (Imaris) or MINC", "save its image as TIFF or .nii.gz"),
    b"GIF8": Unsupported("GIF", _TIFF),
    b"BM": Unsupported("BMP", _TIFF),
    b"MATLAB 5.0": Unsupported("a MATLAB file", _TIFF),
    b"%PDF": Unsupported("PDF", _TIFF),
}
_BY_SUFFIX = {
    (".dcm", ".dicom", ".ima"): _DICOM,
    (".mgz", ".mgh"): Unsupported("FreeSurfer's MGH", "convert it to .nii.gz, with mri_convert for example"),
    (".hdr", ".img"): Unsupported("an image in two files (.hdr and .img)", "convert it to .nii.gz, which is one file"),
    (".nhdr",): _NRRD,
    (".mhd", ".mha"): _META,
    (".lif", ".xlef", ".lof"): _LIF,
    (".czi",): _CZI,
    (".nd2",): _ND2,
    (".vsi", ".ets"): Unsupported("VSI (Olympus)", _BIOFORMATS),
    (".zarr",): _ZARR,
}
# Little-endian elements that a DICOM file without a preamble begins with: group 2 or 8, and one of the first elements
_DICOM_ELEMENTS = tuple(bytes([group, 0, element, 0]) for group in (2, 8) for element in (0, 1, 5, 8, 0x10, 0x12, 0x16))


def find_unsupported(path: Path) -> Unsupported | None:
    """Return which unsupported format a file or folder has, by its content or else its name.

    None if it is of none of them, or cannot be opened.
    """
    if path.is_dir():
        is_zarr = any((path / name).is_file() for name in (".zattrs", ".zgroup", ".zarray", "zarr.json"))
        return _ZARR if is_zarr else None
    try:
        head = read_first_bytes(path, _HEAD)
    except (OSError, ValueError):  # no permission, or a name that no file can have
        return None
    if head[128:132] == b"DICM" or head.startswith(_DICOM_ELEMENTS):
        return _DICOM
    if head.startswith(b"\x70\x00\x00\x00") and head[8:9] == b"\x2a":
        return _LIF
    name = path.name.lower()
    by_content = (found for magic, found in _BY_MAGIC.items() if head.startswith(magic))
    by_name = (found for suffixes, found in _BY_SUFFIX.items() if name.endswith(suffixes))
    return next(chain(by_content, by_name), None)


def check_supported(path: Path) -> None:
    """Check that a file is of none of these formats, and that a folder does not begin with such files."""
    if (found := find_unsupported(path)) is not None:
        raise InputError(f"{found.name} is not read", path=path, hint=found.advice)
    for file in islice(_files(path), _MAX_FILES) if path.is_dir() else ():
        if (found := find_unsupported(file)) is not None:
            cause = f"no image that can be read, but {found.name} ({file.relative_to(path)}), which is not read"
            raise InputError(cause, path=path, hint=found.advice)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the visible files in a folder and below, and those folders that are images themselves."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in folders if find_unsupported(Path(root, name)) is not None)
        files = (Path(root, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if file.is_file())
