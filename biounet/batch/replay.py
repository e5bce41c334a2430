"""Is a folder of results what its inputs give? Every image is segmented again and compared bit for bit."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Literal

from biounet.batch.manifest import Manifest, is_file
from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.records import (
    BatchOptions,
    InputFile,
    Record,
    Row,
    failure_exit_code,
    hash_settings,
    is_same,
    name_of,
    path_of_record,
    settings_of,
    unescaped,
)
from biounet.batch.runner import KEPT, mark_collisions
from biounet.batch.summary import count_columns, software
from biounet.core import DataSettings, InputError, LabelSettings, MachineError, ModelError, builtin_models
from biounet.files import FoundImage, ReaderPool, ReadOptions, find_images, hash_file
from biounet.network import Model, model_predictor
from biounet.reporting import OVERLAY_SUFFIX, format_table
from biounet.segmentation import SegmentOptions

_MOST_THREADS = 1024
_COMPARED = ("status", "count", "message")
_SHOWN = 5  # rows that a message lists


@dataclass(frozen=True)
class ReplayResult:
    """What came of an image when it was segmented again.

    Attributes
    ----------
    image
        Its name.
    status
        ``same``, to the last bit; ``differs``; or ``missing``, when an input or an output is not there.
    message
        What differs or is missing.
    """

    image: str
    status: Literal["same", "differs", "missing"]
    message: str = ""


@dataclass(frozen=True)
class RunFile:
    """What ``run.json`` says about a run.

    Attributes
    ----------
    model
        SHA-256 of the model.
    options
        How images were segmented.
    software
        Versions and the kind of machine.
    rows
        What became of each image; the seconds are not told.
    outputs
        SHA-256 of the outputs of each image, by its name.
    tables
        SHA-256 of the other files of the whole batch.
    """

    model: str
    options: BatchOptions
    software: dict[str, str]
    rows: tuple[Row, ...]
    outputs: dict[str, dict[str, str]]
    tables: dict[str, str]

    def differences(self) -> list[str]:
        """Return what is different here and now, and can be why bits differ."""
        here = software()
        return [
            f"{name} {self.software[name]}, here {here[name]}" for name in here if self.software[name] != here[name]
        ]


def read_run(out: Path) -> RunFile:
    """Read ``run.json`` of a folder of results.

    Raises
    ------
    MachineError
        If there is none.
    InputError
        If it is not what biounet writes.
    """
    path = out / "run.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        said = {name: str(raw[name]) for name in software()}
        rows = tuple(
            Row(str(one["image"]), one["status"], one["count"], 0.0, str(one["message"])) for one in raw["images"]
        )
        outputs = {str(one["image"]): dict(one["outputs"]) for one in raw["images"]}
        tables = dict(raw.get("tables", {}))
        return RunFile(str(raw["model"]["sha256"]), _options(raw["settings"]), said, rows, outputs, tables)
    except OSError as error:
        cause = f"cannot be read: {error.strerror}"
        raise MachineError(cause, path=path, hint="it is written when a batch has come to its end") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not the record of a run: {type(error).__name__}", path=path) from error


def _options(raw: dict[str, Any]) -> BatchOptions:
    read = dict(raw["read"])
    read["spacing"] = None if read["spacing"] is None else tuple(map(float, read["spacing"]))
    part = raw["segment"]
    chain = SegmentOptions(part["block"], part["diameter"], LabelSettings.model_validate(part["label"]))
    return BatchOptions(ReadOptions(**read), chain, str(raw["device"]), overlay=raw["overlay"], excel=raw["excel"])


def find_model(run: RunFile) -> Path:
    """Return the built-in model that a run was made with.

    Raises
    ------
    ModelError
        If it was another one.
    """
    for path in builtin_models().values():
        if hash_file(path) == run.model:
            return path
    raise ModelError(f"the model of this run ({run.model[:12]}) is not built in", hint="name its file with --model")


def verify(
    out: Path,
    model: Model,
    images: str | Path | None = None,
    report: Callable[[ReplayResult], None] = lambda checked: None,
    device: str | None = None,
) -> list[ReplayResult]:
    """Segment every image of a folder of results again, and compare label images and tables bit for bit.

    The manifest, ``run.json``, ``counts.csv`` and ``report.html`` are compared with each other, too.

    Parameters
    ----------
    out
        The results.
    model
        The model that they were made with.
    images
        Where the images are now; None: where the manifest says that they were.
    report
        Called with each image as it is done.
    device
        Where to; None: where it was.

    Returns
    -------
    One for each image that the manifest names, in its order; then those files of the whole batch that are not as they
    were.

    Raises
    ------
    ModelError
        If it is another model.
    """
    run = read_run(out)
    if model.sha256 != run.model:
        raise ModelError(f"the model is {model.sha256[:12]}, that of this run {run.model[:12]}")
    options = replace(run.options, device=device or run.options.device, overlay=False)
    predictor, manifest = model_predictor(model, options.device), Manifest(out)
    settings = hash_settings(settings_of(model, run.options))
    records = list(manifest.records.values())
    there = _inputs_of(records, out, images, model.card.recipe.data)
    results = []
    with ReaderPool() as readers:
        for record in records:
            with tempfile.TemporaryDirectory() as room:
                again = BatchContext(model, predictor, Path(room), options, _threads_of(record), Event(), readers)
                known = (record.model, record.settings) == (run.model, settings)
                checked = _check(record, out, again, there) if known else _differs(record, "other settings")
            results.append(checked)
            report(checked)
    for checked in [*_compare_records(out, run, manifest), *_compare_tables(out, run)]:
        results.append(checked)
        report(checked)
    return results


def _inputs_of(
    records: Sequence[Record], out: Path, images: str | Path | None, data: DataSettings
) -> dict[str, FoundImage]:
    """Return the images by their names: from where they are now, or where the manifest says that they were."""
    if images is None:
        found = [_where_it_was(record, out) for record in records if record.inputs]
    else:
        found = find_images([images], data.channels, data.annotation)
    return {name_of(image): image for image in mark_collisions(found)}


def _compare_records(out: Path, run: RunFile, manifest: Manifest) -> Iterator[ReplayResult]:
    """Give the images of which the manifest and ``run.json`` say something else."""
    rows = {row.image: row for row in run.rows}
    for name in rows:
        if name not in manifest.records:
            yield ReplayResult(name, "missing", "its line in manifest.jsonl")
    for name, record in manifest.records.items():
        if name not in rows:
            if not manifest.is_gone(record) and record.model == run.model:
                yield ReplayResult("run.json", "differs", f"nothing about {name}")
            continue
        pairs = {
            part: (getattr(record.row, part), getattr(rows[name], part)) for part in ("status", "count", "message")
        }
        pairs["outputs"] = (record.outputs, run.outputs[name])
        other = [part for part, (one, two) in pairs.items() if one != two]
        if other:
            yield ReplayResult("run.json", "differs", f"{name}: {', '.join(other)} not as in manifest.jsonl")


def _compare_tables(out: Path, run: RunFile) -> Iterator[ReplayResult]:
    """Give those files of the whole batch that are not what ``run.json`` says."""
    names = ("counts.csv", *(("report.html",) if run.options.overlay else ()))
    for name in names:
        path = out / name
        if not is_file(path):
            yield ReplayResult(name, "missing", "it is not there")
            continue
        other = _other_rows(path, run) if name == "counts.csv" else []
        if other:
            more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
            yield ReplayResult(name, "differs", f"{'; '.join(other[:_SHOWN])}{more}")
        elif hash_file(path) != run.tables.get(name):
            yield ReplayResult(name, "differs", "it was changed")


def _other_rows(path: Path, run: RunFile) -> list[str]:
    """Return in which rows ``counts.csv`` is not what ``run.json`` says."""
    expected = list(csv.reader(io.StringIO(format_table(count_columns(run.rows), excel=run.options.excel), newline="")))
    try:
        with path.open(encoding="utf-8", newline="") as file:  # a name may have a line end of its own
            found = list(csv.reader(file))
    except (ValueError, csv.Error):
        return ["it is no table"]
    if not found or found[0] != expected[0]:
        return [f"its columns are not {', '.join(expected[0])}"]
    rows: dict[str, list[list[str]]] = {}
    for row in found[1:]:
        rows.setdefault(row[0] if row else "", []).append(row)
    said = []
    for row in expected[1:]:
        here = rows.pop(row[0], [])
        if len(here) != 1:
            said.append(f"{len(here) or 'no'} rows of {row[0]}")
        elif here[0] != row:
            parts = [part for part in zip(expected[0], row, here[0], strict=False) if part[0] != "seconds"]
            other = [f"{name} {now or 'empty'}, recorded {was or 'empty'}" for name, was, now in parts if was != now]
            other += [] if len(here[0]) == len(row) else [f"{len(here[0])} cells"]
            said += [f"{row[0]}: {', '.join(other)}"] if other else []
    return [*said, *(f"{name} is not on record" for name in rows)]


def _threads_of(record: Record) -> int:
    threads = record.row.details.get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= _MOST_THREADS else 1


def _check(record: Record, out: Path, again: BatchContext, there: dict[str, FoundImage]) -> ReplayResult:
    name = record.row.image
    image = there.get(name)
    if image is None or not os.path.lexists(image.path):
        return ReplayResult(name, "missing", "its input")
    files, read = (image.path, *image.others), all(file.sha256 for file in record.inputs)
    if record.inputs and _have_changed(files, record.inputs, again):
        return _differs(record, "its input")
    made = segment_file(image, again)
    if "failed" in (made.row.status, record.row.status):
        said = record.row.message.removesuffix(KEPT)
        same = made.row.status == record.row.status and (made.row.message == said or not read)
        return (
            ReplayResult(name, "same")
            if same
            else _differs(record, f"now {made.row.status} {made.row.message}".strip())
        )
    absent = [path for path in record.outputs if not is_file(out / path)]
    if absent:
        return ReplayResult(name, "missing", ", ".join(absent))
    other = list(_others(record, made, out))
    return _differs(record, ", ".join(other)) if other else ReplayResult(name, "same")


def _have_changed(files: Sequence[Path], known: Sequence[InputFile], run: BatchContext) -> bool:
    """Whether files are not what they were; what was no file, such as a broken link, may still be none."""
    pairs = list(zip(files, known, strict=False))
    return len(files) != len(known) or any(
        not is_same(file, was, run.hash_input) for file, was in pairs if was.sha256 or is_file(file)
    )


def _where_it_was(record: Record, out: Path) -> FoundImage:
    first, *others = (path_of_record(file.path, out) for file in record.inputs)
    return FoundImage(first, Path(unescaped(record.row.image)), tuple(others))


def _others(record: Record, made: Record, out: Path) -> Iterator[str]:
    """Give the outputs that are not those on record, or not those of now."""
    for path, digest in record.outputs.items():
        if hash_file(out / path) != digest:
            yield f"{path} was changed"
        elif not path.endswith(OVERLAY_SUFFIX) and made.outputs.get(path) != digest:
            yield path
    if (made.row.status, made.row.count) != (record.row.status, record.row.count):
        yield f"status and count: {made.row.status}, {made.row.count}"


def _differs(record: Record, what: str) -> ReplayResult:
    return ReplayResult(record.row.image, "differs", what)


def replay_exit_code(results: list[ReplayResult]) -> int:
    """Return 0 when all images are the same, 3 when some are not, 4 when none is."""
    return failure_exit_code(sum(checked.status != "same" for checked in results), len(results))
