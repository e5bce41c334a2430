"""Files that appear whole or not at all, and lines that are appended whole."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from biounet.core import BiounetError, MachineError
from biounet.files.retry import retry_on_io_error

_HINTS = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "your share of the disk is full",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "a part of the path is a file and no folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EINVAL: "the disk may refuse such a name: rename the image, or choose a folder on another disk",
    errno.EILSEQ: "the disk refuses such a name: rename the image, or choose a folder on another disk",
}
_SHORT = 50  # characters of the name that the temporary one keeps: of 4 bytes each, where file systems allow 255
_PART = ".part"
_writes = itertools.count(1)
_group = threading.local()  # of each thread: the files that wait for each other, by their final names


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `final` that takes its place when the block ends without an error.

    The content is on the disk before the name is: after a crash there is the old file, the new file or none, never a
    part of one. After an error the temporary file is gone. In a block of `atomic_group` it takes its place later.

    Raises
    ------
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    final = Path(final)
    part = final.with_name(f"{temporary_prefix(final)}{os.getpid()}-{threading.get_ident()}{_PART}")
    waiting: dict[Path, Path] | None = getattr(_group, "waiting", None)
    try:
        yield part
        _count_write(lambda: os.truncate(part, part.stat().st_size // 2))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if waiting is not None:
            waiting[final] = part
            return
        _count_write()
        part.replace(final)
    except BiounetError:
        raise
    except OSError as error:
        raise _cannot_write(final, error) from error
    finally:
        if waiting is None or final not in waiting:
            _forget(part)


@contextmanager
def atomic_group() -> Iterator[dict[Path, Path]]:
    """Let the files that a block writes take their places when it ends, and all of them are whole.

    Gives the temporary file of each, by its final path. An error in the block leaves everything as it was.

    Raises
    ------
    MachineError
        If a file cannot take its place.
    """
    waiting: dict[Path, Path] = {}
    new: list[Path] = []
    _group.waiting = waiting
    try:
        yield waiting
        for final, part in waiting.items():
            was_there = os.path.lexists(final)
            try:
                _count_write()
                part.replace(final)
            except OSError as error:
                raise _cannot_write(final, error) from error
            new += [] if was_there else [final]
    except BaseException:  # raised again, after Ctrl-C too: no part of what belongs together appears
        for path in new:
            _forget(path)
        raise
    finally:
        _group.waiting = None
        for part in waiting.values():
            _forget(part)


def _forget(path: Path) -> None:
    with suppress(OSError):  # such as a folder that is a file: another error says it
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 with line ends as on Unix, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a file, which is on the disk afterwards; one writer at a time.

    What a kill left of a line before keeps a line of its own; what a full disk left of this one is cut off.

    Raises
    ------
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    try:
        with path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            left = memoryview(f"{line}\n".encode())
            try:
                _count_write(lambda: file.write(left[: len(left) // 2]))
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def temporary_prefix(final: Path) -> str:
    """Return how the names of temporary files for `final` begin, and those for no other file in its folder."""
    return f".{final.name[:_SHORT]}.{zlib.crc32(os.fsencode(final.name)):08x}."


def find_temporary_files(folder: Path) -> dict[Path, list[Path]]:
    """Return the temporary files that killed or running processes have in a folder and below.

    They are listed by the folder and the begin of their names, as `temporary_prefix` gives it.
    """
    found: dict[Path, list[Path]] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(_PART):
                begin = name.removesuffix(_PART).rpartition(".")[0]
                found.setdefault(Path(root, f"{begin}."), []).append(Path(root, name))
    return found


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content."""

    def digest() -> str:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return retry_on_io_error(digest)


def _cannot_write(path: Path, error: OSError) -> MachineError:
    hint = _HINTS.get(error.errno or 0)
    return MachineError(f"cannot write: {error.strerror or error}", path=path, hint=hint)


def _count_write(spoil: Callable[[], object] = lambda: None) -> None:
    """Fail where a test wants it: ``BIOUNET_FAULT=enospc@17`` fills the disk at the 17th write, ``kill@17`` kills.

    Every content, every rename and every appended line is a write; `spoil` leaves half of it behind.
    """
    kind, _, number = os.environ.get("BIOUNET_FAULT", "").partition("@")
    if kind and next(_writes) == int(number):
        spoil()
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
