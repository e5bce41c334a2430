"""A training under kills: python benchmarks/kills_training.py [--kills 100] [--epochs 250].

Trains a small model on synthetic fields, once undisturbed and once killed with SIGKILL at random moments; it is resumed
until it is done. Each time at least one epoch is waited for, or nothing would ever be done. After every kill the
checkpoint has to load, and the weights have to be those of the undisturbed run, bit for bit. Each training is
a process of its own, forked before torch starts any thread.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from biounet.api import volume_from_array
from biounet.core import Annotation, BiounetError, Recipe, find_recipe, read_recipe
from biounet.network import build_network, load_model, save_model
from biounet.synthetic import draw_field_settings, make_field
from biounet.training import Case, TrainOptions, make_case, train
from biounet.training.checkpoint import initial_state, load_checkpoint
from biounet.training.patches import fit_patch

TRAIN = {"patch": 64, "batch": 2, "steps_per_epoch": 5, "minutes": None}


def make_cases(count: int, recipe: Recipe) -> list[Case]:
    """Make annotated fields."""
    cases = []
    for seed in range(count):
        image, labels = make_field(seed, draw_field_settings(seed))
        volume = volume_from_array(image, 2)
        cases.append(make_case(volume, Annotation(labels, "instances", volume.grid), recipe))
    return cases


def start(cases: list[Case], recipe: Recipe, out: Path) -> int:
    """Train in a child process; return its number."""
    child = os.fork()
    if not child:
        run = TrainOptions(device="cpu", workers=0, checkpoint=out.with_suffix(".checkpoint.pt"), resume=True)
        save_model(train(cases[2:], cases[:2], recipe, run), out)
        os._exit(0)
    return child


def loads(recipe: Recipe, cases: list[Case], path: Path) -> bool:
    """Whether training can continue from a checkpoint."""
    fitted = fit_patch(recipe, cases[2:], build_network(recipe).stride)
    try:
        load_checkpoint(initial_state(fitted, None, torch.device("cpu")), path, fitted)
    except BiounetError as error:
        print(error)
        return False
    return True


def wait_for_epoch(child: int, checkpoint: Path) -> None:
    """Wait until a checkpoint is written, or the process has ended."""
    before = stamp(checkpoint)
    while stamp(checkpoint) == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.002)


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def main() -> None:
    """Print the figures; exit 1 where the checkpoint did not load or the weights differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=250)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_recipe(find_recipe("nuclei_2d")).replace("network", widths=(8, 16))
    recipe = recipe.replace("train", **TRAIN, epochs=options.epochs)
    cases, draw = make_cases(6, recipe), random.Random(0)
    with tempfile.TemporaryDirectory() as room:
        whole, killed = Path(room) / "whole.safetensors", Path(room) / "killed.safetensors"
        began = time.perf_counter()
        os.waitpid(start(cases, recipe, whole), 0)
        length = time.perf_counter() - began
        kills = loaded = 0
        checkpoint = killed.with_suffix(".checkpoint.pt")
        while not killed.exists():
            child = start(cases, recipe, killed)
            if kills < options.kills:
                wait_for_epoch(child, checkpoint)
                time.sleep(draw.uniform(0, 2 * length / options.epochs))
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == signal.SIGKILL:
                kills += 1
                loaded += loads(recipe, cases, checkpoint)
        weights = [load_model(path).network.state_dict() for path in (whole, killed)]
    same = all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    print("| kills | the checkpoint loaded | weights of the unbroken run |\n|---|---|---|")
    print(f"| {kills} | {loaded} | {'the same bits' if same else 'DIFFERENT'} |")
    raise SystemExit(0 if same and loaded == kills else 1)


if __name__ == "__main__":
    main()
