"""Small files of the kinds that the README's table of jobs names, beside the samples."""

import shutil

WELLS = {"control_A1_f1": "nuclei", "control_A2_f1": "dim", "drug_B1_f1": "crowded", "drug_B2_f1": "nuclei"}


def write_lab_files(folder):
    """Write ``plate/`` and the like into a folder that has the samples."""
    (folder / "plate").mkdir()
    for name, sample in WELLS.items():
        shutil.copy(folder / "images" / f"{sample}.tif", folder / "plate" / f"{name}.tif")
