"""Labelling against scikit-image's watershed, on the same maps, in one thread: megapixels per second and AP.

    python benchmarks/labelling.py [--model nuclei]

The maps are those that the model predicts for ``../shared/data/nuclei2d/val``.
"""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from skimage.measure import label as components
from skimage.measure import regionprops_table
from skimage.morphology import h_maxima
from skimage.segmentation import relabel_sequential, watershed

from biounet.api import load
from biounet.core import PROBABILITY_MAX, LabelSettings, find_runs
from biounet.files import read_volume
from biounet.labelling import ascent, label_objects
from biounet.labelling.label import _neighbour_offsets, _padded_frame
from biounet.preprocessing import scale_intensities
from biounet.segmentation import predict_image
from biounet.tiling import block_lattice

DATA = Path(__file__).parents[2] / "shared/data/nuclei2d/val"
IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)
ROUNDS = 5


def read_maps(model):
    """Give foreground, contour and distance of each image as the network predicts them, and the truth."""
    segmenter = load(model)
    predictor, card = segmenter.predictor, segmenter.card
    for path in sorted((DATA / "images").iterdir()):
        image = scale_intensities(read_volume(path).array, card.recipe.normalise).image
        yield tuple(predict_image(image, predictor)), tifffile.imread(DATA / "labels" / path.name).astype(np.int64)


def seeds_and_watershed(maps, threshold, weight=0.0, height=None):
    """Return the bare watershed: no smallest size, no holes, ids with gaps."""
    foreground, contour, distance = maps
    surface = distance.astype(np.int32)
    if weight:
        surface = surface - (weight * contour).astype(np.int32)
    peaks = (
        surface > threshold * PROBABILITY_MAX
        if height is None
        else h_maxima(distance, int(height * PROBABILITY_MAX)) > 0
    )
    inside = foreground >= 0.5 * PROBABILITY_MAX
    return watershed(-surface, components(peaks & inside, connectivity=2), mask=inside)


def same_with_skimage(maps, min_size, **choice):
    """Return what `label_objects` returns: holes filled, small objects gone, ids 1..N, mean probability of each."""
    labels = seeds_and_watershed(maps, **choice)
    sizes = np.bincount(labels.ravel())
    labels[sizes[labels] < min_size] = 0
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            filled = ndimage.binary_fill_holes(labels[box] == number)
            labels[box][filled & (labels[box] == 0)] = number
    labels = relabel_sequential(labels)[0]
    regionprops_table(labels, maps[0], properties=("label", "area", "mean_intensity"))
    return labels


def matches(truth, found):
    """Return true positives, and true positives + false positives + false negatives, at each of `IOUS`."""
    pairs = truth.ravel() * (int(found.max()) + 1) + found.ravel()
    table = np.bincount(pairs, minlength=(int(truth.max()) + 1) * (int(found.max()) + 1))
    table = table.reshape(int(truth.max()) + 1, -1)
    in_truth, in_found = table.sum(1), table.sum(0)
    union = in_truth[1:, None] + in_found[None, 1:] - table[1:, 1:]
    best = (table[1:, 1:] / np.maximum(union, 1)).max(axis=1, initial=0)
    hits = np.array([(best > iou).sum() for iou in IOUS])
    return np.stack((hits, (in_truth[1:] > 0).sum() + (in_found[1:] > 0).sum() - hits))


def mean_ap(data, function):
    hits, every = sum(matches(truth, function(maps)) for maps, truth in data)
    return (hits / np.maximum(every, 1)).mean()


def nanoseconds(data, functions):
    """Return the least processor time of each function per pixel; they take turns, to see the same machine."""
    pixels = sum(truth.size for _, truth in data)
    times = np.zeros((ROUNDS + 1, len(functions)))
    for turn, (n, function) in product(range(ROUNDS + 1), enumerate(functions)):
        start = time.process_time()
        for maps, _ in data:
            function(maps)
        times[turn, n] = time.process_time() - start
    return times[1:].min(axis=0) / pixels * 1e9


def basins_only(maps):
    """Find basins only, the counterpart of the flooding."""
    foreground, _, distance = maps
    block = block_lattice(foreground.shape, max(foreground.shape))[0]
    inside, frame = _padded_frame(block)
    surface = ascent.mask_surface(
        distance.reshape(inside), foreground.reshape(inside), np.uint16(PROBABILITY_MAX // 2), frame[2], frame[0]
    )
    parent = np.zeros(surface.size, np.int32)
    runs = find_runs(surface, frame[1])
    ascent.point_uphill(surface.ravel(), runs, _neighbour_offsets(*frame[:2]), frame[0][2], parent)
    ring, roots = np.zeros(0, np.int32), np.empty(surface.size, np.int32)
    ascent.resolve_roots(parent, runs, ring, roots)


def flat_labels(maps, settings):
    return label_objects(*maps, settings).labels.ravel()


def best_of(data, functions):
    scores = {name: mean_ap(data, function) for name, function in functions.items()}
    name = max(scores, key=lambda key: scores[key])
    return name, scores[name], functions[name]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    data = list(read_maps(parser.parse_args().model))
    seeds = {
        f"seeds > {t}, contour {w}": lambda m, t=t, w=w: seeds_and_watershed(m, t, w)
        for t, w in product((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.0, 0.5, 0.8))
    }
    maxima = {f"h-maxima {h}": lambda m, h=h: seeds_and_watershed(m, 0, 0, h) for h in (0.1, 0.2, 0.3)}
    seeds, maxima = (
        {n: (lambda m, f=f: np.where(np.bincount(r := f(m).ravel())[r] < 10, 0, r)) for n, f in floods.items()}
        for floods in (seeds, maxima)
    )
    ascents = {
        f"join {j}, contour {w}": partial(flat_labels, settings=LabelSettings(join=j, contour=w))
        for j, w in product((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85), (0.0, 0.4, 0.8))
    }
    for title, functions in (("watershed", seeds), ("watershed", maxima), ("biounet", ascents)):
        name, score, _ = best_of(data, functions)
        print(f"{title:10} mean AP {score:.4f} at its best of {len(functions)} settings ({name})")
    timed = {
        "biounet, maps to objects": lambda m: label_objects(*m, LabelSettings()),
        "biounet, basins only": basins_only,
        "watershed alone": lambda m: seeds_and_watershed(m, 0.5),
        "h-maxima and watershed": lambda m: seeds_and_watershed(m, 0, 0, 0.1),
        "scikit-image, the same objects": lambda m: same_with_skimage(m, 10, threshold=0.5),
    }
    costs = nanoseconds(data, list(timed.values()))
    for name, cost in zip(timed, costs, strict=True):
        print(f"{name:32} {1e3 / cost:7.1f} Mpx/s   {cost / costs[0]:5.1f} x the time of biounet's objects")


if __name__ == "__main__":
    main()
