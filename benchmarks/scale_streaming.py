"""Scale of images that are read part by part, against the same images in memory: equal numbers, memory and time.

    python benchmarks/scale_streaming.py [--edges 4096 8192 16384] [--whole 4096 8192] [--work FOLDER]

Mosaics of ``nuclei2d/val`` of several sizes, and the same in 16 bits and as float32, with a corner that was not
acquired and hot pixels. Of those of `--whole`, statistics are compared with the percentiles of NumPy, scaled regions
with those of the whole image, and regions of the working grid, at zooms of .5 and 1.7, with those of the whole image
resampled. Each image is read in a process of its own, whose largest memory is shown.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from large_inputs import confluent_windows, mosaic, write_ome_zarr

from biounet.core import ArrayImage, DataSettings, NormaliseSettings
from biounet.files import ReadOptions, open_lazy, read_volume
from biounet.preprocessing import Resampling, find_scale, rescale, rescale_region, scale_intensities, scale_region

TYPES = (np.uint8, np.uint16, np.float32)
ZOOMS = (0.5, 1.7)
REGIONS, EDGE = 20, 700  # regions that are compared, and their longest side
SETTINGS, DATA = NormaliseSettings(), DataSettings()


def write_image(path, side, kind):
    """Write a mosaic with a corner that was not acquired and some hot pixels."""
    windows, corner = confluent_windows(), side // 4

    def part_of(region):
        values = np.maximum(mosaic(region, windows), 1) * (1 if kind == np.uint8 else 37.5)
        y, x = (np.arange(part.start, part.stop) for part in region)
        values[(y % 997 == 0)[:, None] & (x % 991 == 0)] = 255 if kind == np.uint8 else 60000
        values[(y < corner)[:, None] & (x < corner)] = 0
        return values.astype(kind)

    write_ome_zarr(path, (side, side), np.dtype(kind), part_of)


def draw_region(random, shape):
    starts = [int(random.integers(0, size - 1)) for size in shape]
    return tuple(
        slice(at, min(at + int(random.integers(1, EDGE)), size)) for at, size in zip(starts, shape, strict=True)
    )


def differing(image, scale, array):
    """Return how many of some regions are not those of the whole image: scaled, and on the working grid."""
    random, found = np.random.default_rng(0), {}
    whole = scale_intensities(array, SETTINGS)
    regions = [draw_region(random, array.shape[1:]) for _ in range(REGIONS)]
    parts = [scale_region(image, scale, region) for region in regions]
    pairs = zip(regions, parts, strict=True)
    found["scaled"] = sum(
        not np.array_equal(part.image, whole.image[(slice(None), *region)])
        or not np.array_equal(part.acquired, whole.acquired[region])
        for region, part in pairs
    )
    for zoom in ZOOMS:
        way = Resampling.zoomed(array.shape[1:], (zoom, zoom))
        resampled = rescale(whole.image, (zoom, zoom))
        regions = [draw_region(random, way.new) for _ in range(REGIONS)]
        found[f"zoom {zoom}"] = sum(
            not np.array_equal(rescale_region(image, scale, way, region), resampled[(slice(None), *region)])
            for region in regions
        )
    return found


def look(path, compare):
    """Find the scale of an image; return seconds, memory, and with `compare` what differs from the whole image."""
    image, start = open_lazy((path,), ReadOptions()), time.monotonic()
    scale = find_scale(image, SETTINGS, DATA)
    result = {"seconds": time.monotonic() - start, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if compare:
        volume = read_volume(path)
        array, channel = volume.array, scale.channels[0]
        acquired = array[array != channel.unacquired[0]] if channel.unacquired else array
        low, high = np.percentile(acquired, (SETTINGS.low, SETTINGS.high))
        result["percentiles"] = max(abs(channel.low - low), abs(channel.low + channel.width - high)) / (high - low)
        result["whole"] = find_scale(ArrayImage.of(volume), SETTINGS, DATA) == scale
        result |= {"hot": channel.hot_pixels, "differing": differing(image, scale, array)}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--whole", type=int, nargs="*", default=[4096, 8192])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.look:
        print(json.dumps(look(options.look, bool(options.whole))))
        return
    print("| type | edge | seconds | peak RSS | beside NumPy's percentiles | whole image | regions that differ |")
    print("|---|---|---|---|---|---|---|")
    for kind in TYPES:
        for edge in options.edges:
            path = Path(tempfile.mkdtemp(dir=options.work)) / "x.ome.zarr"
            write_image(path, edge, kind)
            cells = [measure(path, False)]
            if edge in options.whole:
                cells.append(measure(path, True))
            shutil.rmtree(path.parent)
            first, last = cells[0], cells[-1]
            compared = ["", "", ""]
            if "whole" in last:
                parts = ", ".join(f"{count} of {REGIONS} {name}" for name, count in last["differing"].items())
                compared = [f"{last['percentiles']:.1g}", "equal" if last["whole"] else "**differs**", parts]
            row = [np.dtype(kind).name, edge, f"{first['seconds']:.1f}", f"{first['peak']:.0f} MB", *compared]
            print("|", " | ".join(map(str, row)), "|", flush=True)


def measure(path, compare):
    """Look at an image in a process of its own."""
    command = [sys.executable, __file__, "--look", str(path), "--whole", *(["1"] if compare else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
