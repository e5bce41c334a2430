"""Images in super-blocks of random layouts, each stage in a random order, against the same images in memory.

python benchmarks/layouts.py [--images 100]     objects, tables, notes and figures that differ

A predictor that costs nothing takes the place of the network; everything else is what ``biounet segment`` runs: scale,
zoom to the working grid and back, basins, joins, holes, numbers, labels in shards and rows. Half of the images are
volumes, most of them stored in another order than they are worked on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.whole_engine import Outcome, draw_options, draw_volume, in_memory, in_super_blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    totals: Counter[str] = Counter()
    start = time.monotonic()
    for seed in range(parser.parse_args().images):
        random = np.random.default_rng(seed)
        dims = 2 + seed % 2
        volume, options = draw_volume(random, dims, longest={2: 160, 3: 36}[dims]), draw_options(random)
        low, high = {2: (9, 64), 3: (6, 24)}[dims]
        edges = tuple(int(edge) for edge in random.integers(low, high, dims))
        expected = in_memory(volume, options)
        found = in_super_blocks(volume, options, edges, int(random.integers(4, 40)), random)
        differences = found.differences(expected)
        if differences:
            print(f"image {seed}: {', '.join(differences)}")
        totals.update(_describe(expected, edges), different=bool(differences), images=1)
        totals["volumes in another order"] += volume.grid.axcodes not in (None, "RAS")
        totals["with unacquired areas"] += bool((volume.array == 0).any())
        totals["with filled holes"] += bool(options.fill_holes and _has_hole(volume, options, expected))
    for name, count in totals.items():
        print(f"{count:8d} {name}")
    print(f"{time.monotonic() - start:8.0f} seconds")


def _describe(found: Outcome, edges: tuple[int, ...]) -> dict[str, int]:
    boxes = [
        tuple(part.stop - part.start for part in box) for box in ndimage.find_objects(found.labels.astype(np.int32))
    ]
    large = sum(any(size > edge for size, edge in zip(box, edges, strict=True)) for box in boxes)
    return {"objects": found.count, "objects larger than a super-block": large}


def _has_hole(volume, options, found: Outcome) -> bool:
    from dataclasses import replace

    return not np.array_equal(in_memory(volume, replace(options, fill_holes=False)).labels, found.labels)


if __name__ == "__main__":
    main()
