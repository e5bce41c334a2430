"""The files that an image gives: label image, table, overlay."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, MachineError, SettingsError
from biounet.files import (
    FoundImage,
    atomic_group,
    hash_file,
    label_suffix,
    temporary_prefix,
    write_labels,
    write_picture,
    write_text,
)
from biounet.measurement import Columns, columns_to_csv
from biounet.reporting.overlays import draw_overlay
from biounet.reporting.volume_overlays import draw_volume

if TYPE_CHECKING:
    from biounet.segmentation import Segmentation

OVERLAY_SUFFIX = "_overlay.png"
LABEL_SUFFIXES = ("_labels.tif", "_labels.nii.gz")
OUTPUT_SUFFIXES = ("_objects.csv", OVERLAY_SUFFIX, *LABEL_SUFFIXES)
_CLASS_FILL = 0.35  # opacity of the colours of classes in overlays
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how texts begin that a spreadsheet runs


def write_outputs(
    found: Segmentation,
    folder: Path,
    stem: str,
    *,
    overlay: bool = True,
    excel: bool = False,
    kept: Collection[Path] = (),
) -> list[Path]:
    """Write label image, table and overlay of one image; return their paths, the label image last.

    All of them are whole before the first takes its place, and after an error everything is as it was. The label image
    comes last, so that where it is, everything is.

    Parameters
    ----------
    kept
        Files that somebody else wrote or changed, which are not replaced.

    Raises
    ------
    InputError
        If one of those would have to be.
    """
    make_folder(folder)
    paths = [folder / name for name in output_names(stem, label_suffix(found.volume.grid), overlay=overlay)]
    with atomic_group() as parts:
        for path in paths:
            _write_one(path, found, excel)
        for path in paths:
            if path in kept and not _have_one_content(path, parts[path]):
                raise InputError(
                    f"{path.name} is among the results and was not written by biounet, or changed since",
                    path=path,
                    hint="move it elsewhere, or choose another folder for the results",
                )
    return paths


def _have_one_content(one: Path, other: Path) -> bool:
    try:
        return hash_file(one) == hash_file(other)
    except OSError:  # a folder, or closed to us: certainly nothing of ours
        return False


def _write_one(path: Path, found: Segmentation, excel: bool) -> None:
    if path.name.endswith(".csv"):
        write_table(path, found.columns, excel=excel)
    elif path.name.endswith(OVERLAY_SUFFIX):
        write_picture(path, draw_segmentation(found))
    else:
        write_labels(path, found.labels, found.volume.grid, found.kind)


def draw_segmentation(found: Segmentation) -> NDArray[np.uint8]:
    """Draw what was found, RGB, shape ``(y, x, 3)``: outlines of objects, or coloured classes."""
    volume, fill = found.volume, _CLASS_FILL if found.kind == "classes" else 0.0
    if volume.grid.dims == 3:
        return draw_volume(volume.array, found.labels, volume.grid, fill=fill)
    return draw_overlay(volume.array, found.labels, fill=fill)


def write_table(path: Path, columns: Columns, *, excel: bool = False) -> None:
    """Write a table as CSV, atomically, as `format_table` gives it."""
    write_text(path, format_table(columns, excel=excel))


def format_table(columns: Columns, *, excel: bool = False) -> str:
    """Return a table as CSV; for `excel`, texts that a spreadsheet would run begin with an apostrophe."""
    if excel:
        texts = {name: column for name, column in columns.items() if column.dtype == object}
        columns = columns | {name: np.array([_as_text(x) for x in texts[name]], object) for name in texts}
        columns = {_as_text(name): column for name, column in columns.items()}
    return columns_to_csv(columns)


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
    return [f"{stem}{end}" for end in ("_objects.csv", *((OVERLAY_SUFFIX,) if overlay else ()), labels)]


def output_paths(image: FoundImage, out: Path) -> list[Path]:
    """Return the paths that outputs of an image can have."""
    return [out / image.relative.parent / f"{image.stem}{end}" for end in OUTPUT_SUFFIXES]


def check_output_folder(images: Iterable[FoundImage], out: Path) -> None:
    """Refuse an output folder that would put results among the images they are of.

    Paths are compared as they are spelt: a disk that does not answer is not asked.

    Raises
    ------
    SettingsError
        Naming the folder and another one.
    """
    places = {(image.path.parent, out / image.relative.parent) for image in images}
    for folder, results in places:
        if os.path.abspath(folder) == os.path.abspath(results):  # noqa: PTH100 - `resolve` would ask the disk
            hint = "choose a folder of its own, such as -o biounet-out"
            raise SettingsError("the results would lie among the images", path=out, hint=hint)


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


def remove_temporary_files(paths: Iterable[Path], parts: dict[Path, list[Path]]) -> None:
    """Remove what killed processes left of files; `parts` is from `biounet.files.find_temporary_files`."""
    for path in paths:
        remove_files(parts.get(path.with_name(temporary_prefix(path)), ()))


def _why_not(error: OSError) -> str:
    if not isinstance(error, FileExistsError):
        return str(error.strerror)
    path = Path(error.filename)
    return "it is a file" if path.exists() else f"it is a link to {path.readlink()}, which is not there"


def make_folder(folder: Path) -> None:
    """Make a folder that can be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make this folder: {_why_not(error)}", path=folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError("cannot write into this folder", path=folder, hint="choose another with -o")
