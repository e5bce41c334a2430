"""Train the built-in model ``nuclei3d`` again: python pipelines/build_nuclei3d.py --minutes 60.

It learns from stacks that biounet.synthetic.volumes makes and from nothing else, so that the weights are free to ship.
Interrupted, the same command with ``--resume`` goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from biounet.core import Annotation, Grid, Recipe, Volume, read_recipe
from biounet.network import load_model, save_model
from biounet.synthetic import draw_stack_settings, make_stack
from biounet.training import Case, Progress, TrainOptions, make_case, retune, train

HERE = Path(__file__).parent
# One network for stacks of all steps along z: what is coarse is pooled once less, and nothing is resampled.
NETWORK = {"fold": (1, 2, 2), "pools": ((1, 2, 2), (2, 2, 2)), "kernels": ((3, 3, 3),) * 3}
PATCH = (24, 64, 64)


def synthetic_cases(seeds: range, recipe: Recipe) -> Iterator[Case]:
    """Make stacks of all sizes, steps, densities and noise levels."""
    for seed in seeds:
        settings = draw_stack_settings(seed)
        image, labels = make_stack(seed, settings)
        grid = Grid(settings.shape, settings.spacing, "um")
        yield make_case(Volume(image[None], grid), Annotation(labels, "instances", grid), recipe)


def show(progress: Progress) -> None:
    """Print one line for every 50 steps."""
    if progress.step % 50 == 0:
        ap = progress.figures.get("ap", float("nan"))
        line = f"step {progress.step}/{progress.steps} {progress.seconds:.0f} s loss {progress.loss:.4f} AP {ap:.4f}"
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--stacks", type=int, default=120)
    parser.add_argument("--out", type=Path, default=HERE.parent / "biounet" / "models" / "nuclei3d.safetensors")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--card-only", action="store_true", help="keep the weights of --out: only tune again")
    options = parser.parse_args()

    recipe = read_recipe(HERE / "nuclei_3d.toml").replace("network", **NETWORK)
    recipe = recipe.replace("train", minutes=options.minutes, epochs=None, patch=PATCH, ema_decay=0.998)
    purpose = "nuclei in 3D fluorescence stacks, learned from synthetic stacks: a start for a few minutes of training"
    recipe = recipe.model_copy(update={"name": "nuclei3d", "purpose": purpose})
    held = options.stacks // 10
    tuned = list(synthetic_cases(range(held), recipe))
    cases = list(synthetic_cases(range(held, options.stacks), recipe))
    if options.card_only:
        save_model(retune(load_model(options.out), cases, tuned, recipe.label), options.out)
        return
    checkpoint = options.out.with_suffix(".checkpoint.pt")
    run = TrainOptions(checkpoint=checkpoint, resume=options.resume, report=show)
    model = train(cases, tuned, recipe, run)
    save_model(model, options.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{options.out}: {model.card.validation}", file=sys.stderr)


if __name__ == "__main__":
    main()
