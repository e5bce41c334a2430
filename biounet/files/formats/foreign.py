"""Formats that people have and biounet does not read: by which name they go, and the way to one that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from biounet.core import InputError
from biounet.files.retry import first_bytes

_BIOFORMATS = "save each image as OME-TIFF, in Fiji with Bio-Formats"
_SLICER = "save it as .nii.gz, in 3D Slicer for example"
_DCM2NIIX = "convert the series to .nii.gz, with dcm2niix for example"
_TIFF = "save it as TIFF or PNG"
_HEAD = 132  # bytes that tell all of them apart
_PEEK = 200  # files of a folder that are looked at


@dataclass(frozen=True)
class Foreign:
    """A format that is known and not read.

    Attributes
    ----------
    name
        What it is called.
    way
        What to do.
    """

    name: str
    way: str


_DICOM = Foreign("DICOM", _DCM2NIIX)
_META = Foreign("MetaImage", _SLICER)
_LIF = Foreign("LIF (Leica)", _BIOFORMATS)
_ZARR = Foreign("Zarr", "save it as OME-TIFF or .nii.gz")
_BEGINNINGS = (
    (b"NRRD000", Foreign("NRRD", _SLICER)),
    (b"ObjectType", _META),
    (b"NDims", _META),
    (b"ZISRAWFILE", Foreign("CZI (Zeiss)", _BIOFORMATS)),
    (b"\xda\xce\xbe\x0a", Foreign("ND2 (Nikon)", _BIOFORMATS)),
    (b"\x00\x00\x00\x0cjP  ", Foreign("JPEG 2000 or an early ND2 (Nikon)", _BIOFORMATS)),
    (b"OLYMPUSRAWFORMAT", Foreign("OIR (Olympus)", _BIOFORMATS)),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Foreign("OIB (Olympus), ZVI (Zeiss) or the like", _BIOFORMATS),
    ),
    (b"\x89HDF\r\n\x1a\n", Foreign("HDF5, such as IMS (Imaris) or MINC", "save its image as TIFF or .nii.gz")),
    (b"GIF8", Foreign("GIF", _TIFF)),
    (b"BM", Foreign("BMP", _TIFF)),
    (b"MATLAB 5.0", Foreign("a MATLAB file", _TIFF)),
    (b"%PDF", Foreign("PDF", _TIFF)),
)
_ENDINGS = {
    (".dcm", ".dicom", ".ima"): _DICOM,
    (".mgz", ".mgh"): Foreign("FreeSurfer's MGH", "convert it to .nii.gz, with mri_convert for example"),
    (".hdr", ".img"): Foreign("an image in two files (.hdr and .img)", "convert it to .nii.gz, which is one file"),
    (".nhdr",): Foreign("NRRD", _SLICER),
    (".mhd", ".mha"): _META,
    (".lif", ".xlef", ".lof"): _LIF,
    (".czi",): Foreign("CZI (Zeiss)", _BIOFORMATS),
    (".nd2",): Foreign("ND2 (Nikon)", _BIOFORMATS),
    (".vsi", ".ets"): Foreign("VSI (Olympus)", _BIOFORMATS),
    (".zarr",): _ZARR,
}
# Little-endian elements that a DICOM file without a preamble begins with: group 2 or 8, and one of the first elements
_ELEMENTS = tuple(bytes([group, 0, element, 0]) for group in (2, 8) for element in (0, 1, 5, 8, 0x10, 0x12, 0x16))


def foreign_format(path: Path) -> Foreign | None:
    """Return which known format a file or folder has that is not read, by its content or else its name.

    None where it is of none of them, or cannot be looked at.
    """
    if path.is_dir():
        inside = any((path / name).is_file() for name in (".zattrs", ".zgroup", ".zarray", "zarr.json"))
        return _ZARR if inside else None
    try:
        begin = first_bytes(path, _HEAD)
    except (OSError, ValueError):  # no permission, or a name that no file can have
        return None
    return _by_content(begin) or _by_name(path)


def _by_content(begin: bytes) -> Foreign | None:
    if begin[128:132] == b"DICM" or begin.startswith(_ELEMENTS):
        return _DICOM
    if begin.startswith(b"\x70\x00\x00\x00") and begin[8:9] == b"\x2a":
        return _LIF
    return next((known for beginning, known in _BEGINNINGS if begin.startswith(beginning)), None)


def _by_name(path: Path) -> Foreign | None:
    return next((known for endings, known in _ENDINGS.items() if path.name.lower().endswith(endings)), None)


def refuse_foreign(path: Path) -> None:
    """Refuse a file of a known format that is not read, or a folder that begins with such files.

    Raises
    ------
    InputError
        Naming the format and the way to one that is read.
    """
    if not path.is_dir() or foreign_format(path) is not None:
        found = foreign_format(path)
        if found is not None:
            raise InputError(f"{found.name} is not read", path=path, hint=found.way)
        return
    for file in islice(_files(path), _PEEK):
        found = foreign_format(file)
        if found is not None:
            cause = f"no image that can be read, but {found.name} ({file.relative_to(path)}), which is not read"
            raise InputError(cause, path=path, hint=found.way)


def _files(folder: Path) -> Iterator[Path]:
    """Give the visible files in a folder and below, and those folders that are images themselves."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in folders if foreign_format(Path(root, name)) is not None)
        files = (Path(root, name) for name in sorted(names) if not name.startswith("."))
        yield from (file for file in files if file.is_file())
