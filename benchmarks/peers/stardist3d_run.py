"""Train and run StarDist 3D as its documentation and its example notebook do.

stardist3d_run.py train   --data nuclei3d-embryo/train --minutes 30 --out MODEL
stardist3d_run.py predict --model MODEL --images nuclei3d-embryo/val/images --out OUT
"""

from __future__ import annotations

import time
from pathlib import Path

import harness
import numpy as np
from stardist_run import SEED, load_stardist, stop_after

HELD_OUT = 0.15
RAYS = 96
PATCH = (48, 96, 96)
BATCH = 2


def normalised(image: np.ndarray) -> np.ndarray:
    from csbdeep.utils import normalize

    return normalize(image, 1, 99.8, axis=(0, 1, 2))


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip and turn by quarters in the plane, scale and shift the intensity: the ranges of the example notebook."""
    turns = np.random.randint(4)
    image, labels = np.rot90(image, turns, axes=(1, 2)), np.rot90(labels, turns, axes=(1, 2))
    if np.random.rand() < 0.5:
        image, labels = np.flip(image, axis=2), np.flip(labels, axis=2)
    return image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2), labels


def configure(labels: list[np.ndarray]):
    """Return the configuration that the notebook derives from the extents of the labelled objects."""
    from stardist import Rays_GoldenSpiral, calculate_extents
    from stardist.models import Config3D

    extents = calculate_extents(labels)
    anisotropy = tuple(float(ratio) for ratio in np.max(extents) / extents)
    return Config3D(
        rays=Rays_GoldenSpiral(RAYS, anisotropy=anisotropy),
        grid=tuple(1 if ratio > 1.5 else 2 for ratio in anisotropy),
        anisotropy=anisotropy,
        n_channel_in=1,
        train_patch_size=PATCH,
        train_batch_size=BATCH,
        train_tensorboard=False,
    )


def train(data: Path, minutes: float, out: Path) -> None:
    """Train on all stacks of `data` but two; these choose the best weights and then the thresholds."""
    if harness.is_trained(out, minutes):
        print(f"{out} is trained already")
        return
    models = load_stardist()
    from stardist import fill_label_holes

    images, labels = harness.read_pairs(data)
    images, labels = [normalised(image) for image in images], [fill_label_holes(label) for label in labels]
    order = np.random.RandomState(SEED).permutation(len(images))
    kept, held_out = np.split(order, [-max(1, round(HELD_OUT * len(order)))])
    validation = [images[i] for i in held_out], [labels[i] for i in held_out]

    model = models.StarDist3D(configure(labels), name=out.name, basedir=str(out.parent))
    model.prepare_for_training()
    begin: list[float] = []
    model.callbacks.append(stop_after(minutes, model.keras_model, begin))
    history = model.train(
        [images[i] for i in kept],
        [labels[i] for i in kept],
        validation_data=validation,
        augmenter=augment,
        seed=SEED,
        # Time alone ends the training.
        epochs=100_000,
    )
    spent = (time.monotonic() - begin[0]) / 60
    thresholds = model.optimize_thresholds(*validation)
    epochs = len(history.history["loss"])
    record = {"tool": "stardist3d", "minutes": minutes, "spent_minutes": spent, "epochs": epochs, **thresholds}
    harness.write_json(out / "training.json", record)
    print(record)


def predict(model: str, images: Path, out: Path) -> None:
    """Segment every stack of a folder with the trained weights and thresholds."""
    folder = Path(model)
    network = load_stardist().StarDist3D(None, name=folder.name, basedir=str(folder.parent))
    segment = harness.from_array(lambda image: network.predict_instances(normalised(image))[0])
    harness.measure("stardist3d", segment, images, out)


if __name__ == "__main__":
    options = vars(harness.parser("stardist3d").parse_args())
    {"train": train, "predict": predict}[options.pop("command")](**options)
