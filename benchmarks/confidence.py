"""Whether confidence means something: python benchmarks/confidence.py [MODEL] [--data nuclei2d/val].

Segments a set with truth and prints how well ``confidence`` tells objects that match a true one (IoU of at least .5)
from those that do not: the area under the ROC curve, pooled over the images, beside that of other columns; and the
share of matched objects by confidence.
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from biounet.api import load
from biounet.evaluation import match_objects
from biounet.files import find_pairs, read_labels

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
COLUMNS = ("confidence", "area_px", "solidity")
STEPS = (0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1)


def is_matched(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return for each object 1..N whether some true object shares at least half of their union."""
    overlaps = match_objects(truth, found)
    matched = np.zeros(int(found.max()) + 1, bool)
    matched[overlaps.predicted_ids[overlaps.predicted_index[overlaps.iou >= 0.5]]] = True
    return matched[1:]


def area_under_curve(values: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive has the higher value of a pair, ties counted half (Mann and Whitney 1947)."""
    ranks, hits = rankdata(values), int(positive.sum())
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * (len(values) - hits)))


def main() -> None:
    """Print one row of a Markdown table for each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nuclei")
    parser.add_argument("--data", default="nuclei2d/val")
    options = parser.parse_args()
    segmenter, folder = load(options.model), DATA / options.data
    tables, matched = [], []
    for pair in find_pairs(folder / "images", folder / "labels"):
        found = segmenter.segment(pair.image)
        tables.append(np.column_stack([found.columns[name] for name in COLUMNS]))
        matched.append(is_matched(read_labels(pair.label), found.labels))
    values, positive = np.concatenate(tables), np.concatenate(matched)
    print(f"{len(positive)} objects, {int((~positive).sum())} of them unmatched")
    print("| column | AUC |\n|---|---|")
    for name, column in zip(COLUMNS, values.T, strict=True):
        print(f"| {name} | {area_under_curve(column, positive):.3f} |")
    print("\n| confidence | objects | matched |\n|---|---|---|")
    for low, high in pairwise(STEPS):
        within = (values[:, 0] >= low) & ((values[:, 0] < high) | (high == 1))
        print(f"| {low} to {high} | {within.sum()} | {positive[within].mean() if within.any() else math.nan:.0%} |")


if __name__ == "__main__":
    main()
