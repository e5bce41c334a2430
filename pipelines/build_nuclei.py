"""Train the built-in model ``nuclei`` again: python pipelines/build_nuclei.py --data ../shared/data --minutes 60.

It learns from CC0 images (BBBC038 and BBBC039, the ``train`` folders only) and from fields that biounet.synthetic
makes, so that the weights are free to ship. Thresholds are tuned on images held out of the same folders. Interrupted,
the same command with ``--resume`` goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from biounet.api import Segmenter, volume_from_array
from biounet.core import Annotation, Recipe, read_recipe
from biounet.files import find_pairs
from biounet.network import load_model, save_model
from biounet.synthetic import draw_field_settings, make_field
from biounet.training import (
    Case,
    Progress,
    TrainOptions,
    hash_training_files,
    hold_out,
    load_cases,
    make_case,
    retune,
    train,
    training_statistics,
)

SETS = ("nuclei2d", "nuclei2d-u2os")
HERE = Path(__file__).parent
FEW = 5  # objects that are too few for a share


def most_unsure(segmenter: Segmenter, images: Iterable[Path]) -> float:
    """Return the largest share of objects in an image that are as uncertain as wrong ones: no reason to flag it."""
    doubtful = segmenter.card.validation["doubtful_below"]
    tables = [segmenter.segment(image).columns for image in images]
    return max(float(np.mean(table["confidence"] < doubtful)) for table in tables if len(table["label"]) >= FEW)


def synthetic_cases(count: int, recipe: Recipe) -> Iterator[Case]:
    """Make fields of all sizes, densities and brightnesses; one in five with inverted contrast."""
    for seed in range(count):
        image, labels = make_field(seed, draw_field_settings(seed, transmitted=0.2))
        volume = volume_from_array(image, 2)
        yield make_case(volume, Annotation(labels, "instances", volume.grid), recipe)


def show(progress: Progress) -> None:
    """Print one line for every 50 steps."""
    if progress.step % 50 == 0:
        ap = progress.figures.get("ap", float("nan"))
        line = f"step {progress.step}/{progress.steps} {progress.seconds:.0f} s loss {progress.loss:.4f} AP {ap:.4f}"
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--recipe", type=Path, default=HERE / "nuclei_2d.toml")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--synthetic", type=int, default=150)
    parser.add_argument("--out", type=Path, default=HERE.parent / "biounet" / "models" / "nuclei.safetensors")
    parser.add_argument("--from", dest="start", type=Path, help="go on from this model, with a third of the rate")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--card-only", action="store_true", help="keep the weights of --out: only tune again")
    parser.add_argument("--looks-only", action="store_true", help="keep all else of --out: only look again")
    options = parser.parse_args()

    recipe = read_recipe(options.recipe).replace("train", minutes=options.minutes, epochs=None, ema_decay=0.998)
    # A model for everybody's images has to see more sizes than the images that it learns from, and dark nuclei too.
    recipe = recipe.replace("augment", scale=1.7, invert=0.1)
    purpose = "nuclei in fluorescence images, tiny to large, sparse to crowded; dark on bright too"
    recipe = recipe.model_copy(update={"name": "nuclei", "purpose": purpose})
    pairs = [pair for name in SETS for pair in find_pairs(*(options.data / name / "train" / part for part in PARTS))]
    pairs, held = hold_out(pairs, recipe.data.validation, recipe.train.seed)
    cases = [*load_cases(pairs, recipe), *synthetic_cases(options.synthetic, recipe)]
    if options.looks_only:
        there = load_model(options.out)
        looks = training_statistics([*cases, *load_cases(held, recipe)], recipe)
        real = [pair.image for pair in (*pairs, *held)]  # the tiny ones among the fields leave any network unsure
        looks["training_ranges"]["unsure"] = (0.0, most_unsure(Segmenter(there), real))
        save_model(replace(there, card=there.card.model_copy(update=looks), file=""), options.out)
        return
    if options.card_only:
        there = load_model(options.out)
        save_model(retune(there, cases, list(load_cases(held, recipe)), recipe.label), options.out)
        return
    checkpoint = options.out.with_suffix(".checkpoint.pt")
    run = TrainOptions(checkpoint=checkpoint, resume=options.resume, report=show)
    start = load_model(options.start) if options.start else None
    model = train(cases, list(load_cases(held, recipe)), recipe, run, start)
    card = model.card.model_copy(update={"fingerprint": hash_training_files([*pairs, *held])})
    save_model(replace(model, card=card), options.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{options.out}: {card.validation}", file=sys.stderr)


PARTS = ("images", "labels")

if __name__ == "__main__":
    main()
