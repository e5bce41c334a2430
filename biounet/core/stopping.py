"""Ctrl-C, SIGTERM and SIGUSR1: the first ends work at the next block or step, the second at once."""

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
SIGNALS = (signal.SIGINT, signal.SIGTERM, *((_USR1,) if _USR1 else ()))


class Stop(threading.Event):
    """Set when work is to end.

    Attributes
    ----------
    number
        Of the signal that asked for it; 0 before.
    """

    number = 0


def signal_exit_code(number: int) -> int:
    """Return the exit code after a signal: 128 + its number as shells have it; after SIGUSR1 75, "try again".

    SIGUSR1 is how a cluster says that it needs the machine.
    """
    return _TRY_AGAIN if number == _USR1 else 128 + number


def raise_if_stopped(stop: threading.Event | None) -> None:
    """Raise `Stopped` when `stop` is set."""
    if stop is not None and stop.is_set():
        raise Stopped("stopped")


def exit_on_signals() -> None:
    """Let every further signal end the process at once, without a word."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(signal_exit_code(number))  # temporary files stay behind: the next run removes them


def interrupt_on_signals() -> None:
    """Let the first signal end the program where it stands, and the second end the process at once."""
    for number in SIGNALS:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    exit_on_signals()
    raise SystemExit(signal_exit_code(number))


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Give an event that the first SIGINT, SIGTERM or SIGUSR1 sets; the second ends the process at once.

    The main thread must not wait for the event: the handler, which runs there, could not set it.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        exit_on_signals()
        stop.number = number
        stop.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items() if not stop.number else ():
            signal.signal(number, handler)
