"""The command line as users run it."""

import csv
import re
import subprocess
import sys
from pathlib import Path

# What is said about work that goes on, beside errors and warnings.
_NOTE = re.compile(
    r"(loading the model .*|compiling for this processor.*|reading the images|segmenting four samples"
    r"|.*: [a-z ]+, \d+ of \d+ parts.*|\d+ already done, \d+ to do|\d+ of \d+ images.*( left)?)\n"
)


def without_notes(text: str) -> str:
    """Return what is on standard error without lines on the progress."""
    return "".join(line for line in text.splitlines(keepends=True) if not _NOTE.fullmatch(line))


def run_biounet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run biounet as a process of its own; notes on the progress are left out of its standard error."""
    command = [sys.executable, "-W", "error", "-c", "from biounet.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    done.stderr = without_notes(done.stderr)
    return done


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
