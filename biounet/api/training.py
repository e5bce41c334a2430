"""Training in Python."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from biounet.api.segmenter import PathLike, Segmenter, load
from biounet.core import Recipe, SettingsError, as_path, find_recipe, read_recipe
from biounet.files import ReadOptions
from biounet.network import inherit_settings
from biounet.training import TrainingData

if TYPE_CHECKING:
    from biounet.training import Case, TrainCallbacks, TrainOptions


def train(  # noqa: PLR0913 - keyword arguments, as the options of the command
    recipe: PathLike | Recipe,
    images: PathLike,
    labels: PathLike | None = None,
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    start: PathLike | None = None,
    validation: tuple[PathLike, PathLike | None] | None = None,
    options: ReadOptions | None = None,
    run: TrainOptions | None = None,
    callbacks: TrainCallbacks | None = None,
) -> Segmenter:
    """Train a model on annotated images.

    Parameters
    ----------
    recipe
        A recipe, its path, or the name of a built-in one.
    images, labels
        Two folders with the same file stems; or a folder with sibling files, or a CSV, as `images` only.
    minutes, epochs
        Budget instead of the recipe's. Minutes are wall time including reading, validation and tuning.
    start
        Model to continue from, a path or a built-in name. It is returned, with a note on its card, if training does not
        improve it.
    validation
        Images and labels for tuning thresholds. By default a share of the training images is held out.
    options
        Axes, pixel size, channel and plane of the images, where their files do not define them.
    run, callbacks
        Device and checkpoint; progress, warnings, and an event that stops the training.

    Raises
    ------
    InputError, SettingsError
        If an image or annotation, or the recipe, cannot be used.
    """
    started = time.perf_counter()
    from biounet.training import TrainOptions, hash_training_files  # MONAI is slow to import
    from biounet.training import train as train_model

    run = replace(run or TrainOptions(), started=(run and run.started) or started)
    images, labels = as_path(images, "images"), None if labels is None else as_path(labels, "labels")
    if validation is not None and not (isinstance(validation, Sequence) and len(validation) == 2):
        raise SettingsError("validation: images and labels, two paths")
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(find_recipe(recipe))
    if minutes is not None or epochs is not None:
        recipe = recipe.replace("train", minutes=minutes, epochs=epochs)
    initial = load(start, run.device).model if start is not None else None
    if initial is not None:
        recipe = inherit_settings(recipe, initial)
    data = TrainingData((images, labels), recipe, options, validation, strict=True)
    model = train_model(*_load_cases(data), data.recipe, run, initial, callbacks)
    if initial is None or model.network is not initial.network:
        fingerprint = hash_training_files([*data.training, *data.validation])
        model = replace(model, card=model.card.model_copy(update={"fingerprint": fingerprint}))
    return Segmenter(model, run.device)


def _load_cases(data: TrainingData) -> tuple[list[Case], list[Case]]:
    """Return training and validation cases; an image in both sets is trained on only."""
    from biounet.training import make_case

    cases: list[Case] = []
    validation: list[Case] = []
    for image in data.read():
        if image.annotation is not None and image.resampled is not None and not (image.validation and image.same_as):
            case = make_case(image.volume, image.annotation, data.recipe, image.resampled)
            (validation if image.validation else cases).append(case)
    return cases, validation
