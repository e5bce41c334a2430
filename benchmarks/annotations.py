"""How often annotations are taken for what they are not: python benchmarks/annotations.py [--every 5].

Reads all label images of the nuclei sets as they are, and every n-th one of the flat sets after something that spoils
it, and prints how many are refused and how many get a remark, as rows of a Markdown table.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from biounet.core import Annotation, Grid, inspect_annotation
from biounet.files import read_labels

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
SETS = ("nuclei2d", "nuclei2d-u2os", "nuclei3d-embryo")


def jpeg(labels: np.ndarray, quality: int) -> np.ndarray:
    """Return labels after JPEG; those beyond 255 begin at 1 again."""
    buffer = io.BytesIO()
    eight = np.where(labels > 0, (labels - 1) % 255 + 1, 0).astype(np.uint8)
    Image.fromarray(eight).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def zoomed(labels: np.ndarray, zoom: float, order: int) -> np.ndarray:
    """Return labels after interpolation."""
    return np.rint(ndimage.zoom(labels.astype(float), zoom, order=order)).clip(0)


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "enlarged, linear": lambda labels: zoomed(labels, 2, 1),
    "enlarged, cubic": lambda labels: zoomed(labels, 1.5, 3),
    "shrunk, linear": lambda labels: zoomed(labels, 0.5, 1),
    "turned, linear": lambda labels: np.rint(ndimage.rotate(labels.astype(float), 15, order=1)),
    "JPEG, quality 100": lambda labels: jpeg(labels, 100),
    "JPEG, quality 75": lambda labels: jpeg(labels, 75),
    "a mask": lambda labels: labels > 0,
    "a mask with smooth edges": lambda labels: zoomed((labels > 0) * 255, 0.5, 1),
    "classes without 0": lambda labels: np.where(labels > 0, 1, 2),
    "three classes": lambda labels: np.where(labels > 0, labels % 3 + 1, 0),
    "background is 1": lambda labels: labels + 1,
    "65535 in 61 % of the columns": lambda labels: np.where(
        np.arange(labels.shape[1]) < 0.39 * labels.shape[1], labels, 65535
    ),
    "enlarged, nearest": lambda labels: ndimage.zoom(labels, 2, order=0),
    "left half only": lambda labels: labels[:, : labels.shape[1] // 2],
}


def judged(labels: np.ndarray) -> str:
    """Return the worst that is said about a label image."""
    labels = labels.astype(np.int32)
    found = inspect_annotation(Annotation(labels, "instances", Grid(labels.shape)))
    return found[0].severity if found else "nothing"


def ramps(labels: np.ndarray) -> float:
    """Return the share of the edges in a plane that go over a value in between."""
    lines = [np.moveaxis(labels.astype(np.int64), axis, 0) for axis in (-2, -1)]
    steps = [np.sign(np.diff(line, axis=0)) for line in lines]
    edges = sum(np.count_nonzero(step) for step in steps)
    return sum(np.count_nonzero(step[1:] * step[:-1] > 0) for step in steps) / max(edges, 1)


def row(what: str, images: Iterable[np.ndarray]) -> str:
    """Return a row of the table."""
    said, shares = zip(*((judged(labels), ramps(labels)) for labels in images), strict=True)
    spread = " to ".join(f"{value:.1%}" for value in np.percentile(shares, (5, 50, 100)))
    return f"| {what} | {len(said)} | {said.count('problem')} | {said.count('remark')} | {spread} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=5)
    every = parser.parse_args().every
    files = {name: sorted((DATA / name).glob("*/labels/*")) for name in SETS}
    print("| label images | files | refused | with a remark | edges over a value in between |\n|---|---|---|---|---|")
    for name, paths in files.items():
        print(row(f"`{name}`", (read_labels(path) for path in paths)), flush=True)
    flat = [read_labels(path) for path in [*files[SETS[0]], *files[SETS[1]]][::every]]
    for what, spoil in WAYS.items():
        print(row(what, (spoil(labels) for labels in flat)), flush=True)


if __name__ == "__main__":
    main()
