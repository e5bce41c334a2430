"""Mean intensities per nucleus of other channels, beside those of scikit-image, for each way to store channels.

    python benchmarks/channels.py

A synthetic field of nuclei (no real data is needed) with two further channels, as ImageJ hyperstack, OME-TIFF and one
file for each channel, in three types of pixels: the largest relative difference over all nuclei and channels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.measure import regionprops_table

import biounet
from biounet.synthetic import FieldSettings, make_field

NAMES = ("DAPI", "GFP", "RFP")
SPACING = 0.5  # µm


def make_planes(dtype: str) -> NDArray[Any]:
    """Return nuclei and two further channels, (c, y, x), of which one is in the nuclei and one around them."""
    rng = np.random.default_rng(0)
    dapi, labels = make_field(0, FieldSettings(shape=(512, 512)))
    levels = rng.uniform(0.2, 1, labels.max() + 1)
    gfp = np.where(labels > 0, levels[labels], 0.05) + rng.normal(0, 0.02, labels.shape)
    rfp = np.where(labels > 0, 0.1, 0.6) + rng.normal(0, 0.05, labels.shape)
    planes = np.stack([dapi / dapi.max(), gfp, rfp]).clip(0, 1.2)
    return (planes * {"uint8": 200, "uint16": 50_000, "float32": 1}[dtype]).astype(dtype)


def write_layouts(folder: Path, planes: NDArray[Any]) -> dict[str, Any]:
    """Write the channels in all ways, and return what is passed for each of them."""
    how = {"resolution": (1 / SPACING, 1 / SPACING)}
    fiji, ome, flat = folder / "hyperstack.tif", folder / "cells.ome.tif", folder / "unit-axes.tif"
    labels = [f"c:{n}/3 - {name}" for n, name in enumerate(NAMES, 1)]
    tifffile.imwrite(fiji, planes, imagej=True, **how, metadata={"axes": "CYX", "unit": "um", "Labels": labels})
    stack = planes[None, None]
    tifffile.imwrite(flat, stack, imagej=True, **how, metadata={"axes": "TZCYX", "unit": "um", "Labels": labels})
    sizes = {"PhysicalSizeX": SPACING, "PhysicalSizeY": SPACING}
    tifffile.imwrite(ome, planes, ome=True, metadata={"axes": "CYX", "Channel": {"Name": list(NAMES)}, **sizes})
    files = {}
    for name, plane in zip(NAMES, planes, strict=True):
        files[name] = folder / f"{name}.tif"
        tifffile.imwrite(files[name], plane, imagej=True, **how, metadata={"axes": "YX", "unit": "um"})
    return {"ImageJ": fiji, "ImageJ, z and t of length 1": flat, "OME-TIFF": ome, "one file each": files}


def largest_difference(result: biounet.Result, planes: NDArray[Any]) -> float:
    """Return the largest relative difference of mean intensities from those of scikit-image."""
    differences = [0.0]
    for name, plane in zip(NAMES, planes, strict=True):
        expected = regionprops_table(result.labels, plane.astype(np.float64), ["intensity_mean"])["intensity_mean"]
        found = result.table[f"intensity_mean_{name}"].to_numpy()
        differences.append(float(np.max(np.abs(found - expected) / np.abs(expected))))
    return max(differences)


def main() -> None:
    """Print a row for each type of pixels and each way to store them."""
    model = biounet.load("nuclei")
    print("| pixels | stored as | nuclei | largest relative difference |\n|---|---|---|---|")
    for dtype in ("uint8", "uint16", "float32"):
        planes = make_planes(dtype)
        with tempfile.TemporaryDirectory() as folder:
            for what, image in write_layouts(Path(folder), planes).items():
                result = model.segment(image, channel="DAPI", measure="all")
                print(f"| {dtype} | {what} | {result.count} | {largest_difference(result, planes):.1e} |")


if __name__ == "__main__":
    main()
