"""How far work on many images is: a bar in a notebook or terminal, a line for each tenth in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from typing import Protocol

from biounet.api.display import in_notebook
from biounet.batch import Plan, Row
from biounet.core import announce_compiling, format_seconds, working_time

COMPILING = "compiling for this processor, which is done once and takes some seconds"
_LASTING = 5.0  # seconds after which a log gets lines
_TENTHS = 10
_PAUSE = 0.2  # seconds between two changes of a bar in a notebook


class Advance(Protocol):
    """To be called after each image; `is_new`: whether this call made it."""

    def __call__(self, is_new: bool = True) -> None: ...  # noqa: D102


@contextmanager
def show_progress(
    total: int, *, already: int = 0, shown: bool | None = None, log: Callable[[str], None] | None = None
) -> Iterator[Advance]:
    """Provide a function to be called after each image, which shows how many of `total` are done.

    It is also said when inner loops are compiled.

    Parameters
    ----------
    already
        Images that an earlier run has done: they say nothing of the speed.
    shown
        Whether there is a bar; None: for several images in a notebook or terminal.
    log
        Writes a line where standard error is no terminal, at each tenth of work that lasts.
    """
    visible = in_notebook() or sys.stderr.isatty()
    log = log or (_write_line if visible or shown else None)
    if shown is False or log is None:
        yield _ignore
        return
    show_text: Callable[[int, str], None]
    with announce_compiling(partial(log, COMPILING)):
        if visible and (shown or total > 1):
            with _notebook_bar(total) if in_notebook() else _terminal_bar(total) as show_text:
                yield _Counter(total, already, show_text)
        else:
            yield _Counter(total, already, _Tenths(total, log, always=bool(shown)))


@contextmanager
def show_batch(
    plan: Plan, show: Callable[[Row], None], *, shown: bool | None = None, log: Callable[[str], None] | None = None
) -> Iterator[Callable[[Row], None]]:
    """Provide a function to be called with the row of each image of a batch, which shows it and the progress."""
    with show_progress(plan.total, already=len(plan.done), shown=shown, log=log) as advance:

        def report(row: Row) -> None:
            show(row)
            advance(row.image not in plan.done)

        yield report


def _ignore(is_new: bool = True) -> None:
    """Show nothing."""


class _Counter:
    """How many images are done, how fast, and how long the others take."""

    def __init__(self, total: int, already: int, show: Callable[[int, str], None]) -> None:
        self._total, self._to_do, self._done, self._new = total, total - already, 0, 0
        self._show, self._start = show, working_time()

    def __call__(self, is_new: bool = True) -> None:
        self._done += 1
        self._new += is_new
        self._show(self._done, self._describe(working_time() - self._start))

    def _describe(self, seconds: float) -> str:
        text = f"{self._done} of {self._total} images"
        if not self._new:
            return text
        each = seconds / self._new
        speed = f"{1 / each:.1f} images/s" if 0 < each < 1 else f"{format_seconds(each)} per image"
        left = max(0, self._to_do - self._new)
        return f"{text}, {speed}" + (f", {format_seconds(each * left)} left" if left else "")


class _Tenths:
    """Writes a line each time that another tenth is done; of work that is soon done, none."""

    def __init__(self, total: int, write: Callable[[str], None], always: bool) -> None:
        self._total, self._write, self._tenth = total, write, 0
        self._first = time.perf_counter() + (0 if always else _LASTING)

    def __call__(self, done: int, text: str) -> None:
        tenth = _TENTHS * done // self._total
        if tenth > self._tenth and time.perf_counter() >= self._first:
            self._write(text)
        self._tenth = tenth


@contextmanager
def _notebook_bar(total: int) -> Iterator[Callable[[int, str], None]]:
    """Show a bar of the browser: that of rich needs widgets, which many notebooks do not have."""
    from IPython.display import HTML, display

    def page(done: int, text: str) -> HTML:
        return HTML(f'<progress value="{done}" max="{total}"></progress> {escape(text)}')

    handle, shown = display(page(0, f"0 of {total} images"), display_id=True), time.perf_counter()

    def show(done: int, text: str) -> None:
        nonlocal shown
        if done == total or time.perf_counter() > shown + _PAUSE:
            handle.update(page(done, text))
            shown = time.perf_counter()

    yield show


@contextmanager
def _terminal_bar(total: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = [SpinnerColumn(), BarColumn(), TextColumn("{task.fields[text]}", markup=False)]
    # What is printed meanwhile stands above the bar, where both go to the terminal.
    console, redirect = Console(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("", total=total, text=f"0 of {total} images")
        yield lambda done, text: bar.update(task, completed=done, text=text)


def _write_line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
