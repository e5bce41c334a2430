"""Stopping on Ctrl-C, SIGTERM and SIGUSR1: the first at the next block or step, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from biounet.core.errors import Stopped

_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
_USR1 = getattr(signal, "SIGUSR1", None)  # not on Windows
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, _USR1)))


class Stop(threading.Event):
    """An event that is set when work should end."""

    number = 0
    """Number of the signal that set it."""


def signal_exit_code(number: int) -> int:
    """Return the exit code after a signal: 128 + its number, as in shells; 75, "try again", after SIGUSR1.

    Clusters send SIGUSR1 when they need the machine.
    """
    return _TRY_AGAIN if number == _USR1 else 128 + number


def raise_if_stopped(stop: threading.Event | None) -> None:
    """Raise `Stopped` when `stop` is set."""
    if stop is not None and stop.is_set():
        raise Stopped("stopped")


def exit_on_signals() -> None:
    """Let every further signal end the process at once, silently."""
    for number in SIGNALS:
        signal.signal(number, _exit_now)


def _exit_now(number: int, frame: FrameType | None) -> None:
    os._exit(signal_exit_code(number))  # the next run removes temporary files


def interrupt_on_signals() -> None:
    """Let the first signal raise `SystemExit`, and the second end the process at once."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    exit_on_signals()
    raise SystemExit(signal_exit_code(number))


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Provide an event that the first signal sets; the second ends the process at once.

    The main thread must not wait for the event, because the signal handler runs in the main thread.
    """
    stop = Stop()

    def request_stop(number: int, frame: FrameType | None) -> None:
        exit_on_signals()
        stop.number = number
        stop.set()

    handlers = {number: signal.signal(number, request_stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in handlers.items() if not stop.number else ():
            signal.signal(number, handler)
