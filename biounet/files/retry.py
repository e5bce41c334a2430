"""Reading from file systems that fail for a moment or do not answer, as network drives do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
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

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(count)

    future, _ = run_in_thread(read)
    if not wait([future], _TIMEOUT).done:
        raise TimeoutError(errno.ETIMEDOUT, "the disk does not answer", str(path))
    return future.result()


def run_in_thread(task: Callable[[], R]) -> tuple[Future[R], Thread]:
    """Run a task in a thread that does not keep the program from ending."""
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(task())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    return future, thread
