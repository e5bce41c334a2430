"""Four processes on one folder: python benchmarks/together.py [--images 200] [--processes 4] [--runs 3].

Each image must be worked on once, and every process must end with the whole table. The overhead compares the time in
which the processes do all images of one folder with that in which as many processes do a quarter each, every one with a
folder of its own: the same load on the machine, without anything to agree on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from kills import command, counts, make_inputs, results


def seconds(commands: list[list[str]], folder: Path) -> float:
    """Run commands side by side and return how long it took."""
    began = time.perf_counter()
    running = [subprocess.Popen(one, cwd=folder) for one in commands]
    failed = [process.wait() for process in running]
    if any(failed):
        raise SystemExit(f"exit codes {failed}")
    return time.perf_counter() - began


def main() -> None:
    """Print the figures; exit 1 where an image was done twice or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    together, apart, records, same = [], [], [], True
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        make_inputs(folder, options.images, options.edge)
        for number in range(options.processes):
            (folder / f"part{number}").mkdir()
            for path in sorted((folder / "in").iterdir())[number :: options.processes]:
                (folder / f"part{number}" / path.name).hardlink_to(path)
        subprocess.run(command(folder, "alone", 1), cwd=folder, check=True)
        for run in range(options.runs):
            parts = [command(folder, f"apart{run}-{n}", 1, f"part{n}") for n in range(options.processes)]
            apart.append(seconds(parts, folder))
            together.append(seconds([command(folder, f"one{run}", 1)] * options.processes, folder))
            out = folder / f"one{run}"
            records.append(len((out / "manifest.jsonl").read_bytes().splitlines()))
            same &= results(out) == results(folder / "alone") and counts(out) == counts(folder / "alone")
    one, many = statistics.median(apart), statistics.median(together)
    print(f"{options.images} images, edge {options.edge}, {options.processes} processes, {options.runs} runs")
    print("| a folder each, s | one folder, s | overhead | records | as one process alone |\n|---|---|---|---|---|")
    print(f"| {one:.2f} | {many:.2f} | {many / one - 1:.1%} | {', '.join(map(str, records))} | {same} |")
    raise SystemExit(0 if same and set(records) == {options.images} else 1)


if __name__ == "__main__":
    main()
