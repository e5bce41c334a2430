"""Tables of objects with shapes, channels, rings and background: seconds on one core, beside scikit-image.

    python benchmarks/measuring.py [--size 4096] [--rounds 5] [--peer]

The field has about 25 000 ellipses in 4096x4096 pixels, and channels of noise of 16 bits. Seconds are those of the
process, which other work on the machine changes little; loops are compiled before. `--peer` measures the same columns
with `skimage.measure.regionprops_table`, which takes minutes, and compares them.
"""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time

import numpy as np
from scipy import ndimage
from skimage.measure import regionprops_table

from biounet.core import Grid
from biounet.measurement import MeasureOptions, Ring, measure, measure_objects
from biounet.measurement.rings import ring_labels

PITCH = 25  # pixels from cell to cell
CHANNELS = ("DAPI", "GFP", "RFP")
# Name of the column: name in scikit-image.
SAME = {
    "area_px": "area",
    "perimeter_px": "perimeter",
    "axis_major_length_px": "axis_major_length",
    "axis_minor_length_px": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "centroid_y_px": "centroid-0",
    "centroid_x_px": "centroid-1",
}
PER_CHANNEL = {"mean": "intensity_mean", "max": "intensity_max", "sd": "intensity_std"}


def make_field(size):
    """Return labels of ellipses of 12 to 23 pixels, one in each square of a lattice, in a random order of ids."""
    rng = np.random.default_rng(0)
    labels = np.zeros((size, size), np.int32)
    y, x = np.ogrid[:PITCH, :PITCH]
    squares = [(i, j) for i in range(0, size - PITCH, PITCH) for j in range(0, size - PITCH, PITCH)]
    for label, (i, j) in zip(rng.permutation(len(squares)) + 1, squares, strict=True):
        (a, b), (cy, cx), turn = rng.uniform(6, 11.5, 2), rng.uniform(11, 14, 2), rng.uniform(0, np.pi)
        along = ((y - cy) * np.cos(turn) + (x - cx) * np.sin(turn)) / a
        across = ((x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)) / b
        labels[i : i + PITCH, j : j + PITCH][along**2 + across**2 < 1] = label
    return labels


def best_of(rounds, task):
    """Return the least processor time of several runs, and the last result."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        result = task()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def compare(labels, image, columns):
    """Print the seconds of scikit-image, and how far the columns differ from its own."""
    properties = sorted({name.split("-")[0] for name in [*SAME.values(), *PER_CHANNEL.values()]})
    start = time.process_time()
    theirs = regionprops_table(labels, np.moveaxis(image, 0, -1), properties=properties)
    print(f"scikit-image, the same columns without rings {time.process_time() - start:8.2f} s")
    pairs = list(SAME.items())
    for number, channel in enumerate(CHANNELS):
        pairs += [(f"intensity_{key}_{channel}", f"{name}-{number}") for key, name in PER_CHANNEL.items()]
    # From the larger of the two: 0 for two zeros, as of eccentricities of circles.
    scales = {ours: np.maximum(np.abs(columns[ours]), np.abs(theirs[name])) for ours, name in pairs}
    differences = {
        ours: np.abs(columns[ours] - theirs[name]) / np.where(scales[ours] > 0, scales[ours], 1) for ours, name in pairs
    }
    largest = max(float(values.max()) for values in differences.values())
    sums = ndimage.sum_labels(image[0].astype(np.float64), labels, np.arange(1, labels.max() + 1))
    sums_differ = float(np.abs(columns["intensity_sum_DAPI"] / sums - 1).max())
    print(f"largest relative difference: {largest:.1e}; of sums: {sums_differ:.1e}")


def compare_rings(labels):
    """Print the seconds of distance transforms for the same rings, and in how many pixels these differ."""
    ring, grid = Ring(), Grid(labels.shape)
    seconds, ours = best_of(3, lambda: ring_labels(labels, grid, ring))
    start = time.process_time()
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    theirs = np.where((distance > ring.gap) & (distance <= ring.gap + ring.width), labels[tuple(nearest)], 0)
    other = time.process_time() - start
    differ = np.count_nonzero((ours != theirs) & (ours > 0))
    tied = np.count_nonzero((ours == 0) & (theirs > 0))
    print(f"rings {seconds:.2f} s, scipy {other:.2f} s; {differ} pixels of {np.count_nonzero(theirs)} differ,", end=" ")
    print(f"and {tied} are as near to a second object")


def main():
    """Print one line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    labels = make_field(arguments.size)
    rng = np.random.default_rng(1)
    image = rng.poisson(200 + 300 * (labels > 0), (len(CHANNELS), *labels.shape)).astype(np.uint16)
    grid = Grid(labels.shape, (0.5, 0.5), "um")
    measure_objects(labels[:99, :99] * 0, image[:, :99, :99], Grid((99, 99)), None, CHANNELS, Ring())
    print(f"{labels.max()} objects, {arguments.size}x{arguments.size} pixels, {len(CHANNELS)} channels")
    for name, ring in (("shapes and channels", None), ("shapes, channels, rings and background", Ring())):
        task = lambda ring=ring: measure_objects(labels, image, grid, None, CHANNELS, ring)  # noqa: E731
        seconds, table = best_of(arguments.rounds, task)
        print(f"{name:44s} {seconds:8.2f} s")
    options = MeasureOptions(spacing=0.5, channels=CHANNELS)
    seconds, _ = best_of(arguments.rounds, lambda: measure(labels * 3, image, options=options))
    print(f"{'the same by biounet.measure, ids with gaps':44s} {seconds:8.2f} s")
    if arguments.peer:
        compare_rings(labels)
        compare(labels, image, table.columns)


if __name__ == "__main__":
    main()
