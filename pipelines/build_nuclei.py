"""Train the built-in model ``nuclei`` again: python pipelines/build_nuclei.py --data ../shared/data --minutes 60.

The training data are CC0 images (BBBC038 and BBBC039, the ``train`` folders only) and synthetic fields, so that the
weights can be distributed. Thresholds are tuned on images held out of the same folders. After an interruption, the same
command with ``--resume`` continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from biounet.api import volume_from_array
from biounet.core import Annotation, Recipe, read_recipe
from biounet.files import find_pairs
from biounet.network import Model, load_model, save_model
from biounet.synthetic import draw_field_settings, make_field
from biounet.training import (
    Case,
    Progress,
    TrainCallbacks,
    TrainOptions,
    found_statistics,
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


def with_looks(model: Model, real: Sequence[Case], synthetic: Sequence[Case]) -> Model:
    """Return a model with the statistics of its training images on its card.

    Of synthetic images it is how they look, and not what is found in them: in the tiniest that is never much.
    """
    found = [*found_statistics(model, real), *({} for _ in synthetic)]
    statistics = training_statistics([*real, *synthetic], found)
    return replace(model, card=model.card.model_copy(update=statistics), file_sha256="")


def synthetic_cases(count: int, recipe: Recipe) -> Iterator[Case]:
    """Yield fields of all sizes, densities and brightnesses, one in five in transmitted light."""
    for seed in range(count):
        image, labels = make_field(seed, draw_field_settings(seed, transmitted=0.2))
        volume = volume_from_array(image, 2)
        yield make_case(volume, Annotation(labels, "instances", volume.grid), recipe)


def show(progress: Progress) -> None:
    """Print one line for every 50 steps."""
    if progress.step % 50 == 0:
        ap = progress.metrics.get("ap", float("nan"))
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
    parser.add_argument(
        "--from", dest="start", type=Path, help="continue from this model, with a third of the learning rate"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--card-only", action="store_true", help="keep the weights of --out and only tune thresholds")
    parser.add_argument(
        "--looks-only",
        action="store_true",
        help="keep the rest of --out and only measure the statistics of the training images",
    )
    options = parser.parse_args()

    recipe = read_recipe(options.recipe).replace("train", minutes=options.minutes, epochs=None, ema_decay=0.998)
    # A general model needs more sizes than the training images have, and dark nuclei.
    recipe = recipe.replace("augment", scale=1.7, invert=0.1)
    purpose = "nuclei in fluorescence images, tiny to large, sparse to crowded; dark on bright too"
    recipe = recipe.model_copy(update={"name": "nuclei", "purpose": purpose})
    pairs = [pair for name in SETS for pair in find_pairs(*(options.data / name / "train" / part for part in PARTS))]
    pairs, held_out = hold_out(pairs, recipe.data.validation, recipe.train.seed)
    real, synthetic = list(load_cases(pairs, recipe)), list(synthetic_cases(options.synthetic, recipe))
    cases, validation = [*real, *synthetic], list(load_cases(held_out, recipe))
    if options.looks_only:
        save_model(with_looks(load_model(options.out), [*real, *validation], synthetic), options.out)
        return
    if options.card_only:
        save_model(retune(load_model(options.out), cases, validation, recipe.label), options.out)
        return
    checkpoint = options.out.with_suffix(".checkpoint.pt")
    run = TrainOptions(checkpoint=checkpoint, resume=options.resume)
    start = load_model(options.start) if options.start else None
    model = train(cases, validation, recipe, run, start, TrainCallbacks(show))
    model = with_looks(model, [*real, *validation], synthetic)
    card = model.card.model_copy(update={"fingerprint": hash_training_files([*pairs, *held_out])})
    save_model(replace(model, card=card), options.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{options.out}: {card.validation}", file=sys.stderr)


PARTS = ("images", "labels")

if __name__ == "__main__":
    main()
