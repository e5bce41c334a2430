"""Results of a run in the formats of other programs, made from its label images and tables.

What is there and up to date, by ``exports.jsonl``, is left as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.batch.export_records import (
    ExportRecord,
    export_origin,
    is_intact,
    merged_origin,
    read_exports,
    record_export,
)
from biounet.batch.manifest import Manifest
from biounet.batch.names import unescape
from biounet.batch.recorded_files import has_hash, resolve_recorded_path
from biounet.batch.records import Record, Row, error_text, is_about_name
from biounet.batch.run_file import RunFile, read_run
from biounet.batch.run_images import RunImage
from biounet.core import Grid, InputError, MachineError, ResultKind, Volume, failure_exit_code, raise_if_stopped
from biounet.files import (
    ExportedImage,
    ExportFormat,
    LabelledImage,
    Locks,
    ReadOptions,
    export_formats,
    find_temporary_files,
    hash_tree,
    map_labels,
    open_label_store,
    read_label_grid,
    read_label_kind,
    read_volume,
    write_export,
)
from biounet.measurement import Columns, columns_from_csv, columns_from_parquet
from biounet.reporting import escape_formula, label_stem, remove_temporary_files, unescape_formulas

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportRow:
    """What became of one image in one format.

    Attributes
    ----------
    status
        ``current`` where the file was there, made from the same labels and table.
    path
        Relative to the folder of results.
    message
        The error.
    """

    image: str
    format: str
    status: Literal["written", "current", "failed"]
    path: str
    message: str = ""


def export_run(
    out: Path,
    formats: Sequence[str],
    report: Callable[[ExportRow], None] = lambda row: None,
    *,
    overwrite: bool = False,
    stop: Event | None = None,
) -> list[ExportRow]:
    """Write the results of a run in the formats of other programs, beside its label images.

    Parameters
    ----------
    out
        Folder of results.
    formats
        Names, as of `biounet.files.export_formats`.
    report
        Called with each row as its file is there.
    overwrite
        Whether files of these names are replaced that biounet did not write, or somebody changed.
    stop
        Work ends after the present file when it is set.

    Returns
    -------
    A row for each image that has results, and each format; then one for each file about the whole run.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError, MachineError
        If the folder holds no run; if the disk is full.
    Stopped
        If `stop` was set; the same call continues.
    """
    chosen, file, rows = export_formats(formats), read_run(out), []
    records = {record.row.image: record for record in Manifest(out).records()}
    with Locks(out, stop) as locks, locks.exclusive("exports"):
        run = _Run(out, file, records, read_exports(out), overwrite)
        exported = [record for record in records.values() if record.outputs and record.model == file.model]
        results = [RunImage(out, record, file.options.read) for record in exported]
        _remove_leftovers([_Source(result, file) for result in results], chosen, out)
        for result in results:
            source = _Source(result, file)  # which holds the image, and so is made for each in turn
            for export in chosen:
                raise_if_stopped(stop)
                rows.append(_export(source, export, run))
                report(rows[-1])
        for export in chosen:
            for row in _merge(run, export, rows):
                rows.append(row)
                report(row)
    return rows


def describe_exports(rows: Sequence[ExportRow]) -> str:
    """Return how many files were exported, in words."""
    written, current = (sum(row.status == status for row in rows) for status in ("written", "current"))
    there = f", {current} already there" if current else ""
    return f"{written} file{'' if written == 1 else 's'} exported{there}"


def export_exit_code(rows: Sequence[ExportRow]) -> int:
    """Return the exit code: 0 when all files are there, 3 when some are not, 4 when none is."""
    return failure_exit_code(sum(row.status == "failed" for row in rows), len(rows))


@dataclass(frozen=True)
class _Run:
    """A folder of results while it is exported, and what is known of its exports, by their paths."""

    out: Path
    file: RunFile
    records: Mapping[str, Record]
    known: dict[str, ExportRecord]
    overwrite: bool

    def own(self, paths: Sequence[str]) -> dict[str, ExportRecord]:
        """Return the records of those files that are there as biounet wrote them.

        Raise `InputError` if another one is there, unless it may be replaced.
        """
        there = [path for path in paths if os.path.lexists(self.out / path)]
        own = {path: self.known[path] for path in there if path in self.known and is_intact(self.out, self.known[path])}
        if len(own) < len(there) and not self.overwrite:
            foreign = self.out / next(path for path in there if path not in own)
            cause = f"{foreign.name} is there and was not written by biounet, or changed since"
            raise InputError(cause, path=foreign, hint="move it elsewhere, or replace it with --overwrite")
        return own

    def note(self, paths: Sequence[str], format: str, image: str, origin: dict[str, str]) -> None:
        """Record files that were written."""
        for path in paths:
            self.known[path] = ExportRecord(path, format, image, origin, hash_tree(self.out / path))
            record_export(self.out, self.known[path])


@dataclass
class _Source:
    """The files of one image of a run, which are read when the first format needs them."""

    result: RunImage
    run: RunFile
    _image: LabelledImage | None = None
    _has_labels: bool = False

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        return label_stem(self.result.label_path)

    def folder(self, export: ExportFormat) -> Path:
        """Where its files in a format go."""
        return self.result.label_path.parent if export.locate is None else self.result.out

    def check_unchanged(self, *, may_be_absent: bool = True) -> None:
        """Raise `InputError` if somebody changed the label image or the table, of which exports are made."""
        for output, sha256 in export_origin(self.result.record.outputs).items():
            path = self.result.out / output
            if may_be_absent and not os.path.lexists(path):
                continue
            if self._image is None and not has_hash(path, sha256):
                hint = "the same 'biounet segment' makes it again; for labels that you corrected use 'biounet measure'"
                state = "no longer as biounet wrote it" if os.path.lexists(path) else "no longer there"
                raise InputError(f"{path.name} is {state}", path=path, hint=hint)

    def image(self, export: ExportFormat) -> LabelledImage:
        """Return the table and, where the format needs them, labels and the image, if that is still the same."""
        needs_image, needs_labels = export.needs_image or export.wants_image, not export.table_only
        if (
            self._image is None
            or (needs_image and self._image.image is None)
            or (needs_labels and not self._has_labels)
        ):
            self._image, self._has_labels = self._read(needs_image, needs_labels), needs_labels
        return self._image

    def _read(self, needs_image: bool, needs_labels: bool) -> LabelledImage:
        record, run, path = self.result.record, self.run, self.result.label_path
        self.check_unchanged(may_be_absent=False)
        frames = "all" if record.row.frames else None
        if needs_labels or not path.is_dir():
            labels, grid, interval = _read_labels(path, ReadOptions(dims=run.options.read.dims, frames=frames))
        else:
            grid, interval = open_label_store(path).grid, None
            labels = np.broadcast_to(np.int32(0), grid.shape)
        columns = self._read_table()
        kind: ResultKind = read_label_kind(path) or "objects"
        image = self._read_image() if needs_image else None
        return LabelledImage(
            name=self.name,
            labels=labels,
            grid=grid if image is None else image.grid,
            kind=kind,
            columns=columns,
            class_names=_class_names(self.result, columns) if kind == "classes" else {},
            times=tuple(frame.t for frame in record.row.frames),
            interval=interval,
            model=f"{run.model_name} ({run.model[:12]})",
            identity=f"{record.model}:{record.settings}:{record.row.image}",
            image=image,
            channel_types={
                unescape(name): str(kind) for name, kind in record.row.details.get("channel_types", {}).items()
            },
            file_name=Path(record.inputs[0].path).name,
        )

    def _read_table(self) -> Columns:
        record, path = self.result.record, self.result.label_path
        table = next((self.result.out / name for name in record.outputs if name.endswith("_objects.parquet")), None)
        if table is not None:
            return columns_from_parquet(table)
        columns = columns_from_csv(path.with_name(f"{self.name}_objects.csv"))
        return unescape_formulas(columns) if self.run.options.excel else columns

    def _read_image(self) -> Volume | None:
        """Return the image as it was read for the result; None where it is no longer there, or not the same."""
        try:
            found = self.result.find_image()
        except InputError:
            return None
        return read_volume(found.files(), found.read_options(self.run.options.read))


def _read_labels(path: Path, options: ReadOptions) -> tuple[NDArray[Any], Grid, float | None]:
    """Return a label image, its grid and its interval between frames; a large one is not taken into memory."""
    mapped = map_labels(path)
    if path.is_dir():
        store = open_label_store(path)
        whole = tuple(slice(0, length) for length in store.grid.shape)
        return store.read(whole) if mapped is None else mapped, store.grid, None
    if mapped is not None:
        return mapped, read_label_grid(path, mapped.shape), None
    labels = read_volume(path, options)
    return labels.array[0].astype(np.int32, copy=False), labels.grid, labels.interval


def _class_names(result: RunImage, columns: Columns) -> dict[int, str]:
    """Return the names of classes by their labels: as recorded or, in earlier runs, by a table that has both."""
    if result.class_names:
        return dict(enumerate(result.class_names, 1))
    if not {"class", "label"} <= columns.keys():
        return {}
    return {int(value): str(name) for value, name in zip(columns["label"], columns["class"], strict=True) if value}


def _remove_leftovers(sources: Sequence[_Source], formats: Sequence[ExportFormat], out: Path) -> None:
    """Remove the temporary files that exports left that were killed; nobody else exports now."""
    temporary = find_temporary_files(out)
    for source in sources if temporary else ():
        for export in formats:
            remove_temporary_files(export.paths(source.folder(export), source.name), temporary)


def _export(source: _Source, export: ExportFormat, run: _Run) -> ExportRow:
    """Write the files of one image, unless they are there and up to date."""
    out, record = run.out, source.result.record
    name, folder = record.row.image, source.folder(export)
    paths = [path.relative_to(out).as_posix() for path in export.paths(folder, source.name)]
    origin = export_origin(record.outputs)
    try:
        own = run.own(paths)
        _check_owner(own, name)
        if len(own) == len(paths) and all(entry.origin == origin for entry in own.values()):
            source.check_unchanged()
            return ExportRow(name, export.name, "current", paths[0])
        write_export(source.image(export), export, folder)
    except Exception as error:  # so that one file fails and not the others
        if isinstance(error, MachineError) and not is_about_name(error):
            raise
        _log.debug("%s", paths[0], exc_info=True)
        return ExportRow(name, export.name, "failed", paths[0], error_text(error))
    run.note(paths, export.name, name, origin)
    return ExportRow(name, export.name, "written", paths[0])


def _check_owner(own: Mapping[str, ExportRecord], name: str) -> None:
    """Raise `InputError` if a file is the export of another image, which this one would replace."""
    for path, record in own.items():
        if record.image != name:
            hint = "give the images names that differ in more than their folder or kind"
            raise InputError(f"{Path(path).name} is the export of {record.image}", hint=hint)


def _merge(run: _Run, export: ExportFormat, rows: Sequence[ExportRow]) -> list[ExportRow]:
    """Write the files of a format about all images of a run, unless they are there and up to date."""
    if export.merge is None:
        return []
    out, file = run.out, run.file
    written = {row.image: out / row.path for row in rows if row.format == export.name and row.status != "failed"}
    if not written:
        return []
    origin = merged_origin(run.records.values(), file.rows, file.options.group)
    inputs = {name: record.inputs for name, record in run.records.items() if record.inputs}
    sources = {name: resolve_recorded_path(files[0].path, out) for name, files in inputs.items()}
    images = [_merged_image(row, file, written.get(row.image), sources.get(row.image)) for row in file.rows]
    try:
        own = run.own(export.merged)
        if len(own) == len(export.merged) and all(entry.origin == origin for entry in own.values()):
            return [ExportRow("", export.name, "current", name) for name in export.merged]
        export.merge(images, out)
    except MachineError:
        raise
    except Exception as error:  # noqa: BLE001 - so that other formats are exported
        _log.debug("%s of all images", export.name, exc_info=True)
        return [ExportRow("", export.name, "failed", name, error_text(error)) for name in export.merged]
    run.note(export.merged, export.name, "", origin)
    return [ExportRow("", export.name, "written", name) for name in export.merged]


def _merged_image(row: Row, run: RunFile, table: Path | None, source: Path | None) -> ExportedImage:
    group, rows = run.options.group, row.table_rows()
    values = None if group is None else group.values(row.image)
    metadata = {} if group is None or values is None else dict(zip(group.names, values, strict=True))
    counts, times = tuple(one.count for one in rows), tuple(frame.t for frame in row.frames)
    tables = {} if table is None else {"Cells": table}
    path = PurePosixPath(row.image)
    if run.options.excel:
        path = path.with_name(escape_formula(path.name))
        metadata = {name: escape_formula(value) for name, value in metadata.items()}
    return ExportedImage(path.as_posix(), tables, {"Cells": counts}, times, metadata, source)
