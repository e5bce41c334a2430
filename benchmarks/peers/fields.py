"""One large field with truth, for the speed of large images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

SIDE = 2048
TILE = (520, 696)
SEED = 1


def write_field(kind: str, data: Path, folder: Path) -> Path:
    """Write ``folder/images/field.tif`` and its labels, a mosaic of `data` or a made field; return `folder`."""
    image, labels = mosaic(data) if kind == "mosaic" else synthetic()
    for name, array in (("images", image), ("labels", labels)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name / "field.tif", array)
    return folder


def mosaic(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Lay the images of the most common large shape side by side; return image uint8 and labels int32, (y, x).

    All are stretched to the same range, so that the field looks like one photograph to a tool that normalises whole
    images. An image that comes up again is mirrored. Nuclei on a seam are cut in the image and in the truth alike.
    """
    rows, columns = (-(-SIDE // length) for length in TILE)
    paths = [path for path in sorted((data / "images").glob("*.tif")) if tifffile.imread(path).shape == TILE]
    image = np.zeros((rows * TILE[0], columns * TILE[1]), np.uint8)
    labels = np.zeros(image.shape, np.int32)
    for index in range(rows * columns):
        path, mirrored = paths[index % len(paths)], index // len(paths) % 2
        step = -1 if mirrored else 1
        row, column = divmod(index, columns)
        here = np.s_[row * TILE[0] : (row + 1) * TILE[0], column * TILE[1] : (column + 1) * TILE[1]]
        truth = tifffile.imread(data / "labels" / path.name).astype(np.int32)
        image[here] = stretched(tifffile.imread(path))[:, ::step]
        labels[here] = np.where(truth > 0, truth + labels.max(), 0)[:, ::step]
    return image[:SIDE, :SIDE], labels[:SIDE, :SIDE]


def stretched(image: np.ndarray) -> np.ndarray:
    """Map the percentiles 1 and 99.8 of an image (y, x) to 10 and 200 of 8 bits."""
    low, high = np.percentile(image, (1, 99.8))
    return np.clip(np.rint(10 + 190 * (image - low) / (high - low)), 0, 255).astype(np.uint8)


def synthetic() -> tuple[np.ndarray, np.ndarray]:
    """Return a made field, image uint16 and labels int32, (y, x)."""
    from biounet.synthetic import FieldSettings, make_field

    return make_field(SEED, FieldSettings(shape=(SIDE, SIDE)))
