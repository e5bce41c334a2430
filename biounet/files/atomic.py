"""Files that appear whole or not at all, and lines that are appended whole."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterator
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
_PREFIX_LENGTH = 50  # characters of the name that the temporary name repeats: of 4 bytes each, where 255 are allowed
_SUFFIX = ".part"
FORMER = ".old"
"""In the temporary name of a folder that another one replaces."""

_group = threading.local()  # `pending`: the temporary files of this thread's group, by their final paths


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `MachineError` of one line that says what to do."""
    try:
        yield
    except BiounetError:
        raise
    except OSError as error:
        number = error.errno or _stated_number(error)
        reason = error.strerror or (os.strerror(number) if number else " ".join(str(error).split()))
        raise MachineError(f"cannot write: {reason}", path=path, hint=_HINTS.get(number)) from error


def _stated_number(error: OSError) -> int:
    """Return the number of an error of HDF5, which stands in its text; 0 if none does."""
    found = re.search(r"errno = (\d+)", str(error))
    return int(found[1]) if found else 0


@contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `final` that replaces it when the block ends without an error.

    The content is on the disk before the name is: after a crash there is the old file, the new file or none, never a
    part of one. After an error the temporary file is gone. In a block of `atomic_group` it is renamed later. A full
    disk or a folder that cannot be written to is a `MachineError`.
    """
    final = Path(final)
    temporary = final.with_name(f"{temporary_prefix(final)}{os.getpid()}-{threading.get_ident()}{_SUFFIX}")
    pending: dict[Path, Path] | None = getattr(_group, "pending", None)
    try:
        with translate_write_errors(final):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if pending is None:
                temporary.replace(final)
            else:
                pending[final] = temporary
    finally:
        if pending is None or final not in pending:
            _remove(temporary)


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Give the path of a folder that is not there, beside `final`, which becomes it when the block ends without error.

    What is at `final` before is removed then. Files in the folder are not flushed to the disk one by one. Errors as of
    `atomic_path`.
    """
    prefix = f"{temporary_prefix(final)}{os.getpid()}-{threading.get_ident()}"
    temporary, former = final.with_name(f"{prefix}{_SUFFIX}"), final.with_name(f"{prefix}{FORMER}{_SUFFIX}")
    try:
        with translate_write_errors(final):
            yield temporary
            if os.path.lexists(final):
                final.rename(former)
            temporary.rename(final)
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(former, ignore_errors=True)
            former.unlink(missing_ok=True)  # a file or link


@contextmanager
def atomic_group() -> Iterator[dict[Path, Path]]:
    """Rename the files that a block writes when it ends and all of them are whole.

    Gives the temporary file of each, by its final path. An error in the block, or a file that cannot be renamed (a
    `MachineError`), leaves everything as it was.
    """
    pending: dict[Path, Path] = {}
    created: list[Path] = []
    _group.pending = pending
    try:
        yield pending
        for final, temporary in pending.items():
            is_new = not os.path.lexists(final)
            with translate_write_errors(final):
                temporary.replace(final)
            created += [final] if is_new else []
    except BaseException:  # raised again, after Ctrl-C too: files of one group appear together
        for path in created:
            _remove(path)
        raise
    finally:
        _group.pending = None
        for temporary in pending.values():
            _remove(temporary)


def _remove(path: Path) -> None:
    with suppress(OSError):  # such as a folder that is a file, which another error reports
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 with Unix line ends, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a file and flush it to the disk; for one writer at a time.

    If the file ends in an incomplete line, which a killed process left, that one is ended first. If the disk is full,
    the file is cut back to its previous size; errors as of `atomic_path`.
    """
    path = Path(path)
    with translate_write_errors(path), path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        remaining = memoryview(f"{line}\n".encode())
        try:
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def temporary_prefix(final: Path) -> str:
    """Return the prefix of the names of temporary files for `final`; no other file of its folder has the same."""
    return f".{final.name[:_PREFIX_LENGTH]}.{zlib.crc32(os.fsencode(final.name)):08x}."


def find_temporary_files(folder: Path) -> dict[Path, list[Path]]:
    """Return the temporary files in a folder and below, by their folder and prefix as of `temporary_prefix`.

    Folders that are written so are among them.
    """
    found: dict[Path, list[Path]] = {}
    for root, folders, names in os.walk(folder):
        for name in (*names, *folders):
            if name.startswith(".") and name.endswith(_SUFFIX):
                prefix = name.removesuffix(_SUFFIX).removesuffix(FORMER).rpartition(".")[0]
                found.setdefault(Path(root, f"{prefix}."), []).append(Path(root, name))
        folders[:] = [name for name in folders if not name.endswith(_SUFFIX)]
    return found


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content."""

    def digest() -> str:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return retry_on_io_error(digest)


def hash_tree(path: str | Path) -> str:
    """Return the SHA-256 of a file, or of a folder: of the names and hashes of all files in it."""
    path = Path(path)
    if not path.is_dir():
        return hash_file(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{hash_file(file)}  {name}\n" for name, file in files)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
