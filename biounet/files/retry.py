"""Reading from file systems that fail for a moment or do not answer, as network drives do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

R = TypeVar("R")

_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
_PAUSES = (0.1, 1.0)  # seconds
_TIMEOUT = 60.0  # seconds for the first bytes of a file


def retry_on_io_error(read: Callable[[], R]) -> R:
    """Return what `read` returns; after an error that may pass, call it again, at most twice."""
    for pause in _PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
        time.sleep(pause)
    return read()


def read_first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of a file; a disk that does not answer is a `TimeoutError` and a thread left behind."""
    results: SimpleQueue[bytes | OSError | ValueError] = SimpleQueue()

    def read() -> None:
        try:
            with path.open("rb") as file:
                results.put(file.read(count))
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            results.put(error)

    Thread(target=read, daemon=True).start()
    try:
        result = results.get(timeout=_TIMEOUT)
    except Empty:
        raise TimeoutError(errno.ETIMEDOUT, "the disk does not answer", str(path)) from None
    if isinstance(result, Exception):
        raise result
    return result
