"""Memory and time of labelling by super-blocks, against the whole image at once, on fields that cells fill completely.

    python benchmarks/stitch_memory.py [--edges 4096 8192 16384] [--whole 4096 8192] [--field cells]

The surface is smoothed noise, made region by region. In the field `cells` most basins are cells of their own; in
`tissue`, one object spans the whole image. Each size runs in a process of its own, whose largest memory is shown; the
labels of super-blocks are on disk between the passes. Rates are of one thread, in megapixels per second.
"""

import os

os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy import ndimage

from biounet.core import PROBABILITY_MAX, LabelSettings
from biounet.labelling import (
    ObjectFilter,
    SuperBlockLattice,
    find_gaps,
    find_parts,
    join_fronts,
    join_gaps,
    load_gaps,
    load_parts,
    number_objects,
    paint,
    select_objects,
    smallest_object,
    stitch,
)
from biounet.labelling.label import label_surface
from biounet.tiling import Block, block_lattice

SIGMA, BLOCK = 4, 1024
FIELDS = {"cells": (0.0, 0.4), "tissue": (0.5, 0.25)}  # mean and standard deviation of the surface
RULE, KEEP = LabelSettings(), ObjectFilter(exclude_border=True)


def noise(region, shape):
    """Give noise that depends on the place of a pixel alone: the mixing function of SplitMix64 of its index."""
    y, x = (np.arange(part.start, part.stop, dtype=np.uint64) for part in region)
    value = (y[:, None] * np.uint64(shape[1]) + x) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((value ^ (value >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - 0.5


def maps(block, field):
    """Give foreground and surface of a block and its ring, the same in every block."""
    radius = 3 * SIGMA
    wide = block.grown(radius + 1)
    smooth = ndimage.gaussian_filter(noise(wide, block.shape), SIGMA, truncate=3, mode="constant")
    ring = block.grown(1)
    smooth = smooth[tuple(slice(r.start - w.start, r.stop - w.start) for r, w in zip(ring, wide, strict=True))]
    mean, spread = FIELDS[field]
    # The filter lowers the standard deviation of uniform noise, 1/sqrt(12), by 1/(2 sigma sqrt(pi)).
    units = smooth * np.float32(12**0.5 * 2 * SIGMA * np.pi**0.5)
    surface = np.clip(mean + spread * units, 0, 1) * PROBABILITY_MAX
    foreground = np.where(units > -1.6, np.uint16(PROBABILITY_MAX), np.uint16(0))
    return foreground, surface.astype(np.uint16)


def label_blocks(super_block, field, clock):
    """Yield the basins of each block of a super-block."""
    for cut in block_lattice(tuple(part.stop - part.start for part in super_block.core), BLOCK):
        with clock.off():
            pairs = zip(cut.core, super_block.core, strict=True)
            core = tuple(slice(part.start + outer.start, part.stop + outer.start) for part, outer in pairs)
            block = Block(core, core, super_block.shape)
            foreground, surface = maps(block, field)
            with clock.phase("label_surface"):
                objects = label_surface(foreground, surface, PROBABILITY_MAX // 2, block=block)
        yield objects


class Clock:
    """Seconds of each phase."""

    def __init__(self):
        self.seconds = Counter()
        self.away = 0.0

    @contextmanager
    def phase(self, name):
        """Count what is done here."""
        start, away = time.perf_counter(), self.away
        yield
        self.seconds[name] += time.perf_counter() - start - (self.away - away)

    @contextmanager
    def off(self):
        """Count nothing of what is done here."""
        start = time.perf_counter()
        yield
        self.away += time.perf_counter() - start


def in_super_blocks(shape, edge, field, folder):
    """Label a field super-block by super-block."""
    lattice, clock, smallest = SuperBlockLattice(shape, (edge, edge)), Clock(), smallest_object(RULE, None)

    def get_parts(i):
        return load_parts(folder / f"parts-{i}.npz")

    def get_gaps(i):
        return load_gaps(folder / f"gaps-{i}.npz")

    for i in range(len(lattice)):
        with clock.phase("find_parts"):
            labels, parts = find_parts(label_blocks(lattice.block(i), field, clock), lattice.block(i), RULE, smallest)
            parts.save(folder / f"parts-{i}.npz")
        np.save(folder / f"labels-{i}.npy", labels)
    with clock.phase("join_fronts"):
        joined = join_fronts(lattice, get_parts, folder / "joined", RULE, smallest)
    for i in range(len(lattice)):
        labels = np.load(folder / f"labels-{i}.npy")
        with clock.phase("find_gaps"):
            find_gaps(labels, joined.objects_of_parts.load(i), lattice.block(i)).save(folder / f"gaps-{i}.npz")
    with clock.phase("join_gaps"):
        gaps = join_gaps(lattice, get_gaps, folder / "gaps")
    with clock.phase("number_objects"):
        numbered = number_objects(lattice, get_parts, joined, gaps, folder / "numbered", KEEP)
    total = 0
    for i in range(len(lattice)):
        labels = np.load(folder / f"labels-{i}.npy")
        with clock.phase("paint"):
            of_gaps = get_gaps(i), numbered.labels_of_gaps.load(i)
            labels = paint(labels, labels.shape, numbered.labels_of_parts.load(i), *of_gaps)
        (folder / f"labels-{i}.npy").unlink()
        total += checksum(labels, lattice.block(i).core, shape)
    found = {"objects": numbered.count, "checksum": total % 2**64, "front": joined.largest_front}
    return found, clock.seconds


def checksum(labels, core, shape):
    """Give a sum that changes when any label does; sums of regions add up."""
    y, x = (np.arange(part.start, part.stop, dtype=np.uint64) for part in core)
    index = y[:, None] * np.uint64(shape[1]) + x
    index *= np.uint64(0x9E3779B97F4A7C15)
    index *= labels.view(np.uint32)
    return int(index.sum())


def at_once(shape, field):
    """Label a field as a whole."""
    clock = Clock()
    whole = Block(tuple(slice(0, n) for n in shape), tuple(slice(0, n) for n in shape), shape)
    blocks = list(label_blocks(whole, field, clock))
    with clock.phase("stitch"):
        objects, _ = select_objects(stitch(blocks, shape, RULE), KEEP)
    del blocks
    total = sum(checksum(objects.labels[block.core], block.core, shape) for block in block_lattice(shape, 4 * BLOCK))
    return {"objects": len(objects.count), "checksum": total % 2**64}, clock.seconds


def measure(way, edge, super_block, field):
    """Run one size in this process, and print what it took."""
    warm_up = (BLOCK, BLOCK)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if way == "whole":
            at_once(warm_up, field)
            found, seconds = at_once((edge, edge), field)
        else:
            in_super_blocks(warm_up, BLOCK // 2, field, Path(folder))
            found, seconds = in_super_blocks((edge, edge), super_block, field, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates = {name: round(edge * edge / 1e6 / value, 1) for name, value in seconds.items()}
    beyond = sum(value for name, value in seconds.items() if name != "label_surface")
    found |= {"way": way, "edge": edge, "field": field, "peak MB": round(peak), "all": round(edge**2 / 1e6 / beyond, 1)}
    print(json.dumps(found | {"Mpx/s": rates}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="*", default=[4096, 8192, 16384])
    parser.add_argument("--whole", type=int, nargs="*", default=[4096, 8192])
    parser.add_argument("--super-block", type=int, default=4096)
    parser.add_argument("--field", choices=FIELDS, default="cells")
    parser.add_argument("--one", choices=["whole", "super-blocks"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one, options.edges[0], options.super_block, options.field)
        return
    runs = [("whole", edge) for edge in options.whole] + [("super-blocks", edge) for edge in options.edges]
    for way, edge in runs:
        more = ["--super-block", str(options.super_block), "--field", options.field]
        subprocess.run([sys.executable, __file__, "--one", way, "--edges", str(edge), *more], check=True)


if __name__ == "__main__":
    main()
