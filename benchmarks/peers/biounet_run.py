"""Run biounet over a folder of images, as ``biounet segment --no-overlay`` does, and time it.

biounet_run.py predict --model nuclei --images nuclei2d/val/images --out OUT
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import harness


def predict(model: str, images: Path, out: Path) -> None:
    """Segment every image of a folder with a built-in or trained model."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does
    import torch

    import biounet
    from biounet.batch import BatchOptions, segment_batch
    from biounet.files import ReaderPool, find_images

    torch.set_num_threads(harness.THREADS)
    network = biounet.load(model).model
    found = find_images([str(images)])
    shapes = [harness.shape_of(image.path) for image in found]
    clock = harness.Clock()
    # What the peers write: label image and table; no overlay.
    with ReaderPool(harness.THREADS) as readers, tempfile.TemporaryDirectory() as folder:
        options = BatchOptions(jobs=harness.THREADS, overlay=False, readers=readers)
        startup = harness.seconds_since_start()
        segment_batch(list(dict(zip(shapes, found, strict=True)).values()), network, Path(folder), options)
        with clock("segment"):
            rows = segment_batch(found, network, out, options)
    clock.move(
        "segment", "table", sum(row.details["seconds"]["measure"] for row in rows) / min(len(rows), harness.THREADS)
    )
    harness.report("biounet", clock, (len(rows), sum(map(math.prod, shapes))), out, startup)


if __name__ == "__main__":
    options = vars(harness.parser("biounet", trains=False).parse_args())
    options.pop("command")
    predict(**options)
