"""Every single-bit flip and every truncation of small files: python benchmarks/flips.py [--every 1].

A file that was changed is *refused*, reads the *same* as before, or reads as something else without a word: *silent*.
Where a checksum covers what was changed, nothing may be silent: the compressed content of .nii.gz and PNG, the strips
of a TIFF with deflate, all of a model file. Nothing covers the tags of a TIFF, nor pixels that are stored as they are
(plain TIFF, plain .nii).
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import tifffile

from biounet.core import BiounetError
from biounet.files import ReadOptions, read_volume


@dataclass(frozen=True)
class Case:
    """A file, how it is read, and which of its bytes a checksum covers."""

    name: str
    content: bytes
    read: Callable[[Path], object]
    covered: range


def _image(path: Path) -> object:
    volume = read_volume(path, ReadOptions(plane=0))
    return str(volume.array.dtype), volume.array.tolist(), volume.grid


def _volume(path: Path) -> object:
    volume = read_volume(path, ReadOptions(dims=3))
    return str(volume.array.dtype), volume.array.tolist(), volume.grid, volume.grid.header


def _model(path: Path) -> object:
    from biounet.network import load_model

    model = load_model(path)
    return model.card, {name: value.tolist() for name, value in model.network.state_dict().items()}


def small_model() -> bytes:
    """Return the file of the smallest model that there is."""
    from biounet.core.recipe import parse_recipe
    from biounet.network import Card, Model, build_network, output_channels, save_model

    recipe = parse_recipe({"network": {"widths": [1, 1]}})
    model = Model(
        build_network(recipe).eval(), Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe))
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder, "m.safetensors"))
        return Path(folder, "m.safetensors").read_bytes()


def small_cases() -> Iterator[Case]:
    """Give small files of all formats but models."""
    grey = np.random.default_rng(0).integers(0, 4000, (12, 15)).astype(np.uint16)
    labels = np.zeros((5, 8, 9), np.uint8)
    labels[1:4, 2:5, 3:6], labels[2:, 5:, 6:] = 1, 2
    plain = nibabel.Nifti1Image(labels.T, np.diag([1.0, 1.0, 2.5, 1.0])).to_bytes()
    packed = gzip.compress(plain, mtime=0)
    yield Case("labels .nii.gz", packed, _volume, range(10, len(packed)))  # behind the header of gzip
    yield Case("labels .nii", plain, _volume, range(0))
    for name, how in (("TIFF deflate", {"compression": "zlib"}), ("TIFF plain", {})):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, grey, metadata=None, **how)  # type: ignore[arg-type]
        with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as tif:
            (start,), (length,) = tif.pages.first.dataoffsets, tif.pages.first.databytecounts
        yield Case(name, buffer.getvalue(), _image, range(start, start + length if how else start))
    png = imagecodecs.png_encode(grey)
    yield Case("PNG", png, _image, range(8, len(png)))


def damaged(content: bytes, every: int) -> Iterator[tuple[int | None, bytes]]:
    """Give the content with one bit flipped, with its place, and cut off at every percent, without one."""
    for bit in range(0, 8 * len(content), every):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit // 8, bytes(changed)
    for percent in range(100):
        yield None, content[: len(content) * percent // 100]


def count(case: Case, folder: Path, every: int) -> Counter[tuple[str, str]]:
    """Return how many damaged files of each kind had which outcome."""
    path = folder / "x"
    path.write_bytes(case.content)
    true = case.read(path)
    counts: Counter[tuple[str, str]] = Counter()
    for at, content in damaged(case.content, every):
        path.unlink()  # a model file may still be mapped
        path.write_bytes(content)
        kind = "truncated" if at is None else "flipped, covered" if at in case.covered else "flipped, not covered"
        try:
            outcome = "same" if case.read(path) == true else "silent"
        except BiounetError:
            outcome = "refused"
        counts[kind, outcome] += 1
    return counts


def main() -> int:
    """Print a table; return 1 if damage was silent where it must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take one bit of so many")
    every = parser.parse_args().every
    model = small_model()
    silent = 0
    print("| file | bytes | damage | refused | same | silent |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in (*small_cases(), Case("model .safetensors", model, _model, range(len(model)))):
            counts = count(case, Path(folder), every)
            for kind in sorted({kind for kind, _ in counts}):
                refused, same, wrong = (counts[kind, outcome] for outcome in ("refused", "same", "silent"))
                print(f"| {case.name} | {len(case.content)} | {kind} | {refused} | {same} | {wrong} |", flush=True)
                silent += wrong if kind != "flipped, not covered" else 0
    return silent > 0


if __name__ == "__main__":
    sys.exit(main())
