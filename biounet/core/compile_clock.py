"""When inner loops are compiled: once on a machine, for seconds that belong to no image."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event

_KIND = "numba:compile"


class _CompileClock(event.Listener):
    """How long this process has compiled. Numba does so in one thread at a time; compilations may be nested."""

    def __init__(self) -> None:
        self.announce: Callable[[], None] | None = None
        self._lock, self._depth, self._total, self._start = threading.Lock(), 0, 0.0, 0.0

    def on_start(self, event: event.Event) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._start = time.perf_counter()
            announce, self.announce = self.announce, None
        if announce is not None:
            announce()

    def on_end(self, event: event.Event) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._total += time.perf_counter() - self._start

    def working_time(self) -> float:
        with self._lock:
            now = self._start if self._depth else time.perf_counter()
            return now - self._total


_clock = _CompileClock()
event.register(_KIND, _clock)  # type: ignore[no-untyped-call]


def working_time() -> float:
    """Return the time of a clock in seconds that stands still while this process compiles inner loops.

    Only differences mean something, as of `time.perf_counter`. What other threads do while one compiles takes no time
    on this clock; most of them wait for it.
    """
    return _clock.working_time()


@contextmanager
def announce_compiling(announce: Callable[[], None]) -> Iterator[None]:
    """Call a function when the first inner loop is compiled in this context, if any is."""
    _clock.announce = announce
    try:
        yield
    finally:
        _clock.announce = None
