"""Speed and error of the boundary weight map, on one thread.

    python benchmarks/weight_map.py

The naive map takes one Euclidean distance transform (SciPy) per cell. On the large field it would take hours: there it
is timed, and compared, on a crop of 256 x 256, and its time for the whole is that of the crop times the pixels times
the cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from biounet.core import Annotation, Grid, TargetSettings
from biounet.training.targets.boundary_weight import border_weight
from biounet.training.targets.distances import edge_distance
from biounet.training.targets.instances import make_instance_targets

W0, SIGMA = 10.0, 5.0
CROP = 256
REPEATS = 9


def field(side: int, cells: int, seed: int = 0) -> np.ndarray:
    """About `cells` elliptic cells on a shaken lattice, many of them touching; int32 (side, side)."""
    draw = np.random.default_rng(seed)
    across = round(cells**0.5)
    pitch = side / across
    labels = np.zeros((side, side), np.int32)
    for cell in range(across**2):
        centre = (np.array(divmod(cell, across)) + draw.uniform(0.25, 0.75, 2)) * pitch
        radii = draw.uniform(0.3, 0.55, 2) * pitch
        low, high = np.maximum(centre - radii, 0).astype(int), (centre + radii + 2).astype(int)
        window = tuple(slice(a, min(b, side)) for a, b in zip(low, high, strict=True))
        y, x = np.ogrid[window]
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        labels[window][inside & (labels[window] == 0)] = cell + 1
    return labels


def naive(labels: np.ndarray) -> np.ndarray:
    first, second = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
    for cell in np.unique(labels[labels > 0]):
        distance = ndimage.distance_transform_edt(labels != cell)
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    return W0 * np.exp(-((first + second) ** 2) / (2 * SIGMA**2))


def seconds(call: Callable[[], object]) -> float:
    """Shortest of several runs, least disturbed by other work on the machine; the first compiles and does not count."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def ours(labels: np.ndarray) -> np.ndarray:
    return border_weight(labels, W0, SIGMA)


def speed(labels: np.ndarray, call: Callable[[], object]) -> float:
    return labels.size / seconds(call) / 1e6


def compare(side: int, cells: int) -> None:
    labels = field(side, cells)
    seen = labels if side <= 2 * CROP else labels[:CROP, :CROP]
    start = time.perf_counter()
    reference = naive(seen)
    taken = time.perf_counter() - start
    taken *= (labels.size / seen.size) * (np.unique(labels).size - 1) / (np.unique(seen).size - 1)
    error = np.abs(ours(seen) - reference).max() / W0
    here = speed(labels, lambda: ours(labels))
    how = "measured" if seen is labels else f"extrapolated from {CROP} x {CROP}"
    print(f"{side} x {side}, {np.unique(labels).size - 1} cells: {here:.1f} Mpx/s, largest error {error:.1e} w0")
    print(f"    naive {labels.size / taken / 1e6:.5f} Mpx/s ({how}): {taken * here * 1e6 / labels.size:.0f} x slower")


def main() -> None:
    for side, cells in ((512, 400), (2048, 6000)):
        compare(side, cells)
    print("number of cells does not matter:")
    for side, counts in ((512, (25, 100, 400, 1600)), (2048, (100, 1600, 6000, 25000))):
        speeds = [
            (cells, speed(labels, lambda x=labels: ours(x))) for cells in counts for labels in [field(side, cells)]
        ]
        print(f"    {side} x {side}: " + ", ".join(f"{cells} cells {mpx:.1f} Mpx/s" for cells, mpx in speeds))
    labels = field(512, 400)
    annotation = Annotation(labels, "instances", Grid(labels.shape))
    hidden = np.full_like(labels, -1)
    hidden[::8], hidden[128:384, 128:384] = labels[::8], labels[128:384, 128:384]
    sparse = Annotation(hidden, "instances", Grid(labels.shape))
    print("512 x 512, 400 cells, the rest of the targets:")
    print(f"    edge distance {speed(labels, lambda: edge_distance(labels)):.1f} Mpx/s")
    print(f"    weight map with unlabelled space {speed(labels, lambda: ours(hidden)):.1f} Mpx/s")
    settings = TargetSettings()
    print(f"    all targets {speed(labels, lambda: make_instance_targets(annotation, settings)):.1f} Mpx/s")
    print(f"    all, with unlabelled space {speed(labels, lambda: make_instance_targets(sparse, settings)):.1f} Mpx/s")


if __name__ == "__main__":
    main()
