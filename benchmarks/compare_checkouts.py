"""Accuracy, counts and times of the built-in models in two checkouts, side by side.

python benchmarks/compare_checkouts.py BEFORE AFTER [--images N] [--data FOLDER] [--diameter D]

Each checkout segments the validation images of `SETS` by its own command line, one image at a time, and scores them.
Prints two Markdown tables: the figures, and in how many images the outputs of both are the same to the last byte.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = {"nuclei": "nuclei2d/val", "nuclei3d": "nuclei3d-embryo/val"}  # built-in model: images with truth
FIGURES = ("ap", "f1", "pq", "count_mae", "count_bias")  # lists are means over the thresholds


@dataclass(frozen=True)
class Results:
    """The folder of results of one model in one checkout, its scores, and the seconds that segmenting took."""

    folder: Path
    scores: dict[str, list[float] | float]
    seconds: float

    def counts(self) -> dict[str, str]:
        """Count of each image."""
        with (self.folder / "counts.csv").open(encoding="utf-8", newline="") as file:
            return {row["image"]: row["count"] for row in csv.DictReader(file)}

    def outputs(self, pattern: str) -> dict[str, bytes]:
        """Content of the outputs with such a name."""
        return {path.name: path.read_bytes() for path in self.folder.rglob(pattern)}


def run(checkout: Path, *arguments: object) -> str:
    """Run the command line of a checkout and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", "from biounet.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True, text=True).stdout


def segment_and_score(checkout: Path, chosen: tuple[object, ...], folder: Path, out: Path) -> Results:
    """Segment the images in a folder with a model and options of a checkout, and score the results."""
    images, truth = folder / "images", folder / "labels"
    start = time.perf_counter()
    run(checkout, "segment", images, "-m", *chosen, "-o", out, "--jobs", 1, "--quiet")
    seconds = time.perf_counter() - start
    return Results(out, json.loads(run(checkout, "evaluate", out, truth, "--json").splitlines()[-1]), seconds)


def link_some(data: Path, part: str, count: int | None, folder: Path) -> None:
    """Fill ``images`` and ``labels`` of a folder with links to the first images of a set and their truth."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for path in islice(sorted((data / part / kind).iterdir()), count):
            (folder / kind / path.name).symlink_to(path.resolve())


def same(before: dict[str, object], after: dict[str, object]) -> str:
    """Return how many entries are equal, of how many in both."""
    names = before.keys() | after.keys()
    return f"{sum(before.get(name) == after.get(name) for name in names)} of {len(names)}"


def main() -> None:
    """Segment all sets by both checkouts and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--images", type=int, help="of each set; all without it")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--diameter", help="of objects, so that images are resampled; without it, as by default")
    options = parser.parse_args()
    figures, equal = [], []
    with tempfile.TemporaryDirectory() as work:
        for model, part in SETS.items():
            folder = Path(work, model)
            link_some(options.data, part, options.images, folder)
            chosen = (model, *(("--diameter", options.diameter) if options.diameter else ()))
            both = [
                segment_and_score(checkout.resolve(), chosen, folder, folder / name)
                for name, checkout in (("before", options.before), ("after", options.after))
            ]
            for name, results in zip(("before", "after"), both, strict=True):
                cells = [f"{np.mean(results.scores[figure]):.6g}" for figure in FIGURES]
                total = sum(int(count) for count in results.counts().values() if count)
                figures.append(f"| {model} | {name} | {' | '.join(cells)} | {total} | {results.seconds:.1f} |")
            parts = [same(*(results.counts() for results in both))]
            for pattern in ("*_labels.tif", "*_objects.csv"):
                parts.append(same(*(results.outputs(pattern) for results in both)))
            equal.append(f"| {model} | {' | '.join(parts)} |")
    print(f"| model | checkout | {' | '.join(FIGURES)} | objects | seconds |")
    print(f"|{'---|' * (len(FIGURES) + 4)}", *figures, "", sep="\n")
    print("| model | same counts | same label images | same tables |", "|---|---|---|---|", *equal, sep="\n")


if __name__ == "__main__":
    main()
