"""How far work on many images is: a bar in a notebook or terminal, a line for each tenth in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, Protocol

from biounet.api.display import in_notebook
from biounet.batch import PartsDone, Plan, Row, ShowParts
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
    with _screen(total, shown, log) as screen:
        yield _ignore if screen is None else _Counter(total, already, screen.images)


@dataclass(frozen=True)
class BatchDisplay:
    """Shows the rows of a batch and its progress; `parts` that on a large image, None where nobody said how."""

    advance: Advance
    show: Callable[[Row], None]
    done: Collection[str]
    parts: ShowParts | None

    def __call__(self, row: Row) -> None:
        """Show the row of an image that is done."""
        self.show(row)
        self.advance(row.image not in self.done)


@contextmanager
def show_batch(
    plan: Plan, show: Callable[[Row], None], *, shown: bool | None = None, log: Callable[[str], None] | None = None
) -> Iterator[BatchDisplay]:
    """Provide what is called with the row of each image of a batch, and shows it and the progress.

    Its `parts` are for `biounet.batch.BatchOptions.on_parts`.
    """
    with _screen(plan.total, shown, log) as screen:
        if screen is None:
            yield BatchDisplay(_ignore, show, plan.done, (lambda parts: None) if shown is False else None)
        else:
            yield BatchDisplay(_Counter(plan.total, len(plan.done), screen.images), show, plan.done, screen.parts)


class _Screen(Protocol):
    """Where progress is shown."""

    def images(self, done: int, text: str) -> None:
        """Show how many images are done."""

    def parts(self, parts: PartsDone) -> None:
        """Show how far the work on one large image is."""


@contextmanager
def _screen(total: int, shown: bool | None, log: Callable[[str], None] | None) -> Iterator[_Screen | None]:
    """Provide where the progress is shown; None where it is not."""
    visible = in_notebook() or sys.stderr.isatty()
    log = log or (_write_line if visible or shown else None)
    if shown is False or log is None:
        yield None
        return
    several = bool(shown or total > 1)
    with announce_compiling(partial(log, COMPILING)), ExitStack() as stack:
        if in_notebook():
            yield _Notebook(total if several else 0)
        elif visible:
            yield _Terminal(total if several else 0, stack)
        else:
            yield _Log(total, log, always=bool(shown))


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

    def __init__(self, write: Callable[[str], None], always: bool) -> None:
        self._write, self._tenth = write, 0
        self._first = time.perf_counter() + (0 if always else _LASTING)

    def __call__(self, share: float, text: Callable[[], str]) -> None:
        tenth = int(_TENTHS * share + 1e-9)
        if tenth > self._tenth and time.perf_counter() >= self._first:
            self._write(text())
        self._tenth = tenth


class _Log:
    """Lines of a log."""

    def __init__(self, total: int, write: Callable[[str], None], always: bool) -> None:
        self._total, self._write, self._always = total, write, always
        self._images = _Tenths(write, always)
        self._parts: dict[str, _Tenths] = {}

    def images(self, done: int, text: str) -> None:
        self._images(done / self._total, lambda: text)

    def parts(self, parts: PartsDone) -> None:
        if parts.image not in self._parts:
            self._parts = {parts.image: _Tenths(self._write, self._always)}  # one is worked on at a time
        self._parts[parts.image](parts.share, parts.describe)


class _Notebook:
    """Bars of the browser: those of rich need widgets, which many notebooks do not have.

    `total` images have one, none if it is 0, and so has a large image that is worked on.
    """

    def __init__(self, total: int) -> None:
        self._total, self._shown = total, time.perf_counter()
        self._bars: dict[str, str] = {}
        self._handle: Any = None
        if total:
            self._show("images", 0, total, f"0 of {total} images", last=True)

    def images(self, done: int, text: str) -> None:
        self._bars.pop("parts", None)
        if self._total:
            self._show("images", done, self._total, text, last=done == self._total)

    def parts(self, parts: PartsDone) -> None:
        self._show("parts", parts.share, 1, parts.describe(), last=False)

    def _show(self, name: str, done: float, total: int, text: str, last: bool) -> None:
        from IPython.display import HTML, display

        self._bars[name] = f'<progress value="{done:.6g}" max="{total}"></progress> {escape(text)}'
        page = HTML("<br>".join(self._bars.values()))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        elif last or time.perf_counter() > self._shown + _PAUSE:
            self._handle.update(page)
        else:
            return
        self._shown = time.perf_counter()


class _Terminal:
    """Bars of rich, as in `_Notebook`."""

    def __init__(self, total: int, stack: ExitStack) -> None:
        self._total, self._stack = total, stack
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        if total:
            self._show("images", 0, total, f"0 of {total} images")

    def images(self, done: int, text: str) -> None:
        if "parts" in self._tasks:
            self._open().remove_task(self._tasks.pop("parts"))
        if self._total:
            self._show("images", done, self._total, text)

    def parts(self, parts: PartsDone) -> None:
        self._show("parts", parts.share, 1, parts.describe())

    def _show(self, name: str, done: float, total: int, text: str) -> None:
        bar = self._open()
        if name not in self._tasks:
            self._tasks[name] = bar.add_task("", total=total, text=text)
        bar.update(self._tasks[name], completed=done, text=text)

    def _open(self) -> Any:  # noqa: ANN401 - rich is slow to import
        """Return the bars, begun when they are first needed."""
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            columns = [SpinnerColumn(), BarColumn(), TextColumn("{task.fields[text]}", markup=False)]
            # What is printed meanwhile stands above the bar, where both go to the terminal.
            console, redirect = Console(stderr=True), sys.stdout.isatty()
            bar = Progress(*columns, console=console, transient=True, redirect_stdout=redirect)
            self._bar = self._stack.enter_context(bar)
        return self._bar


def _write_line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
