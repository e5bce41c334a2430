"""Does --minutes hold: python benchmarks/budget.py [--minutes 2 10] [--arms nuclei_2d fine-tuned nuclei_3d].

Runs ``biounet train`` as a user does, while a second process keeps every core busy for half of the time, in turns of
random length. Prints one row of a Markdown table for each run: wall time of the command from start to exit, and how far
it is from the budget. ``resumed`` is killed with SIGTERM at a random moment and gone on with ``--resume``; its time is
that of both runs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from biounet.network import read_card

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
ARMS = {
    "nuclei_2d": ("nuclei_2d", "nuclei2d/train/images", "nuclei2d/train/labels", []),
    "fine-tuned": ("nuclei_2d", "nuclei2d-u2os/train/images", "nuclei2d-u2os/train/labels", ["--from", "nuclei"]),
    "nuclei_3d": ("nuclei_3d", "nuclei3d-embryo/train/images", "nuclei3d-embryo/train/labels", ["--from", "nuclei3d"]),
    "hippocampus": ("hippocampus", "hippocampus/train/images", "hippocampus/train/labels", []),
    "resumed": ("nuclei_2d", "nuclei2d-u2os/train/images", "nuclei2d-u2os/train/labels", []),
}
TURNS = (2.0, 30.0)  # seconds


def disturb(seed: int) -> None:
    """Compute for ever, and rest as long as it computed."""
    draw = random.Random(seed)
    while True:
        turn = draw.uniform(*TURNS)
        until = time.perf_counter() + turn
        while time.perf_counter() < until:
            sum(n * n for n in range(1000))
        time.sleep(turn)


@dataclass(frozen=True)
class Took:
    """Wall time of a command, and what became of it."""

    seconds: float
    code: int


def run(command: list[str], kill_after: float | None = None) -> Took:
    """Run a command, and ask it to stop after some seconds."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    if kill_after is not None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(kill_after)
        process.send_signal(signal.SIGTERM)
    code = process.wait()
    return Took(time.perf_counter() - began, code)


def measure(arm: str, minutes: float, out: Path) -> Took:
    """Train as an arm has it; return the wall time of all its commands."""
    recipe, images, labels, more = ARMS[arm]
    command = [sys.executable, "-c", "from biounet.cli import main; main()", "train", recipe, "--images"]
    command += [str(DATA / images), "--labels", str(DATA / labels), "--minutes", str(minutes), "-o", str(out), *more]
    if arm != "resumed":
        return run([*command, "--quiet"])
    first = run([*command, "--quiet"], random.Random(0).uniform(0.4, 0.6) * 60 * minutes)
    second = run([*command, "--quiet", "--resume"])
    return Took(first.seconds + second.seconds, second.code)


def main() -> None:
    """Print a row for each arm and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="*", default=[2.0, 10.0])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--alone", action="store_true", help="without the second process")
    options = parser.parse_args()
    noise = [multiprocessing.Process(target=disturb, args=(n,), daemon=True) for n in range(os.cpu_count() or 1)]
    for process in noise[: 0 if options.alone else None]:
        process.start()
    print("| arm | budget, min | took, min | off | exit code | steps | figure |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as room:
        for arm in options.arms:
            for minutes in options.minutes:
                out = Path(room) / f"{arm}.safetensors"
                took = measure(arm, minutes, out)
                card = read_card(out)
                figure = next((f"{n} {card.validation[n]:.3f}" for n in ("ap", "dice") if n in card.validation), "")
                off = took.seconds / 60 / minutes - 1
                row = f"{minutes:g} | {took.seconds / 60:.2f} | {off:+.1%} | {took.code}"
                print(
                    f"| `{arm}` | {row} | {card.history[-1]['step'] if card.history else 0:.0f} | {figure} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
