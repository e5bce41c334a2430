"""The files that an image gives: label image, table, overlay."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.errors import MachineError
from biounet.files import FoundImage, label_suffix, part_begin, write_labels, write_picture, write_text
from biounet.measure import Columns, columns_to_csv
from biounet.overlay import draw_overlay
from biounet.segment import Segmentation
from biounet.volume_overlay import draw_volume

OVERLAY = "_overlay.png"
_ENDINGS = ("_objects.csv", OVERLAY, "_labels.tif", "_labels.nii.gz")
_CLASS_FILL = 0.35  # opacity of the colours of classes in overlays
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how texts begin that a spreadsheet runs


def write_outputs(
    found: Segmentation, folder: Path, stem: str, *, overlay: bool = True, excel: bool = False
) -> list[Path]:
    """Write label image, table and overlay of one image; return their paths, the label image last.

    The label image comes last, so that where it is, everything is. After an error none of them is left.
    """
    make_folder(folder)
    paths = [folder / name for name in output_names(stem, label_suffix(found.volume.grid), overlay=overlay)]
    written: list[Path] = []
    try:
        for path in paths:
            _write_one(path, found, excel)
            written.append(path)
    except BaseException:  # raised again, after Ctrl-C too: nothing half-written stays
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return paths


def _write_one(path: Path, found: Segmentation, excel: bool) -> None:
    if path.name.endswith(".csv"):
        write_table(path, found.columns, excel=excel)
    elif path.name.endswith(OVERLAY):
        write_picture(path, picture_of(found))
    else:
        write_labels(path, found.labels, found.volume.grid, found.kind)


def picture_of(found: Segmentation) -> NDArray[np.uint8]:
    """Draw what was found, RGB, shape ``(y, x, 3)``: outlines of objects, or coloured classes."""
    volume, fill = found.volume, _CLASS_FILL if found.kind == "classes" else 0.0
    if volume.grid.dims == 3:
        return draw_volume(volume.array, found.labels, volume.grid, fill=fill)
    return draw_overlay(volume.array, found.labels, fill=fill)


def write_table(path: Path, columns: Columns, *, excel: bool = False) -> None:
    """Write a table as CSV, atomically; for `excel`, texts that a spreadsheet would run begin with an apostrophe."""
    if excel:
        texts = {name: column for name, column in columns.items() if column.dtype == object}
        columns = columns | {name: np.array([_as_text(x) for x in texts[name]], object) for name in texts}
        columns = {_as_text(name): column for name, column in columns.items()}
    write_text(path, columns_to_csv(columns))


def _as_text(value: str) -> str:
    return f"'{value}" if value.startswith(_FORMULA) else value


def output_names(stem: str, labels: str, *, overlay: bool = True) -> list[str]:
    """Return the names of the outputs of an image, in the order in which they are written.

    Parameters
    ----------
    stem
        Begin of the names.
    labels
        How that of the label image ends, from `biounet.files.label_suffix`.
    """
    return [f"{stem}{end}" for end in ("_objects.csv", *((OVERLAY,) if overlay else ()), labels)]


def output_paths(image: FoundImage, out: Path) -> list[Path]:
    """Return the paths that outputs of an image can have."""
    return [out / image.relative.parent / f"{image.stem}{end}" for end in _ENDINGS]


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files that may be there.

    Raises
    ------
    MachineError
        If one cannot be removed.
    """
    for path in paths:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise MachineError(f"cannot be removed: {error.strerror}", path=path) from error


def remove_parts(paths: Iterable[Path], parts: dict[Path, list[Path]]) -> None:
    """Remove what killed processes left of files; `parts` is from `biounet.files.find_parts`."""
    for path in paths:
        remove_files(parts.get(path.with_name(part_begin(path)), ()))


def make_folder(folder: Path) -> None:
    """Make a folder that can be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make this folder: {error.strerror}", path=folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError("cannot write into this folder", path=folder, hint="choose another with -o")
