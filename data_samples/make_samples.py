"""Make the samples: fields of nuclei with labels and expected counts, stacks, and heads with tumours.

    python data_samples/make_samples.py [FOLDER]

The same versions of NumPy and SciPy write the same bytes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from numpy.typing import NDArray

from biounet.core import UNLABELLED
from biounet.synthetic import FieldSettings, StackSettings, make_field, make_head, make_stack

PIXEL_SIZE_UM = 0.5
TOLERANCE = 0.1
"""Relative tolerance of counts."""

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

STACKS: dict[str, tuple[int, StackSettings]] = {
    "sparse": (21, StackSettings(shape=(20, 64, 64), filling=0.4)),
    "crowded": (22, StackSettings(shape=(20, 64, 64), filling=0.9, closeness=0.85)),
    "thick": (23, StackSettings(shape=(12, 64, 64), spacing=(2.0, 0.5, 0.5), filling=0.6)),
}
ENVELOPES = {
    f"{'train' if n <= 4 else 'test'}/stack{n}": (
        40 + n,
        StackSettings(shape=(16, 56, 56), filling=filling, envelope=0.25, photons=120),
    )
    for n, filling in enumerate((0.5, 0.8, 0.6, 0.9, 0.7, 0.6), 1)
}
"""Nuclei with a stained envelope, which the training data of ``nuclei3d`` do not have."""

RIMS = {
    f"{'train' if n <= 4 else 'test'}/field{n}": (
        70 + n,
        StackSettings(shape=(12, 160, 160), filling=filling, envelope=0.25, photons=120),
    )
    for n, filling in enumerate((0.5, 0.8, 0.6, 0.9, 0.7, 0.5, 0.8, 0.6), 1)
}
"""Planes of stacks of nuclei with a stained envelope, which the training data of ``nuclei`` do not have."""
WINDOW = (slice(40, 120),) * 2
"""The part of a plane for training that is labelled."""
SMALLEST = 60
"""Pixels of a section that somebody would outline; of smaller ones nobody can say what they are."""

HEADS = {"case_1": 31, "case_2": 32, "case_3": 33}
AFFINE = np.array([[-1.0, 0, 0, 22], [0, 1.0, 0, -24], [0, 0, 1.5, -20], [0, 0, 0, 1]])
"""Of the heads: x increases to the left, as in files of many scanners, and slices are 1.5 mm apart."""


def write_samples(folder: Path) -> None:
    """Write ``images/``, ``labels/``, ``expected.json`` and the folders of stacks, planes and heads into a folder."""
    expected: dict[str, dict[str, int]] = {}
    for name, (seed, settings) in FIELDS.items():
        image, labels = make_field(seed, settings)
        _write_tiff(folder / "images" / f"{name}.tif", image)
        _write_tiff(folder / "labels" / f"{name}.tif", labels.astype(np.uint16))
        count = int(labels.max())
        expected[f"{name}.tif"] = {"count": count, "tolerance": max(1, round(TOLERANCE * count))}
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")
    stacks = {f"stacks/{name}": stack for name, stack in STACKS.items()}
    stacks |= {f"envelopes/{name}": stack for name, stack in ENVELOPES.items()}
    for path, (seed, stack) in stacks.items():
        parent, name = (folder / path).parent, Path(path).name
        image, labels = make_stack(seed, stack)
        for part, array in (("images", image), ("labels", labels.astype(np.uint16))):
            _write_tiff(parent / part / f"{name}.tif", array, stack.spacing[0])
    for path, (seed, stack) in RIMS.items():
        part, name = path.split("/")
        image, labels = _draw_plane(seed, stack, windowed=part == "train")
        _write_tiff(folder / "rims" / part / "images" / f"{name}.tif", image)
        _write_tiff(folder / "rims" / part / "labels" / f"{name}.tif", labels)
    for name, seed in HEADS.items():
        contrasts, classes = make_head(seed, (28, 48, 44))
        for contrast, values in contrasts.items():
            _write_nifti(folder / "cases" / name / f"{contrast}.nii.gz", values.astype(np.int16))
        _write_nifti(folder / "cases" / name / "tumour.nii.gz", classes)


def _draw_plane(seed: int, settings: StackSettings, windowed: bool) -> tuple[NDArray[np.uint16], NDArray[np.int16]]:
    """Return the plane in the middle of a stack and its labels, -1 where nobody looked."""
    stack, labels = make_stack(seed, settings)
    plane, sections = stack[len(stack) // 2], labels[len(stack) // 2]
    unclear = (np.bincount(sections.ravel()) < SMALLEST)[sections]
    drawn = np.unique(np.where(unclear, 0, sections), return_inverse=True)[1].reshape(plane.shape).astype(np.int16)
    drawn[unclear] = UNLABELLED
    if windowed:
        outside = np.ones(plane.shape, bool)
        outside[WINDOW] = False
        drawn[outside] = UNLABELLED
    return plane, drawn


def _write_tiff(path: Path, array: NDArray[np.integer[Any]], depth_um: float | None = None) -> None:
    """Write a plane or a stack with its voxel size as ImageJ does, uncompressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    per_um = 1 / PIXEL_SIZE_UM
    metadata = {"axes": "YX", "unit": "um"} if depth_um is None else {"axes": "ZYX", "unit": "um", "spacing": depth_um}
    if array.dtype == np.int16:  # which ImageJ does not have
        tifffile.imwrite(path, array, resolution=(per_um * 10_000, per_um * 10_000), resolutionunit="CENTIMETER")
    else:
        tifffile.imwrite(path, array, imagej=True, resolution=(per_um, per_um), metadata=metadata)


def _write_nifti(path: Path, array: NDArray[np.int16] | NDArray[np.uint8]) -> None:
    """Write an array ``(z, y, x)`` as converters of scanner files do, with axes x, y, z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array.T, AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parent)
    write_samples(parser.parse_args().folder)
