"""Counts of images of other magnifications: python benchmarks/diameters.py [--set nuclei2d-u2os/val] [--accuracy].

Each image is rescaled, with a low-pass filter where it shrinks, and counted with ``--diameter auto``, the default, and
with the pixels as they are; *within* is a count within 10 % of that of the image as it was, *pooled* the error of the
sum. With ``--accuracy`` the images as they are, at both settings: mean AP, AP at .5, and the time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from accuracy import dense_labels, pairs_of
from skimage.transform import resize

from biounet.api import Segmenter, load
from biounet.core import find_warnings
from biounet.evaluation import score_instances
from biounet.files import Pair, read_volume
from biounet.segmentation import SegmentOptions

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 6.0)
NATIVE, AUTO = SegmentOptions(diameter="native"), SegmentOptions(diameter="auto")


def rescaled(image: np.ndarray, factor: float) -> np.ndarray:
    """Change the magnification of an image ``(c, y, x)``."""
    shape = (len(image), *(max(1, round(size * factor)) for size in image.shape[1:]))
    return np.rint(resize(image.astype(float), shape, order=1, anti_aliasing=factor < 1)).astype(image.dtype)


def row(factor: float, pairs: list[Pair], counts: list[int], segmenter: Segmenter) -> str:
    """Count the images of one magnification and return the row of the table."""
    found: dict[str, list[tuple[int, bool]]] = {"auto": [], "native": []}
    seconds = {"auto": 0.0, "native": 0.0}
    for pair in pairs:
        image = rescaled(read_volume(pair.image).array, factor)
        for name, options in (("native", NATIVE), ("auto", AUTO)):
            began = time.process_time()
            result = segmenter.segment(image, options=options)
            seconds[name] += time.process_time() - began
            found[name].append((result.count or 0, bool(find_warnings(result.notes))))
    cells = [f"{factor:g}"]
    for pairs_found in found.values():
        within = [abs(count - true) <= 0.1 * true for (count, _), true in zip(pairs_found, counts, strict=True)]
        flagged = [flag for _, flag in pairs_found]
        either = np.mean(np.array(within) | np.array(flagged))
        pooled = sum(count for count, _ in pairs_found) / sum(counts) - 1
        cells += [f"{np.mean(within):.0%}", f"{pooled:+.1%}", f"{np.mean(flagged):.0%}", f"{either:.0%}"]
    return f"| {' | '.join(cells)} | {seconds['auto'] / seconds['native']:.1f} |"


def accuracy(pairs: list[Pair], segmenter: Segmenter) -> None:
    """Print the accuracy and the time at both settings, and how often they differ."""
    truth, volumes = [dense_labels(pair) for pair in pairs], [read_volume(pair.image) for pair in pairs]
    for name, options in (("native", NATIVE), ("auto", AUTO)):
        began = time.process_time()
        results = [segmenter.segment(volume, options=options) for volume in volumes]
        seconds = time.process_time() - began
        figures = score_instances(truth, [result.labels for result in results]).as_figures()
        changed = sum("diameter_px" in result.figures for result in results)
        flagged = sum(bool(find_warnings(result.notes)) for result in results)
        shown = " | ".join(f"{figures[key]:.4f}" for key in ("ap", "ap50"))
        print(f"| {name} | {shown} | {changed} | {flagged} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="nuclei2d-u2os/val")
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--factors", nargs="*", type=float, default=FACTORS)
    parser.add_argument("--accuracy", action="store_true")
    options = parser.parse_args()
    segmenter, pairs = load(options.model), pairs_of(options.set)
    if options.accuracy:
        accuracy(pairs, segmenter)
        return
    counts = [segmenter.segment(pair.image, options=NATIVE).count or 0 for pair in pairs]
    for factor in options.factors:
        print(row(factor, pairs, counts, segmenter), flush=True)


if __name__ == "__main__":
    main()
