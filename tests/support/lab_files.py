"""Small files of the kinds that the README's table of jobs names, beside the samples."""

import shutil

import numpy as np
import tifffile

WELLS = {"control_A1_f1": "nuclei", "control_A2_f1": "dim", "drug_B1_f1": "crowded", "drug_B2_f1": "nuclei"}


def write_lab_files(folder):
    """Write ``plate/``, ``stained/``, ``cellpose/`` and ``movie.tif`` into a folder that has the samples."""
    image = tifffile.imread(folder / "images" / "dim.tif")
    moving = np.stack([np.roll(image, 2 * t, axis=1) for t in range(3)])
    tifffile.imwrite(folder / "movie.tif", moving, imagej=True, metadata={"axes": "TYX"})
    shutil.copytree(folder / "labels", folder / "cellpose")
    (folder / "plate").mkdir()
    for name, sample in WELLS.items():
        shutil.copy(folder / "images" / f"{sample}.tif", folder / "plate" / f"{name}.tif")
    (folder / "stained").mkdir()
    nuclei = tifffile.imread(folder / "images" / "nuclei.tif")
    metadata = {"axes": "CYX", "unit": "um", "Labels": ["DAPI", "GFP", "RFP"]}
    planes = np.stack([nuclei, nuclei[::-1], nuclei[:, ::-1]])
    tifffile.imwrite(folder / "stained" / "cells.tif", planes, imagej=True, resolution=(2.0, 2.0), metadata=metadata)
