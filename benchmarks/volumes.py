"""Accuracy on volumes: python benchmarks/volumes.py ARM [--minutes 15].

Arms: ``hippocampus`` (all slices labelled), ``hippocampus-slices-z`` (every tenth slice along z labelled, or along y or
x, from a start drawn for each case), ``nuclei`` (nuclei3d-embryo, all planes), ``nuclei-planes`` (5 planes of each),
``tumour-N`` and ``tumour-slices-N`` (train on two cases of brain-tumour, score on case N = 0, 1, 2; every tenth slice).
Training sees the train folders only, thresholds are tuned on cases held out of them, and ``val`` is scored once.
Prints one row of figures and keeps model and row in --work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from biounet.api import Segmenter, load
from biounet.core import UNLABELLED, Annotation, Recipe, Volume, find_recipe, read_recipe
from biounet.evaluation import score_classes, score_instances
from biounet.files import ReadOptions, read_annotation, read_volume
from biounet.training import Case, Progress, TrainCallbacks, hold_out, make_case, train
from biounet.training.planning import plan

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
EVERY, PLANES = 10, 5
RECIPES = {"hippocampus": "hippocampus", "nuclei": "nuclei_3d", "tumour": "brain_tumour"}
Labelled = tuple[Volume, Annotation]


def read_pair(images: tuple[Path, ...], label: Path, recipe: Recipe) -> Labelled:
    """Read an image of one or several files, and its annotation."""
    volume = read_volume(images if len(images) > 1 else images[0], ReadOptions(dims=3))
    return volume, read_annotation(label, recipe.data, volume.grid)


def read_set(arm: str, recipe: Recipe) -> tuple[list[Labelled], list[Labelled]]:
    """Return training and validation images of an arm, all labelled."""
    kind, _, rest = arm.partition("-")
    if kind == "tumour":
        cases = sorted(path for path in (DATA / "brain-tumour").iterdir() if path.is_dir())
        files = [(tuple(c / f"{name}.nii.gz" for name in recipe.data.channels), c / "tumour.nii.gz") for c in cases]
        pairs = [read_pair(*each, recipe) for each in files]
        at = int(rest.rpartition("-")[2])
        return pairs[:at] + pairs[at + 1 :], [pairs[at]]
    folder = DATA / ("hippocampus" if kind == "hippocampus" else "nuclei3d-embryo")
    return tuple(
        [
            read_pair((image,), folder / part / "labels" / image.name, recipe)
            for image in sorted((folder / part / "images").iterdir())
        ]
        for part in ("train", "val")
    )  # type: ignore[return-value]


def keep_slices(arm: str, labels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Forget the labels outside some slices, as the arm has it."""
    if "slices" not in arm and "planes" not in arm:
        return labels
    kept = np.full_like(labels, UNLABELLED)
    axis = "zyx".index(arm[-1]) if arm.startswith("hippocampus") else 0
    count = labels.shape[axis]
    numbers = range(int(draw.integers(EVERY)), count, EVERY)
    if "planes" in arm:
        numbers = np.linspace(0, count - 1, PLANES + 2)[1:-1].round().astype(int)
    at = (slice(None),) * axis + (list(numbers),)
    kept[at] = labels[at]
    return kept


def make_cases(arm: str, pairs: list[Labelled], recipe: Recipe, draw: np.random.Generator) -> list[Case]:
    """Make training cases with what the arm leaves labelled."""
    cases = []
    for volume, annotation in pairs:
        labels = keep_slices(arm, annotation.labels, draw)
        cases.append(make_case(volume, Annotation(labels, annotation.kind, volume.grid, annotation.source), recipe))
    return cases


def score(segmenter: Segmenter, pairs: list[Labelled]) -> dict[str, float]:
    """Segment the validation images and compare them with their truth."""
    began = time.perf_counter()
    found = [segmenter.segment(volume).labels for volume, _ in pairs]
    seconds = time.perf_counter() - began
    truth = [annotation.labels for _, annotation in pairs]
    speed = {"mvox_per_s": sum(labels.size for labels in truth) / 1e6 / seconds}
    data = segmenter.card.recipe.data
    if data.kind == "instances":
        return {**score_instances(truth, found).as_figures(), **speed}
    grids = [volume.grid for volume, _ in pairs]
    figures = score_classes(truth, found, data.foreground, grids=grids, regions=data.overlapping or None)
    return {**figures.as_figures(), "mean_per_case": float(np.mean(figures.dice_per_image)), **speed}


def by_slices(segmenter: Segmenter, pairs: list[Labelled], cases: list[Case]) -> dict[str, float]:
    """Return the mean Dice of the classes over slices that training saw labels of, and over those that it did not."""
    found = [segmenter.segment(volume).labels for volume, _ in pairs]
    drawn = [case.labels != UNLABELLED for case in cases]
    figures = {}
    for name, known in (("labelled", True), ("never_labelled", False)):
        at = [labelled == known for labelled in drawn]
        mine = np.concatenate([labels[where] for labels, where in zip(found, at, strict=True)])
        true = np.concatenate([pair[1].labels[where] for pair, where in zip(pairs, at, strict=True)])
        values = range(1, len(segmenter.card.recipe.data.foreground) + 1)
        figures[f"dice_{name}_slices"] = float(
            np.mean([2 * ((mine == v) & (true == v)).sum() / ((mine == v).sum() + (true == v).sum()) for v in values])
        )
    return figures


def show(progress: Progress) -> None:
    """Print the course of the training."""
    if progress.step % 100 == 0:
        figures = " ".join(f"{name} {value:.3f}" for name, value in progress.metrics.items())
        line = f"{progress.step}/{progress.steps} {progress.seconds:.0f} s loss {progress.loss:.4f} {figures}"
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train one arm and score it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--recipe", help="instead of the arm's own")
    parser.add_argument("--score", action="store_true", help="score the model that is in --work, without training")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / ".work")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    recipe = read_recipe(find_recipe(options.recipe or RECIPES[options.arm.partition("-")[0]]))
    recipe = recipe.replace("train", minutes=options.minutes, epochs=None)
    if "planes" in options.arm:
        recipe = recipe.replace("data", slices="z")
    known, unseen = read_set(options.arm, recipe)
    recipe = plan(recipe, [volume.grid for volume, _ in known])
    kept, held = hold_out(known, recipe.data.validation, recipe.train.seed)
    draw = np.random.default_rng(0)
    cases, tuned = (make_cases(options.arm, pairs, recipe, draw) for pairs in (kept, held))
    path = options.work / f"{options.arm}.safetensors"
    if not options.score:
        Segmenter(train(cases, tuned, recipe, callbacks=TrainCallbacks(show))).save(path)
    segmenter = load(path)
    minutes = (time.perf_counter() - began) / 60
    row = {"arm": options.arm, "minutes": round(minutes, 1), **score(segmenter, unseen)}
    if "slices" in options.arm and recipe.data.exclusive:
        row |= by_slices(segmenter, kept, cases)
    (options.work / f"{options.arm}.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
    print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}))


if __name__ == "__main__":
    main()
