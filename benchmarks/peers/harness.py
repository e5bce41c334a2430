"""What every tool of the side-by-side run shares: data, threads, clock, warm-up, table and report.

This module runs in the environments of all tools, so it needs nothing beyond numpy, tifffile and scikit-image.
"""

from __future__ import annotations

import os
import time

START = time.perf_counter()
THREADS = int(os.environ.get("THREADS", "2"))
# These are read when a library is loaded, so they are set before the first import of one.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, str(THREADS))

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import resource  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import tifffile  # noqa: E402

COLUMNS = ("label", "area", "centroid", "intensity_mean")
PLANE_COLUMNS = ("perimeter", "eccentricity", "solidity")


class Clock:
    """Adds up seconds under a name: ``with clock("read"): ...``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block and add it to what `name` has used so far."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def move(self, source: str, target: str, seconds: float) -> None:
        """Book seconds under another name than the block that they were measured in."""
        self.seconds[source] -= seconds
        self.seconds[target] = self.seconds.get(target, 0.0) + seconds


Process = Callable[[Path, Path, Clock], None]
"""Image path, output folder, clock -> label file and table on disk."""

Options = dict[str, dict[str, object]]
"""Name of an option -> what argparse wants to know of it."""


def parser(tool: str, *, trains: bool = True, extra: dict[str, Options] | None = None) -> argparse.ArgumentParser:
    """Return the command line that all tools share: ``train`` and ``predict``, with the `extra` options of each."""
    root = argparse.ArgumentParser(prog=f"{tool}_run.py")
    commands = root.add_subparsers(dest="command", required=True)
    if trains:
        train = commands.add_parser("train", help="train from scratch for a number of minutes")
        train.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
        train.add_argument("--minutes", type=float, required=True)
        train.add_argument("--out", type=Path, required=True, help="model folder")
    predict = commands.add_parser("predict", help="segment a folder of images and time it")
    predict.add_argument("--model", required=True)
    predict.add_argument("--images", type=Path, required=True, help="folder of images")
    predict.add_argument("--out", type=Path, required=True)
    for command, options in (extra or {}).items():
        for name, how in options.items():
            commands.choices[command].add_argument(name, **how)
    return root


def read_pairs(data: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the images and label images ([z,] y, x) of `data`, matched by file name, in order of name."""
    names = sorted(path.name for path in (data / "images").glob("*.tif"))
    images = [tifffile.imread(data / "images" / name) for name in names]
    labels = [tifffile.imread(data / "labels" / name).astype(np.int32) for name in names]
    return images, labels


def is_trained(out: Path, minutes: float) -> bool:
    """Return whether `out` holds a finished training of at least `minutes`."""
    record = out / "training.json"
    return record.exists() and json.loads(record.read_text())["minutes"] >= minutes


def write_json(path: Path, record: dict[str, object]) -> None:
    """Write `record` so that `path` is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.replace(path)


def shape_of(path: Path) -> tuple[int, ...]:
    """Return the shape of a TIFF without reading its pixels."""
    with tifffile.TiffFile(path) as file:
        return file.series[0].shape


def write_labels(labels: np.ndarray, out: Path, stem: str) -> None:
    """Write a label image ([z,] y, x) with the smallest unsigned type that holds its largest id."""
    kind = np.min_scalar_type(int(labels.max(initial=0)))
    tifffile.imwrite(out / f"{stem}_labels.tif", labels.astype(kind))


def write_table(labels: np.ndarray, image: np.ndarray, out: Path, stem: str) -> None:
    """Write one row per object with what scikit-image measures, in pixels."""
    from skimage.measure import regionprops_table

    columns = COLUMNS + PLANE_COLUMNS if labels.ndim == 2 else COLUMNS
    table = regionprops_table(labels, image, properties=columns)
    with (out / f"{stem}_objects.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(table)
        rows.writerows(zip(*table.values(), strict=True))


def from_array(segment: Callable[[np.ndarray], np.ndarray]) -> Process:
    """Turn a function image -> labels into the chain read, segment, write, table."""

    def process(path: Path, out: Path, clock: Clock) -> None:
        with clock("read"):
            image = tifffile.imread(path)
        with clock("segment"):
            labels = segment(image)
        with clock("write"):
            write_labels(labels, out, path.stem)
        with clock("table"):
            write_table(labels, image, out, path.stem)

    return process


def measure(tool: str, process: Process, images: Path, out: Path) -> None:
    """Run `process` over a folder, print what it took and write it to ``out/measured.json``.

    One image of each shape is processed beforehand and not counted: compilation, graph tracing and memory
    allocation are then behind every tool.
    """
    paths = sorted(images.glob("*.tif"))
    startup = seconds_since_start()
    shapes = [shape_of(path) for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        for path in dict(zip(shapes, paths, strict=True)).values():
            process(path, Path(folder), Clock())
    out.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    for path in paths:
        process(path, out, clock)
    report(tool, clock, (len(paths), sum(map(math.prod, shapes))), out, startup)


def seconds_since_start() -> float:
    """Return the age of this process, but for what came before its first line."""
    return time.perf_counter() - START


def peak_memory_gb() -> float:
    """Return the most memory that this process has used so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(tool: str, clock: Clock, images_and_voxels: tuple[int, int], out: Path, startup: float) -> None:
    """Print what a run took and write it to ``out/measured.json``; Mpx are megavoxels where images are volumes."""
    images, voxels = images_and_voxels
    total = sum(clock.seconds.values())
    record: dict[str, object] = {
        "tool": tool,
        "images": images,
        "megapixels": voxels / 1e6,
        "seconds": {"startup": startup, **clock.seconds},
        "seconds_in_all": total,
        "mpx_per_s": voxels / 1e6 / total,
        "mpx_per_s_without_table": voxels / 1e6 / (total - clock.seconds.get("table", 0.0)),
        "peak_memory_gb": peak_memory_gb(),
        "threads": THREADS,
    }
    write_json(out / "measured.json", record)
    print(json.dumps(record))
