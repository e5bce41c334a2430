"""Exported models against biounet: python benchmarks/onnx_models.py [--edge PYTHON].

For each built-in model on real images, in float32 and in 8-bit integers, on one core: seconds of computing from an
image in memory to probabilities, in onnxruntime and in biounet, which take turns and of which the best of the repeats
counts; how far the probabilities are apart; and what becomes of the objects when both are labelled by biounet. An
object differs if the other has none that overlaps it with an IoU of at least .9. ``--edge`` names an interpreter that
has numpy and onnxruntime only, which runs ``examples/onnx_count.py`` on ``nuclei2d/val``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accuracy import dense_labels, pairs_of

from biounet.api import load
from biounet.core import PROBABILITY_MAX
from biounet.evaluation import match_objects, score_instances
from biounet.files import ReadOptions, read_volume
from biounet.labelling import label_objects
from biounet.model_export import open_session, run_session
from biounet.network import model_predictor
from biounet.preprocessing import scale_intensities
from biounet.segmentation import predict_image

ROOT = Path(__file__).parents[1]
REPEATS = 2
SETS = {"nuclei": "nuclei2d/val", "nuclei3d": "nuclei3d-embryo/val"}


def seconds_of_children() -> float:
    """Return the seconds that processes started from here have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def labels_of(maps: np.ndarray, card) -> np.ndarray:
    """Return the objects of probabilities 0..65535, of images without a pixel size."""
    return label_objects(*maps, card.label.model_copy(update={"min_size_unit": "px"})).labels


def differing(own: np.ndarray, other: np.ndarray) -> int:
    """Return how many objects of one label image have no counterpart in the other."""
    overlaps = match_objects(own, other)
    return int(own.max()) - int((overlaps.iou >= 0.9).sum())


def compare(name: str, kind: str, folder: Path) -> str:
    """Return a row of the table."""
    model = load(name).model
    plain = model if kind == "onnx-int8" else replace(model, activation_ranges={})
    session = open_session(load(name).export(kind, folder / f"{name}-{kind}.onnx").path)
    predictor, pairs = model_predictor(plain, "cpu"), pairs_of(SETS[name])
    images = [read_volume(pair.image, ReadOptions(dims=model.network.dims)).array for pair in pairs]
    ways = {
        "own": lambda image: predict_image(scale_intensities(image, model.card.recipe.normalise).image, predictor),
        "onnx": lambda image: np.rint(run_session(session, image) * PROBABILITY_MAX).astype(np.uint16),
    }
    seconds, maps = dict.fromkeys(ways, np.inf), {}
    for _ in range(REPEATS + 1):  # the first one warms up
        spent = dict.fromkeys(ways, 0.0)
        for at, image in enumerate(images):
            for way, predict in ways.items():
                began = time.process_time()
                maps[way, at] = predict(image)
                spent[way] += time.process_time() - began
        seconds = {way: min(seconds[way], spent[way]) for way in ways}
    found = {way: [labels_of(maps[way, at], model.card) for at in range(len(images))] for way in ways}
    apart = [np.abs(maps["own", at].astype(int) - maps["onnx", at]) / PROBABILITY_MAX for at in range(len(images))]
    counts = {way: sum(int(labels.max()) for labels in found[way]) for way in ways}
    truth = [dense_labels(pair, model.card.recipe.data) for pair in pairs]
    ap = {way: score_instances(truth, found[way]).as_figures()["ap50"] for way in ways}
    differ = sum(differing(own, other) for own, other in zip(found["own"], found["onnx"], strict=True))
    mean, largest = np.mean([each.mean() for each in apart]), max(each.max() for each in apart)
    size = sum(image[0].size for image in images) / 1e6
    return (
        f"| `{name}` {kind} | {size / seconds['onnx']:.2f} | {seconds['onnx'] / seconds['own']:.2f} | {mean:.1e} |"
        f" {largest:.1e} | {counts['onnx']} / {counts['own']} | {differ} | {ap['onnx']:.4f} / {ap['own']:.4f} |"
    )


def run_example(python: str, folder: Path) -> None:
    """Run the example on `nuclei2d/val` and compare its counts with those of biounet."""
    segmenter = load("nuclei")
    model = segmenter.export("onnx-int8", folder / "edge.onnx").path
    images = [read_volume(pair.image).array[0] for pair in pairs_of("nuclei2d/val")]
    names = [f"{at}.npy" for at in range(len(images))]
    for name, image in zip(names, images, strict=True):
        np.save(folder / name, image)
    core = {"env": {**os.environ, "PYTHONPATH": ""}, "preexec_fn": lambda: os.sched_setaffinity(0, {0})}

    def run(times: int) -> tuple[float, list[int]]:
        began = seconds_of_children()
        command = [python, str(ROOT / "examples" / "onnx_count.py"), str(model), *names * times]
        text = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, **core).stdout
        return seconds_of_children() - began, [int(line.split()[1]) for line in text.splitlines()]

    once, many = min(run(1)[0] for _ in range(REPEATS)), min(run(3)[0] for _ in range(REPEATS))
    difference = np.subtract(run(1)[1], [segmenter.segment(image, diameter="native").count for image in images])
    megapixels = sum(image.size for image in images) / 1e6
    print(f"\nexample: {2 * megapixels / (many - once):.2f} Mpx/s, start {once - (many - once) / 2:.2f} s;", end=" ")
    print(f"counts: MAE {np.abs(difference).mean():.3f}, mean difference {difference.mean():+.3f}")
    packages = Path(python).parents[1]
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"environment {size / 1e6:.0f} MB")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | Mpx/s | time, onnx / own | mean | largest | objects, onnx / own | differ | AP .5, onnx / own |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for model in SETS:
            for kind in ("onnx", "onnx-int8"):
                print(compare(model, kind, Path(name)), flush=True)
        if options.edge:
            run_example(options.edge, Path(name))


if __name__ == "__main__":
    main()
