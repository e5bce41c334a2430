"""Memory and time of measuring labels part by part, and whether the table has the bytes that it has in memory.

    python benchmarks/measure_regions.py [--edges 4096 8192 16384] [--whole 4096] [--ram 600M] [--folder /tmp/regions]

A field of nuclei of ``nuclei2d/val`` with their labels, two channels of 8 and 16 bits, rings and the background, and as
larger objects the nuclei grown by 3 pixels where that is free. Tiles begin at 100 pixels, so that nuclei lie across the
borders of super-blocks. Each size runs in a process of its own, whose largest memory is shown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import zarr
from large_inputs import _pairs, create, data_folder
from skimage.segmentation import expand_labels

from biounet.core import as_bytes
from biounet.measurement import MeasureOptions
from biounet.reporting import LabelInputs, MeasuredTables, large_labels, measure_files

TILE, OFFSET, GROWN = 256, 100, 3


def write_field(folder: Path, edge: int) -> None:
    """Write labels, grown labels, and both channels of a field as OME-Zarr of 4096 x 4096 in a file."""
    names = {"labels": np.int32, "inside": np.int32, "dapi": np.uint8, "gfp": np.uint16}
    files = {name: create(folder / f"{name}.ome.zarr", (edge, edge), np.dtype(kind)) for name, kind in names.items()}
    tiles = [
        (image[:TILE, :TILE], labels[:TILE, :TILE])
        for image, labels in _pairs(data_folder() / "nuclei2d" / "val")
        if min(labels.shape) >= TILE and labels.max() > 0
    ]
    grown = [expand_labels(labels, GROWN) for _, labels in tiles]
    step = 4096
    for corner in product(range(0, edge, step), repeat=2):
        shape = [min(step, edge - at) for at in corner]
        arrays = {name: np.zeros(shape, kind) for name, kind in names.items()}
        first = [(at - OFFSET) // TILE for at in corner]
        last = [-(-(at + size - OFFSET) // TILE) for at, size in zip(corner, shape, strict=True)]
        for row, column in product(range(first[0], last[0]), range(first[1], last[1])):
            number = np.random.default_rng((row + 1, column + 1)).integers(len(tiles))
            place = [OFFSET + at * TILE - begin for at, begin in zip((row, column), corner, strict=True)]
            target = tuple(slice(max(at, 0), min(at + TILE, size)) for at, size in zip(place, shape, strict=True))
            source = tuple(slice(part.start - at, part.stop - at) for part, at in zip(target, place, strict=True))
            image, labels = tiles[number]
            base = ((row + 1) * (edge // TILE + 3) + column + 1) * 1000
            arrays["dapi"][target] = image[source]
            arrays["gfp"][target] = image[source].astype(np.uint16)[::-1] * 3 + (row * 7 + column) % 50
            for name, values in (("labels", labels), ("inside", grown[number])):
                arrays[name][target] = np.where(values[source] > 0, values[source].astype(np.int32) + base, 0)
        part = tuple(slice(at, at + size) for at, size in zip(corner, shape, strict=True))
        for name, array in arrays.items():
            files[name][part] = array


def measure(folder: Path, out: Path, ram: int | None) -> dict[str, object]:
    """Measure a field; with `ram`, part by part."""
    if ram is None:
        large_labels.usable_memory = lambda: None  # type: ignore[attr-defined]
    images = {"DAPI": folder / "dapi.ome.zarr", "GFP": folder / "gfp.ome.zarr"}
    for name in ("labels", "inside"):
        assert zarr.open_group(folder / f"{name}.ome.zarr", mode="r")
    inputs = LabelInputs(folder / "labels.ome.zarr", images, folder / "inside.ome.zarr")
    start = time.perf_counter()
    rows, _ = measure_files(inputs, out, MeasureOptions(), MeasuredTables(ram=ram))
    seconds = time.perf_counter() - start
    if rows[0].status == "failed":
        raise SystemExit(rows[0].message)
    digest = hashlib.sha256()
    for path in sorted(out.glob("*_*.csv")):
        digest.update(path.read_bytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"count": rows[0].count, "seconds": seconds, "peak": peak, "sha256": digest.hexdigest()[:16]}


def main() -> None:
    """Make the fields, measure each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--whole", type=int, nargs="*", default=[4096])
    parser.add_argument("--ram", default="600M")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/regions"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        edge, way = options.one
        out = options.folder / f"out-{edge}-{way}"
        ram = as_bytes(options.ram, "--ram") if way == "parts" else None
        print(json.dumps(measure(options.folder / edge, out, ram)))
        return
    print("| edge | way | objects | peak RSS | seconds | Mpx/s | tables |")
    print("|---|---|---|---|---|---|---|")
    for edge in options.edges:
        folder = options.folder / str(edge)
        folder.mkdir(parents=True, exist_ok=True)
        write_field(folder, edge)
        for way in ("parts", "memory") if edge in options.whole else ("parts",):
            shutil.rmtree(options.folder / f"out-{edge}-{way}", ignore_errors=True)
            call = [sys.executable, __file__, "--one", str(edge), way, "--ram", options.ram, "--folder", options.folder]
            done = subprocess.run([*map(str, call)], check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            rate = edge * edge / 1e6 / found["seconds"]
            print(
                f"| {edge} | {way} | {found['count']} | {found['peak']:.0f} MB | {found['seconds']:.0f} | {rate:.1f} |"
                f" {found['sha256']} |",
                flush=True,
            )
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
