"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from biounet.errors import BiounetError, MachineError

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
    part = final.with_name(f".{final.name[:_SHORT]}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(final)
    except BiounetError:
        raise
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        raise MachineError(f"cannot write: {error.strerror or error}", path=final, hint=hint) from error
    finally:
        with suppress(OSError):  # such as a folder that is a file: the error of the block says it
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8 with line ends as on Unix, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
