"""Train and run StarDist 2D as its documentation and its example notebook do.

stardist_run.py train   --data nuclei2d/train --minutes 20 --out MODEL
stardist_run.py predict --model MODEL --images nuclei2d/val/images --out OUT
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import harness
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
HELD_OUT = 0.1
SEED = 42


def load_stardist():
    """Return the module stardist.models, with TensorFlow limited to the threads of this run."""
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(harness.THREADS)
    tensorflow.config.threading.set_inter_op_parallelism_threads(harness.THREADS)
    from stardist import models

    return models


def normalised(image: np.ndarray) -> np.ndarray:
    from csbdeep.utils import normalize

    return normalize(image, 1, 99.8, axis=(0, 1))


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip, rotate by quarter turns, scale and shift the intensity, add noise: the ranges of the example notebook."""
    turns = np.random.randint(4)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if np.random.rand() < 0.5:
        image, labels = np.fliplr(image), np.fliplr(labels)
    image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    noise = 0.02 * np.random.uniform(0, 1) * np.random.normal(size=image.shape)
    return image + noise, labels


def stop_after(minutes: float, keras_model, begin: list[float]):
    """Return a Keras callback that ends the training at the first batch past `minutes`."""
    from keras.callbacks import LambdaCallback

    def check(batch: int, logs: object) -> None:
        begin.append(time.monotonic()) if not begin else None
        if time.monotonic() - begin[0] > 60 * minutes:
            keras_model.stop_training = True

    return LambdaCallback(on_train_batch_begin=check)


def train(data: Path, minutes: float, out: Path) -> None:
    """Train on nine tenths of `data`; the rest chooses the best weights and then the thresholds."""
    if harness.is_trained(out, minutes):
        print(f"{out} is trained already")
        return
    models = load_stardist()
    from stardist import fill_label_holes

    images, labels = harness.read_pairs(data)
    images, labels = [normalised(image) for image in images], [fill_label_holes(label) for label in labels]
    order = np.random.RandomState(SEED).permutation(len(images))
    held_out, kept = np.split(order, [round(HELD_OUT * len(order))])
    validation = [images[i] for i in held_out], [labels[i] for i in held_out]

    config = models.Config2D(n_rays=32, grid=(2, 2), n_channel_in=1, train_tensorboard=False)
    model = models.StarDist2D(config, name=out.name, basedir=str(out.parent))
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
    record = {"tool": "stardist", "minutes": minutes, "spent_minutes": spent, "epochs": epochs, **thresholds}
    harness.write_json(out / "training.json", record)
    print(record)


def predict(model: str, images: Path, out: Path) -> None:
    """Segment every image of a folder with the trained weights and thresholds."""
    folder = Path(model)
    network = load_stardist().StarDist2D(None, name=folder.name, basedir=str(folder.parent))
    segment = harness.from_array(lambda image: network.predict_instances(normalised(image))[0])
    harness.measure("stardist", segment, images, out)


if __name__ == "__main__":
    options = vars(harness.parser("stardist").parse_args())
    {"train": train, "predict": predict}[options.pop("command")](**options)
