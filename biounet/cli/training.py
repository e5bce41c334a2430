"""Commands about models: to train, to evaluate, to check the images and annotations, and to list them."""

# The parameters of a command are its options: each is one line of its help, and passing them on is all that it does.
# ruff: noqa: PLR0913
from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biounet.cli import options
from biounet.cli.terminal import (
    echo,
    echo_error,
    echo_json,
    echo_lines,
    echo_note,
    show_training,
    stoppable,
    table,
)
from biounet.core import SettingsError, check_address_space, is_follower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from biounet.network import Card


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
    series: options.Series = None,
    device: options.Device = "auto",
    workers: Annotated[int | None, typer.Option("--jobs", help="Processes that make patches.", min=0)] = None,
    quiet: options.Quiet = False,
    json_lines: options.Json = False,
) -> None:
    """Train a model on annotated images."""
    started = time.perf_counter()  # torch and MONAI take seconds of the budget to import
    check_address_space()
    quiet = quiet or is_follower()  # of several processes the first one shows
    if not quiet:
        echo_note("reading the images")
    from biounet.api import train as learn
    from biounet.training import TrainCallbacks, TrainOptions, join_processes, write_history

    checkpoint = out.with_name(f"{out.stem}.checkpoint.pt")
    warnings: list[str] = []

    def warn(warning: str) -> None:
        warnings.append(warning)
        echo(f"WARNING {warning}", sys.stderr)

    silent = quiet or json_lines
    with (
        show_training(silent) as report,
        stoppable("with --resume continues", is_follower()) as stop,
        join_processes(device) as processes,
    ):
        job = options.load_recipe(recipe)
        segmenter = learn(
            job,
            images,
            labels,
            minutes=minutes,
            epochs=epochs,
            start=start,
            validation=options.validation_paths(val_images, val_labels),
            options=options.read_options(axes, spacing, channel, plane, job.data.dims, series),
            run=TrainOptions(processes.device or device, workers, checkpoint, resume, started, processes),
            callbacks=TrainCallbacks(report, warn, stop),
        )
    if not processes.is_first:
        return
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
    series: options.Series = None,
    json_lines: options.Json = False,
) -> None:
    """Show what would be read, and everything that is wrong."""
    from biounet.training import check_data

    job = options.load_recipe(recipe)
    read = options.read_options(axes, spacing, channel, plane, job.data.dims, series)
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
        number, total = len(result.rows), len(result.problems)
        echo(f"{number} image{'' if number == 1 else 's'} read, {total} problem{'' if total == 1 else 's'}")
    raise typer.Exit(SettingsError.exit_code if result.problems else 0)


def models(
    name: Annotated[
        str | None, typer.Argument(help="A model or its file: tell how to use it.", show_default=False)
    ] = None,
    json_lines: options.Json = False,
) -> None:
    """List the built-in models, or tell how to use one."""
    from biounet.core import builtin_models
    from biounet.network import describe_use, read_card

    paths = builtin_models() if name is None else {name: builtin_models().get(name, Path(name))}
    cards = {name: read_card(path) for name, path in paths.items()}
    if json_lines:
        for name, card in cards.items():
            echo_json({"name": name, **card.model_dump(mode="json", exclude={"history"})})
    elif name is not None:
        echo_lines(describe_use(cards[name], paths[name]).removesuffix("\n"))
    else:
        echo_lines(table([("model", "for"), *((name, card.recipe.purpose) for name, card in cards.items())]))
