"""Label images that Fiji, napari and QuPath open with the pixel size of their source, and pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, get_args

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.core import Grid, InputError, ResultKind, Volume
from biounet.files.atomic import atomic_path
from biounet.files.dataset_index.names import NIFTI, is_label_store
from biounet.files.disk_arrays import forget
from biounet.files.exports.colours import object_colours
from biounet.files.formats.nifti import parse_header, write_nifti
from biounet.files.formats.opening import open_raw
from biounet.files.formats.raw import translate_errors
from biounet.files.label_store.metadata import stored_kind

DEFLATE_LEVEL = 1  # label images shrink 50 times at any level
_PNG_FILTER_SUB = 16  # with one fixed filter a picture takes 10 ms where libpng's choice takes 16, at the same size
_MAX_IMAGEJ = 2**31  # bytes
_STRIP = 1 << 18  # bytes of pixels
_TILE = (512, 512)
_TILED_FROM = 2048  # rows or columns, above which a program had better read a part
_MAX_UINT32 = 2**32 - 1  # of a label, and in a TIFF rational
_COLOUR_COUNT = 256  # of a look-up table of ImageJ
_COLOR_MAP, _SHORT = 320, 3  # number and type of a TIFF tag
_KIND_KEY = "values"  # of the description of an ImageJ TIFF


def label_suffix(grid: Grid) -> str:
    """Return the suffix of label images on this grid: that of a NIfTI if their source is one."""
    return "_labels.tif" if grid.header is None else "_labels.nii.gz"


def write_labels(path: Path, labels: NDArray[Any], grid: Grid | Volume, kind: ResultKind | None = None) -> None:
    """Write a label image with the geometry of its source, atomically; equal input gives equal bytes.

    The suffixes ``.nii`` and ``.nii.gz`` give a NIfTI with the header of the source, others a TIFF with its pixel size:
    an ImageJ TIFF of 16 bits for up to 65 535 objects, an OME-TIFF of 32 bits, which ImageJ's format lacks, for more.

    Parameters
    ----------
    labels
        Integers from 0, shape ``([t,] [z,] y, x)``.
    grid
        Grid of the labels, or the image or time series that they were found in.
    kind
        What the values are, which `read_label_kind` reads again; None: not stated.

    Raises
    ------
    InputError
        If `labels` are no label image on this grid, or the suffix is that of a NIfTI and the source is none.
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    frames, interval = (len(grid.times), grid.interval) if isinstance(grid, Volume) else (0, None)
    grid = grid.grid if isinstance(grid, Volume) else grid
    shape = (*((frames,) if frames else ()), *grid.shape)
    lowest, largest = _ends(labels)
    if labels.shape != shape or labels.dtype.kind not in "iu" or lowest < 0:
        raise InputError(f"not a label image on grid {shape}: {labels.dtype} of shape {labels.shape}", path=path)
    check_largest(path, largest)
    if path.name.lower().endswith(NIFTI):
        if grid.header is None:
            raise InputError("its image has no NIfTI header to write with", path=path, hint="name it .tif")
        with atomic_path(path) as temporary:
            packed = path.suffix.lower() == ".gz"
            write_nifti(temporary, labels, grid.header, packed=packed, values=kind or "", frames=frames)
        return
    layout = tiff_layout(shape, grid, largest, kind, interval)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, **layout.file) as tif:
        if isinstance(labels, np.memmap):
            tif.write(_packed_pieces(labels, layout), shape=shape, dtype=layout.dtype, **layout.tags)
        else:
            tif.write(labels.astype(layout.dtype), **layout.tags)


def _ends(labels: NDArray[Any]) -> tuple[int, int]:
    """Return the lowest and the highest label, of an array on the disk frame by frame."""
    if not isinstance(labels, np.memmap):
        return int(labels.min()), int(labels.max())
    ends = []
    for frame in labels:
        ends.append((int(frame.min()), int(frame.max())))
        forget(labels)
    return min(low for low, _ in ends), max(high for _, high in ends)


def _packed_pieces(labels: NDArray[Any], layout: TiffLayout) -> Iterator[bytes]:
    """Yield the tiles or strips of all planes of labels on the disk, as `tifffile` packs those of others."""
    height, width = layout.piece
    for plane in labels.reshape(-1, *labels.shape[-2:]):
        pixels = plane.astype(layout.dtype)
        for y, x in product(range(0, pixels.shape[0], height), range(0, pixels.shape[1], width)):
            piece = pixels[y : y + height, x : x + width]
            if layout.is_tiled and piece.shape != layout.piece:
                piece = np.pad(piece, [(0, height - piece.shape[0]), (0, width - piece.shape[1])])
            yield bytes(imagecodecs.deflate_encode(piece.tobytes(), level=DEFLATE_LEVEL))
        forget(labels)


def check_largest(path: Path, largest: int) -> None:
    """Raise `InputError` for a label that no format can hold."""
    if largest > _MAX_UINT32:
        raise InputError(f"label {largest} does not fit in 32 bits", path=path)


@dataclass(frozen=True)
class TiffLayout:
    """How labels are laid out in a TIFF; what `tifffile` is called with depends on it alone.

    Attributes
    ----------
    dtype
        Of the pixels.
    piece
        Rows and columns that are packed together: a tile, or a strip of whole rows.
    is_tiled
        Whether it is a tile.
    file, tags
        Arguments of `tifffile.TiffWriter` and of its `write`.
    """

    dtype: np.dtype[Any]
    piece: tuple[int, int]
    is_tiled: bool
    file: dict[str, Any]
    tags: dict[str, Any]


def tiff_layout(
    shape: tuple[int, ...], grid: Grid, largest: int, kind: ResultKind | None, interval: float | None = None
) -> TiffLayout:
    """Return how labels of shape ``([t,] [z,] y, x)`` up to `largest` are laid out in a TIFF.

    ImageJ opens no tiles by itself: its format has strips.
    """
    is_wide = largest > np.iinfo(np.uint16).max
    dtype = np.dtype(np.uint32 if is_wide else np.uint16)
    size = math.prod(shape) * dtype.itemsize
    is_ome = is_wide or size >= _MAX_IMAGEJ
    is_tiled = is_ome and max(shape[-2:]) > _TILED_FROM
    rows = max(1, min(_STRIP // (shape[-1] * dtype.itemsize), shape[-2]))
    axes = ("T" if len(shape) > grid.dims else "") + "ZYX"[-grid.dims :]
    time = (axes, interval)
    tags = _ome_tags(shape, dtype, grid, kind or "labels", time) if is_ome else _imagej_tags(largest, grid, kind, time)
    tags |= {
        "photometric": "minisblack",
        "compression": "zlib",
        "compressionargs": {"level": DEFLATE_LEVEL},
        "tile": _TILE if is_tiled else None,
        "rowsperstrip": None if is_tiled else rows,
    }
    file = {"imagej": not is_ome, "bigtiff": is_ome and size >= _MAX_IMAGEJ}
    return TiffLayout(dtype, _TILE if is_tiled else (rows, shape[-1]), is_tiled, file, tags)


@translate_errors
def read_label_kind(path: Path) -> ResultKind | None:
    """Return what the values of a label image are, as `write_labels` stored it; None where it did not."""
    if is_label_store(path):
        kind = stored_kind(path)
        return kind if kind in get_args(ResultKind) else None  # type: ignore[return-value]
    raw = open_raw(path)
    if path.is_dir():
        return None
    with path.open("rb") as file:
        magic = file.read(2)
    kind = ""
    if raw.header is not None:
        kind = bytes(parse_header(raw.header)["intent_name"]).rstrip(b"\0").decode("latin-1")
    elif magic in (b"II", b"MM"):
        with tifffile.TiffFile(path, _multifile=False) as tif:
            name = re.search(r'<Image ID="Image:0" Name="([a-z]+)"', tif.ome_metadata or "")
            kind = name[1] if name else str((tif.imagej_metadata or {}).get(_KIND_KEY, ""))
    return kind if kind in get_args(ResultKind) else None  # type: ignore[return-value]


def _imagej_tags(largest: int, grid: Grid, kind: ResultKind | None, time: tuple[str, float | None]) -> dict[str, Any]:
    """Return the tags by which Fiji shows labels in colours, and Bio-Formats knows their pixel size."""
    axes, interval = time
    metadata: dict[str, Any] = {"axes": axes} | ({} if kind is None else {_KIND_KEY: kind})
    # The range that is shown. Up to 255 objects each has its own colour.
    metadata |= {"min": 0.0, "max": float(max(largest, _COLOUR_COUNT - 1))}
    if interval is not None:
        metadata |= {"finterval": interval, "tunit": "sec"}
    resolution = None
    metadata["unit"] = grid.unit or "pixel"  # without a unit, Bio-Formats takes the 1 of the tags for 1 µm
    if grid.spacing is not None:
        resolution = (_pixels_per_unit(grid.spacing[-1]), _pixels_per_unit(grid.spacing[-2]))
        if grid.dims == 3:
            metadata["spacing"] = grid.spacing[0]
    return {"resolution": resolution, "metadata": metadata, "extratags": [_colour_map()]}


def _colour_map() -> tuple[int, int, int, tuple[int, ...], bool]:
    """Return the look-up table of ImageJ as a tag: black, and 255 colours that are told apart.

    ImageJ reads it from the tag ``ColorMap``, also of images of 16 bits; its metadata ``LUTs`` are of several channels
    only. To other programs the tag says nothing, since the pixels are declared grey.
    """
    table = np.zeros((_COLOUR_COUNT, 3), np.uint16)
    table[1:] = object_colours(np.arange(1, _COLOUR_COUNT))
    return _COLOR_MAP, _SHORT, table.size, tuple((table.T.reshape(-1) * 257).tolist()), True


def _pixels_per_unit(size: float) -> tuple[int, int]:
    """Return the nearest ratio of integers of 32 bits: that of the source where the size came from one, or of 0.325."""
    exact = Fraction(float(size))
    nearest = exact.limit_denominator(_MAX_UINT32) if exact < 1 else 1 / (1 / exact).limit_denominator(_MAX_UINT32)
    return nearest.denominator, nearest.numerator


def _ome_tags(
    shape: tuple[int, ...], dtype: np.dtype[Any], grid: Grid, name: str, time: tuple[str, float | None]
) -> dict[str, Any]:
    """Return the description as OME-XML: tifffile's has a random identifier, and no two files would be equal."""
    axes, interval = time
    sizes = dict.fromkeys("XYZCT", 1) | dict(zip(axes, shape, strict=True))
    attributes = {f"Size{letter}": str(size) for letter, size in sizes.items()}
    if grid.spacing is not None:
        unit = "&#181;m" if grid.unit == "um" else "mm"  # a TIFF description is ASCII
        for letter, size in zip(axes[-grid.dims :], grid.spacing, strict=True):
            attributes |= {f"PhysicalSize{letter}": repr(float(size)), f"PhysicalSize{letter}Unit": unit}
    if interval is not None:
        attributes |= {"TimeIncrement": repr(interval), "TimeIncrementUnit": "s"}
    text = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    description = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0" Name="{name}">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{dtype}" {text}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    )
    return {"description": description, "metadata": None}


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write an RGB picture, shape ``(y, x, 3)``, as PNG, atomically."""
    from imagecodecs import png_encode

    with atomic_path(path) as temporary:
        temporary.write_bytes(png_encode(np.ascontiguousarray(rgb), level=DEFLATE_LEVEL, filter=_PNG_FILTER_SUB))
