"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from biounet.errors import MachineError


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `final` that takes its place when the block ends without an error.

    The content is on the disk before the name is: after a crash there is the old file, the new file or none, never a
    part of one. After an error the temporary file is gone.

    Raises
    ------
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(final)
    except OSError as error:
        if isinstance(error, MachineError):
            raise
        raise MachineError(f"cannot write: {error.strerror or error}", path=final) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with ``\\n`` line ends, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
