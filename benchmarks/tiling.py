"""Law 3 on real images: python benchmarks/tiling.py [--model nuclei].

Segments all of nuclei2d/val in blocks of 128, 256 and 512 pixels and as whole images, with one and with two workers and
torch threads, and compares the label images: they must be equal, id for id.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from biounet.api import load
from biounet.files import find_images
from biounet.segmentation import SegmentOptions

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def main() -> None:
    """Print one row for each way to cut."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei")
    segmenter = load(parser.parse_args().model)
    images = [found.path for found in find_images([str(DATA / "nuclei2d" / "val" / "images")])]
    whole = [segmenter.segment(path, options=SegmentOptions(block=1 << 20)).labels for path in images]
    print(f"{len(images)} images, {sum(int(labels.max()) for labels in whole)} objects")
    print("| block | workers | threads | images that differ |\n|---|---|---|---|")
    for block, workers in product((128, 256, 512, 1 << 20), (1, 2)):
        torch.set_num_threads(workers)
        with ThreadPoolExecutor(workers) as pool:
            pooled = replace(segmenter, executor=pool)
            found = [pooled.segment(path, options=SegmentOptions(block=block)).labels for path in images]
        differ = sum(not np.array_equal(a, b) for a, b in zip(whole, found, strict=True))
        print(f"| {block if block < 1 << 20 else 'whole'} | {workers} | {workers} | {differ} |")


if __name__ == "__main__":
    main()
