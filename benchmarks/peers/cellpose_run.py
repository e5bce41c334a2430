"""Train and run Cellpose 3 from scratch on nuclei.

    cellpose_run.py train   --data nuclei2d/train --minutes 20 --out MODEL
    cellpose_run.py predict --model MODEL --images nuclei2d/val/images --out OUT

With ``--size-model`` both commands use its second model, which estimates the diameter of each image before it is
segmented: more accurate where magnifications differ, and slower. Without it, all images are taken at the mean
diameter of the training images, which is what ``CellposeModel`` does when no diameter is given.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import harness
import numpy as np

NUCLEUS_DIAMETER = 17.0
GREY = [0, 0]
BATCH = 8
EPOCHS = 400
BATCHES_TO_PACE = 8


class TimeIsUpError(Exception):
    """The training has used its minutes."""


def load_cellpose():
    """Return the modules (dynamics, models, train), with torch limited to the threads of this run."""
    import torch

    torch.set_num_threads(harness.THREADS)
    from cellpose import dynamics, models, train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return dynamics, models, train


def flows_of(labels: list[np.ndarray], dynamics, out: Path) -> list[np.ndarray]:
    """Return label, mask and flow (4, y, x) of each label image, kept in `out` for the next attempt."""
    import torch

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


def images_per_second(new_net, train_seg) -> float:
    """Measure the pace of training on a throw-away network."""
    net, begins = new_net(), []
    net.register_forward_pre_hook(lambda *_: begins.append(time.monotonic()))
    train_seg(net, 1, BATCHES_TO_PACE * BATCH, "pace")
    # From the second batch on: the first pays for set-up.
    return BATCH * (len(begins) - 2) / (begins[-1] - begins[1])


def train(data: Path, minutes: float, out: Path, *, size_model: bool) -> None:
    """Train with the tool's own optimiser and schedule, fitted into the time.

    Its schedule is written in epochs: a warm-up over 10, then constant, then halved 10 times over the last 100.
    An epoch over all images would leave room for a few dozen, most of them warm-up and none of them decay. So an
    epoch here is as many images as let `EPOCHS` of them fill the time, which favours the tool.
    """
    if harness.is_trained(out, minutes) and (not size_model or (out / "models" / "nuclei_size.npy").exists()):
        print(f"{out} is trained already")
        return
    dynamics, models, training = load_cellpose()
    images, labels = harness.read_pairs(data)
    flows = flows_of(labels, dynamics, out)

    def new_net():
        # mkldnn layouts are for prediction only.
        return models.CellposeModel(gpu=False, pretrained_model=False, diam_mean=NUCLEUS_DIAMETER, mkldnn=False).net

    def train_seg(net, epochs: int, per_epoch: int, name: str) -> None:
        training.train_seg(
            net,
            train_data=list(images),
            train_labels=flows,
            channels=GREY,
            batch_size=BATCH,
            n_epochs=epochs,
            nimg_per_epoch=per_epoch,
            save_path=out,
            model_name=name,
        )

    net = new_net()
    if not harness.is_trained(out, minutes):
        # A little slack: running into the time limit would cut off the end of the decay.
        budget = 0.97 * 60 * minutes * images_per_second(new_net, train_seg)
        per_epoch = max(1, round(budget / EPOCHS / BATCH)) * BATCH
        epochs = max(1, min(EPOCHS, int(budget / per_epoch)))
        spent = run_until(60 * minutes, lambda: train_seg(net, epochs, per_epoch, "nuclei"), net)
        net.save_model(out / "models" / "nuclei")
        record = {"tool": "cellpose", "minutes": minutes, "spent_minutes": spent / 60}
        harness.write_json(out / "training.json", record | {"epochs": epochs, "images_per_epoch": per_epoch})
        print(record)
    if size_model:
        net = models.CellposeModel(gpu=False, pretrained_model=str(out / "models" / "nuclei"), mkldnn=False).net
        training.train_size(
            net,
            str(out / "models" / "nuclei"),
            train_data=list(images),
            train_labels=flows,
            channels=GREY,
            batch_size=BATCH,
            n_epochs=1,
        )


def predict(model: str, images: Path, out: Path, *, size_model: bool) -> None:
    """Segment every image of a folder with the trained weights, everything else at its default."""
    _, models, _ = load_cellpose()
    logging.disable(logging.INFO)
    weights = str(Path(model) / "models" / "nuclei")
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
