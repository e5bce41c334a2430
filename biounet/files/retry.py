"""File systems that fail for a moment or do not answer, as network drives do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

R = TypeVar("R")

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
_PAUSES = (0.1, 1.0)  # seconds
_LONGEST = 60.0  # seconds for the first bytes of a file


def retry_on_io_error(read: Callable[[], R]) -> R:
    """Return what `read` returns; it is called again, twice at most, after an error that may be gone in a moment."""
    for pause in _PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
        time.sleep(pause)
    return read()


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file; a disk that does not answer costs a minute, and a thread that is left behind.

    Raises
    ------
    OSError
        If the file cannot be read, or not in time.
    """
    answers: SimpleQueue[bytes | OSError | ValueError] = SimpleQueue()

    def read() -> None:
        try:
            with path.open("rb") as file:
                answers.put(file.read(count))
        except (OSError, ValueError) as error:  # the latter is of a name that no file can have
            answers.put(error)

    Thread(target=read, daemon=True).start()
    try:
        answer = answers.get(timeout=_LONGEST)
    except Empty:
        raise TimeoutError(errno.ETIMEDOUT, "the disk does not answer", str(path)) from None
    if isinstance(answer, Exception):
        raise answer
    return answer
