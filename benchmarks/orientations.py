"""One head in 48 orders: python benchmarks/orientations.py [--minutes 4] [--model FILE] [--scans 15].

Trains `hippocampus` on the training scans (or takes a model), stores the first scans of ``hippocampus/val`` with their
axes in every order and direction, segments each file as any other, and compares what was written with the truth, both
brought back to the order of the truth by nibabel. Prints a row for each order and the largest differences.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

import biounet
from biounet.api import Segmenter
from biounet.evaluation import score_classes
from biounet.files import write_labels
from biounet.training import Progress, TrainCallbacks

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "hippocampus"
ORDERS = [(axes, flips) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)]
LIMIT = 0.005  # how far apart the Dice of two orders may be


def reordered(image: nibabel.Nifti1Image, axes: tuple[int, ...], flips: tuple[int, ...]) -> nibabel.Nifti1Image:
    """Return the same voxels at the same places, stored with other axes first and some of them reversed."""
    turned = image.as_reoriented([(axes.index(axis), flips[axis]) for axis in range(3)])
    return nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine)


def found_in(model: Segmenter, image: nibabel.Nifti1Image, folder: Path) -> NDArray[np.int32]:
    """Store and segment an image; return the labels as they lie in space, (z, y, x) of RAS."""
    nibabel.save(image, folder / "x.nii.gz")
    found = model.segment(folder / "x.nii.gz")
    write_labels(folder / "y.nii.gz", found.labels, found.volume)
    labels = nibabel.as_closest_canonical(nibabel.load(folder / "y.nii.gz"))
    return np.asarray(labels.dataobj).T.astype(np.int32)


def train_model(minutes: float) -> Segmenter:
    """Train on the scans of ``train`` and their annotations."""

    def show(progress: Progress) -> None:
        if progress.step % 100 == 0:
            print(f"{progress.step}/{progress.steps} loss {progress.loss:.3f}", file=sys.stderr, flush=True)

    folder = DATA / "train"
    return biounet.train(
        "hippocampus", folder / "images", folder / "labels", minutes=minutes, callbacks=TrainCallbacks(show)
    )


def score(model: Segmenter, scans: int) -> list[dict[str, object]]:
    """Return a row for each order: how scans are stored, the Dice, and in how many scans all labels are the first's."""
    images = sorted((DATA / "val" / "images").glob("*.nii.gz"))[:scans]
    loaded = [nibabel.load(path) for path in images]
    labels = [nibabel.as_closest_canonical(nibabel.load(DATA / "val" / "labels" / path.name)) for path in images]
    truths = [np.asarray(label.dataobj).T.astype(np.int32) for label in labels]
    rows, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        for axes, flips in ORDERS:
            stored = [reordered(image, axes, flips) for image in loaded]
            found = [found_in(model, image, Path(folder)) for image in stored]
            first = first or found
            figures = score_classes(truths, found, model.card.recipe.data.foreground)
            rows.append({
                "stored": "".join(nibabel.aff2axcodes(stored[0].affine)),
                "dice": float(np.mean(figures.dice)),
                "each": figures.dice,
                "same": sum(bool(np.array_equal(one, other)) for one, other in zip(first, found, strict=True)),
            })  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Train or load, score, and return 1 if the orders differ by more than `LIMIT`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--model", help="instead of training one")
    parser.add_argument("--scans", type=int, default=15)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / ".work")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.model:
        model = biounet.load(options.model)
    else:
        model = train_model(options.minutes)
        model.save(options.work / "orientations.safetensors")
    began = time.perf_counter()
    rows = score(model, options.scans)
    dice = [float(row["dice"]) for row in rows]  # type: ignore[arg-type]
    print("| stored | Dice | anterior, posterior | scans with the same labels |\n|---|---|---|---|")
    for row in rows:
        each = ", ".join(f"{value:.3f}" for value in row["each"])  # type: ignore[attr-defined]
        print(f"| {row['stored']} | {row['dice']:.4f} | {each} | {row['same']} of {options.scans} |")
    spread = max(dice) - min(dice)
    print(f"{len(rows)} orders in {time.perf_counter() - began:.0f} s: Dice {min(dice):.4f} to {max(dice):.4f}")
    return int(len({row["stored"] for row in rows}) < len(ORDERS) or spread > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
