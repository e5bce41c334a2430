"""What a model finds in the images that it was trained on: the yardstick for what it finds in others."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from biounet.core import PROBABILITY_MAX
from biounet.labelling import label_objects
from biounet.measurement import label_statistics
from biounet.network import Model, model_predictor
from biounet.preprocessing import ImageStatistics
from biounet.segmentation import predict_image
from biounet.training.cases import Case


def found_statistics(
    model: Model, cases: Sequence[Case], device: str = "auto", deadline: float | None = None
) -> list[ImageStatistics | None]:
    """Return the statistics of the objects that a model finds in each case.

    They are empty where it finds few, and for a model of classes. With a deadline, by `time.perf_counter`, nothing is
    begun after it; what is found in the cases that are left is not known, None.
    """
    recipe, card = model.card.recipe, model.card
    if recipe.data.kind == "classes":
        return [{} for _ in cases]
    found: list[ImageStatistics | None] = [None] * len(cases)
    predictor = model_predictor(model, device)
    for number in np.random.default_rng(0).permutation(len(cases)).tolist():  # if time is short, some of all kinds
        if deadline is not None and time.perf_counter() > deadline:
            break
        maps, voxel_um = predict_image(cases[number].image.float().numpy(), predictor), cases[number].voxel_um
        if recipe.data.kind == "instances":
            objects = label_objects(maps[0], maps[1], maps[2], card.label, voxel_um=voxel_um)
        else:
            objects = label_objects(PROBABILITY_MAX - maps[0], None, None, card.label, voxel_um=voxel_um)
        low = card.validation.get("doubtful_below")
        found[number] = label_statistics(objects.labels, objects.confidence, low)
    return found
