"""Tasks that are tried again: on other workers after a loss, a second time where no answer comes."""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from biounet.core import (
    BiounetError,
    InputError,
    MachineError,
    WorkerDiedError,
    is_out_of_memory,
    raise_if_stopped,
)

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_POLL = 0.1  # seconds between looks at the event that stops, and at the clock
_SUSPICIOUS = 2  # deaths of workers after which a task runs without others that are suspected
_TIMES_REMEMBERED = 1001  # of the last answers, for their median
_LEAST_COMPUTED = 0.001  # of the time, by a call that is slow: one that hangs computes nothing


@dataclass(frozen=True)
class RunLimits:
    """How long a runner waits, and how often it tries.

    Attributes
    ----------
    losses
        How often a task is submitted again after its worker died or its machine failed.
    delays
        How often a task that gives no sign of life is also given to another worker.
    least_seconds, factor
        No sign of life means that there is no answer and nothing is computed for `least_seconds` or `factor` times the
        median of the tasks that are answered, whichever is longer, and each time for twice as long. A call that
        computes may take as long as it takes.
    queue_seconds
        How long a task may wait for its worker to begin.
    no_worker
        Seconds to wait while no worker is there.
    clock
        Seconds that have passed.
    """

    losses: int = 3
    delays: int = 2
    least_seconds: float = 60.0
    factor: float = 20.0
    queue_seconds: float = 3600.0
    no_worker: float = 120.0
    clock: Callable[[], float] = time.monotonic


class ClusterError(MachineError):
    """The workers of a cluster cannot be had or used; the same command continues when they can."""


class Crew(Protocol):
    """The workers of a runner."""

    def count(self) -> int:
        """Return the number of calls that can be carried at the same time now; raise if there will be none."""

    def submit(self, function: Callable[[Any], Any], task: Any, elsewhere: Future[Any] | None) -> Future[Any]:  # noqa: ANN401
        """Let a worker call the function with the task; another one than that of the call `elsewhere`."""

    def count_deaths(self, error: BaseException) -> int:
        """Return how many workers died of a call with this error."""

    def seconds_computed(self, call: Future[Any]) -> float | None:
        """Return how long a call has computed, 0 if its worker does not say so; None if it has not begun."""

    def forget(self, call: Future[Any]) -> None:
        """Leave a call of which the answer is not needed."""


@dataclass(frozen=True)
class RunOrder(Generic[Task, Answer]):
    """What is to be carried out: see `TaskRunner.run`."""

    function: Callable[[Task], Answer]
    stop: threading.Event
    is_done: Callable[[Task], bool] | None = None
    keep_going: bool = False


def carry_out(
    crew: Crew, order: RunOrder[Task, Answer], tasks: Iterable[Task], limits: RunLimits
) -> Iterator[tuple[Task, Answer]]:
    """Yield each task and its answer, in the order in which they are completed: see `TaskRunner.run`."""
    return _Run(crew, order, limits).answers(iter(tasks))


@dataclass(eq=False)
class _Attempt(Generic[Task]):
    """A task, what became of it so far, and the calls that may still answer."""

    task: Task
    calls: list[Future[Any]] = field(default_factory=list)
    submitted: float = 0.0
    last_sign: float = 0.0
    computed: dict[Future[Any], float] = field(default_factory=dict)
    losses: int = 0
    delays: int = 0


class _Run(Generic[Task, Answer]):
    """The record of one run: which tasks are where, and how often they were tried."""

    def __init__(self, crew: Crew, order: RunOrder[Task, Answer], limits: RunLimits) -> None:
        self._crew = crew
        self._order = order
        self._limits = limits
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._running: dict[Future[Any], _Attempt[Task]] = {}
        self._again: deque[_Attempt[Task]] = deque()
        # Whose workers died twice. A death is blamed on all tasks that the worker had, so that these run one at a time,
        # those least blamed first: the innocent are soon answered, and what kills its worker each time is found.
        self._suspects: list[_Attempt[Task]] = []
        self._suspect: _Attempt[Task] | None = None
        self._seconds: deque[float] = deque(maxlen=_TIMES_REMEMBERED)
        self._failures: list[BiounetError] = []
        self._alone_since: float | None = None

    def answers(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Answer]]:
        """Yield each task with its answer."""
        try:
            while self._running or self._suspects or self._has_more(tasks):
                raise_if_stopped(self._order.stop)
                self._fill(tasks, 2 * self._count_workers())
                yield from self._take()
                self._look_at_the_clock()
        finally:
            for call in self._running:
                self._crew.forget(call)
        if self._failures:
            raise _with_others(self._failures)

    def _has_more(self, tasks: Iterator[Task]) -> bool:
        """Whether a task is left that is not done; no worker is needed to tell."""
        while not self._again:
            raise_if_stopped(self._order.stop)
            task = next(tasks, None)
            if task is None:
                return False
            if self._order.is_done is None or not self._order.is_done(task):
                self._again.append(_Attempt(task))
        return True

    def _count_workers(self) -> int:
        """Return the number of workers; while there is none, the clock of tasks stands still."""
        workers, now = self._crew.count(), self._limits.clock()
        if workers:
            self._alone_since = None
            return workers
        if self._alone_since is None:
            self._alone_since = now
        if now - self._alone_since > self._limits.no_worker:
            cause = f"no worker came within {self._limits.no_worker:.3g} s"
            raise ClusterError(cause, hint="start the same command again when there is one: what is done stays")
        for attempt in self._running.values():
            attempt.submitted = attempt.last_sign = now
        return 0

    def _fill(self, tasks: Iterator[Task], most: int) -> None:
        """Submit tasks until as many are on their way as should be, or there is none."""
        if self._suspects and self._suspect is None and most:
            self._suspect = min(self._suspects, key=lambda attempt: attempt.losses)
            self._suspects.remove(self._suspect)
            self._submit(self._suspect)
        while len(self._running) < most:
            raise_if_stopped(self._order.stop)
            if self._again:
                self._submit(self._again.popleft())
                continue
            for task in tasks:
                self._submit(_Attempt(task))
                break
            else:
                return

    def _submit(self, attempt: _Attempt[Task], elsewhere: Future[Any] | None = None) -> None:
        """Submit a task, unless it is done."""
        if self._order.is_done is not None and self._order.is_done(attempt.task):
            self._leave(attempt)
            return
        call = self._crew.submit(self._order.function, attempt.task, elsewhere)
        attempt.submitted = attempt.last_sign = self._limits.clock()
        attempt.calls.append(call)
        self._running[call] = attempt
        call.add_done_callback(self._ended.put)

    def _take(self) -> Iterator[tuple[Task, Answer]]:
        """Yield the answers that are there, and wait a moment for the first."""
        wait = _POLL
        while True:
            try:
                call = self._ended.get(timeout=wait) if wait else self._ended.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            attempt = self._running.pop(call, None)
            if attempt is None:
                continue
            attempt.calls.remove(call)
            error = CancelledError() if call.cancelled() else call.exception()
            if error is None:
                self._seconds.append(self._limits.clock() - attempt.submitted)
                self._leave(attempt)
                yield attempt.task, call.result()
            else:
                self._handle(attempt, error)

    def _leave(self, attempt: _Attempt[Task]) -> None:
        """Forget a task that needs no further call."""
        for call in attempt.calls:
            del self._running[call]
            self._crew.forget(call)
        attempt.calls.clear()
        attempt.computed.clear()
        if attempt is self._suspect:
            self._suspect = None

    def _handle(self, attempt: _Attempt[Task], error: BaseException) -> None:
        """Try a task again, or raise what is to be told."""
        deaths = 1 if isinstance(error, CancelledError) else self._crew.count_deaths(error)
        if isinstance(error, InputError):
            self._fail(attempt, error)
        elif not deaths and not _is_of_the_machine(error):
            raise error
        elif not attempt.calls:  # otherwise a second worker is at it
            was_suspect = attempt is self._suspect
            self._leave(attempt)
            attempt.losses += deaths if was_suspect else min(max(deaths, 1), _SUSPICIOUS)
            if attempt.losses <= self._limits.losses:
                (self._suspects if deaths and attempt.losses >= _SUSPICIOUS else self._again).append(attempt)
            elif deaths:
                self._fail(attempt, _death(attempt))
            else:
                raise _machine_error(attempt, error) from error

    def _look_at_the_clock(self) -> None:
        """Give tasks without a sign of life to another worker as well, or say which they are."""
        limits, now = self._limits, self._limits.clock()
        usual = max(limits.least_seconds, limits.factor * statistics.median(self._seconds or (0.0,)))
        for attempt in {*self._running.values()}:
            seconds = usual * 2**attempt.delays
            if now - attempt.last_sign <= seconds:
                continue
            if self._shows_life(attempt, now):
                attempt.last_sign = now
            elif attempt.delays < limits.delays:
                attempt.delays += 1
                self._submit(attempt, attempt.calls[-1])
            else:
                self._fail(attempt, _silence(attempt, seconds))

    def _shows_life(self, attempt: _Attempt[Task], now: float) -> bool:
        """Whether a call of a task has computed since the last look, or none has begun as yet."""
        seconds = {call: self._crew.seconds_computed(call) for call in attempt.calls}
        begun = {call: value for call, value in seconds.items() if value is not None}
        if not begun:
            return now - attempt.submitted <= self._limits.queue_seconds * 2.0**attempt.delays
        least = _LEAST_COMPUTED * (now - attempt.last_sign)
        shows = any(value - attempt.computed.get(call, 0.0) > least for call, value in begun.items())
        attempt.computed.update(begun)
        return shows

    def _fail(self, attempt: _Attempt[Task], error: BiounetError) -> None:
        self._leave(attempt)
        if not self._order.keep_going:
            raise error
        self._failures.append(error)


def _is_of_the_machine(error: BaseException) -> bool:
    """Whether the same call may succeed later or elsewhere."""
    return (isinstance(error, OSError) and not isinstance(error, ClusterError)) or is_out_of_memory(error)


def _death(attempt: _Attempt[Any]) -> BiounetError:
    cause = f"{attempt.task}: the worker died each time, in {attempt.losses} attempts"
    return WorkerDiedError(cause, hint="most likely its memory ran out: give workers more, or start fewer")


def _silence(attempt: _Attempt[Any], seconds: float) -> BiounetError:
    last = f", the last of {attempt.delays + 1} attempts" if attempt.delays else ""
    cause = f"{attempt.task}: no answer within {seconds:.3g} s{last}"
    return InputError(cause, hint="start the same command again when the disk of the image answers: what is done stays")


def _machine_error(attempt: _Attempt[Any], error: BaseException) -> BiounetError:
    if is_out_of_memory(error):  # of this image: others may fit
        cause = f"not enough memory ({attempt.task}, the last of {attempt.losses} attempts)"
        return InputError(cause, hint="a smaller --ram, with --overwrite, gives smaller super-blocks")
    cause = error.cause if isinstance(error, BiounetError) else str(error) or type(error).__name__
    path, hint = getattr(error, "path", None), getattr(error, "hint", None)
    return MachineError(f"{cause} ({attempt.task}, the last of {attempt.losses} attempts)", path=path, hint=hint)


def _with_others(failures: list[BiounetError]) -> BiounetError:
    """Return the first failure, which says how many more there are."""
    first = failures[0]
    if len(failures) == 1:
        return first
    number = len(failures) - 1
    cause = f"{first.cause}; and {number} more {'part fails' if number == 1 else 'parts fail'}"
    return type(first)(cause, path=first.path, hint=first.hint)
