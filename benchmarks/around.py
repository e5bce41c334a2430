"""What is spent around segmentation, on nuclei2d/val: python benchmarks/around.py [--images DIR].

Segments a folder as ``biounet segment`` does, one image at a time, and takes the seconds of each stage from the rows.
Around is all that is neither normalising, predicting, labelling nor measuring: reading, judging, writing, pictures,
hashes, tables, the manifest and the report. Prints the seconds of each part and the share around.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from biounet.api import load
from biounet.batch import BatchOptions, segment_batch
from biounet.files import find_images

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
    with tempfile.TemporaryDirectory() as folder:
        # Once before, so that compiling and first imports are not counted.
        segment_batch(images[:1], model, Path(folder) / "first", BatchOptions(jobs=1))
        began = time.perf_counter()
        rows = segment_batch(images, model, Path(folder) / "out", BatchOptions(jobs=1))
        whole = time.perf_counter() - began
    stages: Counter[str] = Counter()
    for row in rows:
        stages.update(row.details["seconds"])
    inside = sum(stages[name] for name in INSIDE)
    parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())
    statuses = ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items())
    print(f"{len(rows)} images ({statuses}) in {whole:.2f} s: {parts}")
    print(f"around segmentation: {1 - inside / whole:.1%}")


if __name__ == "__main__":
    main()
