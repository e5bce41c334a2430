"""How long the calls that run in this process have computed.

A call that takes long computes; one that hangs, as on a disk that does not answer, does not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_running: dict[Hashable, tuple[int, float]] = {}  # thread of each call, and what it had computed before


@contextmanager
def noted(name: Hashable) -> Iterator[None]:
    """Note that the call of this name runs, in this thread."""
    thread = threading.get_ident()
    _running[name] = thread, _seconds_of(thread)
    try:
        yield
    finally:
        del _running[name]


def seconds_computed(name: Hashable) -> float | None:
    """Return the seconds of a processor that a call has taken so far; None if it does not run in this process."""
    if (found := _running.get(name)) is None:
        return None
    thread, before = found
    return _seconds_of(thread) - before


@dataclass(frozen=True)
class NotedCall(Generic[Task, Answer]):
    """A function whose call is noted under a name by the process that carries it."""

    function: Callable[[Task], Answer]
    name: str

    def __call__(self, task: Task) -> Answer:
        """Return the answer of the function."""
        with noted(self.name):
            return self.function(task)


def _seconds_of(thread: int) -> float:
    """Return the seconds that a living thread has computed; on systems that do not tell, those of this process."""
    if hasattr(time, "pthread_getcpuclockid"):
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    return time.process_time()
