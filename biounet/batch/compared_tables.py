"""Whether the tables, the manifest and the exports of a folder of results are as they were written."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biounet.batch.export_records import export_origin, is_intact, merged_origin, read_exports
from biounet.batch.manifest import MANIFEST_NAME, Manifest
from biounet.batch.recorded_files import is_file
from biounet.batch.run_file import RunFile
from biounet.batch.summary import count_columns, group_rows, table_rows
from biounet.core import list_some
from biounet.files import hash_file
from biounet.reporting import figure_names, format_table

_COMPARED = ("status", "count", "message", "frames", "figures")
_SHOWN_ROWS = 5  # in a message


@dataclass(frozen=True)
class ReplayResult:
    """How an image, or a table of the batch, compares with its record.

    Attributes
    ----------
    status
        ``same``: bit for bit, made again; ``intact``: its files are as they were written, and were not made again.
    message
        What differs or is missing.
    """

    image: str
    status: Literal["same", "intact", "differs", "missing"]
    message: str = ""


def compare_records(run: RunFile, manifest: Manifest) -> Iterator[ReplayResult]:
    """Yield what of the manifest is not as it was when the tables were written."""
    if run.manifest is None:
        yield from _compare_listed(run, manifest)
        return
    size = run.manifest.size
    if manifest.end < size:
        yield ReplayResult(MANIFEST_NAME, "missing", f"{size - manifest.end} of {size} bytes")
    elif manifest.hash(size) != run.manifest.sha256:
        yield ReplayResult(MANIFEST_NAME, "differs", "it was changed")
    for record in manifest.records(name for name in manifest.names() if manifest.begins_at(name) >= size):
        if not manifest.is_obsolete(record) and record.model == run.model:
            yield ReplayResult("run.json", "differs", f"nothing about {record.row.image}")


def _compare_listed(run: RunFile, manifest: Manifest) -> Iterator[ReplayResult]:
    """Yield the images whose records in the manifest and in the ``run.json`` of an earlier version differ."""
    rows = {row.image: row for row in run.listed}
    missing = (name for name in rows if manifest.get(name) is None)
    yield from (ReplayResult(name, "missing", "its line in manifest.jsonl") for name in missing)
    for record in manifest.records():
        name = record.row.image
        if name not in rows:
            if not manifest.is_obsolete(record) and record.model == run.model:
                yield ReplayResult("run.json", "differs", f"nothing about {name}")
            continue
        parts = [part for part in _COMPARED if getattr(record.row, part) != getattr(rows[name], part)]
        parts += ["outputs"] if record.outputs != run.outputs[name] else []
        if parts:
            yield ReplayResult("run.json", "differs", f"{name}: {', '.join(parts)} not as in manifest.jsonl")


def compare_tables(out: Path, run: RunFile) -> Iterator[ReplayResult]:
    """Yield the files of the whole batch that are not as ``run.json`` says."""
    groups = ("groups.csv",) if run.options.group is not None else ()
    pages = sorted({"report.html", *(name for name in run.tables if name.startswith("report_"))})
    for name in ("counts.csv", *groups, *(pages if run.options.overlay else ())):
        path = out / name
        differences = _row_differences(path, run) if name == "counts.csv" and is_file(path) else []
        if not is_file(path):
            yield ReplayResult(name, "missing", "it is not there")
        elif differences:
            yield ReplayResult(name, "differs", list_some(differences, _SHOWN_ROWS, "; "))
        elif name == "groups.csv" and not _is_of_rows(path, run):
            yield ReplayResult(name, "differs", "its figures are not those of counts.csv")
        elif hash_file(path) != run.tables.get(name):
            yield ReplayResult(name, "differs", "it was changed")


def compare_exports(out: Path, manifest: Manifest, run: RunFile) -> Iterator[ReplayResult]:
    """Yield the exports that are not as they were written, or were made from an earlier result of their image."""
    for path, export in read_exports(out).items():
        record = manifest.get(export.image)
        origin = merged_origin(manifest.records(), run.rows, run.options.group) if not export.image else None
        if record is not None:
            origin = export_origin(record.outputs)
        if not os.path.lexists(out / path):
            yield ReplayResult(path, "missing", "it is not there")
        elif not is_intact(out, export):
            yield ReplayResult(path, "differs", "it was changed")
        elif export.origin != origin:
            yield ReplayResult(path, "differs", "it was made from an earlier result")


def _is_of_rows(path: Path, run: RunFile) -> bool:
    """Whether ``groups.csv`` is what the rows of ``run.json`` give."""
    if run.options.group is None:
        return False
    figures = figure_names(table_rows(run.rows))
    table = format_table(group_rows(run.options.group, run.rows, figures).columns(), excel=run.options.excel)
    return path.read_bytes() == table.encode()


def _row_differences(path: Path, run: RunFile) -> list[str]:
    """Return how the rows of ``counts.csv`` differ from ``run.json``."""
    table = format_table(count_columns(run.rows), excel=run.options.excel)
    header, *expected = csv.reader(io.StringIO(table, newline=""))
    try:
        with path.open(encoding="utf-8", newline="") as file:  # a name may contain a line end
            found = list(csv.reader(file))
    except (ValueError, csv.Error):
        return ["it is no table"]
    if not found or found[0] != header:
        return [f"its columns are not {', '.join(header)}"]
    rows: dict[str, list[list[str]]] = {}
    for row in found[1:]:
        rows.setdefault(_row_name(header, row), []).append(row)
    differences = []
    for row in expected:
        name = _row_name(header, row)
        same_name = rows.pop(name, [])
        if len(same_name) != 1:
            differences.append(f"{len(same_name) or 'no'} rows of {name}")
        elif cells := _cell_differences(header, row, same_name[0]):
            differences.append(f"{name}: {', '.join(cells)}")
    return [*differences, *(f"{name} is not on record" for name in rows)]


def _row_name(header: list[str], row: list[str]) -> str:
    """Return the image that a row is about, and its frame where it is one."""
    cells = dict(zip(header, row, strict=False))
    return cells.get("image", "") + (f", t = {cells['t']}" if cells.get("t") else "")


def _cell_differences(header: list[str], recorded: list[str], found: list[str]) -> list[str]:
    cells = [
        f"{name} {now or 'empty'}, recorded {was or 'empty'}"
        for name, was, now in zip(header, recorded, found, strict=False)
        if name != "seconds" and was != now
    ]
    return cells if len(found) == len(recorded) else [*cells, f"{len(found)} cells"]
