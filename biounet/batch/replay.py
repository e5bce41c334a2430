"""Verify a folder of results: segment every image again and compare bit for bit."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Literal

from biounet.batch.export_records import export_origin, is_intact, merged_origin, read_exports
from biounet.batch.manifest import MANIFEST_NAME, Manifest
from biounet.batch.names import image_name, mark_collisions
from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.recorded_files import (
    are_unchanged,
    has_hash,
    is_file,
    is_there,
    recorded_image,
    resolve_recorded_path,
    tree_difference,
)
from biounet.batch.records import BatchOptions, FrameRow, Record, Row, hash_settings, output_settings
from biounet.batch.run_file import RunFile, read_run
from biounet.batch.runner import EARLIER_RESULT_REMAINS
from biounet.batch.summary import count_columns, group_rows, table_rows
from biounet.core import Figure, ModelError, builtin_models, failure_exit_code, list_some
from biounet.files import FoundImage, ReaderPool, find_images, hash_file, resolve_images
from biounet.network import Model, model_predictor
from biounet.reporting import figure_names, format_table, is_picture

_MOST_THREADS = 1024
_COMPARED = ("status", "count", "message", "frames", "figures")
_SHOWN_ROWS = 5  # in a message


@dataclass(frozen=True)
class ReplayResult:
    """How an image, or a table of the batch, compares with its record: bit for bit, and what differs or is missing."""

    image: str
    status: Literal["same", "differs", "missing"]
    message: str = ""


def find_model(run: RunFile) -> Path:
    """Return the path of the built-in model that a run was made with; raise `ModelError` if it was another one."""
    for path in builtin_models().values():
        if hash_file(path) == run.model:
            return path
    raise ModelError(f"the model of this run ({run.model[:12]}) is not built in", hint="name its file with --model")


def verify(
    out: Path,
    model: Model,
    images: str | Path | None = None,
    report: Callable[[ReplayResult], None] = lambda result: None,
    device: str | None = None,
) -> list[ReplayResult]:
    """Segment every image of a folder of results again, and compare label images and tables bit for bit.

    The manifest, ``run.json``, ``counts.csv``, ``groups.csv`` and ``report.html`` are compared with each other, too.

    Parameters
    ----------
    images
        Where the images are now; None: where the manifest says that they were.
    report
        Called with each result as it is there.
    device
        To compute on; None: that of the run.

    Returns
    -------
    One result for each image of the manifest, in its order; then those for records and tables that differ.

    Raises
    ------
    ModelError
        If `model` is not the one that made the results.
    """
    run = read_run(out)
    if model.sha256 != run.model:
        raise ModelError(f"the model is {model.sha256[:12]}, that of this run {run.model[:12]}")
    manifest, results = Manifest(out), []
    replayed = _replay_all(out, model, replace(run.options, device=device or run.options.device), manifest, images)
    for result in chain(
        replayed, _compare_records(run, manifest), _compare_tables(out, run), _compare_exports(out, manifest, run)
    ):
        results.append(result)
        report(result)
    return results


def _replay_all(
    out: Path, model: Model, options: BatchOptions, manifest: Manifest, images: str | Path | None
) -> Iterator[ReplayResult]:
    """Segment the images of all records into temporary folders, and compare them."""
    identity = (model.sha256, hash_settings(output_settings(model, options)))
    options = replace(options, overlay=False, single_file=False)
    predictor = model_predictor(model, options.device)
    records = [record for record in manifest.records() if not manifest.is_split(record)]
    data = model.card.recipe.data
    with ReaderPool() as readers:
        inputs = [_recorded_image(record, out) for record in records if record.inputs]
        if images is not None:
            found = find_images([images], data.channels, data.annotation, options.read.series)
            inputs = resolve_images(found, options.read, readers)
        by_name = {image_name(image): image for image in mark_collisions(inputs)}
        for record in records:
            if (record.model, record.settings) != identity:
                yield _differs(record, "other settings")
                continue
            with tempfile.TemporaryDirectory() as folder:
                threads = _recorded_threads(record)
                context = BatchContext(model, predictor, Path(folder), options, threads, Event(), readers)
                yield _replay(record, out, context, by_name.get(record.row.image))


def _recorded_image(record: Record, out: Path) -> FoundImage:
    paths = [resolve_recorded_path(file.path, out) for file in record.inputs]
    return recorded_image(record.row.image, paths, record.row.details)


def _recorded_threads(record: Record) -> int:
    threads = record.row.details.get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= _MOST_THREADS else 1


def _replay(record: Record, out: Path, context: BatchContext, image: FoundImage | None) -> ReplayResult:
    name = record.row.image
    if image is None or not os.path.lexists(image.path):
        return ReplayResult(name, "missing", "its input")
    if record.inputs and not are_unchanged(image, record.inputs, context.hash_input):
        return _differs(record, "its input")
    again = segment_file(image, context)
    if "failed" in (again.row.status, record.row.status):
        message = record.row.message.removesuffix(EARLIER_RESULT_REMAINS)
        was_read = all(file.sha256 for file in record.inputs)
        if again.row.status == record.row.status and (again.row.message == message or not was_read):
            return ReplayResult(name, "same")
        return _differs(record, f"now {again.row.status} {again.row.message}".strip())
    missing = [path for path in record.outputs if not is_there(out / path)]
    if missing:
        return ReplayResult(name, "missing", ", ".join(missing))
    differences = list(_output_differences(record, again, out, context.out))
    return _differs(record, ", ".join(differences)) if differences else ReplayResult(name, "same")


def _output_differences(record: Record, again: Record, out: Path, now: Path) -> Iterator[str]:
    for path, sha256 in record.outputs.items():
        if not has_hash(out / path, sha256):
            is_known = (out / path).is_dir() and again.outputs.get(path) == sha256
            files = tree_difference(out / path, now / path) if is_known else ""
            yield f"{path} was changed" + (f": {files}" if files else "")
        elif not is_picture(path) and again.outputs.get(path) != sha256:
            yield path
    if (again.row.status, again.row.count) != (record.row.status, record.row.count):
        yield f"status and count: {again.row.status}, {again.row.count}"
    if _figures(again.row) != _figures(record.row):
        yield "figures"


def _figures(row: Row) -> tuple[dict[str, Figure], list[FrameRow]]:
    """Return what is measured of an image and of its frames; notes may tell of the memory that there was."""
    return row.figures, [replace(frame, seconds=0.0, message="") for frame in row.frames]


def _differs(record: Record, message: str) -> ReplayResult:
    return ReplayResult(record.row.image, "differs", message)


def _compare_records(run: RunFile, manifest: Manifest) -> Iterator[ReplayResult]:
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


def _compare_tables(out: Path, run: RunFile) -> Iterator[ReplayResult]:
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


def _compare_exports(out: Path, manifest: Manifest, run: RunFile) -> Iterator[ReplayResult]:
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


def replay_exit_code(results: list[ReplayResult]) -> int:
    """Return the exit code: 0 when all images are the same, 3 when some are not, 4 when none is."""
    return failure_exit_code(sum(result.status != "same" for result in results), len(results))
