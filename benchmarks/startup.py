"""Times from the shell: python benchmarks/startup.py [--runs 7].

Each command is a whole process; after a warm-up the commands take turns, and medians are compared with the median of
``python -c "import torch"``. Of a command that segments it is also measured when its first word is there.
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


def seconds_to_first_word(command: list[str]) -> float:
    """Run a command and return the time until there is something on its standard error."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        process.stderr.read(1)
        elapsed = time.perf_counter() - began
        process.kill()
    return elapsed


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
        segment = [*cli, "segment", str(image), "-o", out]
        times: dict[str, list[float]] = {name: [] for name in (*commands, "first word of biounet segment")}
        for _ in range(runs):
            for name, command in commands.items():
                times[name].append(seconds(command))
            times["first word of biounet segment"].append(seconds_to_first_word(segment))
    base = statistics.median(times["import torch"])
    print("| command | median s | of import torch |\n|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
