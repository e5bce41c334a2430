"""What commands show: tables, lines, and the progress of a training, on a terminal or in a log.

The only place that prints: with it, `biounet.cli` would be longer than a file may be.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from biounet.core import MachineError, printable

if TYPE_CHECKING:
    from biounet.batch import Preview, Row
    from biounet.files import SkippedFile
    from biounet.training import Progress


def echo(text: str, stream: TextIO | None = None) -> None:
    """Print one line, whatever names are in it; errors as of `echo_lines`."""
    echo_lines(printable(text), stream)


def echo_lines(text: str, stream: TextIO | None = None) -> None:
    """Print lines as they are; work does not end because nobody reads on, as in ``| head``.

    Raises
    ------
    MachineError
        If the disk that they go to is full.
    """
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left would fail again at the end
        if not isinstance(error, BrokenPipeError):
            raise MachineError(f"what is shown cannot be written: {error.strerror}") from error


class Warner:
    """Says remarks on stderr, even where only errors are wanted, and remembers them."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, remark: str) -> None:
        """Say a remark."""
        self._said.add(remark)
        echo(f"WARNING {remark}", sys.stderr)

    def unsaid(self, remarks: Sequence[str]) -> list[str]:
        """Return those remarks that were not said."""
        return [remark for remark in remarks if remark not in self._said]


@contextmanager
def show_progress(silent: bool) -> Iterator[Any]:
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
                console.print(f"epoch {epoch}: {text}", markup=False, highlight=False, soft_wrap=True)
            epochs_seen = epoch

        yield report


def _describe(progress: Progress) -> str:
    left = f"{progress.left / 60:.1f} min left" if progress.left < float("inf") else "measuring speed"
    score = progress.figures.get("ap", progress.figures.get("dice"))
    return f"{left}, loss {progress.loss:.3f}" + (f", validation {score:.3f}" if score is not None else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the text of a table whose columns are as wide as their widest cell."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def preview_text(rows: Sequence[Preview], left_out: Sequence[SkippedFile], as_json: bool) -> str:
    """Return what is shown of what a batch would do: a table, or JSON with one object per line.

    Files that are left out come after it, one by one.
    """
    from biounet.batch import PREVIEW_HEADER

    if as_json:
        other = [json.dumps({"left_out": str(file.path), "reason": file.reason}) for file in left_out]
        return "\n".join([*(json.dumps(vars(row)) for row in rows), *other])
    other = [f"left out: {file.path} ({file.reason})" for file in left_out]
    return "\n".join([table([PREVIEW_HEADER, *(row.as_row() for row in rows if not row.failed)]), *other])


def show_row(row: Row, quiet: bool, json_lines: bool) -> None:
    """Show what became of an image; errors always."""
    if row.status == "failed":
        echo(f"ERROR {row.image}: {row.message}", sys.stderr)
    if json_lines:
        echo(json.dumps(row.as_dict()))
    elif not quiet and row.status != "failed":
        note = f"  ({row.message})" if row.message else ""
        echo(f"{row.image}: {'' if row.count is None else row.count} {row.status}, {row.seconds:.2f} s{note}")


def show_any_text() -> None:
    """Let stdout and stderr escape what they cannot show, such as bytes of a file name that are no text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
