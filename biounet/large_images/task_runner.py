"""Who carries the calls of a pass: threads of this process, or the workers of a cluster."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from biounet.core import available_cores
from biounet.large_images.attempts import RunLimits, RunOrder, carry_out
from biounet.large_images.call_clock import noted, seconds_computed

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_LAST_CALLS = 20.0  # seconds that calls may take to end when work is to stop


class TaskRunner(Protocol):
    """Carries the calls of a function; state lives on disk, where the tasks write."""

    @property
    def workers(self) -> int:
        """Number of calls that are carried at the same time."""

    def run(
        self,
        function: Callable[[Task], Answer],
        tasks: Iterable[Task],
        stop: threading.Event,
        is_done: Callable[[Task], bool] | None = None,
        keep_going: bool = False,
    ) -> Iterator[tuple[Task, Answer]]:
        """Yield each task with ``function(task)``, in the order in which they are completed.

        At most twice as many tasks as there are workers are taken from `tasks` and not yet answered. A task whose
        worker died, whose machine failed or that gives no answer is tried again, as often as `RunLimits` says.

        Parameters
        ----------
        function
            Can be pickled where workers are other processes, such as a function of a module or a `functools.partial`
            of one. It may be called twice for a task, even at the same time: what it writes has to be the same, and to
            be renamed into place whole.
        tasks
            Small objects that can be pickled and say where things are, such as a folder and a number; ``str()`` names
            them in errors. Answers are small too, such as counts.
        stop
            When it is set, no further task begins.
        is_done
            Asked before a task is submitted, and before it is submitted again: one that is done, by whomever, is passed
            over without an answer.
        keep_going
            Whether the other tasks are still done after an `InputError`, which is raised at the end.

        Raises
        ------
        InputError
            That of the function, such as for a damaged chunk; or if a task was tried too often.
        MachineError
            If no worker is there, or the machine fails each time.
        Stopped
            If `stop` was set.
        """


class InThisProcess:
    """Threads of this process; by default as many as there are cores."""

    def __init__(self, workers: int | None = None, limits: RunLimits | None = None) -> None:
        self.workers = workers or available_cores()
        self._limits = limits or RunLimits()

    def run(  # noqa: D102 - of the protocol
        self,
        function: Callable[[Task], Answer],
        tasks: Iterable[Task],
        stop: threading.Event,
        is_done: Callable[[Task], bool] | None = None,
        keep_going: bool = False,
    ) -> Iterator[tuple[Task, Answer]]:
        threads = _Threads(self.workers)
        try:
            yield from carry_out(threads, RunOrder(function, stop, is_done, keep_going), tasks, self._limits)
        finally:
            threads.close()


_Call = tuple["Future[Any]", Callable[[Any], Any], object]


class _Threads:
    """A crew of threads. Python does not wait for those that hang when it exits, unlike for those of its own pool."""

    def __init__(self, workers: int) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._workers = workers
        self._threads: list[threading.Thread] = []
        for _ in range(workers):
            self._add()

    def count(self) -> int:
        return self._workers

    def submit(self, function: Callable[[Any], Any], task: object, elsewhere: Future[Any] | None) -> Future[Any]:
        if elsewhere is not None:
            self._add()  # the thread of that call may never end
        call: Future[Any] = Future()
        self._calls.put((call, function, task))
        return call

    def count_deaths(self, error: BaseException) -> int:
        return 0

    def seconds_computed(self, call: Future[Any]) -> float | None:
        return seconds_computed(call)

    def forget(self, call: Future[Any]) -> None:
        call.cancel()

    def close(self) -> None:
        """Let the threads end after the calls that they have begun, and wait for these, but not for ever."""
        for _ in self._threads:
            self._calls.put(None)
        end = time.monotonic() + _LAST_CALLS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _add(self) -> None:
        thread = threading.Thread(target=self._work, name="biounet-task", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, function, task = item
            if call.set_running_or_notify_cancel():
                try:
                    with noted(call):
                        answer = function(task)
                    call.set_result(answer)
                except BaseException as error:  # noqa: BLE001 - raised where the answer is taken
                    call.set_exception(error)
                answer = None
            del item, call, task
