"""Run biounet and its peers alternately on the same images and print one Markdown table.

    python benchmarks/peers/side_by_side.py --peers DIR --biounet MODEL MINUTES \
        [--stardist MODEL] [--cellpose MODEL] [--cellpose-size MODEL] [--repeats 3]

Run it with biounet's Python; DIR is what install.sh was given. Every prediction is a process of its own. The first
``--biounet`` is what the others are compared with. Speed is the best of the repeats, from TIFF file to label file
and table, after one uncounted image of each shape; "without table" leaves the measuring of objects out where a tool
does it as a step of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import fields
import numpy as np
import tifffile
from harness import THREADS

from biounet.evaluation import Evaluation, score_instances

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Tool:
    """One row of the table: a program with a model."""

    name: str
    python: Path
    script: Path
    model: str
    minutes: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """A folder of images with a folder of label images of the same names."""

    name: str
    images: Path
    truth: Path


@dataclass
class Outcome:
    """What the repeats of one tool on one set gave."""

    megapixels_per_s: float = 0.0
    without_table: float = 0.0
    peak_memory_gb: float = 0.0
    wall_seconds: float = float("inf")

    def add(self, measured: dict[str, float], wall: float) -> None:
        """Keep the best of this repeat and the earlier ones."""
        self.megapixels_per_s = max(self.megapixels_per_s, measured["mpx_per_s"])
        self.without_table = max(self.without_table, measured["mpx_per_s_without_table"])
        self.peak_memory_gb = max(self.peak_memory_gb, measured["peak_memory_gb"])
        self.wall_seconds = min(self.wall_seconds, wall)


def tools_of(options: argparse.Namespace) -> list[Tool]:
    """Return the tools that the command line names, biounet first."""
    tools = [
        Tool(f"biounet {Path(model).stem}", Path(sys.executable), HERE / "biounet_run.py", model, minutes)
        for model, minutes in options.biounet
    ]
    peers = (
        ("StarDist 0.9.2", "stardist", options.stardist, ()),
        ("Cellpose 3.1.1", "cellpose", options.cellpose, ()),
        ("Cellpose 3.1.1, size model", "cellpose", options.cellpose_size, ("--size-model",)),
    )
    for name, environment, model, extra in peers:
        if model is not None:
            python = options.peers / environment / "bin" / "python"
            minutes = f"{json.loads((model / 'training.json').read_text())['minutes']:g}"
            tools.append(Tool(name, python, HERE / f"{environment}_run.py", str(model.resolve()), minutes, extra))
    return tools


def run(tool: Tool, images: Path, out: Path) -> tuple[dict[str, float], float]:
    """Predict in a process of its own; return what it measured and its wall seconds."""
    command = [tool.python, tool.script, *tool.options, "predict", "--model", tool.model, "--images", images]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "THREADS": str(THREADS)}
    shutil.rmtree(out, ignore_errors=True)  # biounet does nothing again that is done
    out.mkdir(parents=True)
    begin = time.perf_counter()
    with (out / "log.txt").open("w") as log:
        done = subprocess.run([*command, "--out", out], stdout=log, stderr=log, env=environment, check=False)
    wall = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{tool.name} failed with exit code {done.returncode}; see {out / 'log.txt'}")
    return json.loads((out / "measured.json").read_text()), wall


def accuracy(out: Path, truth: Path) -> Evaluation:
    """Compare the label files of a run with the truth, objects pooled over images."""
    paths = sorted(truth.glob("*.tif"))
    found = [tifffile.imread(out / f"{path.stem}_labels.tif").astype(np.int32) for path in paths]
    return score_instances([tifffile.imread(path).astype(np.int32) for path in paths], found)


def folder_of(work: Path, images: Images, index: int) -> Path:
    return work / images.name / f"tool{index}"


def table(tools: list[Tool], sets: list[Images], outcomes: dict[tuple[int, str], Outcome], work: Path) -> str:
    """Return the Markdown table; ratios are the first tool's speed over the row's."""
    rows = [
        "| images | tool | minutes trained | AP .5 | mean AP .5-.9 | count MAE | Mpx/s | without table "
        "| times slower than biounet | without table | peak GB | process s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for images in sets:
        first = outcomes[0, images.name]
        for index, tool in enumerate(tools):
            outcome = outcomes[index, images.name]
            score = accuracy(folder_of(work, images, index), images.truth)
            rows.append(
                f"| {images.name} | {tool.name} | {tool.minutes} "
                f"| {score.ap[0]:.3f} | {np.mean(score.ap):.3f} | {score.count_mae:.2f} "
                f"| {outcome.megapixels_per_s:.3g} | {outcome.without_table:.3g} "
                f"| {first.megapixels_per_s / outcome.megapixels_per_s:.1f} "
                f"| {first.without_table / outcome.without_table:.1f} | {outcome.peak_memory_gb:.1f} "
                f"| {outcome.wall_seconds:.1f} |"
            )
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True, help="folder of the environments that install.sh made")
    parser.add_argument("--biounet", nargs=2, action="append", required=True, metavar=("MODEL", "MINUTES"))
    parser.add_argument("--stardist", type=Path, metavar="MODEL")
    parser.add_argument("--cellpose", type=Path, metavar="MODEL")
    parser.add_argument("--cellpose-size", type=Path, metavar="MODEL")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "nuclei2d" / "val")
    parser.add_argument("--field", choices=("mosaic", "synthetic", "none"), default="mosaic")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / ".work" / "side_by_side")
    return parser.parse_args()


def processor() -> str:
    """Return the name of the processor, or its kind where the system does not tell the name."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    options = parse()
    tools, work = tools_of(options), options.work.resolve()
    sets = [Images(options.data.name, options.data.resolve() / "images", options.data.resolve() / "labels")]
    if options.field != "none":
        folder = fields.write_field(options.field, options.data, work / f"field-{options.field}")
        sets.append(Images(f"{options.field} {fields.SIDE}x{fields.SIDE}", folder / "images", folder / "labels"))
    outcomes = {(index, images.name): Outcome() for images in sets for index in range(len(tools))}
    for repeat in range(options.repeats):
        for images in sets:
            for index, tool in enumerate(tools):
                print(f"repeat {repeat + 1}: {tool.name} on {images.name}", file=sys.stderr)
                outcomes[index, images.name].add(*run(tool, images.images, folder_of(work, images, index)))
    print(f"{processor()}, {THREADS} threads, best of {options.repeats}\n")
    print(table(tools, sets, outcomes, work))


if __name__ == "__main__":
    main()
