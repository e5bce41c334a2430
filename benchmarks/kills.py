"""A batch under kills: python benchmarks/kills.py [--images 200] [--kills 50] [--jobs 2].

Segments small fields with a small model of random weights, once undisturbed and once killed with SIGKILL at random
moments, now the program, now one of its child processes where it has some; it is started again until it is done. The
results must be those of the undisturbed run, byte for byte, and so must ``counts.csv`` but for the seconds.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile

from biounet.batch.manifest import Manifest
from biounet.core.recipe import parse_recipe
from biounet.network import Card, Model, build_network, initialise_weights, output_channels, save_model

CLI = [sys.executable, "-c", "from biounet.cli import main; main()"]
TIMED = {"counts.csv", "run.json", "report.html", "manifest.jsonl", ".claims"}


def make_inputs(folder: Path, images: int, edge: int = 96) -> None:
    """Write fields of spots, and a model that is small enough to answer at once."""
    (folder / "in").mkdir()
    draw = np.random.default_rng(0)
    for number in range(images):
        field = draw.normal(200, 20, (edge, edge)).clip(0).astype(np.uint16)
        for y, x in draw.integers(4, edge - 4, (8, 2)):
            field[y - 3 : y + 4, x - 3 : x + 4] += 800
        tifffile.imwrite(folder / "in" / f"{number}.tif", field)
    recipe = parse_recipe({"network": {"widths": [4, 4]}, "label": {"min_size": 1}})
    network = build_network(recipe)
    initialise_weights(network, 0)
    card = Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe))
    save_model(Model(network.eval(), card), folder / "m.safetensors")


def command(folder: Path, out: str, jobs: int, images: str = "in") -> list[str]:
    return [*CLI, "segment", images, "-m", "m.safetensors", "-o", out, "--jobs", str(jobs), "--quiet"]


def results(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in TIMED]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def counts(out: Path) -> list[tuple[str, ...]]:
    with (out / "counts.csv").open(newline="", encoding="utf-8") as file:
        return [(row["image"], row["status"], row["count"], row["message"]) for row in csv.DictReader(file)]


def children(number: int) -> list[int]:
    """Return the processes that a process started, where the system tells."""
    listed = Path(f"/proc/{number}/task/{number}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def run_killed(folder: Path, jobs: int, kills: int, length: float) -> tuple[int, int, int]:
    """Start until it is done; return how often the program and how often a child was killed, and the starts."""
    draw = random.Random(0)
    programs = workers = starts = 0
    while True:
        starts += 1
        with subprocess.Popen(command(folder, "out", jobs), cwd=folder, stderr=subprocess.DEVNULL) as process:
            before = (folder / "out" / "manifest.jsonl").stat().st_size if starts > 1 else 0
            while process.poll() is None:
                if programs + workers == kills:
                    process.wait()
                    break
                wait_for_work(folder / "out", before, process)
                time.sleep(draw.uniform(0, length / kills))  # half of the work is done when all kills are
                victims = children(process.pid)
                if victims and draw.random() < 0.5:
                    workers += kill(draw.choice(victims))
                elif process.poll() is None:
                    programs += kill(process.pid)
                    process.wait()
        if process.returncode == 0:
            return programs, workers, starts


def wait_for_work(out: Path, before: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the manifest has grown: kills while torch is imported would be worth little."""
    manifest = out / "manifest.jsonl"
    while process.poll() is None and not (manifest.exists() and manifest.stat().st_size > before):
        time.sleep(0.005)


def kill(number: int) -> int:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def main() -> None:
    """Print the figures; exit 1 where one is not 0 that must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        make_inputs(folder, options.images)
        subprocess.run(command(folder, "warm-up", options.jobs), cwd=folder, check=True)
        with subprocess.Popen(command(folder, "whole", options.jobs), cwd=folder) as process:
            wait_for_work(folder / "whole", 0, process)
            began = time.perf_counter()
            process.wait()
            length = time.perf_counter() - began
        programs, workers, starts = run_killed(folder, options.jobs, options.kills, length)
        whole, found = results(folder / "whole"), results(folder / "out")
        done = Counter(
            line.split(b'"image": ')[1].split(b",")[0]
            for line in (folder / "out" / "manifest.jsonl").read_bytes().splitlines()
            if line.endswith(b"}")
        )
        figures = {
            "lost": len(whole.keys() - found.keys()),
            "left over": len(found.keys() - whole.keys()),
            "different": sum(found.get(name, data) != data for name, data in whole.items()),
            "duplicated": sum(times > 1 for times in done.values()),
            "not on record": options.images - len(Manifest(folder / "out").names()),
            "rows that differ": len(set(counts(folder / "whole")) ^ set(counts(folder / "out"))),
        }
    print(f"{options.images} files, {programs} kills of the program, {workers} of its children, {starts} starts")
    print("| " + " | ".join(figures) + " |\n|" + "---|" * len(figures))
    print("| " + " | ".join(map(str, figures.values())) + " |")
    raise SystemExit(1 if any(figures.values()) else 0)


if __name__ == "__main__":
    main()
