"""Trainings of a few steps, and what they gave."""

import hashlib

import numpy as np

from biounet.api import volume_from_array
from biounet.core import PROBABILITY_MAX, Annotation, Grid, Recipe
from biounet.core.recipe import parse_recipe
from biounet.network import Model
from biounet.training import make_case

TINY = {
    "network": {"widths": [8, 12]},
    "train": {"patch": 32, "batch": 2, "steps_per_epoch": 4, "epochs": 2},
}
RECIPE = parse_recipe({})


def tiny_recipe(**changes: dict[str, object]) -> Recipe:
    return parse_recipe({**TINY, **{k: {**TINY.get(k, {}), **v} for k, v in changes.items()}})


def weights_hash(model: Model) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()


def case_and_maps(truth, found):
    """A case with squares of 3 x 3 pixels at the places of `truth`, and maps of a network that saw those of `found`."""
    labels, foreground = np.zeros((12, 24), np.int32), np.zeros((12, 24), np.uint16)
    for number, place in enumerate(truth, 1):
        labels[3 * (place // 6) : 3 * (place // 6) + 2, 4 * (place % 6) : 4 * (place % 6) + 2] = number
    for place in found:
        foreground[3 * (place // 6) : 3 * (place // 6) + 2, 4 * (place % 6) : 4 * (place % 6) + 2] = PROBABILITY_MAX
    maps = np.stack([foreground, 0 * foreground, foreground])
    return make_case(volume_from_array(labels, 2), Annotation(labels, "instances", Grid(labels.shape)), RECIPE), maps
