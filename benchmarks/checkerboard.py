"""Do results favour even voxels over odd ones: python benchmarks/checkerboard.py [RECIPE ...] [--minutes 2].

A network that works at half resolution writes 2x2(x2) voxels from one feature vector. Each recipe is trained on some
of the real images that it is for, and predicts others. Of the voxels found, ``imbalance`` is the largest difference
between even and odd ones along an axis, as a share of all; ``cells`` is how far the fullest or emptiest of the 4 or 8
places in a cell is from their mean. ``truth`` is the imbalance of the annotation. ``single`` counts found voxels
without a found neighbour, and ``at one place`` is the share of them that the most frequent place in a cell holds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from biounet.core import PROBABILITY_MAX, UNLABELLED, Annotation, Recipe, Volume, find_recipe, read_recipe
from biounet.core.resources import recipes
from biounet.files import ReadOptions, find_pairs, read_annotation, read_volume
from biounet.network import Model
from biounet.segmentation import label_regions
from biounet.training import Case, TrainCallbacks, TrainOptions, make_case, train
from biounet.training.planning import plan
from biounet.training.validation import predict_cases

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
FOLDERS = {
    "nuclei_2d": "nuclei2d",
    "scribbles_2d": "nuclei2d",
    "membranes": "nuclei2d",
    "nuclei_3d": "nuclei3d-embryo",
    "hippocampus": "hippocampus",
}
TRAINED, SCORED = 60, 10  # images, at most
Drawn = tuple[Volume, Annotation]


def read_recipe_data(name: str, recipe: Recipe) -> tuple[list[Drawn], list[Drawn]]:
    """Return annotated images to train on and to score, of the kind that a recipe is for."""
    if name in FOLDERS:
        train_on, score_on = (
            list(read_folder(name, recipe, DATA / FOLDERS[name] / part, count))
            for part, count in (("train", TRAINED), ("val", SCORED))
        )
        return train_on, score_on
    if name == "land_cover":
        pairs = [pair for tile in sorted((DATA / "landcover").iterdir()) for pair in pairs_of(tile, "images", "masks")]
        drawn = [read_drawn(files, label, recipe) for files, label in pairs]
        return drawn[:-9], drawn[-9:]
    folder, label = {"brain_tumour": ("brain-tumour", "tumour"), "lesions": ("ms-lesions", "lesions")}[name]
    cases = sorted(path for path in (DATA / folder).iterdir() if path.is_dir())
    files = [(tuple(case / f"{n}.nii.gz" for n in recipe.data.channels), case / f"{label}.nii.gz") for case in cases]
    drawn = [read_drawn(*each, recipe) for each in files]
    return drawn[:2], drawn[-1:]  # of the lesions there is one case, trained on and scored


def pairs_of(folder: Path, images: str, labels: str) -> Iterator[tuple[tuple[Path, ...], Path]]:
    """Pair the files of two folders by their stems."""
    masks = {path.stem: path for path in (folder / labels).iterdir()}
    for image in sorted((folder / images).iterdir()):
        yield (image,), masks[image.stem]


def read_drawn(files: tuple[Path, ...], label: Path, recipe: Recipe) -> Drawn:
    """Read an image of one file for each channel, or of one file, and its annotation."""
    volume = read_volume(files if len(files) > 1 else files[0], ReadOptions(dims=recipe.data.dims))
    return volume, read_annotation(label, recipe.data, volume.grid)


def read_folder(name: str, recipe: Recipe, folder: Path, count: int) -> Iterator[Drawn]:
    """Read pairs; strokes and lines are made of outlined nuclei."""
    outlined = read_recipe(find_recipe("nuclei_2d")).data if recipe.data.dims == 2 else recipe.data
    for pair in find_pairs(folder / "images", folder / "labels")[:count]:
        volume = read_volume(pair.image, ReadOptions(dims=recipe.data.dims))
        labels = read_annotation(pair.label, outlined, volume.grid).labels
        if name == "membranes":
            labels = lines_of(labels)
        if name == "scribbles_2d":
            labels = strokes_of(labels)
        yield volume, Annotation(labels, recipe.data.kind, volume.grid)


def lines_of(labels: np.ndarray) -> np.ndarray:
    """Return the outer outlines of objects as class 1."""
    grown, shrunk = ndimage.grey_dilation(labels, size=3), ndimage.grey_erosion(labels, size=3)
    return ((grown != labels) | (shrunk != labels)).astype(np.int32)


def strokes_of(labels: np.ndarray) -> np.ndarray:
    """Return a horizontal stroke inside each object, and one on the background below it, as a person would draw."""
    strokes = np.full_like(labels, UNLABELLED)
    away = ndimage.distance_transform_edt(labels == 0) > 3
    strokes[::32][away[::32]] = 0
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            row = (box[0].start + box[0].stop) // 2
            inside = ndimage.binary_erosion(labels[row] == number, iterations=2)
            strokes[row, inside] = 1
    return strokes


def found_by(model: Model, cases: list[Case]) -> Iterator[np.ndarray]:
    """Return where each case has each class, region or any object."""
    recipe = model.card.recipe
    predicted = predict_cases(model.network, cases, recipe, "cpu", model.activation_ranges)
    for case, maps in zip(cases, predicted, strict=True):
        if recipe.data.kind == "instances":
            yield maps[0][tuple(slice(size) for size in case.labels.shape)] >= recipe.label.foreground * PROBABILITY_MAX
            continue
        labels = label_regions(maps, case.labels.shape, recipe.data, recipe.label)
        yield from (np.isin(labels, values) for values in recipe.data.label_values.values())


def places(mask: np.ndarray) -> np.ndarray:
    """Count the voxels of a mask at each of the places in a cell of 2x2(x2)."""
    return np.array([mask[tuple(slice(at, None, 2) for at in place)].sum() for place in cells(mask.ndim)])


def cells(dims: int) -> Iterator[tuple[int, ...]]:
    """Return the places in a cell."""
    return itertools.product(range(2), repeat=dims)


def imbalance(counts: np.ndarray, dims: int) -> float:
    """Return the largest difference between even and odd voxels along an axis, as a share of all."""
    cube = counts.reshape((2,) * dims)
    sides = [np.moveaxis(cube, axis, 0).reshape(2, -1).sum(1) for axis in range(dims)]
    return float(max(abs(even - odd) / max(even + odd, 1) for even, odd in sides))


def singles(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask of which no neighbour belongs to it."""
    kernel = np.ones((3,) * mask.ndim, np.int32)
    return mask & (ndimage.convolve(mask.astype(np.int32), kernel, mode="constant") == 1)


def main() -> None:
    """Train each recipe and print a row of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=sorted(recipes()))
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| recipe | steps | minutes | figure | imbalance | cells | truth | voxels | single | at one place |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.recipes:
        recipe = read_recipe(find_recipe(name)).replace("train", minutes=options.minutes, epochs=None)
        known, unseen = read_recipe_data(name, recipe)
        recipe = plan(recipe, [volume.grid for volume, _ in known])
        cases, held = ([make_case(*drawn, recipe) for drawn in part] for part in (known, unseen))
        began, steps = time.perf_counter(), []
        model = train(
            cases,
            held,
            recipe,
            TrainOptions(device="cpu"),
            callbacks=TrainCallbacks(lambda p, steps=steps: steps.append(p.step)),
        )
        minutes = (time.perf_counter() - began) / 60
        masks, dims = list(found_by(model, held)), recipe.data.dims
        counts = np.sum([places(mask) for mask in masks], axis=0)
        alone = np.sum([places(singles(mask)) for mask in masks], axis=0)
        truth = np.sum([places(case.labels > 0) for case in held], axis=0)
        figure = next((f"{n} {model.card.validation[n]:.3f}" for n in ("ap", "dice") if n in model.card.validation), "")
        uneven = np.abs(counts / max(counts.mean(), 1e-9) - 1).max()
        shares = " | ".join(f"{share:.2%}" for share in (imbalance(counts, dims), uneven, imbalance(truth, dims)))
        most = alone.max() / max(alone.sum(), 1)
        row = f"{steps[-1]} | {minutes:.1f} | {figure} | {shares} | {counts.sum()} | {alone.sum()} | {most:.0%}"
        print(f"| `{name}` | {row} |", flush=True)


if __name__ == "__main__":
    main()
