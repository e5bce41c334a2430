"""Accuracy on nuclei2d: python benchmarks/accuracy.py ARM [--minutes 10].

Arms: ``dense`` (all labels), ``windows`` (one 64x64 window labelled per image), ``few`` (150 outlined nuclei in all,
from random weights), ``fine-tuned`` (the same 150, from a model trained on nuclei2d-u2os alone, which ``u2os`` trains),
``builtin`` (no training). Training sees ``nuclei2d/train`` only, and thresholds are tuned on images held out of it;
``nuclei2d/val`` is scored once, at the end. Prints one row of a Markdown table and keeps model and row in --work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from biounet.api import Segmenter, load
from biounet.core import UNLABELLED, Annotation, DataSettings, Recipe, find_recipe, read_recipe
from biounet.evaluation import score_instances
from biounet.files import Pair, find_pairs, read_annotation, read_volume
from biounet.training import Case, Progress, TrainCallbacks, hold_out, make_case, train

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
WINDOW, NUCLEI, PER_IMAGE = 64, 150, 3


def pairs_of(folder: str) -> list[Pair]:
    """Return the pairs of ``set/part``."""
    return find_pairs(DATA / folder / "images", DATA / folder / "labels")


def keep_window(labels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Forget all labels outside a window."""
    kept = np.full_like(labels, UNLABELLED)
    kept[window] = labels[window]
    return kept


def random_window(labels: np.ndarray, edge: int, draw: np.random.Generator) -> tuple[slice, slice]:
    """Draw a square window inside the image."""
    starts = [int(draw.integers(max(1, size - edge + 1))) for size in labels.shape]
    return tuple(slice(start, start + edge) for start in starts)


def window_with(labels: np.ndarray, wanted: int, draw: np.random.Generator) -> tuple[slice, slice]:
    """Grow a window around a random nucleus until it holds `wanted` nuclei, or all of the image."""
    rows, columns = np.nonzero(labels > 0)
    at = int(draw.integers(len(rows)))
    for half in range(8, max(labels.shape) + 8, 8):
        window = tuple(slice(max(0, c - half), c + half) for c in (int(rows[at]), int(columns[at])))
        if len(np.unique(labels[window])) - 1 >= wanted:
            break
    return window


def sparse_case(pair: Pair, recipe: Recipe, labels: np.ndarray) -> Case:
    """Make a case of an image with changed labels."""
    volume = read_volume(pair.image)
    return make_case(volume, Annotation(labels, "instances", volume.grid), recipe)


def dense_labels(pair: Pair, data: DataSettings | None = None) -> np.ndarray:
    """Read the truth of an image; `data` of a model, without it of 2D images."""
    return read_annotation(pair.label, data or DataSettings()).labels


def cases_of(arm: str, recipe: Recipe) -> tuple[list[Case], list[Case]]:
    """Return training and tuning cases of an arm."""
    draw = np.random.default_rng(0)
    pairs = pairs_of("nuclei2d-u2os/train" if arm == "u2os" else "nuclei2d/train")
    if arm in ("few", "fine-tuned"):
        chosen = [pairs[n] for n in draw.permutation(len(pairs))]
        cases, count = [], 0
        for pair in chosen:
            labels = dense_labels(pair)
            window = window_with(labels, min(PER_IMAGE, NUCLEI - count), draw)
            count += len(np.unique(labels[window][labels[window] > 0]))
            cases.append(sparse_case(pair, recipe, keep_window(labels, window)))
            if count >= NUCLEI:
                break
        print(f"{count} nuclei in {len(cases)} images", file=sys.stderr)
        # The 150 are all that was outlined: a fifth of the windows chooses the thresholds.
        return cases[len(cases) // 5 :], cases[: len(cases) // 5]
    kept, held = hold_out(pairs, recipe.data.validation, recipe.train.seed)
    split = []
    for group in (kept, held):
        split.append([])
        for pair in group:
            labels = dense_labels(pair)
            if arm == "windows":
                labels = keep_window(labels, random_window(labels, WINDOW, draw))
            if (labels != UNLABELLED).any():
                split[-1].append(sparse_case(pair, recipe, labels))
    return split[0], split[1]


def score(segmenter: Segmenter, folder: str = "nuclei2d/val") -> dict[str, float]:
    """Segment a folder as a user would, and compare with its truth."""
    pairs = pairs_of(folder)
    found = [segmenter.segment(pair.image).labels for pair in pairs]
    return score_instances([dense_labels(pair) for pair in pairs], found).as_figures()


def show(progress: Progress) -> None:
    """Print the course of the training."""
    if progress.step % 250 == 0:
        ap = progress.metrics.get("ap", float("nan"))
        line = f"{progress.step}/{progress.steps} {progress.seconds:.0f} s loss {progress.loss:.4f} AP {ap:.4f}"
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train one arm and score it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=["dense", "windows", "few", "fine-tuned", "u2os", "builtin"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="nuclei", help="for the arm builtin")
    parser.add_argument("--recipe", default="nuclei_2d", help="for the other arms")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / ".work")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    if options.arm == "builtin":
        segmenter = load(options.model)
    else:
        recipe = read_recipe(find_recipe(options.recipe)).replace("train", minutes=options.minutes, epochs=None)
        start = None
        if options.arm == "fine-tuned":
            start = load(options.work / "u2os.safetensors").model
        cases, held = cases_of(options.arm, recipe)
        segmenter = Segmenter(train(cases, held, recipe, start=start, callbacks=TrainCallbacks(show)))
        segmenter.save(options.work / f"{options.arm}.safetensors")
    minutes = (time.perf_counter() - began) / 60
    figures = score(segmenter)
    share = segmenter.card.data.get("share", 1.0)
    row = {"arm": options.arm, "minutes": round(minutes, 1), "labelled": round(share, 4), **figures}
    (options.work / f"{options.arm}.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
    names = ("ap", "ap50", "ap75", "ap90", "count_mae", "count_error")
    print(f"| {options.arm} | {minutes:.1f} | {share:.1%} | " + " | ".join(f"{figures[n]:.3f}" for n in names) + " |")


if __name__ == "__main__":
    main()
