"""Thresholds chosen on labelled validation voxels, for the count first and the outlines second."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from biounet.core import LabelSettings, Recipe
from biounet.network import ActivationRanges, Model, UNet
from biounet.training.calibration import calibrate
from biounet.training.cases import Case
from biounet.training.validation import (
    Maps,
    Metrics,
    low_confidence,
    predict_cases,
    score_maps,
    score_objects,
    whole_objects_only,
)

Choices = dict[str, tuple[float, ...]]

_STANDARD_ERRORS = 2.0  # with one, the best of 240 combinations is often the best by chance
_SEPARATION: Choices = {
    "join": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9),
    "min_peak": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    "contour": (0.0, 0.4, 0.8),
}
_MIN_SIZE: Choices = {"min_size": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)}
_FOREGROUND: Choices = {"foreground": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)}


@dataclass(frozen=True)
class _Trial:
    """Settings, and for each case the absolute count error and the mean F1 over IoU .5 … .9 reached with them."""

    settings: LabelSettings
    count_errors: NDArray[np.float64]
    f1: NDArray[np.float64]
    distance: float  # from the settings that tuning began with


def tune(
    network: UNet,
    cases: Sequence[Case],
    recipe: Recipe,
    device: str = "auto",
    ranges: ActivationRanges | None = None,
    deadline: float | None = None,
) -> tuple[LabelSettings, Metrics]:
    """Choose thresholds on validation cases.

    First those that make and drop objects, for the mean absolute count error and then for F1; then the foreground
    threshold, which moves outlines, for F1 (mean over IoU .5 … .9). Only labelled voxels count. Of settings that the
    cases do not distinguish, those nearest to the recipe's are taken: the best of many on a few labelled windows is the
    best by chance. Those near the recipe's are tried first, until `deadline` (by `time.perf_counter`) if there is one.

    Return settings, and the metrics reached with them; without cases the recipe's settings and none.
    """
    if not cases:
        return recipe.label, {}
    cases = whole_objects_only(cases, recipe)
    maps = predict_cases(network, cases, recipe, device, ranges)
    settings = recipe.label
    if recipe.data.kind == "instances":
        settings = _tune_objects(cases, maps, settings, deadline)
    metrics = score_maps(cases, maps, recipe, settings)
    return settings, {**metrics, **low_confidence(cases, maps, recipe, settings)}


def retune(model: Model, cases: Sequence[Case], validation: Sequence[Case], label: LabelSettings) -> Model:
    """Return a model with activation ranges, thresholds and metrics determined anew.

    Ranges are those over the training `cases`; thresholds are tuned on `validation`, starting from those of `label`.
    """
    recipe = model.card.recipe.replace("label", **label.model_dump())
    ranges = calibrate(model.network, cases)
    tuned, metrics = tune(model.network, validation, recipe, ranges=ranges)
    changes = {"recipe": recipe.replace("label", **tuned.model_dump()), "validation": metrics}
    return Model(model.network, model.card.model_copy(update=changes), ranges)


def count_trials(recipe: Recipe) -> int:
    """Return how often `tune` labels and scores all cases, metrics and low confidence included."""
    return 1 if recipe.data.kind != "instances" else 2 + sum(_combinations(_rounds(recipe.label)))


def _tune_objects(
    cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings, deadline: float | None
) -> LabelSettings:
    """Choose the thresholds of objects, round by round, each with its share of the time."""
    rounds = _rounds(settings)
    trials = _combinations(rounds)
    for number, (choices, counting) in enumerate(rounds):
        until = None
        if deadline is not None:
            now = time.perf_counter()
            if now > deadline:
                break
            share = trials[number] / (sum(trials[number:]) + 2)  # 2 for the metrics and the low confidence
            until = now + share * (deadline - now)
        settings = _best(cases, maps, settings, choices, counting=counting, until=until)
    return settings


def _rounds(settings: LabelSettings) -> list[tuple[Choices, bool]]:
    """Return the choices of each round, and whether they are made for the count first."""
    min_size = [(_MIN_SIZE, True)] if settings.min_size_unit == "px" else []
    return [(_FOREGROUND, False), (_SEPARATION, True), *min_size, (_FOREGROUND, False)]


def _combinations(rounds: Sequence[tuple[Choices, bool]]) -> list[int]:
    return [math.prod(map(len, choices.values())) for choices, _ in rounds]


def _best(
    cases: Sequence[Case],
    maps: Sequence[Maps],
    settings: LabelSettings,
    choices: Choices,
    *,
    counting: bool = True,
    until: float | None = None,
) -> LabelSettings:
    """Return the combination of choices that is nearest to `settings` and, over the cases, as good as the best.

    As good as the best means that the paired difference is within its standard error, as in the rule of Breiman et al.
    1984 for pruning trees: first for the count, if `counting`, then for F1. Nothing is tried after `until`.
    """
    trials = _try_all(cases, maps, settings, choices, until)
    if counting:
        least = min(trials, key=lambda t: t.count_errors.mean())
        trials = [t for t in trials if _not_above(t.count_errors - least.count_errors)]
    top = max(trials, key=lambda t: t.f1.mean())
    trials = [t for t in trials if _not_above(top.f1 - t.f1)]
    return min(trials, key=lambda t: (t.distance, -t.f1.mean())).settings


def _try_all(
    cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings, choices: Choices, until: float | None
) -> list[_Trial]:
    """Try all combinations, those nearest to `settings` first; the settings themselves are always tried."""
    values = product(*(sorted({*each, getattr(settings, name)}) for name, each in choices.items()))
    combinations = [dict(zip(choices, each, strict=True)) for each in values]
    distances = [_distance(settings, each, choices) for each in combinations]
    tried: dict[int, _Trial] = {}
    for number in np.argsort(distances, kind="stable").tolist():
        if tried and until is not None and time.perf_counter() > until:
            break
        tried[number] = _try(cases, maps, settings.model_copy(update=combinations[number]), distances[number])
    return [tried[number] for number in sorted(tried)]


def _distance(settings: LabelSettings, values: dict[str, float], choices: Choices) -> float:
    """Return the sum of the distances of values from settings, each as a share of the range of its choices."""
    ranges = {name: max(each) - min(each) for name, each in choices.items()}
    return float(sum(abs(value - getattr(settings, name)) / ranges[name] for name, value in values.items()))


def _try(cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings, distance: float) -> _Trial:
    each = [score_objects([case], [m], settings) for case, m in zip(cases, maps, strict=True)]
    # A case without any object, true or found, is a perfect one.
    f1 = np.nan_to_num([np.mean(found.f1) for found in each], nan=1.0)
    return _Trial(settings, np.array([found.count_mae for found in each]), f1, distance)


def _not_above(differences: NDArray[np.float64]) -> bool:
    """Whether the mean is 0 or less, or no more than `_STANDARD_ERRORS` above."""
    if differences.size == 1:
        return True  # one case says nothing about the next
    error = differences.std(ddof=1) / np.sqrt(differences.size)
    return bool(differences.mean() <= _STANDARD_ERRORS * error)
