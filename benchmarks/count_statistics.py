"""What counts are worth: python benchmarks/count_statistics.py frame|slopes, or correct|intervals RUN TRUTH.

`frame` cuts crops out of periodic tissue of discs or balls that do not overlap, and compares the densities and mean
sizes of several estimators with the true ones. `slopes` corrects the means of simulated counts, with the slope of hand
on automatic counts taken as 1, and estimated. The others take a folder of results and the folder of true label images,
whose objects are the hand counts. Prints rows of Markdown tables.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from biounet.batch import read_run
from biounet.core import Grid
from biounet.evaluation import calibrate_counts, corrected_mean, count_statistics
from biounet.files import read_labels
from biounet.measurement import Boxes, FrameCounts, acquired_part, border_weights, frame_figures

CROPS = 4000
DRAWS = 4000
SPLITS = 200


def tissue(size: int, dims: int, attempts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of balls of very different sizes on a torus, and their sizes in pixels."""
    reach = 12 if dims == 2 else 6
    places = np.indices((2 * reach + 1,) * dims) - reach
    labels, sizes = np.zeros((size,) * dims, np.int32), []
    for _ in range(attempts):
        ball = np.argwhere((places**2).sum(axis=0) <= rng.uniform(1.5, reach) ** 2) - reach
        where = tuple(((rng.integers(0, size, dims) + ball) % size).T)
        if not labels[where].any():
            sizes.append(len(ball))
            labels[where] = len(sizes)
    return labels, np.array(sizes)


def estimates(crop: np.ndarray) -> tuple[dict[str, float], float, float]:
    """Return densities of a crop by estimator, and the weighted sum of sizes with the sum of weights."""
    _, numbered = np.unique(crop, return_inverse=True)
    crop = numbered.reshape(crop.shape)
    found = ndimage.find_objects(crop)
    ends = np.array([[(part.start, part.stop - 1) for part in box] for box in found]).reshape(-1, crop.ndim, 2)
    boxes, sizes = Boxes(ends[..., 0], ends[..., 1]), np.bincount(crop.ravel())[1:]
    grid = Grid(crop.shape, (1000.0,) * crop.ndim, "um")  # pixels of 1 mm
    figures = frame_figures(FrameCounts.of(boxes, grid, acquired_part(grid, None)), grid)
    size, density = ("area_mm2", "density_per_mm2") if crop.ndim == 2 else ("volume_mm3", "density_per_mm3")
    touching = ((boxes.low == 0) | (boxes.high == np.array(crop.shape) - 1)).any(axis=1)
    weights = border_weights(boxes, crop.shape)
    densities = {
        "all objects": len(sizes) / crop.size,
        "none at the border": (~touching).sum() / crop.size,
        "frame, area W H": figures["count_in_frame"] / crop.size,
        "frame, area (W-1)(H-1)": figures[density],
        "border_weight": weights.sum() / crop.size,
    }
    assert figures[size] == np.prod(np.array(crop.shape) - 1)
    return densities, float(weights @ sizes), float(weights.sum())


def frame() -> None:
    rng = np.random.default_rng(0)
    for dims, size, attempts, edges in ((2, 2000, 60000, (64, 96, 128, 256, 512)), (3, 160, 40000, (24, 32, 48))):
        labels, sizes = tissue(size, dims, attempts, rng)
        truth = len(sizes) / labels.size
        print(f"\n{dims}D: {len(sizes)} objects of {sizes.min()} to {sizes.max()} pixels, mean {sizes.mean():.1f}\n")
        for edge in edges:
            crops = CROPS if edge**dims <= 128**2 * 4 else CROPS // 8
            found, totals = [], np.zeros(2)
            for _ in range(crops):
                at = rng.integers(0, size, dims)
                part = labels[np.ix_(*((start + np.arange(edge)) % size for start in at))]
                densities, *sums = estimates(part) if part.any() else ({}, 0.0, 0.0)
                found.append(densities)
                totals += sums
            names = next(filter(None, found))
            means = {name: np.mean([one.get(name, 0.0) for one in found]) / truth for name in names}
            cells = [f"{value:.4f}" for value in means.values()]
            print(f"| {edge} | {' | '.join(cells)} | {totals[0] / totals[1] / sizes.mean():.4f} |", flush=True)


def slopes() -> None:
    rng = np.random.default_rng(0)
    kinds = {
        "skewed, errors as the root": (0.8, lambda y: y + rng.normal(0, 0.3 * np.sqrt(y + 1))),
        "very skewed, errors of 5 %": (1.0, lambda y: y * rng.normal(1, 0.05, len(y))),
        "half of all missed": (0.6, lambda y: y / 2 + rng.normal(0, 2, len(y))),
    }
    for name, (spread, find) in kinds.items():
        for n in (20, 50):
            cells = []
            for least in (10**6, 2):
                count_statistics._MIN_SLOPE_COUNTS = least
                covers, widths = [], []
                for _ in range(DRAWS // 2):
                    true = np.rint(rng.lognormal(3.2, spread, 100))
                    found, drawn = np.maximum(np.rint(find(true)), 0), rng.choice(100, n, replace=False)
                    mean = corrected_mean(found, drawn, true[drawn], confidence=0.9)
                    covers.append(mean.low <= true.mean() <= mean.high)
                    widths.append(mean.half_width)
                cells += [f"{np.mean(covers):.3f}", f"{np.mean(widths):.2f}"]
            print(f"| {name} | {n} | {' | '.join(cells)} |", flush=True)


def counts(run: Path, truth: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return automatic and true counts of the images of a run."""
    automatic = {Path(row.image).stem: row.count for row in read_run(run).rows}
    true = {path.stem: len(np.unique(read_labels(path))) - 1 for path in sorted(truth.glob("*.tif"))}
    names = sorted(automatic.keys() & true.keys())
    return np.array([automatic[name] for name in names]), np.array([true[name] for name in names])


def correct(run: Path, truth: Path) -> None:
    found, true = counts(run, truth)
    print(f"{len(true)} images, mean {true.mean():.2f}, automatic {found.mean():.2f}, "
          f"correlation {np.corrcoef(found, true)[0, 1]:.3f}\n")  # fmt: skip
    for n in (5, 10, 20):
        rng = np.random.default_rng(n)
        rows = []
        for _ in range(DRAWS):
            drawn = rng.choice(len(true), n, replace=False)
            for confidence in (0.9, 0.95):
                mean = corrected_mean(found, drawn, true[drawn], confidence=confidence)
                cover = mean.low <= true.mean() <= mean.high
                alone = abs(mean.hand_only - true.mean()) <= mean.hand_only_half_width
                rows.append((cover, alone, mean.half_width, mean.hand_only_half_width, mean.corrected - true.mean()))
        table = np.array(rows, float).reshape(DRAWS, 2, 5)
        width, alone = table[:, 1, 2], table[:, 1, 3]
        cells = [f"{width.mean():.2f}", f"{alone.mean():.2f}", f"{width.mean() / alone.mean():.3f}"]
        cells += [f"{np.median(width / alone):.3f}", *(f"{cover:.3f}" for cover in table[:, :, 0].mean(axis=0))]
        cells += [f"{table[:, 1, 1].mean():.3f}", f"{table[:, 1, 4].mean():+.3f}"]
        print(f"| {n} | {' | '.join(cells)} |", flush=True)


def intervals(run: Path, truth: Path) -> None:
    found, true = counts(run, truth)
    rng = np.random.default_rng(0)
    for calibrated in (9, 19, 29):
        covers, widths = [], []
        for _ in range(SPLITS):
            order = rng.permutation(len(true))
            inside, others = order[:calibrated], order[calibrated : calibrated + 20]
            calibration = calibrate_counts(found[inside], true[inside])
            ends = np.array([calibration.interval(count) for count in found[others]])
            covers.append(np.mean((ends[:, 0] <= true[others]) & (true[others] <= ends[:, 1])))
            widths.append(np.median(ends[:, 1] - ends[:, 0]))
        print(
            f"| {calibrated} | {len(others)} | {np.mean(covers):.3f} | {np.std(covers):.3f} | {np.median(widths):g} |"
        )


if __name__ == "__main__":
    task, *folders = sys.argv[1:]
    {"frame": frame, "slopes": slopes, "correct": correct, "intervals": intervals}[task](*map(Path, folders))
