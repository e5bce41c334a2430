"""Which process works on which image: locks of the operating system on one byte each of the file ``.claims``.

They end with their process, so no lock is ever stale. Notes, which are lines of that file, outlast the process.
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
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from biounet.core import MachineError, raise_if_stopped

_FILE = ".claims"
_BUSY = (errno.EACCES, errno.EAGAIN)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_POLL = 0.1  # seconds, at most, between two attempts
_WARN_AFTER, _WARN_EVERY = 10.0, 60.0  # seconds of waiting
_WORKERS = "\0workers"  # no image has such a name
_log = logging.getLogger(__name__)


class Locks(AbstractContextManager["Locks"]):
    """Locks of this process in an output folder; on systems without such locks, every lock is granted.

    Closing any descriptor of the file would drop all locks of the process: one process runs one batch in a folder.
    Waiting ends with `Stopped` when `stop` is set.
    """

    def __init__(self, folder: Path, stop: threading.Event | None = None) -> None:
        self._threads = threading.Lock()  # locks of the operating system exclude processes, not threads
        self._reader = threading.Lock()
        self._path, self._stop, self._read_to = folder / _FILE, stop or threading.Event(), 0
        try:
            self._file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise MachineError(f"cannot write: {error.strerror}", path=self._path) from error

    def try_lock(self, name: str, *, shared: bool = False) -> bool:
        """Lock an image unless another process has it; return whether this process has it now."""
        if sys.platform == "win32":
            return True
        import fcntl

        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.lockf(self._file, kind | fcntl.LOCK_NB, 1, _offset(name))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if error.errno not in _UNSUPPORTED:
                raise MachineError(f"cannot lock: {error.strerror}", path=self._path) from error
        return True

    def lock(self, name: str, description: str = "") -> None:
        """Lock an image, waiting for any process that has it; `description` is for the warning after a long wait."""
        start, next_warning, pause = time.monotonic(), _WARN_AFTER, 0.001
        while not self.try_lock(name):
            waited = time.monotonic() - start
            if waited > next_warning:
                next_warning = waited + _WARN_EVERY
                text = description or f"{name} is being worked on"
                _log.warning("%s by another process; waited %.0f s so far", text, waited)
            self._stop.wait(pause)
            raise_if_stopped(self._stop)
            pause = min(2 * pause, _POLL)

    def unlock(self, name: str) -> None:
        """Let other processes lock an image."""
        if sys.platform != "win32":
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(name))

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Keep out all other threads and processes while something short is done, such as appending a line."""
        with self._threads:
            self.lock(f"\0{name}", f"{self._path.parent} ({name}) is being written to")
            try:
                yield
            finally:
                self.unlock(f"\0{name}")

    def enter_folder(self, *, exclusive: bool) -> bool:
        """Lock the folder until this process ends, shared with other workers or exclusively; return the success."""
        return self.try_lock(_WORKERS, shared=not exclusive)

    def append_note(self, line: str) -> None:
        """Append a line to the file, for processes that come later."""
        try:
            self._file.write(f"{line}\n".encode())
        except OSError as error:
            raise MachineError(f"cannot write: {error.strerror}", path=self._path) from error

    def new_notes(self) -> list[str]:
        """Return the lines that were appended since the last call."""
        with self._reader:
            self._file.seek(self._read_to)
            text, end, _ = self._file.read().rpartition(b"\n")
            self._read_to += len(text) + len(end)
        return text.decode("utf-8", "replace").split("\n") if end else []

    def folder_exists(self) -> bool:
        """Whether the folder is still the one that holds the locks, and was not removed or replaced."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _offset(name: str) -> int:
    """Return the byte that is locked for a name; two of a million images share one with a probability of 1e-5."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:7])
