"""The command line as users run it."""

import csv
import subprocess
import sys
from pathlib import Path


def run_biounet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run biounet as a process of its own."""
    command = [sys.executable, "-W", "error", "-c", "from biounet.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
