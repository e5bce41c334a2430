"""Whether `check` reports no problem exactly where `train` runs, on many generated data sets.

python benchmarks/check_and_train.py [--folders 300] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import biounet
from biounet.core import BiounetError
from biounet.training import check_data
from support.data_folders import DataFolder, make_data_folder


def train(folder: DataFolder) -> BiounetError | None:
    """Return the error that a training of one epoch ends with."""
    try:
        biounet.train(folder.recipe, folder.images, folder.labels, validation=folder.validation, options=folder.options)
    except BiounetError as error:
        return error
    return None


def main() -> None:
    """Print how many data sets both accept, both refuse, and on which they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    began = time.perf_counter()
    for seed in range(options.seed, options.seed + options.folders):
        with tempfile.TemporaryDirectory() as room:
            folder = make_data_folder(Path(room), seed)
            problems = check_data(
                folder.images, folder.labels, folder.recipe, folder.options, folder.validation
            ).problems
            error = train(folder)
        agree = bool(problems) == (error is not None)
        counts[("both refuse" if error else "both accept") if agree else "contradiction"] += 1
        if not agree:
            print(f"seed {seed}, {folder.what}\n  check: {problems}\n  train: {error}")
    shown = ", ".join(f"{name} {counts[name]}" for name in ("both accept", "both refuse", "contradiction"))
    print(f"{options.folders} folders in {time.perf_counter() - began:.0f} s: {shown}")


if __name__ == "__main__":
    main()
