"""How the memory of a batch grows with the number of its images, and that of a rerun with nothing to do.

python benchmarks/batch_memory.py [--images 5000] [--edge 16] [--jobs 1]

A child process segments many tiny images and says how much memory it holds after each tenth of them; a second one does
the same again, where all is done. Growth is from the second tenth on: in the first, caches of libraries fill.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

_OLD = 1_600_000_000  # of the files, in seconds: times of change that can be trusted


def resident() -> tuple[int, int]:
    """Return the bytes of memory that this process holds, and that it held at most."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return (int(fields["VmRSS"].split()[0]) * 1024, int(fields["VmHWM"].split()[0]) * 1024)


def make_images(folder: Path, count: int, edge: int) -> None:
    """Write images with a disc each, in folders of a thousand."""
    import os

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:edge, :edge]
    for number in range(count):
        path = folder / f"f{number // 1000:03d}" / f"img{number:07d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        disc = (y - edge / 2) ** 2 + (x - edge / 2) ** 2 < (edge / 4) ** 2
        tifffile.imwrite(path, (rng.normal(100, 5, (edge, edge)) + 200 * disc).astype(np.uint16))
        os.utime(path, (_OLD, _OLD))


def run(images: Path, out: Path, jobs: int) -> None:
    """Segment a folder and print a line of JSON with the memory after each tenth."""
    from biounet.batch import BatchOptions, plan_batch, segment_batch
    from biounet.core import builtin_models
    from biounet.files import find_images
    from biounet.network import load_model

    model, begun = load_model(builtin_models()["nuclei"]), time.monotonic()
    before = resident()[0]
    found = find_images([images])
    searched, at = resident()[0], time.monotonic() - begun
    options, seen, held = BatchOptions(jobs=jobs), 0, []
    plan = plan_batch(found, model, out, options)

    def report(row: object) -> None:
        nonlocal seen
        seen += 1
        if seen % max(1, len(found) // 10) == 0:
            held.append(resident()[0])

    rows = segment_batch(found, model, out, options, report)
    end, peak = resident()
    figures = {"before": before, "found": searched, "tenths": held, "end": end, "peak": peak}
    figures |= {"seconds": time.monotonic() - begun, "search_seconds": at, "done": len(plan.done), "rows": len(rows)}
    print(json.dumps(figures))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--edge", type=int, default=16)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return run(*map(Path, options.run), options.jobs)
    with tempfile.TemporaryDirectory() as room:
        images, out = Path(room, "images"), Path(room, "out")
        make_images(images, options.images, options.edge)
        command = [sys.executable, __file__, "--jobs", str(options.jobs), "--run", str(images), str(out)]
        print("| MiB | found | first tenth | second | last tenth | end | peak | growth, bytes an image | s |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name in ("all to do", "nothing to do"):
            answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            tenths = answer["tenths"]
            growth = (tenths[-1] - tenths[1]) / (0.8 * options.images)
            cells = [answer["found"], tenths[0], tenths[1], tenths[-1], answer["end"], answer["peak"]]
            shown = " | ".join(f"{cell / 2**20:.1f}" for cell in cells)
            print(f"| {name} | {shown} | {growth:.0f} | {answer['seconds']:.1f} |", flush=True)
        manifest = out / "manifest.jsonl"
        longest = max(map(len, manifest.read_bytes().splitlines()))
        print(f"manifest: longest line {longest} bytes, {manifest.stat().st_size / options.images:.0f} bytes an image;")
        print(f"run.json: {(out / 'run.json').stat().st_size} bytes")


if __name__ == "__main__":
    main()
