"""How the memory that images are estimated to need compares with what they take, for images that are held in memory.

python benchmarks/memory_estimate.py [--case nuclei:1024x1024]

For each image a process of its own reads the file, through a process for readers as a batch does, and segments it; its
peak (VmHWM) beyond what it holds after a tiny image of the same kind is what the image takes. The estimate is for
the process that segments (`MemoryNeed.process`); admission to a batch adds that of its reader.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

_CASES = {
    "nuclei": ((1024, 1024), (2048, 2048), (4096, 4096), (1024, 6000)),
    "nuclei3d": ((64, 256, 256), (128, 384, 384), (200, 512, 512)),
}
_TINY = {2: (64, 64), 3: (16, 32, 32)}


def peak() -> int:
    """Return the bytes of memory that this process held at most."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def make(path: Path, shape: tuple[int, ...], channels: int, seed: int = 0) -> None:
    """Write an image with blurred blobs; of several channels as a TIFF of them."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(channels):
        coarse = [max(2, size // 12) for size in shape]
        factors = [size / part for size, part in zip(shape, coarse, strict=True)]
        field = ndimage.zoom(rng.random(coarse, np.float32), factors, order=1)
        planes.append((200 + 2000 * np.clip(field - 0.5, 0, None)).astype(np.uint16))
    axes = {2: "YX", 3: "ZYX"}[len(shape)]
    array = planes[0] if channels == 1 else np.stack(planes)
    metadata = {"axes": axes if channels == 1 else f"C{axes}"}
    metadata |= {f"PhysicalSize{axis}": 1.0 for axis in axes} | {f"PhysicalSize{axis}Unit": "µm" for axis in axes}
    tifffile.imwrite(path, array, ome=True, metadata=metadata)


def measure(name: str, tiny: Path, path: Path) -> None:
    """Print what an image takes and what is estimated, as JSON."""
    from biounet.core import builtin_models
    from biounet.files import IsolatedReader, ReadOptions
    from biounet.network import load_model, model_predictor
    from biounet.segmentation import SegmentOptions, memory_needs, segment_within_memory

    model = load_model(builtin_models()[name])
    predictor, options = model_predictor(model, "cpu"), SegmentOptions(diameter="native")
    read = ReadOptions(dims=model.card.recipe.data.dims, inputs=len(model.card.inputs))
    with IsolatedReader() as reader:
        segment_within_memory(reader.read(tiny, read), predictor, model.card, options)
        header, _ = reader.read_header(path, read)
        [(_, need), *_] = memory_needs(header, model, options, "cpu")
        before = resident()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        segment_within_memory(reader.read(path, read), predictor, model.card, options)
    print(json.dumps({"taken": peak() - before, "estimated": need.process, "before": before}))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", help="MODEL:EDGE[xEDGE…], in place of the built-in list")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure[0], *map(Path, options.measure[1:]))
    from biounet.core import builtin_models
    from biounet.network import load_model

    cases = [(name, shape) for name, shapes in _CASES.items() for shape in shapes]
    if options.case:
        cases = [(name, tuple(map(int, text.split("x")))) for name, text in (one.split(":") for one in options.case)]
    print("| model | image | takes, MiB | estimated, MiB | estimated / taken |\n|---|---|---|---|---|")
    for name, shape in cases:
        channels = len(load_model(builtin_models()[name]).card.inputs)
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "tiny.ome.tif"), Path(folder, "image.ome.tif")
            for path, edges in zip(files, (_TINY[len(shape)], shape), strict=True):
                make(path, edges, channels)
            command = [sys.executable, __file__, "--measure", name, *map(str, files)]
            answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        taken, estimated = answer["taken"], answer["estimated"]
        shown = " x ".join(map(str, shape))
        figures = f"{taken / 2**20:.0f} | {estimated / 2**20:.0f} | {estimated / taken:.2f}"
        print(f"| {name} | {channels} x {shown} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
