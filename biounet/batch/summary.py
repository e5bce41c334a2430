"""The files of a whole batch: ``counts.csv``, ``groups.csv``, ``run.json`` and ``report.html``."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch

from biounet.batch.names import SHOWN_NAMES, escape
from biounet.batch.recorded_files import has_hash, recorded_path
from biounet.batch.records import BatchOptions, Row, batch_totals, count_arithmetic, hash_settings, output_settings
from biounet.batch.run_file import software
from biounet.core import __version__, home_folder, list_some
from biounet.files import ReadOptions, atomic_group, hash_file, write_text
from biounet.measurement import Columns, Grouping, GroupSummary, ImageCount, summarise_groups
from biounet.network import Model
from biounet.reporting import (
    OVERLAY_SUFFIX,
    ReportOptions,
    ReportRow,
    count_table,
    figure_names,
    page_count,
    page_path,
    write_count_table,
    write_report,
    write_table,
)

TABLE_NAMES = ("counts.csv", "groups.csv", "run.json", "report.html")
_TIMES = {"command", "started", "seconds"}  # in ``run.json``, which say nothing of what came out
_SIZES = {2: "area", 3: "volume"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What the tables of a batch are about.

    Attributes
    ----------
    rows
        Of the images, in their order.
    manifest
        Size and SHA-256 of the manifest that they are from, and what of it is not in the tables, for ``run.json``.
    start
        When the batch began, as `time.time`.
    """

    rows: Sequence[Row]
    manifest: Mapping[str, Any]
    start: float


def write_summary(summary: Summary, model: Model, out: Path, options: BatchOptions) -> None:
    """Write ``counts.csv``, ``groups.csv`` of groups, ``run.json`` and, with overlays, ``report.html``."""
    rows = summary.rows
    numbers = count_arithmetic(rows)
    _warn_of_arithmetic(numbers)
    figures = figure_names(table_rows(rows))
    groups = None if options.group is None else group_rows(options.group, rows, figures)
    with atomic_group() as parts:
        write_count_table(out / "counts.csv", table_rows(rows), figures, excel=options.excel)
        if groups is not None:
            write_table(out / "groups.csv", groups.columns(), excel=options.excel)
        if options.overlay:
            images = f"{len(rows)} image{'' if len(rows) == 1 else 's'}"
            title, settings = f"{model.card.recipe.name}: {images}", _report_settings(model, options, rows)
            others = ("counts.csv", *(("groups.csv",) if groups is not None else ()), "run.json")
            report = ReportOptions(settings, others, groups, options.single_file)
            write_report(out / "report.html", _ReportRows(rows), title=title, options=report)
        run = _run_record(summary, numbers, model, out, options)
        run["tables"] = {path.name: hash_file(part) for path, part in parts.items()}
        write_text(out / "run.json", f"{json.dumps(run, indent=1)}\n")


def has_summary(summary: Summary, model: Model, out: Path, options: BatchOptions) -> bool:
    """Whether what `write_summary` would write is there, but for times and the command; the order of rows is ignored.

    All tables are made from the manifest, whose hash stands in ``run.json`` as do the hashes of the tables.
    """
    try:
        before = json.loads((out / "run.json").read_text(encoding="utf-8"))
        tables, numbers = dict(before.pop("tables")), dict(before["arithmetic"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not there, or not biounet's
        return False
    if options.single_file:  # whose pictures are files of their own
        return False
    now = json.loads(json.dumps(_run_record(summary, numbers, model, out, options)))
    same = all(before.get(name) == value for name, value in now.items() if name not in _TIMES)
    same &= before.keys() == now.keys() and tables.keys() == _table_names(options, len(summary.rows))
    if not same or not all(has_hash(out / name, sha256) for name, sha256 in tables.items()):
        return False
    _warn_of_arithmetic(numbers)
    return True


def _table_names(options: BatchOptions, images: int) -> set[str]:
    """Return the names of the tables of so many images beside ``run.json``."""
    pages = {page_path(Path("report.html"), number).name for number in range(page_count(images))}
    groups = set() if options.group is None else {"groups.csv"}
    return {"counts.csv"} | groups | (pages if options.overlay else set())


def count_columns(rows: Sequence[Row]) -> Columns:
    """Return the columns of ``counts.csv``, with a row for each frame of a time series."""
    return count_table(list(table_rows(rows)))


def table_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows of ``counts.csv``: of time series, one for each frame."""
    return (row for image in rows for row in image.table_rows())


def group_rows(grouping: Grouping, rows: Iterable[Row], figures: Collection[str]) -> GroupSummary:
    """Return the figures of the groups of images; those that no group is known of are left out, with a warning.

    `figures` are the names of the further figures of all rows.
    """
    dims, unknown, counts = 3 if "volume_mm3" in figures else 2, [], []
    for image in rows:
        if grouping.values(image.image) is None:
            unknown.append(image.image)
        counts += [_image_count(row, dims) for row in image.table_rows()]
    if unknown:
        _log.warning("not in groups.csv, since --group says nothing of them: %s", list_some(unknown, SHOWN_NAMES))
    return summarise_groups(grouping, counts, dims)


def _image_count(row: Row, dims: int) -> ImageCount:
    inside, size, time = (row.figures.get(name) for name in ("count_in_frame", f"{_SIZES[dims]}_mm{dims}", "t"))
    return ImageCount(
        row.image,
        row.count,
        in_frame=inside if isinstance(inside, int) else None,
        frame_mm=float(size) if isinstance(size, (int, float)) else None,
        time=time if isinstance(time, int) else None,
        failed=row.status == "failed",
    )


def _run_record(
    summary: Summary, arithmetic: Mapping[str, int], model: Model, out: Path, options: BatchOptions
) -> dict[str, Any]:
    settings = asdict(replace(options, readers=None, skipped=(), on_parts=None))
    del settings["readers"], settings["skipped"], settings["on_parts"]
    label = options.segment.label_settings(model.card.label).model_dump(mode="json", by_alias=True)
    user, skipped = home_folder(), options.skipped
    settings["segment"] |= {"label": label, "executor": None, "stop": None}  # null, for readers of earlier records
    return {
        **software(),
        "command": [argument.replace(str(user), "~") if user else argument for argument in sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(summary.start)),
        "seconds": round(time.time() - summary.start, 3),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "model": {"name": model.card.recipe.name, "sha256": model.sha256},
        "settings": settings,
        "settings_sha256": hash_settings(output_settings(model, options)),
        "images": len(summary.rows),
        "arithmetic": dict(arithmetic),
        "manifest": dict(summary.manifest),
        "left_out": [{"path": escape(recorded_path(file.path, out)), "reason": file.reason} for file in skipped],
    }


def _warn_of_arithmetic(numbers: Mapping[str, int]) -> None:
    """Warn if images were not all computed in the same numbers."""
    if len(numbers) > 1:
        text = _describe_arithmetic(numbers)
        _log.warning("computed in different numbers, by which labels differ a little: %s", text)


def _describe_arithmetic(numbers: Mapping[str, int]) -> str:
    """Return the numbers that images were computed in, as text."""
    if len(numbers) < 2:
        return "".join(numbers)
    return ", ".join(f"{name} in {count} image{'' if count == 1 else 's'}" for name, count in sorted(numbers.items()))


def _report_settings(model: Model, options: BatchOptions, rows: Iterable[Row]) -> dict[str, str]:
    """Return the settings that the report shows: those that the result depends on, device and version."""
    data, label = model.card.recipe.data, options.segment.label_settings(model.card.label)
    shown = {"model": f"{model.card.recipe.name} ({model.sha256[:12]})", **_report_reading(model, options.read)}
    if not data.exclusive:
        shown["probability of a pixel in an object"] = f"{label.foreground:g} or more"
    if data.kind == "instances":
        unit = "px" if label.min_size_unit == "px" else {2: "µm²", 3: "µm³"}[data.dims]
        shown["smallest object"] = str(options.segment.smallest or f"{label.min_size:g} {unit}")
        if options.segment.largest is not None:
            shown["largest object"] = str(options.segment.largest)
        if options.segment.min_confidence is not None:
            shown["lowest confidence"] = f"{options.segment.min_confidence:g}"
        shown["parts are one object"] = f"from a valley of {label.join:g} of the lower peak on"
        shown["holes"] = "filled" if label.fill_holes else "kept"
        if options.segment.exclude_border:
            shown["objects at the edge"] = "dropped"
    sizes = {"diameter": options.segment.diameter, "block": options.segment.block}
    known = {name: value for name, value in sizes.items() if value not in (None, "native")}
    shown |= {name: value if isinstance(value, str) else f"{value:g} px" for name, value in known.items()}
    shown |= {"device": options.device, "biounet": __version__}
    if arithmetic := _describe_arithmetic(count_arithmetic(rows)):
        shown["computed in"] = arithmetic
    uncalibrated = batch_totals(rows).uncalibrated
    return shown | ({"pixel size": uncalibrated} if uncalibrated else {})


def _report_reading(model: Model, read: ReadOptions) -> dict[str, str]:
    """Return what of the files was segmented and measured: what the user chose, else what the model takes."""
    shown = {"channels": ", ".join(model.card.inputs)}
    if read.channel is not None:
        shown = {"channel": str(read.channel)}
    if read.measure:
        shown["also measured"] = ", ".join(map(str, read.measure))
    if read.project is not None:
        shown["projection"] = read.project
    if read.frames is not None:
        shown["frames"] = str(read.frames)
    return shown


def _describe_frames(row: Row) -> str:
    """Return what the count of a time series is about; empty for an image."""
    counts = [frame.count for frame in row.frames if frame.count is not None]
    if not counts:
        return ""
    if len(row.frames) == 1:
        return f"objects of frame {row.frames[0].t}"
    tracks = row.figures.get("tracks")
    followed = "" if tracks is None else f", followed as {tracks} tracks"
    each = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    return f"objects of {len(row.frames)} frames together, {each} in each{followed}"


class _ReportRows(Sequence[ReportRow]):
    """The rows of the report, each made when it is asked for."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, which: int) -> ReportRow: ...
    @overload
    def __getitem__(self, which: slice) -> _ReportRows: ...
    def __getitem__(self, which: int | slice) -> ReportRow | _ReportRows:
        return _ReportRows(self._rows[which]) if isinstance(which, slice) else _report_row(self._rows[which])

    def __iter__(self) -> Iterator[ReportRow]:
        return map(_report_row, self._rows)


def _report_row(row: Row) -> ReportRow:
    overlay = next((path for path in row.outputs if path.endswith(OVERLAY_SUFFIX)), None)
    message = "; ".join(filter(None, (_describe_frames(row), row.message)))
    shown = (row.image, row.status, row.count, row.seconds, message, overlay, row.sizes)
    notes = [note for note in row.details.get("notes", ()) if isinstance(note, dict)]
    warnings = [str(note.get("text")) for note in notes if note.get("severity") == "warning"]
    times = [(frame.t, frame.count) for frame in row.frames]
    return ReportRow(*shown, files=row.outputs, figures=row.figures, warnings=warnings, times=times)
