"""Commands that segment: images, those of a run again, and the samples.

Like all commands they are a few lines over public functions.
"""

# The parameters of a command are its options: each is one line of its help, and passing them on is all that it does.
# ruff: noqa: PLR0913
from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from biounet.cli import options
from biounet.cli.exporting import export_results
from biounet.cli.terminal import (
    echo,
    echo_error,
    echo_json,
    echo_lines,
    echo_note,
    say_loading,
    show_row,
    stoppable,
    table,
)
from biounet.core import as_bytes, check_address_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from biounet.batch import BatchOptions, BatchTotals, ReplayResult, Row
    from biounet.files import FoundImage, ReadOptions, SkippedFile
    from biounet.network import Model

_CLUSTER_NOT_USED = "no image is worked on in super-blocks: --cluster is not used"
_MAIL = 15e6  # bytes of a file that becomes 20 MB in an e-mail


def segment(
    images: options.Inputs,
    model: options.ModelName = "nuclei",
    out: options.Out = Path("biounet-out"),
    device: options.Device = "auto",
    axes: options.Axes = None,
    spacing: options.Spacing = None,
    channel: options.Channel = None,
    channels: options.Channels = None,
    measure: options.Measure = None,
    plane: options.Plane = None,
    project: options.Project = None,
    frames: options.Frames = None,
    scene: options.Scene = None,
    series: options.Series = None,
    diameter: options.Diameter = None,
    min_size: options.MinSize = None,
    max_size: options.MaxSize = None,
    foreground: options.Foreground = None,
    join: options.Join = None,
    min_confidence: options.MinConfidence = None,
    exclude_border: options.ExcludeBorder = False,
    fill_holes: options.FillHoles = None,
    ring: options.Ring = None,
    block: options.Block = None,
    jobs: options.Jobs = None,
    overlay: options.Overlay = True,
    single_file: options.SingleFile = False,
    export: options.Export = None,
    columns: options.Columns = None,
    excel: options.Excel = False,
    ram: options.Ram = None,
    label_format: options.LabelFormat = "auto",
    cluster: options.Cluster = None,
    shard: options.Shard = None,
    fail_fast: options.FailFast = False,
    overwrite: options.Overwrite = False,
    group: options.Group = None,
    unit: options.Unit = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Find, count and measure the objects of images."""
    check_address_space()
    say_loading(model, quiet)
    from biounet.files import ReaderPool, resolve_images, search_images, split_formats

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes large pages: 15 % less time for 2048x2048 pixels
    part, groups = options.parse_shard(shard), options.parse_group(group, unit)
    # The processes of the readers start while this one imports torch.
    with ReaderPool(0 if dry_run else options.count_readers(images, jobs)) as readers:
        from biounet.api import load, show_batch
        from biounet.batch import BatchOptions, BatchTotals, plan_batch, segment_batch
        from biounet.reporting import check_output_folder
        from biounet.segmentation import SegmentOptions

        segmenter = load(model, device)
        data = segmenter.card.recipe.data
        formats = split_formats(export or (), columns)
        search = search_images(images, data.channels, data.annotation, series or "")
        read = options.read_options(axes, spacing, channel, plane, data.dims, series)
        read = options.with_channels(read, channels, measure, len(segmenter.card.inputs))
        read = options.with_stacks(read, project, frames, scene)
        found = resolve_images(search.images, read, readers)
        kept: dict[str, Any] = {"min_size": min_size, "max_size": max_size, "min_confidence": min_confidence}
        found_by: dict[str, Any] = {"foreground": foreground, "join": join, "fill_holes": fill_holes, "ring": ring}
        chain = SegmentOptions(
            block, options.parse_diameter(diameter), exclude_border=exclude_border, **kept, **found_by
        )
        chain.check_model(data)
        skipped = tuple(search.skipped)
        batch = BatchOptions(
            *(read, chain, device, jobs, overlay, excel, part, fail_fast, readers, skipped, overwrite),
            group=groups,
            single_file=single_file,
            ram=None if ram is None else as_bytes(ram, "--ram"),
            label_format=label_format,
            cluster=cluster,
        )
        if dry_run:
            check_output_folder(found, out)
            code = _preview(found, segmenter.model, batch, formats, json_lines)
            _show_left_out([], found, read)  # the table lists what is skipped
            raise typer.Exit(code)
        plan = plan_batch(found, segmenter.model, out, batch)
        if plan.done and not quiet:
            echo_note(plan.describe())
        totals = BatchTotals()
        show = partial(_show_counted, totals=totals, quiet=quiet, json_lines=json_lines)
        with (
            stoppable("continues") as stop,
            show_batch(plan, show, shown=False if quiet else None, log=echo_note) as report,
        ):
            batch = replace(batch, on_parts=report.parts)
            segment_batch(found, segmenter.model, out, batch, report, stop)
    if not quiet:
        _show_totals(totals, out, batch, json_lines)
        _show_left_out(skipped, found, read)
    show_exports = partial(export_results, overwrite=overwrite, quiet=quiet, json_lines=json_lines)
    raise typer.Exit(totals.exit_code or (show_exports(out, formats) if formats else 0))


def _show_counted(row: Row, totals: BatchTotals, quiet: bool, json_lines: bool) -> None:
    totals.add(row)
    show_row(row, quiet=quiet, json_lines=json_lines)


def _show_totals(totals: BatchTotals, out: Path, batch: BatchOptions, json_lines: bool) -> None:
    """Show what was found in all images, and where the results are, unless JSON is read there."""
    if json_lines:
        return
    echo(f"{_count_objects(totals)}; see {out}/")
    if batch.group is not None:
        echo(f"means by {', '.join(batch.group.names)}: {out / 'groups.csv'}")
    if batch.cluster and totals.images > totals.failed and not totals.in_parts:
        echo_note(_CLUSTER_NOT_USED)
    if totals.uncalibrated:
        echo(f"pixel size {totals.uncalibrated}: lengths are in pixels; give it with --spacing")
    if batch.single_file:
        echo(_describe_size(out / "report.html"))


def _show_left_out(skipped: Sequence[SkippedFile], images: Sequence[FoundImage], read: ReadOptions) -> None:
    """Show which files were not read, and which look like channels and were read as images of their own."""
    from biounet.files import describe_channel_files, describe_skipped

    if surprising := [file for file in skipped if not file.expected]:
        echo_note(describe_skipped(surprising))
    if not read.chooses_channels and (likely := describe_channel_files(images)):
        echo_note(likely)


def _count_objects(totals: BatchTotals) -> str:
    """Return how many objects there are in how many images; only the latter where a model of classes counts none."""
    images = f"{totals.images - totals.failed} of {totals.images} images"
    images = f"{totals.frames} frames of {images}" if totals.frames else images
    return f"{images} segmented" if totals.objects is None else f"{totals.objects} objects in {images}"


def _describe_size(path: Path) -> str:
    """Return how large a report is, and whether mail servers refuse that."""
    size = path.stat().st_size
    mega = f"{size / 1e6:.1f} MB"
    advice = "; many mail servers refuse more than 20 MB: segment fewer images into a folder" if size > _MAIL else ""
    return f"{path} holds all pictures: {mega}{advice}"


def _preview(
    images: Sequence[FoundImage], model: Model, batch: BatchOptions, formats: Sequence[str], json_lines: bool
) -> int:
    """Show what a batch would do, and return the exit code."""
    from biounet.batch import describe_cluster, preview, preview_table
    from biounet.core import failure_exit_code

    cluster = describe_cluster(batch)
    rows = preview(images, model, batch, formats)
    if cluster and not any(row.large for row in rows):
        cluster = _CLUSTER_NOT_USED
    if json_lines:
        left_out = [{"left_out": str(file.path), "reason": file.reason} for file in batch.skipped]
        started = [{"cluster": cluster}] if cluster else []
        echo_lines("\n".join(json.dumps(record) for record in (*map(asdict, rows), *left_out, *started)))
    else:
        text = table(preview_table(rows))
        echo_lines("\n".join([text, *(f"left out: {file.path} ({file.reason})" for file in batch.skipped)]))
        if cluster:
            echo_lines(cluster)
    failed = [row for row in rows if row.failed]
    for row in failed:
        echo_error(f"{row.image}: {row.message}")
    return failure_exit_code(len(failed), len(rows))


def verify(
    out: options.Results,
    images: options.Moved = None,
    model: options.ModelFile = None,
    device: options.OtherDevice = None,
    jobs: options.Jobs = None,
    fraction: options.Fraction = 1.0,
    ram: options.Ram = None,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Segment the images of results again and compare bit for bit."""
    check_address_space()
    from biounet.api import load
    from biounet.batch import ReplayOptions, find_model, read_run, replay_exit_code
    from biounet.batch import verify as verify_results

    memory = None if ram is None else as_bytes(ram, "--ram")
    chosen, run = ReplayOptions(images, device, jobs, fraction, memory), read_run(out)
    segmenter = load(find_model(run) if model is None else model)

    def report(result: ReplayResult) -> None:
        if json_lines:
            echo_json(vars(result))
        elif not quiet or result.status not in ("same", "intact"):
            echo(": ".join(part for part in (result.image, result.status, result.message) if part))

    with stoppable("begins anew") as stop:
        code = replay_exit_code(verify_results(out, segmenter.model, chosen, report, stop))
    if code and run.differences():
        echo(f"the run was made with {'; '.join(run.differences())}", sys.stderr)
    raise typer.Exit(code)


def demo(
    out: options.Out = Path("biounet-out"),
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    json_lines: options.Json = False,
) -> None:
    """Segment the samples with the built-in model."""
    check_address_space()
    echo_note("segmenting four samples")
    from biounet.api import load, show_batch
    from biounet.batch import BatchOptions, batch_exit_code, plan_batch, segment_batch
    from biounet.core import sample_folder
    from biounet.files import find_images

    samples = sample_folder()
    expected = json.loads((samples / "expected.json").read_text(encoding="utf-8"))
    images, segmenter = find_images([str(samples / "images")]), load("nuclei", device)
    batch, show = BatchOptions(device=device, overwrite=overwrite), partial(show_row, quiet=True, json_lines=json_lines)
    with show_batch(plan_batch(images, segmenter.model, out, batch), show, log=echo_note) as report:
        rows = segment_batch(images, segmenter.model, out, batch, report)
    if not json_lines:
        cells = [(row.image, str(row.count), str(expected[row.image]["count"]), f"{row.seconds:.2f}") for row in rows]
        echo_lines(table([("image", "cells", "true", "seconds"), *cells]))
        echo(f"pictures: {out}/*_overlay.png   tables: {out}/*_objects.csv   report: {out}/report.html")
    raise typer.Exit(batch_exit_code(rows))
