"""Regions of images on disk: bytes read for each byte used, and time, beside `aszarr` of tifffile and the whole image.

    python benchmarks/lazy_read.py [--edge 4096] [--regions 30] [--work FOLDER]

A mosaic of ``nuclei2d/val`` of 16 bits as OME-Zarr (in shards), tiled TIFF, striped TIFF (a strip of 16 rows) and
``.npy``; the TIFFs are compressed. Regions of 512 x 512 lie anywhere. Bytes are those that the process read, from the
cache of the system as well (`rchar` in ``/proc/self/io``), and of regions only, after the file was opened; times are
medians. A whole image is read for each of three.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import zarr
from large_inputs import confluent_windows, mosaic, write_ome_zarr

from biounet.files import ReadOptions, open_lazy, read_volume

SIDE = 512
COMPRESSED = {"compression": "zlib", "predictor": True}


def bytes_read():
    """Return the bytes that this process has read so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def write(folder, edge):
    """Write the image in each format; return the files and the pixels."""
    windows = confluent_windows()
    pixels = (mosaic((slice(0, edge), slice(0, edge)), windows) * 37.5).astype(np.uint16)
    write_ome_zarr(folder / "image.ome.zarr", pixels.shape, pixels.dtype, lambda part: pixels[part])
    tifffile.imwrite(folder / "tiles.tif", pixels, tile=(256, 256), **COMPRESSED)
    tifffile.imwrite(folder / "strips.tif", pixels, rowsperstrip=16, **COMPRESSED)
    np.save(folder / "image.npy", pixels)
    names = ("image.ome.zarr", "tiles.tif", "strips.tif", "image.npy")
    return [folder / name for name in names], pixels


def measure(read, regions, pixels):
    """Return the bytes read for each byte of the regions, and the median of milliseconds."""
    seconds, taken = [], 0
    for region in regions:
        before, began = bytes_read(), time.perf_counter()
        part = read(region)
        seconds.append(time.perf_counter() - began)
        taken += bytes_read() - before
        np.testing.assert_array_equal(part, pixels[region])
    used = sum(pixels[region].nbytes for region in regions)
    return taken / used, 1000 * statistics.median(seconds)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=4096)
    parser.add_argument("--regions", type=int, default=30)
    parser.add_argument("--work", type=Path, help="a folder for the images; by default a temporary one")
    options = parser.parse_args()
    random, read_options = np.random.default_rng(0), ReadOptions(inputs=1)
    starts = random.integers(0, options.edge - SIDE, (options.regions, 2))
    regions = [tuple(slice(int(at), int(at) + SIDE) for at in start) for start in starts]
    print("| file | read by | bytes read / used | ms a region |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        paths, pixels = write(Path(folder), options.edge)
        for path in paths:
            image = open_lazy(path, read_options)
            image.read(regions[0])  # the first also reads the table of tiles, and compiles
            show(path, "`open_lazy`", measure(lambda region, image=image: image.read(region)[0], regions, pixels))
            if path.suffix == ".tif":
                with tifffile.imread(path, aszarr=True) as store:
                    array = zarr.open_array(store, mode="r")
                    show(path, "`aszarr`", measure(lambda region, array=array: array[region], regions, pixels))
            read_volume(path, read_options)  # as above
            whole = measure(
                lambda region, path=path: read_volume(path, read_options).array[0][region], regions[:3], pixels
            )
            show(path, "whole image", whole)


def show(path, reader, figures):
    ratio, milliseconds = figures
    print(f"| {path.name} | {reader} | {ratio:.2f} | {milliseconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
