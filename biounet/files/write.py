"""Label images that Fiji, napari and QuPath open with the source's pixel size, and pictures."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.core import Grid, InputError, ResultKind, Volume
from biounet.files.atomic import atomic_path
from biounet.files.dataset_index.names import NIFTI
from biounet.files.formats.nifti import parse_header, write_nifti
from biounet.files.formats.raw import own_errors
from biounet.files.read import open_raw

_FAST = 1  # of deflate: label images shrink 50 times at any level
_FILTER_SUB = 16  # of PNG: with one fixed filter a picture takes 10 ms where libpng's choice takes 16, at the same size
_LARGEST_IMAGEJ = 2**31  # bytes
_MOST = 2**32 - 1  # of a label, and in a TIFF rational

_VALUES = "values"  # the key of what they are, in the description of an ImageJ TIFF

Resolution = tuple[tuple[int, int], tuple[int, int]]


def label_suffix(grid: Grid) -> str:
    """Return how names of label images on this grid end: that of a NIfTI where the source is one."""
    return "_labels.tif" if grid.header is None else "_labels.nii.gz"


def write_labels(path: Path, labels: NDArray[Any], grid: Grid | Volume, kind: ResultKind | None = None) -> None:
    """Write a label image where its source is, atomically; equal input gives equal bytes.

    A name that ends in ``.nii`` or ``.nii.gz`` gives a NIfTI under the header of the source; others a TIFF with its
    pixel size. Up to 65 535 objects are an ImageJ TIFF of 16 bits. More need 32 bits, which ImageJ's format does not
    have: these are OME-TIFF.

    Parameters
    ----------
    path
        The final name; `label_suffix` says how it should end.
    labels
        Integers from 0, shape ``([z,] y, x)``.
    grid
        Where they are, or the image that they were found in.
    kind
        What the values are, which `read_label_kind` reads again; None leaves it open.

    Raises
    ------
    InputError
        If `labels` are no label image on this grid, or a NIfTI is wanted of a source that was none.
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    grid = grid.grid if isinstance(grid, Volume) else grid
    if labels.shape != grid.shape or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(f"not a label image on grid {grid.shape}: {labels.dtype} of shape {labels.shape}", path=path)
    if labels.max() > _MOST:
        raise InputError(f"label {labels.max()} does not fit in 32 bits", path=path)
    if path.name.lower().endswith(NIFTI):
        if grid.header is None:
            raise InputError("its image has no NIfTI header to write with", path=path, hint="name it .tif")
        with atomic_path(path) as part:
            write_nifti(part, labels, grid.header, packed=path.suffix.lower() == ".gz", values=kind or "")
        return
    wide = labels.max() > np.iinfo(np.uint16).max
    stored = labels.astype(np.uint32 if wide else np.uint16)
    with atomic_path(path) as part:
        if wide or stored.nbytes >= _LARGEST_IMAGEJ:
            _write_ome(part, stored, grid, kind)
        else:
            _write_imagej(part, stored, grid, kind)


@own_errors
def read_label_kind(path: Path) -> ResultKind | None:
    """Return what the values of a label image are, as `write_labels` noted it; None where it did not."""
    raw = open_raw(path)
    with path.open("rb") as file:
        begin = file.read(2)
    if raw.header is not None:
        said = bytes(parse_header(raw.header)["intent_name"]).rstrip(b"\0").decode("latin-1")
    elif begin in (b"II", b"MM"):
        with tifffile.TiffFile(path, _multifile=False) as tif:
            name = re.search(r'<Image ID="Image:0" Name="([a-z]+)"', tif.ome_metadata or "")
            said = name[1] if name else str((tif.imagej_metadata or {}).get(_VALUES, ""))
    else:
        said = ""
    return said if said in get_args(ResultKind) else None  # type: ignore[return-value]


def _write_imagej(part: Path, labels: NDArray[Any], grid: Grid, kind: ResultKind | None) -> None:
    metadata: dict[str, Any] = {"axes": "ZYX"[-grid.dims :]}
    if kind is not None:
        metadata[_VALUES] = kind
    resolution = None
    if grid.spacing is not None:
        metadata["unit"] = grid.unit
        resolution = _per_unit(grid.spacing)
        if grid.dims == 3:
            metadata["spacing"] = grid.spacing[0]
    tifffile.imwrite(
        part,
        labels,
        imagej=True,
        photometric="minisblack",
        resolution=resolution,
        metadata=metadata,
        compression="zlib",
        compressionargs={"level": _FAST},
    )


def _write_ome(part: Path, labels: NDArray[Any], grid: Grid, kind: ResultKind | None) -> None:
    # tifffile's own OME-XML has a random identifier, and no two files would be equal.
    tifffile.imwrite(
        part,
        labels,
        bigtiff=labels.nbytes >= _LARGEST_IMAGEJ,
        photometric="minisblack",
        description=_ome_xml(labels, grid, kind or "labels"),
        metadata=None,
        compression="zlib",
        compressionargs={"level": _FAST},
    )


def _per_unit(spacing: tuple[float, ...]) -> Resolution:
    """Return pixels per unit along x and y."""
    x, y = (_ratio(size) for size in (spacing[-1], spacing[-2]))
    return (x.denominator, x.numerator), (y.denominator, y.numerator)


def _ratio(size: float) -> Fraction:
    """Return the nearest ratio of numbers of 32 bits: the size itself where it came from such a ratio, or 0.325."""
    exact = Fraction(float(size))
    if exact < 1:
        return exact.limit_denominator(_MOST)
    return 1 / (1 / exact).limit_denominator(_MOST)


def _ome_xml(labels: NDArray[Any], grid: Grid, name: str) -> str:
    axes = "ZYX"[-grid.dims :]
    sizes = {"X": 1, "Y": 1, "Z": 1, "C": 1, "T": 1} | dict(zip(axes, labels.shape, strict=True))
    attributes = {f"Size{letter}": str(size) for letter, size in sizes.items()}
    if grid.spacing is not None:
        unit = "&#181;m" if grid.unit == "um" else "mm"  # a TIFF description is ASCII
        for letter, size in zip(axes, grid.spacing, strict=True):
            attributes |= {f"PhysicalSize{letter}": repr(float(size)), f"PhysicalSize{letter}Unit": unit}
    text = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0" Name="{name}">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{labels.dtype}" {text}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    )


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB picture, shape ``(y, x, 3)``, as PNG, atomically."""
    from imagecodecs import png_encode

    with atomic_path(path) as part:
        part.write_bytes(png_encode(np.ascontiguousarray(rgb), level=_FAST, filter=_FILTER_SUB))
