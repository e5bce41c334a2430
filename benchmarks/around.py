"""What is spent around segmentation, on nuclei2d/val: python benchmarks/around.py [--images DIR].

Segments a folder as ``biounet segment`` does, one image at a time, and takes the seconds of each stage from the rows.
Around is all that is neither normalising, predicting, labelling nor measuring: reading in another process, judging,
writing, hashes, tables, the manifest, and with pictures those and the report.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from biounet.api import load
from biounet.batch import BatchOptions, segment_batch
from biounet.files import ReaderPool, find_images

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
INSIDE = ("normalise", "predict_and_label", "measure")


def main() -> None:
    """Run and add up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=DATA / "nuclei2d" / "val" / "images")
    parser.add_argument("--model", default="nuclei")
    options = parser.parse_args()
    model = load(options.model).model
    images = find_images([str(options.images)])
    print("| | s | inside, s | around |\n|---|---|---|---|")
    # The process that reads starts with the command, and is ready before the model is.
    with tempfile.TemporaryDirectory() as folder, ReaderPool(1) as readers:
        given = BatchOptions(jobs=1, readers=readers)
        # Once before, so that compiling and first imports are not counted.
        segment_batch(images[:1], model, Path(folder) / "first", given)
        for name, pictures in (("tables and labels", False), ("and pictures and report", True)):
            began = time.perf_counter()
            rows = segment_batch(images, model, Path(folder) / name, replace(given, overlay=pictures))
            whole = time.perf_counter() - began
            inside = sum(row.details["seconds"][stage] for row in rows for stage in INSIDE)
            print(f"| {name} | {whole:.2f} | {inside:.2f} | {1 - inside / whole:.0%} |")


if __name__ == "__main__":
    main()
