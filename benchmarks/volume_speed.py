"""Speed and memory on volumes: python benchmarks/volume_speed.py MODEL IMAGE... [--repeats 3].

MODEL is a volume model, each IMAGE a file, or a folder with one file for each of the model's channels. Segments them
from file to label file and table with biounet, and from file to label file with MONAI: the same weights, float32, and
``sliding_window_inference`` with its defaults on windows of the model's training patch. The runs alternate, and the
best of the repeats counts. Peak memory is that of a fresh process, above what it had with everything imported.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference

from biounet.api import Segmenter, load
from biounet.core import Volume
from biounet.files import ReadOptions, read_volume, write_labels
from biounet.labelling import label_classes
from biounet.preprocessing import scale_intensities
from biounet.reporting import OutputOptions, write_outputs
from biounet.training.patches import patch_shape

Files = tuple[Path, ...]


def files_of(image: Path, channels: tuple[str, ...]) -> Files:
    """Return the files of a case: the folder's, in the order of the channels, or the file itself."""
    return tuple(image / f"{name}.nii.gz" for name in channels) if image.is_dir() else (image,)


def with_biounet(segmenter: Segmenter, files: Files, out: Path) -> int:
    """Segment one case, all outputs but the picture; return its number of voxels."""
    found = segmenter.segment(files if len(files) > 1 else files[0])
    write_outputs(found, out, "case", OutputOptions(overlay=False))
    return int(found.labels.size)


def with_monai(segmenter: Segmenter, files: Files, out: Path) -> int:
    """Segment one case as MONAI's tutorials do, with the same normalisation and the same labels at the end."""
    recipe = segmenter.card.recipe
    if files[0].name.endswith((".nii", ".nii.gz")):
        arrays = [np.asarray(nib.load(path).dataobj, np.float32).transpose() for path in files]
        volume = Volume(np.stack(arrays), read_volume(files[0], ReadOptions(dims=3)).grid)
    else:
        volume = read_volume(files[0], ReadOptions(dims=3))
    image = torch.from_numpy(scale_intensities(volume.array, recipe.normalise).image)[None]
    with torch.inference_mode():
        logits = sliding_window_inference(image, patch_shape(recipe), 4, segmenter.model.network.eval())[0]
    if recipe.data.exclusive:
        labels = logits.argmax(0).numpy()
    else:
        maps = (logits.sigmoid() * 65535).round().to(torch.int32).numpy().astype(np.uint16)
        labels = label_classes(maps, (0.5,) * len(maps))
    write_labels(out / f"monai{'.nii.gz' if volume.grid.header else '.tif'}", labels.astype(np.uint8), volume.grid)
    return int(labels.size)


def seconds(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report_memory(segmenter: Segmenter, cases: list[Files], out: Path) -> None:
    """Print the peak above the memory before the first case, in GB."""
    segmenter.predictor  # noqa: B018 - the weights belong to the start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for files in cases:
        with_biounet(segmenter, files, out)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9)


def main() -> None:
    """Print one row of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="only print the peak memory of this process")
    options = parser.parse_args()
    peak = 0.0
    if not options.memory:
        # First of all: a new process begins with the peak of the one that starts it.
        command = [sys.executable, __file__, options.model, *map(str, options.images), "--memory"]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    segmenter = load(options.model)
    cases = [files_of(image, segmenter.card.recipe.data.channels) for image in options.images]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        if options.memory:
            report_memory(segmenter, cases, out)
            return
        voxels = sum(with_biounet(segmenter, files, out) for files in cases)  # warms up
        ours, theirs = [], []
        for _ in range(options.repeats):
            ours.append(sum(seconds(lambda f=files: with_biounet(segmenter, f, out)) for files in cases))
            theirs.append(sum(seconds(lambda f=files: with_monai(segmenter, f, out)) for files in cases))
    ours_s, theirs_s = min(ours), min(theirs)
    print("| model | cases | Mvox | biounet Mvox/s | MONAI Mvox/s | ratio | peak GB above start |")
    print("|---|---|---|---|---|---|---|")
    row = (voxels / 1e6, voxels / 1e6 / ours_s, voxels / 1e6 / theirs_s, theirs_s / ours_s, peak)
    figures = " | ".join(f"{value:.3g}" for value in row)
    print(f"| {segmenter.card.recipe.name} | {len(cases)} | {figures} |")


if __name__ == "__main__":
    main()
