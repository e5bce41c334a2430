"""How long a rerun takes in which all images are done, and how that grows with their number.

python benchmarks/batch_rerun.py [--images 20000] [--edge 16] [--profile]

One tiny image is segmented; its files and its record are then copied under other names, as a finished run of so many
images would have left them. `biounet segment` runs twice over all of them: in the first run it writes the tables, in
the second it has nothing to do. The time of a million images is extrapolated linearly from a tenth of the images and
all of them, and the start of the program is left out of it.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

_OLD = 1_600_000_000  # of the images, in seconds: times of change that can be trusted
_FOLDER = 1000  # images in each folder
_MILLION = 1_000_000


def fabricate(room: Path, count: int, edge: int) -> None:
    """Write images and the results of a finished run of them."""
    from biounet.batch.manifest import MANIFEST_NAME, Manifest
    from biounet.batch.record_lines import record_lines
    from biounet.files import tree_state

    images, out = room / "images", room / "out"
    y, x = np.mgrid[:edge, :edge]
    disc = (y - edge / 2) ** 2 + (x - edge / 2) ** 2 < (edge / 4) ** 2
    name = "f000/img0000000"
    (images / name).parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).normal(100, 5, (edge, edge)) + 200 * disc
    tifffile.imwrite(images / f"{name}.tif", pixels.astype(np.uint16))
    os.utime(images / f"{name}.tif", (_OLD, _OLD))
    run_segment(room)
    record = Manifest(out).get(f"{name}.tif")
    assert record is not None
    with (out / MANIFEST_NAME).open("w") as manifest:
        for number in range(count):
            new = f"f{number // _FOLDER:03d}/img{number:07d}"
            paths = {old.replace(name, new): old for old in record.outputs}
            copies = {out / path: out / old for path, old in paths.items()}
            copies[images / f"{new}.tif"] = images / f"{name}.tif"
            for path, old in copies.items() if number else ():
                if number % _FOLDER == 0:
                    path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(old, path)
            entry = replace(record.inputs[0], path=record.inputs[0].path.replace(name, new))
            row = replace(record.row, image=f"{new}.tif", outputs=tuple(paths))
            outputs = {path: record.outputs[old] for path, old in paths.items()}
            states = tuple(tree_state(out / path) for path in paths)
            again = replace(record, row=row, inputs=(entry,), outputs=outputs, states=states)
            manifest.write("".join(f"{line}\n" for line in record_lines(again)))


def run_segment(room: Path, *profile: str) -> tuple[float, float]:
    """Run the command; return its seconds, and those of a processor: other programs may be at work."""
    command = [sys.executable, *profile, "-m", "biounet", "segment", str(room / "images"), "-o", str(room / "out")]
    begun, used = time.perf_counter(), _used()
    subprocess.run([*command, "--quiet"], check=True)
    return time.perf_counter() - begun, _used() - used


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--edge", type=int, default=16)
    parser.add_argument("--profile", action="store_true", help="say where the time of the largest rerun goes")
    options = parser.parse_args()
    print("| images | writes the tables, s | nothing to do, s | of a processor, s | kB of manifest an image |")
    print("|---|---|---|---|---|")
    seconds: dict[int, tuple[float, float]] = {}
    for count in (options.images // 10, options.images):
        with tempfile.TemporaryDirectory() as folder:
            room = Path(folder)
            fabricate(room, count, options.edge)
            first, again = run_segment(room)[0], run_segment(room)
            seconds[count], size = again, (room / "out" / "manifest.jsonl").stat().st_size / count / 1000
            print(f"| {count} | {first:.1f} | {again[0]:.1f} | {again[1]:.1f} | {size:.1f} |", flush=True)
            if options.profile and count == options.images:
                run_segment(room, "-m", "cProfile", "-o", str(room / "profile"))
                code = "import pstats, sys; pstats.Stats(sys.argv[1]).sort_stats(sys.argv[2]).print_stats(40)"
                for order in ("cumtime", "tottime"):
                    subprocess.run([sys.executable, "-c", code, str(room / "profile"), order], check=True)
    few, many = sorted(seconds)
    for name, place in (("", 0), (" of a processor", 1)):
        each = (seconds[many][place] - seconds[few][place]) / (many - few)
        print(f"{1000 * each:.3f} ms{name} an image; a million: {each * _MILLION / 60:.1f} min beside the start")


if __name__ == "__main__":
    main()
