"""How far work on many images is: a bar in a notebook or terminal, a line for each tenth in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from biounet.api.display import in_notebook

_LASTING = 5.0  # seconds after which a log gets lines
_TENTHS = 10


@contextmanager
def show_progress(
    total: int, *, already: int = 0, shown: bool | None = None, log: bool = False
) -> Iterator[Callable[..., None]]:
    """Provide a function to be called after each image, which shows how many of `total` are done.

    Parameters
    ----------
    already
        Images that an earlier run has done, for which the function is called with False: they say nothing of the speed.
    shown
        Whether there is a bar; None: for several images in a notebook or terminal.
    log
        Whether lines on standard error take the place of a bar where that is no terminal and the work lasts.
    """
    visible = in_notebook() or sys.stderr.isatty()
    if shown is False or (shown is None and (total < 2 or not (visible or log))):
        yield lambda is_new=True: None
        return
    counter = _Counter(total, already)
    with _bar(total) if visible else nullcontext(_log_line) as show:
        last_tenth = 0

        def advance(is_new: bool = True) -> None:
            nonlocal last_tenth
            counter.advance(is_new)
            tenth = _TENTHS * counter.done // total
            if visible or (tenth > last_tenth and (shown or counter.seconds > _LASTING)):
                show(counter.done, str(counter))
            last_tenth = tenth

        yield advance


class _Counter:
    """How many images are done, how fast, and how long the others take."""

    def __init__(self, total: int, already: int) -> None:
        self.total, self.done, self.new = total, 0, 0
        self._to_do, self._start = total - already, time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def advance(self, is_new: bool) -> None:
        self.done += 1
        self.new += is_new

    def __str__(self) -> str:
        text = f"{self.done} of {self.total} images"
        if not self.new:
            return text
        each = self.seconds / self.new
        speed = f"{1 / each:.1f} images/s" if each < 1 else f"{format_seconds(each)} per image"
        return f"{text}, {speed}, {format_seconds(each * max(0, self._to_do - self.new))} left"


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = [SpinnerColumn(), BarColumn(), TextColumn("{task.fields[text]}", markup=False)]
    # What is printed meanwhile stands above the bar, where both go to the terminal.
    console, redirect = Console(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("", total=total, text=f"0 of {total} images")
        yield lambda done, text: bar.update(task, completed=done, text=text)


def _log_line(done: int, text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def format_seconds(seconds: float) -> str:
    """Return a time as people say it: ``5.1 s``, ``42 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
