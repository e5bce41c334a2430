"""Run biounet over a folder of images and time it.

biounet_run.py predict --model nuclei --images nuclei2d/val/images --out OUT
"""

from __future__ import annotations

from pathlib import Path

import harness


def predict(model: str, images: Path, out: Path) -> None:
    """Segment every image of a folder with a built-in or trained model."""
    import torch

    import biounet
    from biounet.outputs import write_outputs

    torch.set_num_threads(harness.THREADS)
    network = biounet.load(model)

    def process(path: Path, folder: Path, clock: harness.Clock) -> None:
        with clock("segment"):
            result = network.segment(path)
        clock.move("segment", "table", result.seconds["measure"])
        with clock("write"):
            # What the peers write: label image and table; no overlay.
            write_outputs(result, folder, path.stem, overlay=False)

    harness.measure("biounet", process, images, out)


if __name__ == "__main__":
    options = vars(harness.parser("biounet", trains=False).parse_args())
    options.pop("command")
    predict(**options)
