"""Measure a folder of label images of any program: a table for each, and a row for each in ``counts.csv``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from biounet.core import (
    Figure,
    InputError,
    SettingsError,
    Status,
    __version__,
    describe_flags,
    list_some,
    result_status,
)
from biounet.files import (
    ExportedImage,
    FileMatch,
    LabelFile,
    LabelledImage,
    SkippedFile,
    atomic_group,
    export_formats,
    find_label_images,
    match_files,
    merge_cellprofiler,
    merged_paths,
    split_formats,
    write_export,
    write_text,
)
from biounet.measurement import (
    Columns,
    MeasuredLabels,
    MeasureOptions,
    image_figures,
    measure,
)
from biounet.reporting.count_table import count_table
from biounet.reporting.large_labels import LabelFiles, check_ram, open_large, parquet_path, write_large_tables
from biounet.reporting.outputs import make_folder, remove_files, write_table

_RECORD = "measured.json"
_OBJECTS, _PARENTS, _COUNTS = "_objects.csv", "_parents.csv", "counts.csv"
_OTHER_FOLDER = "choose another folder with -o"
_SHOWN_NAMES = 3  # in a message


@dataclass(frozen=True)
class MeasuredFile:
    """What became of one label image; a row of ``counts.csv``.

    Attributes
    ----------
    image
        Path of the label image below the folder that was named.
    status
        ``flagged``: with a warning that a user should look at; ``empty``: no object, and no warning.
    count
        Number of objects; None where nothing was measured.
    message
        The error, or the warnings.
    figures
        Further columns of ``counts.csv``.
    outputs
        Files that were written, relative to the output folder.
    """

    image: str
    status: Status
    count: int | None
    seconds: float
    message: str
    figures: dict[str, Figure] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints: the columns of ``counts.csv``, and outputs."""
        names = ("image", "status", "count", "message", "outputs")
        shown = {name: getattr(self, name) for name in names}
        return {**shown, "seconds": round(self.seconds, 4), "figures": self.figures}


@dataclass(frozen=True)
class LabelInputs:
    """What is measured.

    Attributes
    ----------
    labels
        A label image, or a folder of them.
    images
        A file or folder of images by the name of their channel; the empty name for images with all their channels.
    inside
        A label image of larger objects, or a folder of them.
    """

    labels: Path
    images: Mapping[str, Path] = field(default_factory=dict)
    inside: Path | None = None


@dataclass(frozen=True)
class MeasuredTables:
    """How the tables of label images are written.

    Attributes
    ----------
    excel
        Whether texts in tables that a spreadsheet would run as a formula get an apostrophe in front.
    columns
        Program whose names and units further tables have, ``"cellprofiler"``; where there are larger objects, the
        objects are called nuclei there, and the larger ones cells.
    ram
        Bytes of memory to take: what does not fit is measured in parts, with the same tables. None: most of what is
        free.

    Raises
    ------
    SettingsError
        If `ram` is too little for any label image.
    """

    excel: bool = False
    columns: str | None = None
    ram: int | None = None

    def __post_init__(self) -> None:
        check_ram(self.ram)


@dataclass(frozen=True)
class _Job:
    """Where the files of all label images are, and how they are measured."""

    out: Path
    images: Mapping[str, FileMatch]  # by the name of the channel, empty for one file with all channels
    inside: FileMatch | None
    options: MeasureOptions
    tables: MeasuredTables
    foreign: frozenset[Path] = frozenset()  # tables that may be needed, and that others wrote

    @property
    def columns(self) -> str | None:
        return self.tables.columns

    def measure(self, labels: LabelFile) -> MeasuredLabels:
        image, inside, options = self.files(labels)
        return measure(labels.path, image, inside=inside, options=options)

    def open_large(self, labels: LabelFile) -> tuple[LabelFiles, int] | None:
        """Open what does not fit into memory, as `biounet.reporting.large_labels.open_large`."""
        large = open_large(labels.path, *self.files(labels), self.tables.ram)
        if large is not None and self.columns is not None:
            hint = "leave out --columns, or give more with --ram"
            raise InputError(f"does not fit into memory, which a table of {self.columns} takes", hint=hint)
        return large

    def files(self, labels: LabelFile) -> tuple[Path | dict[str, Path] | None, Path | None, MeasureOptions]:
        """Return the image of a label image, what it lies in, and how both are read."""
        files = {name: _partner(labels, match, "image") for name, match in self.images.items()}
        inside = None if self.inside is None else _partner(labels, self.inside, "image of larger objects")
        image = files.get("", files or None)
        scenes = (match.scenes.get(labels.path, "") for match in self.images.values())
        options = replace(self.options, scene=self.options.scene or next(filter(None, scenes), ""))
        return image, inside, options

    def output_paths(self, labels: LabelFile) -> list[Path]:
        ends = (_OBJECTS,) if self.inside is None else (_OBJECTS, _PARENTS)
        return [self.out / labels.name.with_name(f"{labels.name.name}{end}") for end in ends]

    @property
    def object_names(self) -> tuple[str, ...]:
        """What CellProfiler is to call the objects and those that they lie in."""
        return ("Cells",) if self.inside is None else ("Nuclei", "Cells")

    def further_paths(self, labels: LabelFile) -> list[Path]:
        """Return the tables with names of another program, in the order of `object_names`."""
        suffix = "" if self.columns is None else export_formats([self.columns])[0].suffix
        ends = ("", _PARENTS.removesuffix(".csv"))[: len(self.object_names)] if suffix else ()
        return [self.out / labels.name.with_name(f"{labels.name.name}{end}{suffix}") for end in ends]

    def merged_paths(self) -> list[Path]:
        return [] if self.columns is None else [self.out / name for name in merged_paths(self.object_names)]


def measure_files(
    inputs: LabelInputs,
    out: Path,
    options: MeasureOptions | None = None,
    tables: MeasuredTables | None = None,
    *,
    report: Callable[[MeasuredFile], None] = lambda row: None,
) -> tuple[list[MeasuredFile], list[SkippedFile]]:
    """Measure label images and write their tables: ``<name>_objects.csv``, ``<name>_parents.csv``, ``counts.csv``.

    Tables that do not fit into memory and have many rows are folders of Parquet.

    Parameters
    ----------
    out
        Folder of the results. Of the files that are there, only those that an earlier call wrote are replaced.
    tables
        How the tables are written.
    report
        Called with each row as it is there.

    Returns
    -------
    One row for each label image, and the images that have none.

    Raises
    ------
    InputError
        If a file or folder does not exist, or there is no label image.
    SettingsError
        If results would lie among the label images or replace files of others.
    MachineError
        If the results cannot be written.
    """
    tables = tables or MeasuredTables()
    split_formats((), tables.columns)
    found = find_label_images(inputs.labels)
    matches = {name: match_files(found, path) for name, path in inputs.images.items()}
    larger = None if inputs.inside is None else match_files(found, inputs.inside, are_labels=True)
    job = _Job(out, matches, larger, options or MeasureOptions(), tables)
    job = replace(job, foreign=_claim(job, found))
    problems = _find_collisions(found)
    rows, images = [], []
    for one in found:
        row, image = _measure_one(one, job, problems.get(one.path))
        rows.append(row)
        images.append(image)
        report(row)
    if tables.columns is not None:
        merge_cellprofiler(images, out, job.object_names)
    write_table(out / _COUNTS, count_table(rows), excel=tables.excel)
    unused = [file for match in (*matches.values(), *([larger] if larger else [])) for file in match.unused]
    return rows, [SkippedFile(file, "no label image is called like it") for file in unused]


def _measure_one(labels: LabelFile, job: _Job, problem: str | None) -> tuple[MeasuredFile, ExportedImage]:
    """Write the tables of a label image; return its row, and what tables of all of them say of it."""
    start, name = time.perf_counter(), labels.relative.as_posix()
    try:
        if problem is not None:
            raise InputError(problem, path=labels.path)
        large = job.open_large(labels)
        written = (
            _write_measured(job.measure(labels), job, labels) if large is None else _write_large(large, job, labels)
        )
    except InputError as error:
        row = MeasuredFile(name, "failed", None, time.perf_counter() - start, _describe(error, labels))
        return row, ExportedImage(name, {}, dict.fromkeys(job.object_names, (None,)))
    paths = (*written.tables, *written.further.values())
    figures = {"flags": describe_flags(written.notes)} | written.figures
    row = MeasuredFile(
        name,
        result_status(written.notes, written.counts[0]),
        written.counts[0],
        time.perf_counter() - start,
        "; ".join(written.notes),
        figures,
        tuple(path.relative_to(job.out).as_posix() for path in paths),
    )
    shown = {objects: (number,) for objects, number in zip(job.object_names, written.counts, strict=True)}
    return row, ExportedImage(name, written.further, shown)


@dataclass(frozen=True)
class _Written:
    """What is said of a label image whose tables have been written; `counts` are rows of each table."""

    tables: tuple[Path, ...]
    notes: tuple[str, ...]
    figures: dict[str, Figure]
    counts: tuple[int, ...]
    further: dict[str, Path] = field(default_factory=dict)


def _write_measured(measured: MeasuredLabels, job: _Job, labels: LabelFile) -> _Written:
    outputs = job.output_paths(labels)
    make_folder(outputs[0].parent)
    tables = [table for table in (measured.objects, measured.parents) if table is not None]
    with atomic_group():
        for path, table in zip(outputs, tables, strict=True):
            write_table(path, table.columns, excel=job.tables.excel)
        further = _write_further(measured, job, labels)
    _remove_former(outputs, job)
    counts = tuple(len(table.columns["label"]) for table in tables)
    figures = image_figures(measured.objects) | _parent_figures(measured)
    return _Written(tuple(outputs), measured.notes, figures, counts, further)


def _write_large(large: tuple[LabelFiles, int], job: _Job, labels: LabelFile) -> _Written:
    files, edge = large
    tables = write_large_tables(files, edge, job.output_paths(labels), excel=job.tables.excel, protected=job.foreign)
    _remove_former(tables.paths, job)
    found, parents = tables.found, tables.parents
    figures = image_figures(tables.objects)
    if parents is None:
        return _Written(tables.paths, tables.notes, figures, (found.count,))
    figures |= {
        "parents": parents.rows,
        "parents_without_objects": tables.without_objects,
        "objects_without_parent": found.without_parent,
        "objects_that_cross": found.crossing,
    }
    return _Written(tables.paths, tables.notes, figures, (found.count, parents.rows))


def _remove_former(tables: Iterable[Path], job: _Job) -> None:
    """Remove the tables that an earlier call wrote in the other format."""
    others = (path.with_suffix(".csv") if path.suffix == ".parquet" else parquet_path(path) for path in tables)
    remove_files(other for other in others if other not in job.foreign)


def _write_further(measured: MeasuredLabels, job: _Job, labels: LabelFile) -> dict[str, Path]:
    """Write tables with names and units of another program; return them by what the objects are called there."""
    if job.columns is None or measured.labels is None or measured.grid is None:
        return {}
    (export,), written = export_formats([job.columns]), {}
    images = ((measured.labels, measured.objects), (measured.parent_labels, measured.parents))
    for (values, table), path, objects in zip(images, job.further_paths(labels), job.object_names, strict=False):
        if values is None or table is None:
            continue
        columns: Columns = table.columns | {"label": np.arange(1, len(table.columns["label"]) + 1)}
        if "parent" in columns and measured.parents is not None:  # by its number, too
            numbers = {label: number for number, label in enumerate(measured.parents.columns["label"].tolist(), 1)}
            columns["parent"] = np.array([numbers.get(one) for one in columns["parent"].tolist()], object)
        name = path.name.removesuffix(export.suffix)
        image = LabelledImage(name, values, measured.grid, "objects", columns, channel_types=measured.channel_types)
        written[objects] = write_export(image, export, path.parent)
    return written


def _parent_figures(measured: MeasuredLabels) -> dict[str, Figure]:
    if measured.parents is None:
        return {}
    inside, columns = measured.parents.columns["count_inside"], measured.objects.columns
    return {
        "parents": len(inside),
        "parents_without_objects": int((inside == 0).sum()),
        "objects_without_parent": int(sum(parent is None for parent in columns["parent"])),
        "objects_that_cross": int(columns["crosses"].sum()),
    }


def _partner(labels: LabelFile, match: FileMatch, what: str) -> Path:
    if labels.path not in match.found:
        hint = f"it is called like the label image, such as {labels.name.name}.tif"
        raise InputError(f"no {what} of this name in {match.folder}", path=labels.path, hint=hint)
    return match.found[labels.path]


def _describe(error: InputError, labels: LabelFile) -> str:
    """Return an error without the path of the label image, which stands in the row already."""
    if error.path is not None and Path(error.path) != labels.path:
        return str(error)
    return f"{error.cause} (hint: {error.hint})" if error.hint else error.cause


def _find_collisions(found: Sequence[LabelFile]) -> dict[Path, str]:
    """Return what is wrong with label images whose results would have the names of those of another."""
    groups: dict[str, list[Path]] = {}
    for labels in found:
        groups.setdefault(labels.name.as_posix().lower(), []).append(labels.path)
    others = {path: [str(other) for other in group if other != path] for group in groups.values() for path in group}
    return {
        path: f"its results would have the names of those of {list_some(names, _SHOWN_NAMES)}"
        for path, names in others.items()
        if names
    }


def _claim(job: _Job, found: Sequence[LabelFile]) -> frozenset[Path]:
    """Note which files will be written, unless results would lie among the label images or replace files of others.

    Returns
    -------
    Tables that others wrote, in a format that is needed only if there are many rows.
    """
    paths = [path for labels in found for path in (*job.output_paths(labels), *job.further_paths(labels))]
    folders = {os.path.abspath(labels.path.parent) for labels in found}  # noqa: PTH100 - `resolve` would access the disk
    if folders & {os.path.abspath(path.parent) for path in paths}:  # noqa: PTH100
        raise SettingsError("the results would lie among the label images", path=job.out, hint=_OTHER_FOLDER)
    names = [path.relative_to(job.out).as_posix() for path in (*paths, *job.merged_paths(), job.out / _COUNTS)]
    own = _read_record(job.out / _RECORD)
    foreign = [name for name in names if name not in own and os.path.lexists(job.out / name)]
    if foreign or (not own and os.path.lexists(job.out / _RECORD)):
        cause = f"{list_some(foreign or [_RECORD], _SHOWN_NAMES)}: there already, and not written by 'biounet measure'"
        raise SettingsError(cause, path=job.out, hint=_OTHER_FOLDER)
    further = [parquet_path(path) for labels in found for path in job.output_paths(labels)]
    tables = {path: path.relative_to(job.out).as_posix() for path in further}
    others = frozenset(path for path, name in tables.items() if name not in own and os.path.lexists(path))
    names += [name for path, name in tables.items() if path not in others]
    make_folder(job.out)
    record = {"biounet": __version__, "outputs": sorted({*names, *own})}
    write_text(job.out / _RECORD, f"{json.dumps(record, indent=1)}\n")
    return others


def _read_record(path: Path) -> set[str]:
    """Return the files that earlier calls wrote; empty where there is no such record."""
    try:
        return set(map(str, json.loads(path.read_text(encoding="utf-8"))["outputs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return set()
