"""Score label files of any tool on volumes with biounet's own scores and print Markdown rows.

    python benchmarks/peers/volumes_side_by_side.py ARM --of NAME MINUTES FOLDER [--of NAME MINUTES FOLDER ...]

Arms: ``nuclei`` (nuclei3d-embryo/val), ``hippocampus`` (its val) and ``tumour-N`` (case N = 0, 1, 2 of brain-tumour).
FOLDER holds ``<case>_labels.tif`` or ``.nii.gz`` of each of them, and ``measured.json`` if speed was measured.
Run it with biounet's Python.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))

from volumes import DATA, RECIPES, read_pair

from biounet.core import find_recipe, read_recipe
from biounet.evaluation import score_classes, score_instances
from biounet.files import read_labels

SHOWN = ("dice", "hd95", "nsd")
Score = Callable[[list[np.ndarray]], dict[str, float]]


def truth_of(arm: str) -> tuple[list[str], Score]:
    """Return the names of an arm's cases, and a function from their label images to figures."""
    kind, _, index = arm.partition("-")
    recipe = read_recipe(find_recipe(RECIPES[kind]))
    if kind == "tumour":
        case = sorted(path for path in (DATA / "brain-tumour").iterdir() if path.is_dir())[int(index)]
        names = [case.name]
        pairs = [read_pair(tuple(case / f"{c}.nii.gz" for c in recipe.data.channels), case / "tumour.nii.gz", recipe)]
    else:
        folder = DATA / {"nuclei": "nuclei3d-embryo", "hippocampus": "hippocampus"}[kind] / "val"
        files = sorted((folder / "labels").iterdir())
        names = [path.name.partition(".")[0] for path in files]
        pairs = [read_pair((folder / "images" / path.name,), path, recipe) for path in files]
    truth, grids = [annotation.labels for _, annotation in pairs], [volume.grid for volume, _ in pairs]

    def score(found: list[np.ndarray]) -> dict[str, float]:
        if recipe.data.kind == "instances":
            return score_instances(truth, found).as_figures()
        regions = recipe.data.overlapping or None
        figures = score_classes(truth, found, recipe.data.foreground, grids=grids, regions=regions)
        shown = {name: value for name, value in figures.as_figures().items() if name.startswith(SHOWN)}
        return {**shown, "dice_per_case": float(np.mean(figures.dice_per_image))}

    return names, score


def find_labels(folder: Path, name: str) -> Path:
    """Return the label file of a case."""
    for path in (folder / f"{name}_labels{suffix}" for suffix in (".nii.gz", ".tif")):
        if path.exists():
            return path
    sys.exit(f"{folder} has no labels of {name}")


def speed(folder: Path) -> dict[str, float]:
    """Return what was measured while the labels were made, from image file to label file."""
    measured = folder / "measured.json"
    if not measured.exists():
        return {}
    record = json.loads(measured.read_text())
    return {"Mvox/s": record["mpx_per_s_without_table"], "peak GB": record["peak_memory_gb"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm")
    parser.add_argument("--of", nargs=3, action="append", required=True, metavar=("NAME", "MINUTES", "FOLDER"))
    options = parser.parse_args()
    names, score = truth_of(options.arm)
    rows = []
    for tool, minutes, place in options.of:
        folder = Path(place)
        found = [read_labels(find_labels(folder, name)) for name in names]
        rows.append({"tool": tool, "minutes": minutes, **score(found), **speed(folder)})
    columns = list(dict.fromkeys(column for row in rows for column in row))
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        print(f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else cell for cell in cells)} |")


if __name__ == "__main__":
    main()
