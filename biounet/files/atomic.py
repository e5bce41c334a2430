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

from biounet.errors import BiounetError, MachineError
from biounet.files.patience import patiently

_HINTS = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "your share of the disk is full",
    errno.ENOENT: "make the folder first",
    errno.ENOTDIR: "a part of the path is a file and no folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_SHORT = 50  # characters of the name that the temporary one keeps: of 4 bytes each, where file systems allow 255
_PART = ".part"
_writes = itertools.count(1)


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `final` that takes its place when the block ends without an error.

    The content is on the disk before the name is: after a crash there is the old file, the new file or none, never a
    part of one. After an error the temporary file is gone.

    Raises
    ------
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    final = Path(final)
    part = final.with_name(f"{part_begin(final)}{os.getpid()}-{threading.get_ident()}{_PART}")
    try:
        yield part
        _count_write(lambda: os.truncate(part, part.stat().st_size // 2))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        _count_write()
        part.replace(final)
    except BiounetError:
        raise
    except OSError as error:
        raise _cannot_write(final, error) from error
    finally:
        with suppress(OSError):  # such as a folder that is a file: the error of the block says it
            part.unlink(missing_ok=True)


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


def part_begin(final: Path) -> str:
    """Return how the names of temporary files for `final` begin, and those for no other file in its folder."""
    return f".{final.name[:_SHORT]}.{zlib.crc32(os.fsencode(final.name)):08x}."


def find_parts(folder: Path) -> dict[Path, list[Path]]:
    """Return the temporary files that killed or running processes have in a folder and below.

    They are listed by the folder and the begin of their names, as `part_begin` gives it.
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

    return patiently(digest)


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
