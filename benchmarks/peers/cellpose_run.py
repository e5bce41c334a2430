"""Train and run Cellpose 3 from scratch on nuclei.

    cellpose_run.py train   --data nuclei2d/train --minutes 20 --out MODEL
    cellpose_run.py predict --model MODEL --images nuclei2d/val/images --out OUT

With ``--size-model`` both commands use its second model, which estimates the diameter of each image before it is
segmented: more accurate where magnifications differ, and slower. Without it, all images are taken at the mean
diameter of the training images, which is what ``CellposeModel`` does when no diameter is given.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np

NUCLEUS_DIAMETER = 17.0
GREY = [0, 0]
BATCH = 8
EPOCHS = 400
BATCHES_TO_PACE = 5


class TimeIsUpError(Exception):
    """The training has used its minutes."""


def prepare() -> None:
    """Limit torch to the threads of this run, and let the tool report its progress."""
    import torch

    torch.set_num_threads(harness.THREADS)
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def flows_of(labels: list[np.ndarray], out: Path) -> list[np.ndarray]:
    """Return label, mask and flow (4, y, x) of each label image, kept in `out` for the next attempt."""
    import torch
    from cellpose import dynamics

    out.mkdir(parents=True, exist_ok=True)
    cache = out / "flows.npz"
    if not cache.exists():
        flows = dynamics.labels_to_flows(labels, device=torch.device("cpu"))
        partial = out / "partial.npz"
        np.savez(partial, *flows)
        partial.replace(cache)
    with np.load(cache) as stored:
        return [stored[f"arr_{index}"] for index in range(len(labels))]


def run_until(seconds: float, step, net) -> float:
    """Call `step`, break it off `seconds` after its first batch began, and return the seconds that were used."""
    begin: list[float] = []

    def check(*_: object) -> None:
        begin.append(time.monotonic())
        if begin[-1] - begin[0] > seconds:
            raise TimeIsUpError

    hook = net.register_forward_pre_hook(check)
    try:
        step()
    except TimeIsUpError:
        pass
    finally:
        hook.remove()
    return time.monotonic() - begin[0]


@dataclass(frozen=True)
class Trainer:
    """Training images with their flows, and where the model goes."""

    images: list[np.ndarray]
    flows: list[np.ndarray]
    out: Path

    @property
    def weights(self) -> Path:
        """Where the network is kept."""
        return self.out / "models" / "nuclei"

    def new_net(self, pretrained: Path | None = None):
        """Return a network to train, from scratch or from a file."""
        from cellpose import models

        # The layouts of mkldnn=True are for prediction only.
        weights = str(pretrained) if pretrained else False
        return models.CellposeModel(gpu=False, pretrained_model=weights, diam_mean=NUCLEUS_DIAMETER, mkldnn=False).net

    def fit(self, net, epochs: int, images_per_epoch: int, name: str) -> None:
        """Train `net` with the optimiser, rates and augmentation that are the tool's defaults."""
        from cellpose import train

        train.train_seg(
            net,
            train_data=list(self.images),
            train_labels=self.flows,
            channels=GREY,
            batch_size=BATCH,
            n_epochs=epochs,
            nimg_per_epoch=images_per_epoch,
            save_path=self.out,
            model_name=name,
        )

    def images_per_second(self) -> float:
        """Measure the pace of training on a throw-away network."""
        net, begins = self.new_net(), []
        net.register_forward_pre_hook(lambda *_: begins.append(time.monotonic()))
        self.fit(net, 1, BATCHES_TO_PACE * BATCH, "pace")
        # From the second batch on: the first pays for set-up.
        return BATCH * (len(begins) - 2) / (begins[-1] - begins[1])

    def fit_for(self, minutes: float) -> dict[str, object]:
        """Train for a time, save the weights, and return what was done.

        The tool's schedule is written in epochs: a warm-up over 10, then constant, then halved 10 times over the
        last 100. An epoch over all images would leave room for a few dozen, most of them warm-up and none of them
        decay. So an epoch here is as many images as let `EPOCHS` of them fill the time, which favours the tool.
        """
        # A little slack: running into the time limit would cut off the end of the decay.
        budget = 0.97 * 60 * minutes * self.images_per_second()
        per_epoch = max(1, round(budget / EPOCHS / BATCH)) * BATCH
        epochs = max(1, min(EPOCHS, int(budget / per_epoch)))
        net = self.new_net()
        spent = run_until(60 * minutes, lambda: self.fit(net, epochs, per_epoch, self.weights.name), net)
        net.save_model(self.weights)
        return {"minutes": minutes, "spent_minutes": spent / 60, "epochs": epochs, "images_per_epoch": per_epoch}

    def fit_size(self) -> None:
        """Train the model of diameters: a linear regression on the styles of one pass over the images."""
        from cellpose import train

        net = self.new_net(self.weights)
        train.train_size(
            net,
            str(self.weights),
            train_data=list(self.images),
            train_labels=self.flows,
            channels=GREY,
            batch_size=BATCH,
            n_epochs=1,
        )


def train(data: Path, minutes: float, out: Path, *, size_model: bool) -> None:
    """Train what is not trained yet; the size model comes on top of the minutes."""
    diameters = out / "models" / "nuclei_size.npy"
    has_network = harness.is_trained(out, minutes)
    if has_network and (not size_model or diameters.exists()):
        print(f"{out} is trained already")
        return
    prepare()
    images, labels = harness.read_pairs(data)
    trainer = Trainer(images, flows_of(labels, out), out)
    if not has_network:
        diameters.unlink(missing_ok=True)
        record = trainer.fit_for(minutes)
        harness.write_json(out / "training.json", {"tool": "cellpose", **record})
        print(record)
    if size_model:
        trainer.fit_size()


def predict(model: str, images: Path, out: Path, *, size_model: bool) -> None:
    """Segment every image of a folder with the trained weights, everything else at its default."""
    from cellpose import models

    prepare()
    logging.disable(logging.INFO)
    weights = str(Path(model) / "models" / "nuclei")
    if not Path(weights).exists():
        # The tool would try to download another model in its place.
        sys.exit(f"{weights} is not there: train first")
    network = models.CellposeModel(gpu=False, pretrained_model=weights)
    size = models.SizeModel(network, pretrained_size=f"{weights}_size.npy") if size_model else None

    def segment(image: np.ndarray) -> np.ndarray:
        diameter = size.eval(image, channels=GREY)[0] if size else None
        return network.eval(image, channels=GREY, diameter=diameter)[0]

    tool = "cellpose+size" if size_model else "cellpose"
    harness.measure(tool, harness.from_array(segment), images, out)


if __name__ == "__main__":
    command_line = harness.parser("cellpose")
    command_line.add_argument("--size-model", action="store_true", help="estimate the diameter of each image")
    options = vars(command_line.parse_args())
    {"train": train, "predict": predict}[options.pop("command")](**options)
