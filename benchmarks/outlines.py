"""Time and memory of outlines of many objects, and whether outlines of ImageJ keep the pixels of real objects.

python benchmarks/outlines.py [--side 14000] [--objects 200000] [--data ../shared/data] [--results OUT ...]
  [--imagej ij.jar]

`--results` are folders of `biounet segment`, whose labels are written and read back too. With ImageJ and a JDK, ImageJ
opens what was written and fills it, and draws outlines of all kinds, which are filled here. Each step with many objects
runs in a process of its own; seconds are those of computing, and "above" is the peak above the interpreter with its
packages and the label image.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from biounet.core import Grid
from biounet.files import LabelledImage
from biounet.files.outlines.fill import fill
from biounet.files.outlines.imagej_roi import read_imagej_roi, write_imagej_roi
from biounet.files.outlines.outline import Outline
from biounet.files.outlines.trace import trace

STEPS = ("trace", "trace and fill", "write ROI", "read ROI and fill")


def make_labels(side: int, objects: int) -> np.ndarray[Any, Any]:
    """Return ellipses of several sizes and directions on a grid."""
    rng = np.random.default_rng(0)
    per_row = math.ceil(math.sqrt(objects))
    pitch = side // per_row
    labels = np.zeros((side, side), np.int32)
    y, x = np.mgrid[:pitch, :pitch] - pitch / 2 + 0.5
    for number in range(objects):
        a, b, angle = pitch * rng.uniform(0.3, 0.5), pitch * rng.uniform(0.2, 0.4), rng.uniform(0, np.pi)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        top, left = (pitch * place for place in divmod(number, per_row))
        labels[top : top + pitch, left : left + pitch][(along / a) ** 2 + (across / b) ** 2 < 1] = number + 1
    return labels


def as_image(labels: np.ndarray[Any, Any]) -> LabelledImage:
    count, rng = int(labels.max()), np.random.default_rng(1)
    columns = {"label": np.arange(1, count + 1)} | {f"column_{n}": rng.uniform(0, 1000, count) for n in range(20)}
    return LabelledImage("a", labels, Grid(labels.shape), "objects", columns)


def peak() -> float:
    """Return the largest memory of this process until now, in MB."""
    # Not getrusage, whose peak a process inherits from the one that started it.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def as_outlines(labels: np.ndarray[Any, Any]) -> tuple[list[Outline], list[int]]:
    traced = trace(labels)
    outlines = [Outline(tuple(ring.astype(float) for one in polygons for ring in one)) for _, polygons in traced]
    return outlines, traced.labels.tolist()


def step(name: str, folder: Path) -> dict[str, float]:
    """Do one step; return its seconds of computing and its memory."""
    tiny = np.ones((2, 2), np.int32)
    fill(as_outlines(tiny)[0], tiny.shape)  # compiled code is loaded
    write_imagej_roi(as_image(tiny), folder / "tiny.zip")
    labels, path = np.load(folder / "labels.npy"), folder / "a.zip"
    image, again = as_image(labels), labels
    base, began = peak(), time.process_time()
    if name == "trace":
        trace(labels)
    elif name == "trace and fill":
        outlines, values = as_outlines(labels)
        middle = time.process_time()
        again = fill(outlines, labels.shape, values=values).labels
        return {"s of fill": time.process_time() - middle, "above MB": peak() - base, "same": (again == labels).all()}
    elif name == "write ROI":
        write_imagej_roi(image, path)
    else:
        again = fill(read_imagej_roi(path), labels.shape).labels
    seconds = time.process_time() - began
    size = path.stat().st_size / 1e6 if path.exists() else 0
    return {"s": seconds, "above MB": peak() - base, "file MB": size, "same": bool((again == labels).all())}


def count_same(files: Iterable[Path], imagej: str) -> str:
    """Return how many objects of label images have the same pixels after they were written and read."""
    images = objects = same = 0
    with tempfile.TemporaryDirectory() as room:
        stored = {}
        for number, file in enumerate(files):
            labels = tifffile.imread(file).astype(np.int32)
            values = np.unique(labels[labels > 0])
            path = stored[file] = Path(room, f"{number}.zip")
            write_imagej_roi(LabelledImage("a", labels, Grid(labels.shape), "objects", {"label": values}), path)
            again = fill(read_imagej_roi(path), labels.shape).labels if len(values) else labels
            images += 1
            objects += len(values)
            same += sum(bool(((again == n) == (labels == n)).all()) for n in values)
        text = f"{images} images, {objects} objects: {same} with the same pixels"
        if imagej:
            run_imagej(imagej, "read", room)
            there = sum(
                same_in_imagej(tifffile.imread(file), path.with_suffix(".txt")) for file, path in stored.items()
            )
            text += f", {there} in ImageJ"
    return text


def run_imagej(imagej: str, what: str, folder: str) -> None:
    program = Path(__file__).with_name("ImagejMasks.java")
    subprocess.run(["java", "-cp", imagej, program, what, folder], check=True)


def same_in_imagej(labels: np.ndarray[Any, Any], runs: Path) -> int:
    """Return how many objects ImageJ fills to the same pixels."""
    again = np.zeros_like(labels).reshape(-1, *labels.shape[-2:])
    for line in runs.read_text().splitlines():
        label, place, y, begin, end = map(int, line.split())
        again[place, y, begin:end] = label
    values = np.unique(labels[labels > 0])
    return sum(bool(((again.reshape(labels.shape) == n) == (labels == n)).all()) for n in values)


def compare_kinds(imagej: str) -> None:
    """Print how many outlines that ImageJ draws have the same pixels here, for each kind."""
    kinds = [
        "rectangle",
        "rounded rectangle",
        "oval",
        "polygon",
        "freehand",
        "ellipse",
        "rotated rectangle",
        "spline",
        "composite",
    ]
    same: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as room:
        run_imagej(imagej, "draw", room)
        for path in Path(room).glob("*.roi"):
            expected, place = np.zeros((64, 64), np.bool_), 0
            for line in path.with_suffix(".txt").read_text().splitlines():
                _, place, y, begin, end = map(int, line.split())
                if 0 <= y < len(expected):
                    expected[y, max(begin, 0) : max(end, 0)] = True
            found = fill(read_imagej_roi(path), (64, 64)).labels > 0
            same.setdefault(kinds[place], []).append(bool((found == expected).all()))
    for kind, results in same.items():
        print(f"{kind} of ImageJ: {sum(results)} of {len(results)} with the same pixels", flush=True)


def main() -> None:
    """Print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=14_000)
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--results", type=Path, nargs="*", default=[])
    parser.add_argument("--imagej", default="", help="its jar, or a folder of classes")
    parser.add_argument("--step")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        print(json.dumps({key: float(value) for key, value in step(options.step, options.folder).items()}))
        return
    for kind in ("nuclei2d", "nuclei2d-u2os", "nuclei3d-embryo"):
        folder = options.data / kind / "val" / "labels"
        if folder.is_dir():
            print(f"{kind}, truth: {count_same(sorted(folder.iterdir()), options.imagej)}", flush=True)
    for folder in options.results:
        print(f"{folder.name}: {count_same(sorted(folder.rglob('*_labels.tif')), options.imagej)}", flush=True)
    if options.imagej:
        compare_kinds(options.imagej)
    with tempfile.TemporaryDirectory() as room:
        np.save(Path(room, "labels.npy"), make_labels(options.side, options.objects))
        for name in STEPS:
            command = [sys.executable, __file__, "--step", name, "--folder", room]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
