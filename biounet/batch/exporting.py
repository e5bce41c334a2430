"""Results of a run in the formats of other programs, made from its label images and tables.

``exports.jsonl`` has a line for each file: what it was made from, and its hash. What is there and up to date is left.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from biounet.batch.manifest import Manifest
from biounet.batch.names import unescape
from biounet.batch.process_image import error_text
from biounet.batch.recorded_files import are_unchanged, recorded_image, resolve_recorded_path
from biounet.batch.records import Record
from biounet.batch.replay import RunFile, read_run
from biounet.core import InputError, MachineError, ResultKind, Volume, failure_exit_code, raise_if_stopped
from biounet.files import (
    ExportFormat,
    LabelledImage,
    ReadOptions,
    append_line,
    export_formats,
    hash_tree,
    read_label_kind,
    read_volume,
    write_export,
)
from biounet.measurement import Columns, columns_from_csv
from biounet.reporting import LABEL_SUFFIXES, is_picture

_Known = dict[str, dict[str, Any]]  # entries of the file by the paths they are about

EXPORTS_NAME = "exports.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportRow:
    """What became of one image in one format: `path` relative to the folder, and the error or what is left."""

    image: str
    format: str
    status: str  # written, current or failed
    path: str = ""
    message: str = ""


@dataclass(frozen=True)
class ExportOptions:
    """How results are exported.

    Attributes
    ----------
    formats
        Names of `biounet.files.export_formats`.
    overwrite
        Whether files are replaced that biounet did not write, or somebody changed.
    """

    formats: tuple[str, ...]
    overwrite: bool = False


def export_run(
    out: Path,
    options: ExportOptions,
    report: Callable[[ExportRow], None] = lambda row: None,
    stop: Event | None = None,
) -> list[ExportRow]:
    """Write the results of a run in the formats of other programs, beside its label images.

    Parameters
    ----------
    out
        Folder of results.
    report
        Called with each row as its file is there.
    stop
        Work ends after the present file when it is set.

    Returns
    -------
    A row for each image and format, images that failed in the run left out.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError, MachineError
        If the folder holds no run; if the disk is full.
    """
    formats, run, known = export_formats(options.formats), read_run(out), _read_known(out)
    rows = []
    for record in Manifest(out).records.values():
        if record.row.status == "failed" or record.model != run.model:
            continue
        source = _Source(out, record, run)
        for export in formats:
            raise_if_stopped(stop)
            row = _export(source, export, known, options)
            rows.append(row)
            report(row)
    return rows


def export_exit_code(rows: Sequence[ExportRow]) -> int:
    """Return the exit code: 0 when all files are there, 3 when some are not, 4 when none is."""
    return failure_exit_code(sum(row.status == "failed" for row in rows), len(rows))


@dataclass
class _Source:
    """The files of one image of a run, which are read when the first format needs them."""

    out: Path
    record: Record
    run: RunFile
    _image: LabelledImage | None = None

    @property
    def label_path(self) -> str:
        """The label image, relative to the folder."""
        return next(path for path in self.record.outputs if path.endswith(LABEL_SUFFIXES))

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        name = Path(self.label_path).name
        return name.removesuffix(next(suffix for suffix in LABEL_SUFFIXES if name.endswith(suffix)))

    @property
    def origin(self) -> dict[str, str]:
        """Hashes of what an export is made from."""
        return {path: sha256 for path, sha256 in self.record.outputs.items() if not is_picture(path)}

    def image(self, needs_image: bool) -> LabelledImage:
        """Return labels, table and, where it is needed, image."""
        if self._image is None or (needs_image and self._image.image is None):
            self._image = _read_result(self, needs_image)
        return self._image


def _read_result(source: _Source, needs_image: bool) -> LabelledImage:
    out, record, run = source.out, source.record, source.run
    path = out / source.label_path
    frames = "all" if record.row.frames else None
    labels = read_volume(path, ReadOptions(dims=run.options.read.dims, frames=frames))
    columns = columns_from_csv(path.with_name(f"{source.name}_objects.csv"))
    image = _read_image(source) if needs_image else None
    kind: ResultKind = read_label_kind(path) or "objects"
    return LabelledImage(
        name=source.name,
        labels=labels.array[0].astype(np.int32, copy=False),
        grid=labels.grid if image is None else image.grid,
        kind=kind,
        columns=columns,
        class_names=_class_names(columns) if kind == "classes" else {},
        times=tuple(frame.t for frame in record.row.frames),
        interval=labels.interval,
        model=run.model,
        identity=f"{record.model}:{record.settings}:{record.row.image}",
        image=image,
    )


def _class_names(columns: Columns) -> dict[int, str]:
    if "class" not in columns:
        return {}
    return {int(value): str(name) for value, name in zip(columns["label"], columns["class"], strict=True) if value}


def _read_image(source: _Source) -> Volume | None:
    """Return the image of a result, as it was read then; None where it is no longer there or not the same."""
    record = source.record
    paths = [resolve_recorded_path(file.path, source.out) for file in record.inputs]
    image = recorded_image(record.row.image, paths, record.row.details)
    if not are_unchanged(paths, record.inputs, hash_tree):
        return None
    return read_volume(image.files(), image.read_options(source.run.options.read))


def _export(source: _Source, export: ExportFormat, known: _Known, options: ExportOptions) -> ExportRow:
    """Write one file, unless it is there and up to date."""
    folder = (source.out / source.label_path).parent
    path = export.path(folder, source.name)
    relative, name = path.relative_to(source.out).as_posix(), unescape(source.record.row.image)
    try:
        entry, found = known.get(relative), hash_tree(path) if path.exists() else None
        if found is not None and not options.overwrite and (entry is None or entry["sha256"] != found):
            cause = f"{path.name} is there and was not written by biounet, or changed since"
            raise InputError(cause, path=path, hint="move it elsewhere, or replace it with --overwrite")
        if found is not None and entry is not None and entry["from"] == source.origin and entry["sha256"] == found:
            return ExportRow(name, export.name, "current", relative)
        write_export(source.image(export.needs_image), export, folder)
    except MachineError:
        raise
    except Exception as error:  # noqa: BLE001 - so that one file fails and not the others
        _log.debug("%s", path, exc_info=True)
        return ExportRow(name, export.name, "failed", relative, error_text(error))
    entry = {"path": relative, "format": export.name, "from": source.origin, "sha256": hash_tree(path)}
    append_line(source.out / EXPORTS_NAME, json.dumps(entry))
    return ExportRow(name, export.name, "written", relative)


def _read_known(out: Path) -> _Known:
    """Return the last line about each export by its path; lines of another form are ignored."""
    return {str(entry["path"]): entry for entry in _entries(out / EXPORTS_NAME)}


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"path", "from", "sha256"} <= entry.keys():
            yield entry
