"""Times from the shell: python benchmarks/startup.py [--runs 7].

Each command is a whole process; after a warm-up the commands take turns, and medians are compared with the median of
``python -c "import torch"``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def seconds(command: list[str]) -> float:
    """Run a command and return its wall time."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    image = next(p for p in sorted((DATA / "nuclei2d" / "val" / "images").iterdir()) if p.stat().st_size < 70_000)
    cli = [sys.executable, "-c", "from biounet.cli import main; main()"]
    with tempfile.TemporaryDirectory() as out:
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "biounet --help": [*cli, "--help"],
            "import biounet": [sys.executable, "-c", "import biounet"],
            f"biounet segment {image.name}": [*cli, "segment", str(image), "-o", out, "-q"],
        }
        for command in commands.values():
            seconds(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                times[name].append(seconds(command))
    base = statistics.median(times["import torch"])
    print("| command | median s | of import torch |\n|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
