"""Time and memory of GeoJSON of many objects, and whether its polygons are valid and keep the pixels of real nuclei.

python benchmarks/geojson.py [--side 14000] [--objects 200000] [--val ../shared/data/nuclei2d/val/labels]

Each step runs in a process of its own. Peaks are of the whole process; "above" is what is added to the interpreter with
its packages, and to the label image where that is given in memory.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from biounet.core import Grid
from biounet.files import LabelledImage, hash_file, write_labels, write_text
from biounet.files.outlines.fill import fill
from biounet.files.outlines.geojson import read_geojson, write_geojson, write_geojson_points
from biounet.measurement import columns_to_csv

COLUMNS = ("area_um2", "perimeter_um", "eccentricity", "solidity", "intensity_mean_DAPI", "intensity_sd_DAPI")
COLUMNS += tuple(f"intensity_mean_{letter}" for letter in "ABCDEFGHIJKLMN")  # 20, as in the tables of real runs


def make_labels(side: int, objects: int) -> np.ndarray[Any, Any]:
    """Return ellipses of several sizes and directions on a jittered grid."""
    rng = np.random.default_rng(0)
    per_row = math.ceil(math.sqrt(objects))
    pitch = side / per_row
    labels = np.zeros((side, side), np.int32)
    half = int(pitch / 2)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    shapes = []
    for _ in range(200):
        a, b, angle = pitch * rng.uniform(0.3, 0.5), pitch * rng.uniform(0.2, 0.4), rng.uniform(0, np.pi)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        shapes.append((along / a) ** 2 + (across / b) ** 2 < 1)
    corners = ((np.arange(per_row) + 0.5) * pitch).astype(int) - half
    for number in range(objects):
        top, left = corners[number // per_row], corners[number % per_row]
        window = labels[top : top + 2 * half + 1, left : left + 2 * half + 1]
        window[shapes[rng.integers(200)][: window.shape[0], : window.shape[1]]] = number + 1
    return labels


def as_image(labels: np.ndarray[Any, Any]) -> LabelledImage:
    """Return labels with a table of 20 measurements."""
    count, rng = int(labels.max()), np.random.default_rng(1)
    columns = {"label": np.arange(1, count + 1)} | {name: rng.uniform(0, 1000, count) for name in COLUMNS}
    return LabelledImage("a", labels, Grid(labels.shape), "objects", columns, "nucleus", identity="benchmark")


def make_run(folder: Path, labels: np.ndarray[Any, Any]) -> None:
    """Make a folder of results whose only image has these labels: that of a small image, with other files recorded."""
    out, small = folder / "out", folder / "a.tif"
    tifffile.imwrite(small, np.random.default_rng(0).integers(0, 100, (64, 64)).astype(np.uint8))
    command = ["biounet", "segment", str(small), "-o", str(out), "--quiet"]
    subprocess.run(command, check=True)
    image, manifest = as_image(labels), out / "manifest.jsonl"
    text = manifest.read_text()
    for name in ("a_labels.tif", "a_objects.csv"):
        before = hash_file(out / name)
        if name.endswith("csv"):
            write_text(out / name, columns_to_csv(dict(image.columns)))
        else:
            write_labels(out / name, labels, Grid(labels.shape), "objects")
        text = text.replace(before, hash_file(out / name))
    manifest.write_text(text)


def peak() -> float:
    """Return the largest memory of this process until now, in MB."""
    # Not getrusage, whose peak a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def step(name: str, folder: Path) -> dict[str, float]:
    """Do one step; return its seconds and memory."""
    path = folder / f"{name.removeprefix('read ')}.geojson"
    if name == "export":
        return step_of_export(folder)
    tiny = as_image(np.ones((2, 2), np.int32))
    write_geojson(tiny, folder / "tiny.geojson")  # compiled code is loaded
    interpreter = peak()
    image = None if name.startswith("read ") else as_image(np.load(folder / "labels.npy"))
    base, began, worked = peak(), time.perf_counter(), time.process_time()
    if image is None:
        side = np.load(folder / "labels.npy", mmap_mode="r").shape[0]
        labels = fill(read_geojson(path), (side, side)).labels
    else:
        (write_geojson_points if name == "points" else write_geojson)(image, path)
    seconds, core, total = time.perf_counter() - began, time.process_time() - worked, peak()
    if image is None and not (labels == np.load(folder / "labels.npy", mmap_mode="r")).all():
        raise SystemExit("other pixels")
    size = path.stat().st_size / 1e6
    return {
        "s": seconds,
        "core s": core,
        "peak MB": total,
        "above MB": total - base,
        "above interpreter MB": total - interpreter,
        "file MB": size,
    }


def step_of_export(folder: Path) -> dict[str, float]:
    """Export the outlines of a folder of results, with all that ``biounet export`` does."""
    from biounet.batch import export_run

    path = folder / "out" / "a_outlines.geojson"
    base, began, worked = peak(), time.perf_counter(), time.process_time()
    [row] = export_run(folder / "out", ["geojson"])
    if row.status != "written":
        raise SystemExit(row.message)
    seconds, total, size = time.perf_counter() - began, peak(), path.stat().st_size / 1e6
    core = time.process_time() - worked
    return {"s": seconds, "core s": core, "peak MB": total, "above MB": total - base, "file MB": size}


def validate(folder: Path) -> str:
    """Return how many objects of real label images are valid polygons and keep their pixels."""
    from shapely.geometry import shape

    objects = valid = same = 0
    with tempfile.TemporaryDirectory() as room:
        path = Path(room, "a.geojson")
        for file in sorted(folder.iterdir()):
            labels = tifffile.imread(file).astype(np.int32)
            image = LabelledImage("a", labels, Grid(labels.shape), "objects", {"label": np.unique(labels)[1:]})
            write_geojson(image, path)
            features = json.loads(path.read_text())["features"]
            objects += len(features)
            valid += sum(shape(feature["geometry"]).is_valid for feature in features)
            again = fill(read_geojson(path), labels.shape).labels
            same += sum(bool(((again == n) == (labels == n)).all()) for n in image.values)
    return f"{objects} objects: {valid} valid, {same} with the same pixels"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=14000)
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--val", type=Path, default=Path("../shared/data/nuclei2d/val/labels"))
    parser.add_argument("--step")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(step(options.step, options.folder)))
        return
    if options.val.is_dir():
        print(validate(options.val))
    with tempfile.TemporaryDirectory() as room:
        labels = make_labels(options.side, options.objects)
        np.save(Path(room, "labels.npy"), labels)
        make_run(Path(room), labels)
        del labels
        for name in ("export", "outlines", "points", "read outlines"):
            command = [sys.executable, __file__, "--step", name, "--folder", room]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{name}: " + ", ".join(f"{key} {value:.1f}" for key, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
