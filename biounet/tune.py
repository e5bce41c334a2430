"""Thresholds chosen on labelled validation voxels, for the count first and the outlines second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from biounet.annotation import UNLABELLED
from biounet.dataset import Case
from biounet.evaluation import Evaluation, score_classes, score_instances
from biounet.network import UNet
from biounet.predict import make_predictor
from biounet.recipe import LabelSettings, Recipe
from biounet.segment import label_maps, predict_image
from biounet.stitch import label_objects

Figures = dict[str, float]
Maps = NDArray[np.uint16]
Choices = dict[str, tuple[float, ...]]

_VOXELS_PER_EPOCH = 3_000_000  # of validation between epochs, so that it stays a small part of the run
_TOLERANCE = 1.05  # settings whose count error is within this factor of the best are told apart by F1
_SEPARATE: Choices = {
    "join": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),
    "summit": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    "contour": (0.0, 0.4, 0.8),
}
_DROP: Choices = {"min_size": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)}
_OUTLINE: Choices = {"foreground": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)}


@dataclass(frozen=True)
class _Trial:
    settings: LabelSettings
    count_error: float
    f1: float


def validate(network: UNet, cases: Sequence[Case], recipe: Recipe, device: str = "auto") -> Figures:
    """Score a network on some validation cases with the recipe's thresholds; empty without cases."""
    chosen: list[Case] = []
    for case in cases:
        if not chosen or sum(c.labels.size for c in chosen) < _VOXELS_PER_EPOCH:
            chosen.append(case)
    return _figures(chosen, predict_cases(network, chosen, recipe, device), recipe, recipe.label) if chosen else {}


def tune(network: UNet, cases: Sequence[Case], recipe: Recipe, device: str = "auto") -> tuple[LabelSettings, Figures]:
    """Choose thresholds on validation cases.

    First what makes and drops objects, for the mean absolute count error, and among equally good choices for F1; then
    the foreground threshold, which moves outlines, for F1 (mean over IoU .5 … .9). Only labelled voxels count.

    Returns
    -------
    Settings, and the figures reached with them; the recipe's own settings where there is nothing to tune on.
    """
    if not cases:
        return recipe.label, {}
    maps = predict_cases(network, cases, recipe, device)
    settings = recipe.label
    if recipe.data.kind == "instances":
        settings = _best(cases, maps, settings, _OUTLINE, counting=False)
        settings = _best(cases, maps, settings, _SEPARATE)
        if settings.min_size_unit == "px":
            settings = _best(cases, maps, settings, _DROP)
        settings = _best(cases, maps, settings, _OUTLINE, counting=False)
    return settings, _figures(cases, maps, recipe, settings)


def predict_cases(network: UNet, cases: Sequence[Case], recipe: Recipe, device: str) -> list[Maps]:
    """Predict the maps of each case, shape ``(k, [z,] y, x)``."""
    predictor = make_predictor(network, device, softmax=recipe.data.exclusive)
    return [predict_image(case.image.float().numpy(), predictor) for case in cases]


def _best(
    cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings, choices: Choices, *, counting: bool = True
) -> LabelSettings:
    """Return the settings with the best combination of choices: for the count and then F1, or for F1 alone."""
    trials = []
    for values in product(*(sorted({*values, getattr(settings, name)}) for name, values in choices.items())):
        option = settings.model_copy(update=dict(zip(choices, values, strict=True)))
        found = evaluate_instances(cases, maps, option)
        trials.append(_Trial(option, found.count_mae, float(np.mean(found.f1))))
    limit = min(trial.count_error for trial in trials) * _TOLERANCE if counting else np.inf
    return max((t for t in trials if t.count_error <= limit), key=lambda t: t.f1).settings


def evaluate_instances(cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings) -> Evaluation:
    """Label the maps of all cases and compare with the annotation on labelled voxels."""
    found = [label_objects(m[0], m[1], m[2], settings).labels for m in maps]
    return score_instances([case.labels for case in cases], found)


def _figures(cases: Sequence[Case], maps: Sequence[Maps], recipe: Recipe, settings: LabelSettings) -> Figures:
    if recipe.data.kind == "instances":
        return evaluate_instances(cases, maps, settings).as_figures()
    labels = [case.labels for case in cases]
    if recipe.data.kind == "scribbles" and all((truth[truth != UNLABELLED] <= 0).all() for truth in labels):
        return {}
    found = [label_maps(m, truth.shape, recipe.data, settings) for m, truth in zip(maps, labels, strict=True)]
    return score_classes(labels, found, recipe.data.foreground).as_figures()
