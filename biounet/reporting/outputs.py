"""The output files of an image: label image, table and overlay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, MachineError, SettingsError
from biounet.files import (
    REPORT_FOLDER,
    STORE_SUFFIX,
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
from biounet.reporting.case_report import render_case
from biounet.reporting.overlays import Canvas, draw_outlines, prepare_canvas
from biounet.reporting.time_series_overlays import colour_by_track, compose_time_series
from biounet.reporting.view_files import DATA_SUFFIX, VIEW_SUFFIXES, view_data, write_view_file
from biounet.reporting.volume_overlays import compose_volume

if TYPE_CHECKING:
    from biounet.segmentation import Segmentation

OVERLAY_SUFFIX = "_overlay.png"
LABEL_SUFFIXES = ("_labels.tif", "_labels.nii.gz", STORE_SUFFIX)
CASE_SUFFIX = "_report.html"
OUTPUT_SUFFIXES = ("_objects.csv", "_objects.parquet", OVERLAY_SUFFIX, CASE_SUFFIX, *LABEL_SUFFIXES)
_CLASS_FILL = 0.35  # opacity of classes in overlays
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # of texts that a spreadsheet would evaluate


@dataclass(frozen=True)
class OutputOptions:
    """Which files of an image are written, and how.

    Attributes
    ----------
    overlay
        Whether ``<name>_overlay.png`` is.
    excel
        Whether texts in tables that a spreadsheet would run as a formula get an apostrophe in front.
    view_folder
        Where the files go that the report shows, from `view_folder`; None: none of them.
    model
        What the model is called, for the report on a volume with lesions.
    """

    overlay: bool = True
    excel: bool = False
    view_folder: Path | None = None
    model: str = ""


def write_outputs(
    result: Segmentation,
    folder: Path,
    stem: str,
    options: OutputOptions | None = None,
    *,
    protected: Collection[Path] = (),
) -> list[Path]:
    """Write label image, table and overlay of one image; return their paths, the label image last.

    All of them are complete before the first is moved to its path, and an error leaves the folder unchanged. The label
    image is moved last: where it exists, the others do too.

    Parameters
    ----------
    protected
        Files that were written or changed by others, and must not be replaced.

    Raises
    ------
    InputError
        If a protected file has other contents than the output.
    """
    options = options or OutputOptions()
    has_case = result.measurements.kind == "lesions" and not result.frames
    names = output_names(stem, label_suffix(result.volume.grid), overlay=options.overlay, has_case=has_case)
    paths = [folder / name for name in names]
    if options.view_folder is not None:
        paths = [*(options.view_folder / f"{stem}{suffix}" for suffix in VIEW_SUFFIXES), *paths]
    for parent in dict.fromkeys(path.parent for path in paths):
        make_folder(parent)
    pictures = _Pictures(result)
    with atomic_group() as temporary:
        for path in paths:
            _write_one(path, result, pictures, options)
        for path in paths:
            if path in protected and not _same_contents(path, temporary[path]):
                raise InputError(
                    f"{path.name} is among the results and was not written by biounet, or changed since",
                    path=path,
                    hint="move it elsewhere, or choose another folder for the results",
                )
    return paths


def _same_contents(one: Path, other: Path) -> bool:
    try:
        return hash_file(one) == hash_file(other)
    except OSError:  # a folder, or not readable: not one of our outputs
        return False


class _Pictures:
    """The pictures of an image, drawn when the first file needs them."""

    def __init__(self, result: Segmentation) -> None:
        self._result = result

    @cached_property
    def canvas(self) -> Canvas:
        volume, labels, classes = self._result.volume, self._result.labels, self._result.kind == "classes"
        if volume.times:
            return compose_time_series(volume, labels, classes=classes)
        if volume.grid.dims == 3:
            return compose_volume(volume.array, labels, volume.grid, classes=classes)
        return prepare_canvas(volume.array, labels)

    @cached_property
    def overlay(self) -> NDArray[np.uint8]:
        canvas = colour_by_track(self.canvas, self._result.measurements)
        return draw_outlines(canvas, _CLASS_FILL if self._result.kind == "classes" else 0.0)

    @property
    def data(self) -> str:
        result, volume = self._result, self._result.volume
        grid = None if volume.times or volume.grid.dims == 3 else volume.grid
        return view_data(self.canvas, result.measurements, grid, result.class_names)


def _write_one(path: Path, result: Segmentation, pictures: _Pictures, options: OutputOptions) -> None:
    if path.name.endswith(VIEW_SUFFIXES):
        data = pictures.data if path.name.endswith(DATA_SUFFIX) else ""
        write_view_file(path, pictures.canvas, pictures.overlay, data)
    elif path.name.endswith(".csv"):
        write_table(path, result.columns, excel=options.excel)
    elif path.name.endswith(CASE_SUFFIX):
        write_text(path, render_case(result, path.name.removesuffix(CASE_SUFFIX), pictures.overlay, options.model))
    elif path.name.endswith(OVERLAY_SUFFIX):
        write_picture(path, pictures.overlay)
    else:
        write_labels(path, result.labels, result.volume, result.kind)


def draw_segmentation(result: Segmentation) -> NDArray[np.uint8]:
    """Draw the outlines of objects, or classes in colour, on the image; RGB, shape ``(y, x, 3)``.

    Of a time series, some frames are drawn side by side, and what is linked over time has one colour.
    """
    return _Pictures(result).overlay


def write_table(path: Path, columns: Columns, *, excel: bool = False) -> None:
    """Write a table as CSV, atomically."""
    write_text(path, format_table(columns, excel=excel))


def format_table(columns: Columns, *, excel: bool = False) -> str:
    """Return a table as CSV; for `excel`, an apostrophe precedes texts that a spreadsheet would evaluate."""
    if excel:
        texts = {name: column for name, column in columns.items() if column.dtype == object}
        columns = columns | {name: np.array([escape_formula(x) for x in texts[name]], object) for name in texts}
        columns = {escape_formula(name): column for name, column in columns.items()}
    return columns_to_csv(columns)


def escape_formula(value: Any) -> Any:  # noqa: ANN401 - texts, and the numbers among figures
    """Return a text that a spreadsheet would run as a formula with an apostrophe in front; all else as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def unescape_formulas(columns: Columns) -> Columns:
    """Return the columns of a table without the apostrophes that `format_table` put in for `excel`."""
    plain: Columns = {}
    for name, column in columns.items():
        texts = column.dtype == object
        plain[_unescape_formula(name)] = np.array([_unescape_formula(x) for x in column], object) if texts else column
    return plain


def _unescape_formula(value: Any) -> Any:  # noqa: ANN401
    escaped = isinstance(value, str) and value[:1] == "'" and value[1:].startswith(_FORMULA_STARTS)
    return value[1:] if escaped else value


def label_stem(labels: Path) -> str:
    """Return how the names of all files of an image begin, by the path of its label image."""
    return labels.name.removesuffix(next(filter(labels.name.endswith, LABEL_SUFFIXES)))


def output_names(stem: str, labels_suffix: str, *, overlay: bool = True, has_case: bool = False) -> list[str]:
    """Return the names of the outputs of an image, in the order in which they are written.

    `has_case` if it is a volume with lesions, which have a report of their own.
    """
    pictures = (OVERLAY_SUFFIX, *((CASE_SUFFIX,) if has_case else ())) if overlay else ()
    suffixes = ("_objects.csv", *pictures, labels_suffix)
    return [f"{stem}{suffix}" for suffix in suffixes]


def output_paths(image: FoundImage, out: Path) -> list[Path]:
    """Return all paths that outputs of an image can have."""
    return [out / path for path in possible_outputs(image.relative.parent.as_posix(), image.stem)]


def possible_outputs(parent: str, stem: str) -> list[str]:
    """Return all paths, relative to the folder of results, that outputs of an image in a folder `parent` can have.

    With ``/``; ``.`` is the folder of results itself.
    """
    folder = "" if parent == "." else f"{parent}/"
    views = (f"{REPORT_FOLDER}/{folder}{stem}{suffix}" for suffix in VIEW_SUFFIXES)
    return [*(f"{folder}{stem}{suffix}" for suffix in OUTPUT_SUFFIXES), *views]


def view_folder(parent: PurePath) -> PurePath:
    """Return where the files for the report go, relative to the folder of results, of images in a folder `parent`."""
    return PurePath(REPORT_FOLDER) / parent


def is_view_file(path: str) -> bool:
    """Whether an output is one that only the report shows."""
    return path.startswith(f"{REPORT_FOLDER}/")


def is_picture(path: str) -> bool:
    """Whether an output is for people to look at: `verify` compares label images and tables."""
    return path.endswith((OVERLAY_SUFFIX, CASE_SUFFIX)) or is_view_file(path)


def check_output_folder(images: Iterable[FoundImage], out: Path) -> None:
    """Raise `SettingsError` for an output folder that would put results among their images.

    Paths are compared as text, since a disk may not respond.
    """
    folders = {(image.path if image.is_folder else image.path.parent, out / image.relative.parent) for image in images}
    for folder, results in folders:
        if os.path.abspath(folder) == os.path.abspath(results):  # noqa: PTH100 - `resolve` would access the disk
            hint = "choose a folder of its own, such as -o biounet-out"
            raise SettingsError("the results would lie among the images", path=out, hint=hint)


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files and folders where they exist; raise `MachineError` if one cannot be removed."""
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise MachineError(f"cannot be removed: {error.strerror}", path=path) from error


def remove_temporary_files(paths: Iterable[Path], temporary: dict[Path, list[Path]]) -> None:
    """Remove what killed processes left of files and folders, from `biounet.files.find_temporary_files`."""
    for path in paths:
        left = temporary.get(path.with_name(temporary_prefix(path)), ())
        for folder in (one for one in left if one.is_dir() and not one.is_symlink()):
            shutil.rmtree(folder, ignore_errors=True)
        remove_files(one for one in left if os.path.lexists(one))


def make_folder(folder: Path) -> None:
    """Make a folder, unless it exists; raise `MachineError` if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make this folder: {_mkdir_reason(error)}", path=folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MachineError("cannot write into this folder", path=folder, hint="choose another with -o")


def _mkdir_reason(error: OSError) -> str:
    if not isinstance(error, FileExistsError):
        return str(error.strerror)
    path = Path(error.filename)
    return "it is a file" if path.exists() else f"it is a link to {path.readlink()}, which is not there"
