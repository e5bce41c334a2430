"""Who works on what, where several processes share an output folder.

A claim is a lock of the operating system on one byte of a file, and ends with the process that holds it, however that
ends: there is no claim of the dead to be waited for. Lines of the file say what a process has begun, which outlasts it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from biounet.core import MachineError, raise_if_stopped

_NAME = ".claims"
_BUSY = (errno.EACCES, errno.EAGAIN)
_UNABLE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_EVERY = 0.1  # seconds between two looks at what another process has
_SAID_AFTER, _SAID_EVERY = 10.0, 60.0  # seconds of waiting until that is said, and between sayings
_WORKERS = "\0workers"  # no image has such a name
_log = logging.getLogger(__name__)


class Locks:
    """Claims of this process in an output folder; where there are no such locks, it gets whatever it asks for.

    Closing any descriptor of the file would drop all claims of the process: one process runs one batch in a folder.

    Parameters
    ----------
    folder
        The output folder.
    stop
        When it is set, nothing is waited for any longer.

    Raises
    ------
    MachineError
        If the file cannot be made.
    """

    def __init__(self, folder: Path, stop: threading.Event | None = None) -> None:
        self._threads = threading.Lock()  # locks of the operating system part processes, not threads
        self._one_reader = threading.Lock()
        self._path, self._stop, self._read_to = folder / _NAME, stop or threading.Event(), 0
        try:
            self._file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise MachineError(f"cannot write: {error.strerror}", path=self._path) from error

    def take(self, name: str) -> bool:
        """Claim an image, and return whether this process has it now."""
        return self._lock(name)

    def wait(self, name: str, stop: threading.Event) -> None:
        """Claim an image as soon as no other process has it; raise `Stopped` when `stop` is set."""
        self._wait(name, stop, f"{name} is being worked on")

    def release(self, name: str) -> None:
        """Let others have an image."""
        if sys.platform != "win32":
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(name))

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Be the only thread of all processes that does something short, such as appending a line."""
        with self._threads:
            self._wait(f"\0{name}", self._stop, f"{self._path.parent} ({name}) is being written to")
            try:
                yield
            finally:
                self.release(f"\0{name}")

    def join(self, *, alone: bool) -> bool:
        """Work in this folder until the end, beside others or alone; return whether that is possible."""
        return self._lock(_WORKERS) if alone else self._lock(_WORKERS, shared=True)

    def note(self, line: str) -> None:
        """Append a line to the file, for those who come later."""
        try:
            self._file.write(f"{line}\n".encode())
        except OSError as error:
            raise MachineError(f"cannot write: {error.strerror}", path=self._path) from error

    def notes(self) -> list[str]:
        """Return the lines that were appended since the last look."""
        with self._one_reader:
            self._file.seek(self._read_to)
            whole, end, _ = self._file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(end)
        return whole.decode("utf-8", "replace").split("\n") if end else []

    def is_there(self) -> bool:
        """Whether the folder is still the one in which the claims are, and not removed or another one."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _wait(self, name: str, stop: threading.Event, what: str) -> None:
        began, said = time.monotonic(), 0.0
        pause = 0.001
        while not self._lock(name):
            if time.monotonic() - began > (said + _SAID_EVERY if said else _SAID_AFTER):
                said = time.monotonic() - began
                _log.warning("%s by another process; waited %.0f s so far", what, said)
            stop.wait(pause)
            raise_if_stopped(stop)
            pause = min(2 * pause, _EVERY)

    def _lock(self, name: str, *, shared: bool = False) -> bool:
        if sys.platform == "win32":
            return True
        import fcntl

        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.lockf(self._file, kind | fcntl.LOCK_NB, 1, _offset(name))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if error.errno not in _UNABLE:
                raise MachineError(f"cannot lock: {error.strerror}", path=self._path) from error
        return True


def _offset(name: str) -> int:
    """Return the byte that stands for a name; that two of a million images share one has a chance of 1e-5."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:7])
