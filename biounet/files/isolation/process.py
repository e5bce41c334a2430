"""Start a module of the package in a Python process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).parents[3])


def main_program(module: str) -> str:
    """Return a program that calls ``main`` of a module; its argument is the folder that holds the package."""
    return (
        "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
        f"from {module} import main; main()"
    )


def start_process(program: str, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - those of subprocess.Popen
    """Start Python with a program, a pipe as its standard input, and without its standard error.

    Raises
    ------
    OSError
        If no process can be started.
    """
    # -P: a folder of images with a file numpy.py in it does not become a part of the program.
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, _ROOT],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a pipe that nobody reads would fill
        start_new_session=True,  # Ctrl-C in a terminal is for the process that decides
        **options,
    )


def path_to_hex(path: Path) -> str:
    """Return a path as text of letters and digits; names of files may be no text."""
    return os.fsencode(path).hex()


def path_from_hex(text: str) -> Path:
    """Return the path that `path_to_hex` encoded."""
    return Path(os.fsdecode(bytes.fromhex(text)))
