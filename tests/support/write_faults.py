"""Faults in the middle of writing, injected from outside: the disk is full, or the process is killed."""

import errno
import itertools
import os
import signal
from collections.abc import Callable


def fail_at_write(number: int, kill: bool = False, patch=setattr) -> None:
    """Let the write with this number, counted from 1, fail with ENOSPC, or kill the process with SIGKILL.

    The content of each file, each rename and each appended line counts as a write. Of a content or a line, only half
    is on the disk when it fails. ``patch(module, name, function)`` replaces functions of `os`.
    """
    writes, really_sync = itertools.count(1), os.fsync

    def fail() -> None:
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(descriptor: int) -> None:
        if next(writes) == number:
            os.ftruncate(descriptor, _size_of_half(descriptor))
            fail()
        really_sync(descriptor)

    def failing(really_rename: Callable[..., None]) -> Callable[..., None]:
        def rename(*arguments: object) -> None:
            if next(writes) == number:
                fail()
            really_rename(*arguments)

        return rename

    patch(os, "fsync", sync)
    for name in ("replace", "rename"):  # of files, and of folders
        patch(os, name, failing(getattr(os, name)))


def _size_of_half(descriptor: int) -> int:
    """Size of a file without the second half of its content; of a file opened to append, without half of a line."""
    size = os.fstat(descriptor).st_size
    if not _appends(descriptor):
        return size // 2
    content = os.pread(descriptor, size, 0)
    begin = content.rfind(b"\n", 0, -1) + 1
    return begin + (size - begin) // 2


def _appends(descriptor: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)
