"""Ctrl-C and SIGTERM: the first ends work at the next block, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(threading.Event):
    """Set when work is to end.

    Attributes
    ----------
    number
        Of the signal that asked for it; 0 before.
    """

    number = 0


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Give an event that the first SIGINT or SIGTERM sets; the second ends the process with 128 + its number.

    The main thread must not wait for the event: the handler, which runs there, could not set it.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.number:
            os._exit(128 + number)  # temporary files stay behind: the next run removes them
        stop.number = number
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
