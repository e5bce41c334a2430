"""Output of commands: lines, tables, JSON and the progress of a training. The only module that prints."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from biounet.core import MachineError, Stopped, printable, signal_exit_code, stop_on_signals

if TYPE_CHECKING:
    from biounet.batch import FrameRow, Row
    from biounet.core import Stop
    from biounet.reporting import MeasuredFile
    from biounet.training import Progress


def echo(text: str, stream: TextIO | None = None) -> None:
    """Print one line with control characters escaped; raises as `echo_lines`."""
    echo_lines(printable(text), stream)


def echo_lines(text: str, stream: TextIO | None = None) -> None:
    """Print lines unchanged; a full disk is a `MachineError`, a closed pipe, as after ``| head``, is no error."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or flushing at exit would fail again
        if not isinstance(error, BrokenPipeError):
            raise MachineError(f"what is shown cannot be written: {error.strerror}") from error


def echo_error(text: str) -> None:
    """Print an error on stderr."""
    echo(f"ERROR {text}", sys.stderr)


def echo_note(text: str) -> None:
    """Print a line about the work on stderr, where it is not taken for a result."""
    echo(text, sys.stderr)


def say_loading(model: str, quiet: bool) -> None:
    """Say at once that something happens: importing torch and loading a model take seconds."""
    if not quiet:
        echo_note(f"loading the model {model}")


def echo_json(record: Mapping[str, Any]) -> None:
    """Print a JSON object as one line."""
    echo(json.dumps(record))


@contextmanager
def show_training(silent: bool) -> Iterator[Any]:
    """Provide a function that shows the progress of a training: a bar on a terminal, else a line for each epoch."""
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
            epoch = int(progress.metrics.get("epoch", 0))
            if not console.is_terminal and epoch > epochs_seen:
                console.print(f"epoch {epoch}: {text}", markup=False, highlight=False, soft_wrap=True)
            epochs_seen = epoch

        yield report


def _describe(progress: Progress) -> str:
    left = f"{progress.left / 60:.1f} min left" if progress.left < float("inf") else "measuring speed"
    score = progress.metrics.get("ap", progress.metrics.get("dice"))
    return f"{left}, loss {progress.loss:.3f}" + (f", validation {score:.3f}" if score is not None else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the text of a table with aligned columns."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def show_row(row: Row | MeasuredFile, quiet: bool, json_lines: bool) -> None:
    """Show the result of an image; errors always."""
    if row.status == "failed":
        echo_error(f"{row.image}: {row.message}")
    if json_lines:
        echo_json(row.as_dict())
    elif not quiet and row.status != "failed":
        note = f"  ({row.message})" if row.message else ""
        frames, figures = getattr(row, "frames", ()), getattr(row, "figures", {})  # of images that were segmented
        count = _describe_frames(frames, figures.get("tracks")) if frames else row.count
        echo(f"{row.image}: {'' if count is None else count} {row.status}, {row.seconds:.2f} s{note}")


def _describe_frames(frames: Sequence[FrameRow], tracks: object) -> str:
    """Return the smallest and the largest count of all frames, and the number of tracks where there is one."""
    counts = [frame.count for frame in frames if frame.count is not None]
    text = f"in {len(frames)} frame{'s' if len(frames) > 1 else ''}"
    if not counts:
        return text
    each = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    return f"{each} {text}" + (f", {tracks} tracks:" if tracks is not None else ":")


def escape_invalid() -> None:
    """Let stdout and stderr escape what they cannot encode, such as invalid bytes of file names."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def stoppable(how: str, silent: bool = False) -> Iterator[Stop]:
    """Provide an event that signals set; exit when work has stopped, and say how the same command continues."""
    with stop_on_signals() as stop:
        try:
            yield stop
        except Stopped as error:
            if not silent:
                echo(f"stopped: {error}; the same command {how}", sys.stderr)
            raise typer.Exit(signal_exit_code(stop.number)) from None
