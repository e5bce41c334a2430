"""Who works on what, where several processes share an output folder.

A claim is a lock of the operating system on one byte of a file, and ends with the process that holds it, however that
ends: there is no claim of the dead to be waited for. The file is empty and stays.
"""

from __future__ import annotations

import errno
import hashlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from biounet.blocks import end_if
from biounet.errors import MachineError

_NAME = ".claims"
_BUSY = (errno.EACCES, errno.EAGAIN)
_UNABLE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_EVERY = 0.1  # seconds between two looks at an image that another process has


class Claims:
    """Claims of this process in an output folder; where there are no such locks, it gets whatever it asks for.

    Closing any descriptor of the file would drop all claims of the process: one process runs one batch in a folder.

    Parameters
    ----------
    folder
        The output folder.

    Raises
    ------
    MachineError
        If the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._threads = threading.Lock()  # locks of the operating system part processes, not threads
        try:
            self._file = (folder / _NAME).open("ab")
        except OSError as error:
            raise MachineError(f"cannot write: {error.strerror}", path=folder / _NAME) from error

    def take(self, name: str) -> bool:
        """Claim an image, and return whether this process has it now."""
        return self._lock(name, wait=False)

    def wait(self, name: str, stop: threading.Event) -> None:
        """Claim an image as soon as no other process has it; raise `Stopped` when `stop` is set."""
        while not self.take(name):
            stop.wait(_EVERY)
            end_if(stop)

    def release(self, name: str) -> None:
        """Let others have an image."""
        if sys.platform != "win32":
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(name))

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Be the only thread of all processes that does something short, such as appending a line."""
        with self._threads:
            self._lock(f"\0{name}", wait=True)  # no image has such a name
            try:
                yield
            finally:
                self.release(f"\0{name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self, name: str, *, wait: bool) -> bool:
        if sys.platform == "win32":
            return True
        import fcntl

        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, _offset(name))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if error.errno not in _UNABLE:
                raise MachineError(f"cannot lock: {error.strerror}", path=self._file.name) from error
        return True


def _offset(name: str) -> int:
    """Return the byte that stands for a name; that two of a million images share one has a chance of 1e-5."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:7])
