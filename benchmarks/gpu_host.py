"""What a GPU leaves to the CPU: python benchmarks/gpu_host.py 2|3 [--data FOLDER].

Files to labels with a device that takes no time: the maps of a block are computed once, and then are there at once.
Prints the CPU seconds of this process for a million voxels, hence the rate of a core, and the share of each stage;
readers are processes of their own, and are not in it. CPU seconds say more than wall time where other programs run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu import NATIVE, Setup, builtin, write_images
from numpy.typing import NDArray

from biounet.batch import BatchOptions, runner, segment_batch
from biounet.files import ReaderPool, ReadOptions, find_images
from biounet.network import make_predictor
from biounet.network.device_pipeline import Compute, DevicePipeline


class Remembered(DevicePipeline):
    """A device that has computed every block before."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.known: dict[int, tuple[NDArray[Any], ...]] = {}

    def run(self, image: NDArray[np.float32], compute: Compute) -> tuple[tuple[NDArray[Any], ...], bool]:
        """Return a copy of what was computed of an image that looks the same in a few places."""
        key = hash(image[..., ::37, ::37].tobytes())
        if key not in self.known:
            with torch.inference_mode():
                self.known[key] = tuple(part.numpy() for part in compute(torch.from_numpy(image.copy())))
        return tuple(part.copy() for part in self.known[key]), False


def main() -> None:
    """Measure the second of two runs over the same files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dims", type=int, choices=(2, 3))
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    given = parser.parse_args()
    count, shape = (6, (1024, 1024)) if given.dims == 2 else (3, (64, 256, 256))
    model = builtin("nuclei" if given.dims == 2 else "nuclei3d")
    plain = make_predictor(model.network, "cpu", activation_ranges=model.activation_ranges)
    predictor = replace(plain, pipeline=Remembered())
    runner.model_predictor = lambda *_: predictor  # type: ignore[assignment]
    read = ReadOptions(dims=given.dims, axes="ZYX" if given.dims == 3 else None)
    with tempfile.TemporaryDirectory() as work, ReaderPool(2) as readers:
        images = find_images([write_images(Setup("cpu", given.data, Path(work), True, 1), given.dims, count, shape)])
        options = BatchOptions(read, segment=NATIVE, overlay=False, readers=readers)
        segment_batch(images, model, Path(work) / "first", options)
        began = time.process_time()
        rows = list(segment_batch(images, model, Path(work) / "second", options))
        seconds, millions = time.process_time() - began, count * int(np.prod(shape)) / 1e6
    stages: Counter[str] = Counter()
    for row in rows:
        stages.update(row.details["seconds"])
    print(f"{seconds / millions:.4f} CPU s for a million voxels, {millions / seconds:.1f} M/s a core")
    print(", ".join(f"{name} {value / sum(stages.values()):.0%}" for name, value in stages.items()))


if __name__ == "__main__":
    main()
