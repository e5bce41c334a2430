"""Draw the figures of the README: python docs/make_overlay.py (takes minutes, since one of them needs a training)."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

import biounet
from biounet.core import sample_folder
from biounet.files import write_picture
from biounet.reporting import draw_overlay


def main() -> None:
    """Write the crowded sample twice enlarged, plain and with outlines side by side; the crowded stack; a tumour."""
    result = biounet.load("nuclei").segment(sample_folder() / "images" / "crowded.tif")
    large = [array.repeat(2, -1).repeat(2, -2) for array in (result.volume.array, result.labels)]
    plain, outlined = (draw_overlay(large[0], labels) for labels in (np.zeros_like(large[1]), large[1]))
    gap = np.full((plain.shape[0], 8, 3), 255, np.uint8)
    write_picture(Path(__file__).with_name("overlay.png"), np.concatenate([plain, gap, outlined], 1))
    stack = biounet.load("nuclei3d").segment(sample_folder() / "stacks" / "images" / "crowded.tif")
    write_picture(Path(__file__).with_name("volume.png"), stack.overlay())
    write_picture(Path(__file__).with_name("tumour.png"), segment_tumour().overlay())


def segment_tumour() -> biounet.Result:
    """Train on two heads of the samples and segment the third."""
    cases = sample_folder() / "cases"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("case_1", "case_2"):
            shutil.copytree(cases / name, Path(folder) / name)
        model = biounet.train("brain_tumour", folder, epochs=2)
    return model.segment([cases / "case_3" / f"{name}.nii.gz" for name in model.card.recipe.data.channels])


if __name__ == "__main__":
    main()
