"""Prediction in integers against real numbers: python benchmarks/integers.py [--model nuclei] [--threads 1].

The same weights on ``../shared/data/nuclei2d/val``: megapixels per second from image in memory to labels, how far the
probabilities are apart, and accuracy, each as the mean or the pooled figure over all images. The runs alternate, and
the best of the repeats counts.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from accuracy import dense_labels, pairs_of

from biounet.api import Segmenter, load
from biounet.core import Volume
from biounet.evaluation import score_instances
from biounet.files import read_volume
from biounet.preprocessing import scale_intensities
from biounet.segmentation import predict_image

REPEATS = 3


def maps_of(segmenter: Segmenter, volume: Volume) -> np.ndarray:
    """Return the probabilities of an image, 0..1."""
    image = scale_intensities(volume.array, segmenter.card.recipe.normalise).image
    return predict_image(image, segmenter.predictor) / 65535


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    whole = load(options.model)
    ways = {"integers": whole, "real numbers": replace(whole, model=replace(whole.model, activation_ranges={}))}
    pairs = pairs_of("nuclei2d/val")
    volumes, truth = [read_volume(pair.image) for pair in pairs], [dense_labels(pair) for pair in pairs]
    megapixels = sum(labels.size for labels in truth) / 1e6
    best = dict.fromkeys(ways, 0.0)
    found = {}
    for _ in range(REPEATS + 1):  # the first one warms up
        for name, segmenter in ways.items():
            began = time.perf_counter()
            found[name] = [segmenter.segment(volume).labels for volume in volumes]
            if len(found) == len(ways):
                best[name] = max(best[name], megapixels / (time.perf_counter() - began))
    apart = [np.abs(np.subtract(*(maps_of(way, volume) for way in ways.values()))).mean() for volume in volumes]
    print(f"probabilities are {np.mean(apart):.4f} apart\n")
    print("| computed in | Mpx/s | mean AP | AP .5 | AP .9 | count MAE |\n|---|---|---|---|---|---|")
    for name, segmenter in ways.items():
        figures = score_instances(truth, found[name]).as_figures()
        kind = type(segmenter.predictor.network).__name__
        scores = " | ".join(f"{figures[key]:.3f}" for key in ("ap", "ap50", "ap90", "count_mae"))
        print(f"| {name} ({kind}) | {best[name]:.2f} | {scores} |")


if __name__ == "__main__":
    main()
