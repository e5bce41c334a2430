"""How long it takes to find and pair many files, of which twice as many must take twice as long.

python benchmarks/many_files.py [--most 16000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from biounet.files import find_images, find_pairs, pair_results

MRI = ("flair", "t1")
Task = Callable[[Path], int]


def make(root: Path, count: int) -> None:
    """Write empty files: images with label images and results, case folders, and cases with common names."""
    for name in ("images", "labels", "out", "cases", "flat"):
        (root / name).mkdir()
    for number in range(count):
        for name, end in (("images", ""), ("labels", ""), ("out", "_labels")):
            (root / name / f"img{number}{end}.tif").touch()
        (root / "cases" / f"case{number}").mkdir()
        for name in (*MRI, "seg"):
            (root / "cases" / f"case{number}" / f"{name}.nii.gz").touch()
            (root / "flat" / f"case{number}_{name}.nii.gz").touch()
        (root / "out" / f"case{number}_labels.nii.gz").touch()


TASKS: dict[str, Task] = {
    "images found": lambda root: len(find_images([root / "images"])),
    "images and label images paired": lambda root: len(find_pairs(root / "images", root / "labels")),
    "results and label images paired": lambda root: len(pair_results(root / "out", root / "labels")),
    "case folders found": lambda root: len(find_images([root / "cases"], MRI)),
    "case folders paired": lambda root: len(find_pairs(root / "cases", None, MRI)),
    "cases of common names paired": lambda root: len(find_pairs(root / "flat", None, MRI)),
    "results and case folders paired": lambda root: len(pair_results(root / "out", root / "cases", MRI)),
}


def main() -> None:
    """Print seconds for each number of images or cases, and how they grow from half of the largest to the largest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=16000)
    counts = [parser.parse_args().most // part for part in (8, 4, 2, 1)]
    seconds: dict[str, list[float]] = {name: [] for name in TASKS}
    for count in counts:
        with tempfile.TemporaryDirectory() as room:
            make(Path(room), count)
            for name, task in TASKS.items():
                began = time.perf_counter()
                if task(Path(room)) != count:
                    raise SystemExit(f"{name}: not {count}")
                seconds[name].append(time.perf_counter() - began)
    print(f"| s | {' | '.join(f'{count:,}'.replace(',', ' ') for count in counts)} | last / last but one |")
    print("|---|" + "---|" * (len(counts) + 1))
    for name, each in seconds.items():
        print(f"| {name} | {' | '.join(f'{one:.2f}' for one in each)} | {each[-1] / each[-2]:.1f} |")


if __name__ == "__main__":
    main()
