"""Commands of a few lines over the public functions.

Nothing heavy is imported before a command runs: importing torch takes seconds, and ``--help`` must not.
"""

# The parameters of a command are its options: each is one line of its help, and passing them on is all that it does.
# ruff: noqa: PLR0913
from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import Abort, TyperException

from biounet.cli import hand_counts, options
from biounet.cli.terminal import (
    echo,
    echo_error,
    echo_json,
    echo_lines,
    echo_note,
    escape_invalid,
    say_loading,
    show_row,
    show_training,
    table,
)
from biounet.core import (
    BiounetError,
    MachineError,
    SettingsError,
    Stopped,
    check_address_space,
    check_working_folder,
    describe_shortage,
    exit_on_signals,
    interrupt_on_signals,
    is_out_of_memory,
    signal_exit_code,
    stop_on_signals,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from biounet.batch import BatchOptions, ReplayResult, Row
    from biounet.core import Stop
    from biounet.files import FoundImage, ReadOptions, SkippedFile
    from biounet.network import Card, Model
    from biounet.reporting import MeasuredFile

_MAIL = 15e6  # bytes of a file that becomes 20 MB in an e-mail

app = typer.Typer(
    name="biounet",
    help="Segment cells and tumours; learn from a few annotations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from biounet.core import __version__

        echo(f"biounet {__version__}")
        raise typer.Exit


@app.command()
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
    excel: options.Excel = False,
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
    from biounet.files import ReaderPool, join_channel_files, search_images

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes large pages: 15 % less time for 2048x2048 pixels
    part, groups = options.parse_shard(shard), options.parse_group(group, unit)
    # The processes of the readers start while this one imports torch.
    with ReaderPool(0 if dry_run else options.count_readers(images, jobs)) as readers:
        from biounet.api import load, show_batch
        from biounet.batch import BatchOptions, batch_exit_code, plan_batch, segment_batch
        from biounet.reporting import check_output_folder
        from biounet.segmentation import SegmentOptions

        segmenter = load(model, device)
        data = segmenter.card.recipe.data
        search = search_images(images, data.channels, data.annotation)
        read = options.read_options(axes, spacing, channel, plane, data.dims)
        read = options.with_channels(read, channels, measure, len(segmenter.card.inputs))
        read = options.with_stacks(read, project, frames)
        found = join_channel_files(search.images, read, readers)
        chain = SegmentOptions(
            block=block,
            diameter=options.parse_diameter(diameter),
            min_size=min_size,
            max_size=max_size,
            foreground=foreground,
            join=join,
            min_confidence=min_confidence,
            exclude_border=exclude_border,
            fill_holes=fill_holes,
            ring=ring,
        )
        chain.check_model(data)
        skipped = tuple(search.skipped)
        batch = BatchOptions(
            *(read, chain, device, jobs, overlay, excel, part, fail_fast, readers, skipped, overwrite),
            group=groups,
            single_file=single_file,
        )
        if dry_run:
            check_output_folder(found, out)
            code = _preview(found, segmenter.model, batch, json_lines)
            _show_left_out([], found, read)  # the table lists what is skipped
            raise typer.Exit(code)
        plan = plan_batch(found, segmenter.model, out, batch)
        if plan.done and not quiet:
            echo_note(plan.describe())
        show = partial(show_row, quiet=quiet, json_lines=json_lines)
        with (
            _stoppable("continues") as stop,
            show_batch(plan, show, shown=False if quiet else None, log=echo_note) as report,
        ):
            rows = segment_batch(found, segmenter.model, out, batch, report, stop)
    if not quiet and not json_lines:
        _show_totals(rows, out, batch)
    if not quiet:
        _show_left_out(skipped, found, read)
    raise typer.Exit(batch_exit_code(rows))


def _show_totals(rows: Sequence[Row], out: Path, batch: BatchOptions) -> None:
    """Show what was found in all images, and where the results are."""
    from biounet.batch import describe_uncalibrated

    echo(f"{_count_objects(rows, sum(len(row.frames) for row in rows))}; see {out}/")
    if batch.group is not None:
        echo(f"means by {', '.join(batch.group.names)}: {out / 'groups.csv'}")
    if unknown := describe_uncalibrated(rows):
        echo(f"pixel size {unknown}: lengths are in pixels; give it with --spacing")
    if batch.single_file:
        echo(_describe_size(out / "report.html"))


def _show_left_out(skipped: Sequence[SkippedFile], images: Sequence[FoundImage], read: ReadOptions) -> None:
    """Show which files were not read, and which look like channels and were read as images of their own."""
    from biounet.files import describe_channel_files, describe_skipped

    if surprising := [file for file in skipped if not file.expected]:
        echo_note(describe_skipped(surprising))
    if not read.chooses_channels and (likely := describe_channel_files(images)):
        echo_note(likely)


def _count_objects(rows: Sequence[Row | MeasuredFile], frames: int = 0) -> str:
    """Return how many objects there are in how many images; only the latter where a model of classes counts none."""
    images = f"{sum(row.status != 'failed' for row in rows)} of {len(rows)} images"
    counts = [row.count for row in rows if row.count is not None]
    images = f"{frames} frames of {images}" if frames else images
    return f"{sum(counts)} objects in {images}" if counts else f"{images} segmented"


def _describe_size(path: Path) -> str:
    """Return how large a report is, and whether mail servers refuse that."""
    size = path.stat().st_size
    mega = f"{size / 1e6:.1f} MB"
    advice = "; many mail servers refuse more than 20 MB: segment fewer images into a folder" if size > _MAIL else ""
    return f"{path} holds all pictures: {mega}{advice}"


@contextmanager
def _stoppable(how: str) -> Iterator[Stop]:
    """Provide an event that signals set; exit when work has stopped, and say how the same command continues."""
    with stop_on_signals() as stop:
        try:
            yield stop
        except Stopped as error:
            echo(f"stopped: {error}; the same command {how}", sys.stderr)
            raise typer.Exit(signal_exit_code(stop.number)) from None


def _preview(images: Sequence[FoundImage], model: Model, batch: BatchOptions, json_lines: bool) -> int:
    """Show what a batch would do, and return the exit code."""
    from biounet.batch import preview, preview_table
    from biounet.core import failure_exit_code

    rows = preview(images, model, batch)
    if json_lines:
        left_out = [{"left_out": str(file.path), "reason": file.reason} for file in batch.skipped]
        echo_lines("\n".join(json.dumps(record) for record in (*map(vars, rows), *left_out)))
    else:
        text = table(preview_table(rows))
        echo_lines("\n".join([text, *(f"left out: {file.path} ({file.reason})" for file in batch.skipped)]))
    failed = [row for row in rows if row.failed]
    for row in failed:
        echo_error(f"{row.image}: {row.message}")
    return failure_exit_code(len(failed), len(rows))


@app.command()
def measure(
    labels: options.LabelImages,
    image: options.LabelledImages = None,
    inside: options.Inside = None,
    out: options.Out = Path("biounet-measured"),
    channels: options.Channels = None,
    ring: options.Ring = None,
    axes: options.Axes = None,
    spacing: options.Spacing = None,
    plane: options.Plane = None,
    excel: options.Excel = False,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Measure labels of any program, the channels of their images, and the objects they lie in."""
    check_address_space()
    from biounet.core import failure_exit_code
    from biounet.files import describe_skipped
    from biounet.measurement import MeasureOptions
    from biounet.reporting import LabelInputs, measure_files

    names = None if channels is None else tuple(name.strip() for name in channels.split(","))
    how = MeasureOptions(axes, options.parse_spacing(spacing), channels=names, plane=plane, ring=ring)
    inputs = LabelInputs(labels, options.parse_images(image), inside)
    show = partial(show_row, quiet=quiet, json_lines=json_lines)
    rows, unused = measure_files(inputs, out, how, excel=excel, report=show)
    if not quiet and not json_lines:
        counts = [row.count for row in rows if row.count is not None]
        echo(f"{sum(counts)} objects measured in {len(counts)} of {len(rows)} label images; see {out}/")
    if not quiet and unused:
        echo(describe_skipped(unused), sys.stderr)
    raise typer.Exit(failure_exit_code(sum(row.status == "failed" for row in rows), len(rows)))


@app.command()
def verify(
    out: options.Results,
    images: options.Moved = None,
    model: options.ModelFile = None,
    device: options.OtherDevice = None,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Segment the images of results again and compare bit for bit."""
    check_address_space()
    from biounet.api import load
    from biounet.batch import find_model, read_run, replay_exit_code
    from biounet.batch import verify as verify_results

    run = read_run(out)
    segmenter = load(find_model(run) if model is None else model)

    def report(result: ReplayResult) -> None:
        if json_lines:
            echo_json(vars(result))
        elif not quiet or result.status != "same":
            echo(": ".join(part for part in (result.image, result.status, result.message) if part))

    code = replay_exit_code(verify_results(out, segmenter.model, images, report, device))
    if code and run.differences():
        echo(f"the run was made with {'; '.join(run.differences())}", sys.stderr)
    raise typer.Exit(code)


app.command()(hand_counts.sample)
app.command()(hand_counts.correct)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name such as nuclei_2d, or the path of a TOML file.")],
    images: Annotated[str, typer.Option(help="Folder of images; or sibling files, or a CSV with image,label.")],
    labels: Annotated[str | None, typer.Option(help="Folder of annotations.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The model file.")] = Path("model.safetensors"),
    minutes: Annotated[float | None, typer.Option(help="Budget in minutes, from start to end.", min=0.01)] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget in epochs.", min=1)] = None,
    start: Annotated[str | None, typer.Option("--from", help="Model to continue from.")] = None,
    val_images: Annotated[str | None, typer.Option(help="Images to tune thresholds on.")] = None,
    val_labels: options.ValidationLabels = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    axes: options.Axes = None,
    spacing: options.Spacing = None,
    channel: options.Channel = None,
    plane: options.Plane = None,
    device: options.Device = "auto",
    workers: Annotated[int | None, typer.Option("--jobs", help="Processes that make patches.", min=0)] = None,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Train a model on annotated images."""
    started = time.perf_counter()  # torch and MONAI take seconds of the budget to import
    check_address_space()
    if not quiet:
        echo_note("reading the images")
    from biounet.api import train as learn
    from biounet.training import TrainCallbacks, TrainOptions, write_history

    job = options.load_recipe(recipe)
    read = options.read_options(axes, spacing, channel, plane, job.data.dims)
    validation = options.validation_paths(val_images, val_labels)
    checkpoint = out.with_name(f"{out.stem}.checkpoint.pt")
    warnings: list[str] = []

    def warn(warning: str) -> None:
        warnings.append(warning)
        echo(f"WARNING {warning}", sys.stderr)

    with show_training(quiet or json_lines) as report, _stoppable("with --resume continues") as stop:
        segmenter = learn(
            job,
            images,
            labels,
            minutes=minutes,
            epochs=epochs,
            start=start,
            validation=validation,
            options=read,
            run=TrainOptions(device, workers, checkpoint, resume, started),
            callbacks=TrainCallbacks(report, warn, stop),
        )
    segmenter.save(out)
    write_history(segmenter.card, out)
    checkpoint.unlink(missing_ok=True)
    if json_lines:
        echo_json({"model": str(out), **segmenter.card.validation, "notes": segmenter.card.notes})
    elif not quiet:
        _show_trained(segmenter.card, out, warnings)


def _show_trained(card: Card, out: Path, warnings: Sequence[str]) -> None:
    """Show the figures of a new model, and the notes on its card that were not shown as warnings."""
    figures = ", ".join(f"{name} {value:.3f}" for name, value in card.validation.items())
    held_out = int(card.data.get("held_out", 0))
    none = f"no figures: nothing to compare in {held_out} validation images" if held_out else "no validation images"
    echo(f"{out}: {figures or none}")
    for note in card.notes:
        if note not in warnings:
            echo(note)


@app.command()
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Folder of results.")],
    truth: Annotated[Path, typer.Argument(help="Folder of annotations.")],
    recipe: options.RecipeName = "nuclei_2d",
    tolerance: options.Tolerance = 1.0,
    axes: options.Axes = None,
    spacing: options.Spacing = None,
    channel: options.Channel = None,
    plane: options.Plane = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print one row per case and class as CSV.")] = False,
    json_lines: options.Json = False,
) -> None:
    """Compare results with annotations."""
    from biounet.core import failure_exit_code
    from biounet.evaluation import evaluate as compare

    data = options.load_recipe(recipe).data
    read = options.read_options(axes, spacing, channel, plane, data.dims)
    figures = compare(predicted, truth, data, tolerance, read)
    if json_lines:
        echo_json(figures.as_dict())
    elif csv:
        for line in figures.as_csv().removesuffix("\n").split("\n"):
            echo(line)
    else:
        echo_lines("\n".join([table(figures.as_table()), *figures.definitions()]))
    for note in figures.notes:
        echo(f"NOTE {note}", sys.stderr)
    for problem in figures.failed:
        echo_error(problem)
    raise typer.Exit(failure_exit_code(len(figures.failed), len({row["case"] for row in figures.cases})))


@app.command()
def check(
    images: Annotated[str, typer.Argument(help="Folder of images, or a CSV with image,label.")],
    labels: Annotated[str | None, typer.Argument(help="Folder of annotations.")] = None,
    recipe: options.RecipeName = "nuclei_2d",
    val_images: Annotated[str | None, typer.Option(help="Validation images.")] = None,
    val_labels: options.ValidationLabels = None,
    axes: options.Axes = None,
    spacing: options.Spacing = None,
    channel: options.Channel = None,
    plane: options.Plane = None,
    json_lines: options.Json = False,
) -> None:
    """Show what would be read, and everything that is wrong."""
    from biounet.training import check_data

    job = options.load_recipe(recipe)
    read = options.read_options(axes, spacing, channel, plane, job.data.dims)
    result = check_data(images, labels, job, read, options.validation_paths(val_images, val_labels))
    if json_lines:
        echo_json(result.as_dict())
    else:
        echo_lines(table(result.as_table()))
        for name, planned in result.plan.items():
            echo(f"{name}: {planned}")
        for file in result.skipped:
            echo(f"left out: {file.path} ({file.reason})")
        for problem in result.problems:
            echo_error(problem)
        total = len(result.problems)
        echo(f"{len(result.rows)} images read, {total} problem{'' if total == 1 else 's'}")
    raise typer.Exit(SettingsError.exit_code if result.problems else 0)


@app.command()
def models(json_lines: options.Json = False) -> None:
    """List the built-in models and what each is for."""
    from biounet.core import builtin_models
    from biounet.network import read_card

    cards = {name: read_card(path) for name, path in builtin_models().items()}
    if json_lines:
        for name, card in cards.items():
            echo_json({"name": name, **card.model_dump(mode="json", exclude={"history"})})
    else:
        echo_lines(table([("model", "for"), *((name, card.recipe.purpose) for name, card in cards.items())]))


@app.command()
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


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    interrupt_on_signals()
    escape_invalid()
    try:
        check_working_folder()
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, Abort):
        code = 130
    except Exception as error:  # the user sees one line, whatever the defect
        if os.environ.get("BIOUNET_DEBUG"):
            raise
        code = _report(error)
    finally:
        exit_on_signals()  # at exit the interpreter would show a traceback
    raise SystemExit(code or 0)


def _report(error: Exception) -> int:
    """Show an error in one line, and return the exit code."""
    if isinstance(error, BiounetError):
        text, code = str(error), error.exit_code
    elif isinstance(error, TyperException):
        text, code = error.format_message().replace(": Value error, ", ": "), SettingsError.exit_code
    elif is_out_of_memory(error):
        text, code = describe_shortage(error), MachineError.exit_code
    elif isinstance(error, OSError):
        text, code = str(MachineError(error.strerror or str(error), path=error.filename)), MachineError.exit_code
    else:
        hint = "a defect of biounet, please report it; BIOUNET_DEBUG=1 shows where"
        text, code = f"{type(error).__name__}: {error} (hint: {hint})", MachineError.exit_code
    with suppress(BiounetError):  # standard error may go to a full disk
        echo_error(text)
    return code
