"""Make the samples: four small fields of nuclei with truth, and the counts that a good model finds in them.

    python data_samples/make_samples.py

The same version of NumPy and SciPy writes the same bytes again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.synthetic import FieldSettings, make_field

PIXEL_SIZE_UM = 0.5
TOLERANCE = 0.1
"""Share of the true count by which a measured count may be off."""

FIELDS: dict[str, tuple[int, FieldSettings]] = {
    "nuclei": (11, FieldSettings(diameter=24, coverage=0.2, clustering=0.3, texture=0.25)),
    "tiny": (
        12,
        FieldSettings(
            diameter=9, coverage=0.15, clustering=0.4, blur=0.8, brightness_spread=0.3, unevenness=0.4, texture=0.1
        ),
    ),
    "crowded": (
        13,
        FieldSettings(
            diameter=22, coverage=0.5, clustering=0.8, overlap=0.06, elongation=1.3, haze=0.3, spots=-0.4, defocus=0.08
        ),
    ),
    "dim": (
        14,
        FieldSettings(
            diameter=28,
            coverage=0.2,
            brightness_spread=0.5,
            photons=30,
            background=0.2,
            haze=0.3,
            exposure=0.06,
            unevenness=0.5,
        ),
    ),
}


def write_samples(folder: Path) -> None:
    """Write ``images/``, ``labels/`` and ``expected.json`` into a folder."""
    expected: dict[str, dict[str, int]] = {}
    for name, (seed, settings) in FIELDS.items():
        image, labels = make_field(seed, settings)
        _write_tiff(folder / "images" / f"{name}.tif", image)
        _write_tiff(folder / "labels" / f"{name}.tif", labels.astype(np.uint16))
        count = int(labels.max())
        expected[f"{name}.tif"] = {"count": count, "tolerance": max(1, round(TOLERANCE * count))}
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


def _write_tiff(path: Path, array: NDArray[np.uint16]) -> None:
    """Write what ImageJ writes: one plane with its pixel size, not compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    per_um = 1 / PIXEL_SIZE_UM
    metadata = {"axes": "YX", "unit": "um"}
    tifffile.imwrite(path, array, imagej=True, resolution=(per_um, per_um), metadata=metadata)


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
