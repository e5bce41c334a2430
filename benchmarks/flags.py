"""Which images are flagged, as they are and spoilt: python benchmarks/flags.py [--set nuclei2d/val].

An image is right when its count is within 10 %, or 1, of that of the image as it is. Six times as large, at most
256 x 256 pixels of an image are looked at. Prints rows of a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.transform import resize

from biounet.api import Segmenter, load
from biounet.core import DataSettings, find_warnings
from biounet.evaluation import score_instances
from biounet.files import Pair, find_pairs, read_annotation, read_volume
from biounet.segmentation import SegmentOptions

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
CROP = 256
Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def blurred(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Blur by 6 pixels."""
    return np.rint(ndimage.gaussian_filter(image.astype(float), (0, 6, 6))).astype(image.dtype)


def hot(share: float) -> Spoil:
    """Set a share of the pixels to the highest value of 8 bits."""

    def spoil(image: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        return np.where(draw.random(image.shape) < share, 255, image).astype(image.dtype)

    return spoil


def scaled(factor: float) -> Spoil:
    """Change the magnification."""

    def spoil(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
        shape = (len(image), *(max(1, int(size * factor)) for size in image.shape[1:]))
        return np.rint(resize(image.astype(float), shape, order=1, anti_aliasing=factor < 1)).astype(image.dtype)

    return spoil


WAYS: dict[str, Spoil] = {
    "as they are": lambda image, _: image,
    "Gaussian blur, sigma 6 pixels": blurred,
    ".05 % of the pixels hot": hot(0.0005),
    ".2 % hot": hot(0.002),
    "1 % hot": hot(0.01),
    "six times as large": scaled(6),
    "six times as small": scaled(1 / 6),
}


def row(name: str, pairs: list[Pair], segmenter: Segmenter) -> str:
    """Segment spoilt images and return what became of them."""
    draw, large = np.random.default_rng(0), name.endswith("large")
    flagged, right, truth, found = [], [], [], []
    for pair in pairs:
        image = read_volume(pair.image).array
        labels = read_annotation(pair.label, DataSettings()).labels
        if large:
            image, labels = image[:, :CROP, :CROP], labels[:CROP, :CROP]
        result = segmenter.segment(WAYS[name](image, draw))
        before = segmenter.segment(image, options=SegmentOptions(diameter="native")).count or 0
        flagged.append(bool(find_warnings(result.notes)))
        right.append(abs((result.count or 0) - before) <= max(1, 0.1 * before))
        if result.labels.shape == labels.shape:
            truth.append(labels)
            found.append(result.labels)
    either = np.mean(np.array(flagged) | np.array(right))
    line = f"| {name} | {np.mean(flagged):.1%} | {np.mean(right):.1%} | {either:.1%} |"
    if not found:
        return f"{line} – | – | – |"
    figures = score_instances(truth, found).as_figures()
    return f"{line} {figures['ap']:.3f} | {figures['ap50']:.3f} | {figures['count_mae']:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="nuclei2d/val")
    parser.add_argument("--only", nargs="*", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    segmenter = load("nuclei")
    pairs = find_pairs(DATA / options.set / "images", DATA / options.set / "labels")
    for name in options.only:
        print(row(name, pairs, segmenter), flush=True)


if __name__ == "__main__":
    main()
