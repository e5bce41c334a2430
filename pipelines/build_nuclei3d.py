"""Train the built-in model ``nuclei3d`` again: python pipelines/build_nuclei3d.py --minutes 60.

The training data are synthetic stacks only, so that the weights can be distributed. After an interruption, the same
command with ``--resume`` continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from biounet.core import Annotation, Grid, Recipe, Volume, read_recipe
from biounet.network import load_model, save_model
from biounet.synthetic import draw_stack_settings, make_stack
from biounet.training import Case, Progress, TrainCallbacks, TrainOptions, make_case, retune, train

HERE = Path(__file__).parent
# One network for all voxel sizes along z: z is pooled once less, and stacks are not resampled.
NETWORK = {"fold": (1, 2, 2), "pools": ((1, 2, 2), (2, 2, 2)), "kernels": ((3, 3, 3),) * 3}
PATCH = (24, 64, 64)


def synthetic_cases(seeds: range, recipe: Recipe) -> Iterator[Case]:
    """Yield stacks of all voxel sizes, densities and noise levels."""
    for seed in seeds:
        settings = draw_stack_settings(seed)
        image, labels = make_stack(seed, settings)
        grid = Grid(settings.shape, settings.spacing, "um")
        yield make_case(Volume(image[None], grid), Annotation(labels, "instances", grid), recipe)


def show(progress: Progress) -> None:
    """Print one line for every 50 steps."""
    if progress.step % 50 == 0:
        ap = progress.metrics.get("ap", float("nan"))
        line = f"step {progress.step}/{progress.steps} {progress.seconds:.0f} s loss {progress.loss:.4f} AP {ap:.4f}"
        print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--stacks", type=int, default=120)
    parser.add_argument("--out", type=Path, default=HERE.parent / "biounet" / "models" / "nuclei3d.safetensors")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--card-only", action="store_true", help="keep the weights of --out and only tune thresholds")
    options = parser.parse_args()

    recipe = read_recipe(HERE / "nuclei_3d.toml").replace("network", **NETWORK)
    recipe = recipe.replace("train", minutes=options.minutes, epochs=None, patch=PATCH, ema_decay=0.998)
    purpose = "nuclei in 3D fluorescence stacks, learned from synthetic stacks: a start for a few minutes of training"
    recipe = recipe.model_copy(update={"name": "nuclei3d", "purpose": purpose})
    split = options.stacks // 10
    validation = list(synthetic_cases(range(split), recipe))
    cases = list(synthetic_cases(range(split, options.stacks), recipe))
    if options.card_only:
        save_model(retune(load_model(options.out), cases, validation, recipe.label), options.out)
        return
    checkpoint = options.out.with_suffix(".checkpoint.pt")
    run = TrainOptions(checkpoint=checkpoint, resume=options.resume)
    model = train(cases, validation, recipe, run, callbacks=TrainCallbacks(show))
    save_model(model, options.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{options.out}: {model.card.validation}", file=sys.stderr)


if __name__ == "__main__":
    main()
