"""Label stores against a TIFF and a plain Zarr: size, files, writing, memory, and reading of parts.

python benchmarks/label_store.py RUN/NAME_labels.ome.zarr

The labels of a large image are copied into each format, block by block where it can be, each in a process of its own;
peaks of memory are above that of the process with its libraries. Parts are 200 squares of 512 pixels at random places.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from zarr.codecs import ZstdCodec

from biounet.files import (
    LabelStore,
    StoreOptions,
    create_label_store,
    open_label_store,
    stream_labels,
    write_level,
    write_shard,
)

PARTS, SIDE = 200, 512


def write_store(source: LabelStore, path: Path) -> None:
    """Write a sharded store with its levels, as a run does."""
    store = create_label_store(path, source.grid, StoreOptions(source.levels[0].shard))
    for number, level in enumerate(store.levels):
        for region in level.regions():
            if number:
                write_level(store, number, region)
            else:
                write_shard(store, region, source.read(region))


def write_level_0(source: LabelStore, path: Path) -> None:
    """Write a sharded store without levels."""
    store = create_label_store(path, source.grid, StoreOptions(source.levels[0].shard))
    for region in store.levels[0].regions():
        write_shard(store, region, source.read(region))


def write_zarr(source: LabelStore, path: Path) -> None:
    """Write an array of chunks without shards, with zarr alone."""
    level = source.levels[0]
    array = zarr.create_array(
        path, shape=level.shape, chunks=level.chunk, dtype=source.dtype, compressors=ZstdCodec(), fill_value=0
    )
    for region in level.regions():
        array[region] = source.read(region)


def write_streamed(source: LabelStore, path: Path) -> None:
    """Write one TIFF from the store, as ``--format tif`` does."""
    stream_labels(path, source, source.grid, int(np.iinfo(source.dtype).max), "objects")


def write_tifffile(source: LabelStore, path: Path) -> None:
    """Write one tiled TIFF from labels in memory, with tifffile alone."""
    labels = source.read(tuple(slice(0, length) for length in source.grid.shape))
    tifffile.imwrite(path, labels, tile=(SIDE, SIDE), compression="zlib", bigtiff=True)


def read_store(path: Path) -> Callable[[Any], Any]:
    return open_label_store(path).read


def read_zarr(path: Path) -> Callable[[Any], Any]:
    array = zarr.open_array(path, mode="r")
    return lambda region: array[region]


def read_tiff(path: Path) -> Callable[[Any], Any]:
    """Read through the Zarr view of tifffile."""
    array = zarr.open_array(tifffile.imread(path, aszarr=True), mode="r")
    return lambda region: array[region]


FORMATS: dict[str, tuple[str, Callable[[LabelStore, Path], None], Callable[[Path], Callable[[Any], Any]]]] = {
    "label store, sharded, with levels": ("a.ome.zarr", write_store, read_store),
    "label store, level 0 alone": ("b.ome.zarr", write_level_0, read_store),
    "zarr, a file for each chunk": ("c.zarr", write_zarr, read_zarr),
    "TIFF, streamed from the store": ("d.tif", write_streamed, read_tiff),
    "TIFF, tifffile from memory": ("e.tif", write_tifffile, read_tiff),
}


def measure(source: Path, name: str, folder: Path) -> dict[str, float]:
    """Write and read in this format; seconds are those of the processor."""
    file, write, open_reader = FORMATS[name]
    store, path = open_label_store(source), folder / file
    store.read(tuple(slice(0, 1) for _ in store.grid.shape))  # libraries are loaded
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    write(store, path)
    seconds, worked, memory = time.perf_counter() - start, time.process_time() - cpu, peak() - before
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    rng, read = np.random.default_rng(0), open_reader(path)
    places = rng.integers(0, np.array(store.grid.shape) - SIDE, (PARTS, 2))
    regions = [tuple(slice(int(at), int(at) + SIDE) for at in place) for place in places]
    start, cpu = time.perf_counter(), time.process_time()
    parts = [read(region) for region in regions]
    reading, reading_cpu = time.perf_counter() - start, time.process_time() - cpu
    if not all(np.array_equal(part, store.read(region)) for part, region in zip(parts, regions, strict=True)):
        raise SystemExit(f"{name}: other labels were read")
    voxels = store.grid.shape[0] * store.grid.shape[1] / 1e6
    return {
        "MB": sum(each.stat().st_size for each in files) / 1e6,
        "files": len(files),
        "Mpx/s written": voxels / seconds,
        "Mpx/s written, of the processor": voxels / worked,
        "MB of memory": memory,
        "ms a part": 1000 * reading / PARTS,
        "ms a part, of the processor": 1000 * reading_cpu / PARTS,
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        print(json.dumps(measure(chosen.labels, chosen.only, chosen.folder)))
        return
    print(f"{' x '.join(map(str, open_label_store(chosen.labels).grid.shape))} pixels, zarr {zarr.__version__}")
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, str(chosen.labels), "--only", name, "--folder", folder]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{name:36}" + "".join(f"{value:10.3g} {unit};" for unit, value in found.items()))


if __name__ == "__main__":
    main()
