"""Start a module of the package in a Python process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from biounet.core import MachineError

_ROOT = str(Path(__file__).parents[3])


def main_program(module: str) -> str:
    """Return a program that calls ``main`` of a module; its argument is the folder that holds the package."""
    return (
        "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
        f"from {module} import main; main()"
    )


def start_process(
    program: str, purpose: str, stdout: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start Python with a program and a pipe as its input; `purpose` is for the `MachineError` if that fails."""
    try:
        # -P: a folder of images with a file numpy.py in it does not become a part of the program.
        return subprocess.Popen(
            [sys.executable, "-P", "-c", program, _ROOT],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.DEVNULL,  # a pipe that nobody reads would fill
            env=env,
            start_new_session=True,  # Ctrl-C in a terminal is for the process that decides
        )
    except OSError as error:
        raise MachineError(f"no process {purpose} can be started: {error.strerror}") from error
