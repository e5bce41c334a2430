"""Commands of a few lines over the public functions; the only place that prints.

Nothing heavy is imported before a command runs: importing torch takes seconds, and ``--help`` must not.
"""

# The parameters of a command are its options: each is one line of its help, and passing them on is all that it does.
# ruff: noqa: PLR0913
from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.exceptions import Abort, TyperException

from biounet.errors import BiounetError, SettingsError

if TYPE_CHECKING:
    from biounet.batch import Row
    from biounet.files import ReadOptions
    from biounet.training import Progress

app = typer.Typer(
    name="biounet",
    help="Segment cells and tumours; learn from a few annotations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="Images, folders, patterns, or CHANNEL=FILE for each channel.", metavar="IMAGE...", show_default=False
    ),
]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Built-in name or path of a model.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]
Axes = Annotated[Optional[str], typer.Option(help="Axes of the files, such as ZCYX.", show_default=False)]  # noqa: UP045
Spacing = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation
    typer.Option(help="Pixel size in µm (NIfTI: mm): one number, or y,x or z,y,x.", show_default=False),
]
Channel = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Channel to use: number from 0, or name.", show_default=False),
]
Plane = Annotated[Optional[int], typer.Option(help="Plane of a stack to use, from 0.", show_default=False)]  # noqa: UP045
Jobs = Annotated[Optional[int], typer.Option(help="Images at a time.", min=1, show_default="one per core")]  # noqa: UP045
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import biounet

        print(f"biounet {biounet.__version__}")
        raise typer.Exit


@app.command()
def segment(
    images: Inputs,
    model: ModelName = "nuclei",
    out: Out = Path("biounet-out"),
    device: Device = "auto",
    axes: Axes = None,
    spacing: Spacing = None,
    channel: Channel = None,
    plane: Plane = None,
    diameter: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Typical diameter of the objects in pixels, when far from the model's.", min=1),
    ] = None,
    block: Annotated[Optional[int], typer.Option(help="Edge of a block; smaller needs less memory.", min=64)] = None,  # noqa: UP045
    jobs: Jobs = None,
    overlay: Annotated[bool, typer.Option(help="Write overlays and the report.")] = True,
    quiet: Quiet = False,
    json_lines: Json = False,
) -> None:
    """Find, count and measure the objects of images."""
    from biounet.api import load
    from biounet.batch import BatchOptions, exit_code, segment_batch
    from biounet.files import find_images
    from biounet.segment import SegmentOptions

    segmenter = load(model, device)
    found = find_images(images, segmenter.card.recipe.data.channels)
    read = _read_options(axes, spacing, channel, plane, segmenter.card.recipe.data.dims)
    options = BatchOptions(read, SegmentOptions(block=block, diameter=diameter), device, jobs, overlay)

    def report(row: Row) -> None:
        if row.status == "failed":
            print(f"ERROR {row.image}: {row.message}", file=sys.stderr)
        if json_lines:
            print(json.dumps(_as_json(row)), flush=True)
        elif not quiet and row.status != "failed":
            note = f"  ({row.message})" if row.message else ""
            print(f"{row.image}: {'' if row.count is None else row.count} {row.status}, {row.seconds:.2f} s{note}")

    rows = segment_batch(found, segmenter.model, out, options, report)
    if not quiet and not json_lines:
        total = sum(row.count or 0 for row in rows)
        print(f"{total} objects in {sum(row.status != 'failed' for row in rows)} of {len(rows)} images; see {out}/")
    raise typer.Exit(exit_code(rows))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe: a name such as nuclei_2d, or the path of a TOML file.")],
    images: Annotated[str, typer.Option(help="Folder of images; or sibling files, or a CSV with image,label.")],
    labels: Annotated[Optional[str], typer.Option(help="Folder of annotations.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option("--out", "-o", help="The model file.")] = Path("model.safetensors"),
    minutes: Annotated[Optional[float], typer.Option(help="Budget in minutes.", min=0.01)] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option(help="Budget in epochs.", min=1)] = None,  # noqa: UP045
    start: Annotated[Optional[str], typer.Option("--from", help="Model to continue from.")] = None,  # noqa: UP045
    val_images: Annotated[Optional[str], typer.Option(help="Images to tune thresholds on.")] = None,  # noqa: UP045
    val_labels: Annotated[Optional[str], typer.Option(help="Their annotations.")] = None,  # noqa: UP045
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    device: Device = "auto",
    workers: Annotated[Optional[int], typer.Option("--jobs", help="Processes that make patches.", min=0)] = None,  # noqa: UP045
    quiet: Quiet = False,
    json_lines: Json = False,
) -> None:
    """Train a model on annotated images."""
    from biounet import api
    from biounet.history import write_history
    from biounet.training import Run

    validation = (val_images, val_labels or val_images) if val_images else None
    checkpoint = out.with_name(f"{out.stem}.checkpoint.pt")
    with _progress(quiet or json_lines) as report:
        run = Run(device=device, workers=workers, checkpoint=checkpoint, resume=resume, report=report)
        segmenter = api.train(
            recipe, images, labels, minutes=minutes, epochs=epochs, start=start, validation=validation, run=run
        )
    segmenter.save(out)
    write_history(segmenter.card, out)
    checkpoint.unlink(missing_ok=True)
    if json_lines:
        print(json.dumps({"model": str(out), **segmenter.card.validation}))
    elif not quiet:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in segmenter.card.validation.items())
        print(f"{out}: {figures or 'no validation images'}")


@app.command()
def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Folder of results.")],
    truth: Annotated[Path, typer.Argument(help="Folder of annotations.")],
    recipe: Annotated[str, typer.Option(help="Recipe that says what the annotations hold.")] = "nuclei_2d",
    tolerance: Annotated[
        float, typer.Option(help="Distance at which surfaces in volumes agree, in mm (TIFF: µm).", min=0)
    ] = 1.0,
    json_lines: Json = False,
) -> None:
    """Compare results with annotations."""
    from biounet.evaluation import evaluate_folders
    from biounet.recipe import read_recipe
    from biounet.resources import find_recipe

    figures = evaluate_folders(predicted, truth, read_recipe(find_recipe(recipe)).data, tolerance)
    if json_lines:
        print(json.dumps(figures.as_dict()))
    else:
        _print_table(figures.as_table())


@app.command()
def check(
    images: Annotated[str, typer.Argument(help="Folder of images, or a CSV with image,label.")],
    labels: Annotated[Optional[str], typer.Argument(help="Folder of annotations.")] = None,  # noqa: UP045
    recipe: Annotated[str, typer.Option(help="Recipe that says what the annotations hold.")] = "nuclei_2d",
    val_images: Annotated[Optional[str], typer.Option(help="Validation images.")] = None,  # noqa: UP045
    val_labels: Annotated[Optional[str], typer.Option(help="Their annotations.")] = None,  # noqa: UP045
    axes: Axes = None,
    spacing: Spacing = None,
    channel: Channel = None,
    plane: Plane = None,
    json_lines: Json = False,
) -> None:
    """Show what would be read, and everything that is wrong, before any training."""
    from biounet.check import check_data
    from biounet.recipe import read_recipe
    from biounet.resources import find_recipe

    plan = read_recipe(find_recipe(recipe))
    options = _read_options(axes, spacing, channel, plane, plan.data.dims)
    validation = (val_images, val_labels or val_images) if val_images else None
    found = check_data(images, labels, plan, options, validation)
    if json_lines:
        print(json.dumps(found.as_dict()))
    else:
        _print_table(found.as_table())
        for name, planned in found.plan.items():
            print(f"{name}: {planned}")
        for problem in found.problems:
            print(f"ERROR {problem}", file=sys.stderr)
        print(f"{len(found.rows)} images read, {len(found.problems)} problems")
    raise typer.Exit(SettingsError.exit_code if found.problems else 0)


@app.command()
def models(json_lines: Json = False) -> None:
    """List the built-in models and what each is for."""
    from biounet.model import read_card
    from biounet.resources import builtin_models

    cards = {name: read_card(path) for name, path in builtin_models().items()}
    if json_lines:
        for name, card in cards.items():
            print(json.dumps({"name": name, **card.model_dump(mode="json", exclude={"history"})}))
    else:
        _print_table([("model", "for"), *((name, card.recipe.purpose) for name, card in cards.items())])


@app.command()
def demo(out: Out = Path("biounet-out"), device: Device = "auto") -> None:
    """Segment the samples with the built-in model and show where the results are."""
    from biounet.api import load
    from biounet.batch import BatchOptions, exit_code, segment_batch
    from biounet.files import find_images
    from biounet.resources import sample_folder

    samples = sample_folder()
    expected = json.loads((samples / "expected.json").read_text(encoding="utf-8"))
    options = BatchOptions(device=device)
    rows = segment_batch(find_images([str(samples / "images")]), load("nuclei", device).model, out, options)
    table = [("image", "cells", "true", "seconds")]
    table += [(row.image, str(row.count), str(expected[row.image]["count"]), f"{row.seconds:.2f}") for row in rows]
    _print_table(table)
    print(f"pictures: {out}/*_overlay.png   tables: {out}/*_objects.csv   report: {out}/report.html")
    raise typer.Exit(exit_code(rows))


def _read_options(
    axes: str | None, spacing: str | None, channel: str | None, plane: int | None, dims: int
) -> ReadOptions:
    from biounet.files import ReadOptions

    number = int(channel) if channel is not None and channel.isdigit() else channel
    return ReadOptions(axes=axes, spacing=_spacing(spacing, dims), channel=number, dims=dims, plane=plane)


def _spacing(text: str | None, dims: int) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= dims
    if len(numbers) != dims or not all(0 < number < float("inf") for number in numbers):
        raise SettingsError(f"--spacing {text}: expected {dims} positive numbers, or one", hint="such as 0.325,0.325")
    return numbers


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "image": row.image,
        "status": row.status,
        "count": row.count,
        "seconds": round(row.seconds, 4),
        "message": row.message,
        "outputs": row.details.get("outputs", []),
    }


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def _progress(silent: bool) -> Iterator[Any]:
    """Give a function that shows the progress of a training; a bar on a terminal, a line for each epoch elsewhere."""
    if silent:
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = [TextColumn("training"), BarColumn(), TextColumn("{task.fields[text]}")]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=None, text="")
        epochs_seen = 0

        def report(progress: Any) -> None:  # noqa: ANN401
            nonlocal epochs_seen
            text = _describe(progress)
            bar.update(task, total=progress.steps or None, completed=progress.step, text=text)
            epoch = int(progress.figures.get("epoch", 0))
            if not console.is_terminal and epoch > epochs_seen:
                print(f"epoch {epoch}: {text}", file=sys.stderr, flush=True)
            epochs_seen = epoch

        yield report


def _describe(progress: Progress) -> str:
    left = f"{progress.left / 60:.1f} min left" if progress.left < float("inf") else "measuring speed"
    score = progress.figures.get("ap", progress.figures.get("dice"))
    return f"{left}, loss {progress.loss:.3f}" + (f", validation {score:.3f}" if score is not None else "")


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = app(standalone_mode=False)
    except BiounetError as error:
        print(f"ERROR {error}", file=sys.stderr)
        code = error.exit_code
    except TyperException as error:
        print(f"ERROR {error.format_message()}", file=sys.stderr)
        code = SettingsError.exit_code
    except (KeyboardInterrupt, Abort):
        code = 130
    raise SystemExit(code or 0)
