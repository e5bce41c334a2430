"""File formats that are recognised and not read, each with a way to one that is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from biounet.core import InputError
from biounet.files.retry import read_first_bytes


class Unsupported(NamedTuple):
    """A format that is not read, how to convert it, and a pattern or the suffixes that recognise it."""

    name: str
    advice: str
    content: bytes = rb"(?!)"  # matches nothing
    suffixes: tuple[str, ...] = ()


_BIOFORMATS = "save each image as OME-TIFF, in Fiji with Bio-Formats"
_SLICER = "save it as .nii.gz, in 3D Slicer for example"
_TIFF = "save it as TIFF or PNG"
_N5 = Unsupported("N5", "save it as OME-Zarr", suffixes=(".n5",))
_FORMATS = (
    Unsupported(
        "a list of files (Leica)",
        "name the .lof files that it lists, or their folder",
        suffixes=(".xlef", ".xlif", ".xlcf"),
    ),
    Unsupported("NRRD", _SLICER, rb"NRRD000", (".nhdr",)),
    Unsupported("MetaImage", _SLICER, rb"ObjectType|NDims", (".mhd", ".mha")),
    Unsupported("JPEG 2000", _TIFF, rb"\0\0\0\x0cjP  "),
    Unsupported("OIR (Olympus)", _BIOFORMATS, rb"OLYMPUSRAWFORMAT"),
    Unsupported("VSI (Olympus)", _BIOFORMATS, suffixes=(".vsi", ".ets")),
    Unsupported("OIB (Olympus), ZVI (Zeiss) or the like", _BIOFORMATS, rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    Unsupported("HDF5, such as IMS (Imaris) or MINC", "save its image as TIFF or .nii.gz", rb"\x89HDF\r\n\x1a\n"),
    Unsupported("GIF", _TIFF, rb"GIF8"),
    Unsupported("BMP", _TIFF, rb"BM"),
    Unsupported("a MATLAB file", _TIFF, rb"MATLAB 5\.0"),
    Unsupported("PDF", _TIFF, rb"%PDF"),
    Unsupported("FreeSurfer's MGH", "convert it to .nii.gz, with mri_convert for example", suffixes=(".mgz", ".mgh")),
    Unsupported(
        "an image in two files (.hdr and .img)", "convert it to .nii.gz, which is one file", suffixes=(".hdr", ".img")
    ),
    _N5,
)
_HEAD = 132  # bytes that distinguish all of them
_MAX_FILES = 200  # of a folder that are opened


def find_unsupported(path: Path) -> Unsupported | None:
    """Return which unsupported format a file or folder has, by its content or else its name; None if it has none."""
    if path.is_dir():
        return _N5 if path.name.lower().endswith(_N5.suffixes) else None
    try:
        head = read_first_bytes(path, _HEAD)
    except (OSError, ValueError):  # no permission, or a name that no file can have
        return None
    by_content = [one for one in _FORMATS if re.match(one.content, head, re.DOTALL)]
    by_name = [one for one in _FORMATS if path.name.lower().endswith(one.suffixes)]
    return next(iter(by_content + by_name), None)


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
