"""File systems that fail for a moment, as network drives do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
_PAUSES = (0.1, 1.0)  # seconds


def patiently(read: Callable[[], R]) -> R:
    """Return what `read` returns; it is called again, twice at most, after an error that may be gone in a moment."""
    for pause in _PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
        time.sleep(pause)
    return read()
