"""Thresholds chosen on labelled validation voxels, for the count first and the outlines second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biounet.core import UNLABELLED, LabelSettings, Recipe, mask_partial_objects
from biounet.evaluation import Evaluation, match_objects, score_classes, score_instances
from biounet.labelling import Objects, label_objects
from biounet.network import ActivationRanges, Model, UNet, calibrate_activations, fold_batch_norms, make_predictor
from biounet.segmentation import label_regions, pad_to_stride, predict_image
from biounet.training.dataset import Case

Figures = dict[str, float]
Maps = NDArray[np.uint16]
Choices = dict[str, tuple[float, ...]]

_VOXELS_PER_EPOCH = 3_000_000  # of validation between epochs, so that it stays a small part of the run
_OBSERVED = 8_000_000  # voxels over which the ranges of features are taken: some seconds
_WINDOW = {2: 1024, 3: 128}  # largest edge of what is taken from one image for it
_BRIEF = {2: 256, 3: 64}  # the same where there is little time
_ERRORS = 2.0  # standard errors: with one, the best of 240 combinations is often the best by chance
_FEW = 20  # objects of the least confidence of which no share is told
_SEPARATE: Choices = {
    "join": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9),
    "min_peak": (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    "contour": (0.0, 0.4, 0.8),
}
_DROP: Choices = {"min_size": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0)}
_OUTLINE: Choices = {"foreground": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)}


@dataclass(frozen=True)
class _Trial:
    """Settings, and for each case how far the count was off and the mean F1 over IoU .5 … .9."""

    settings: LabelSettings
    count_errors: NDArray[np.float64]
    f1: NDArray[np.float64]
    away: float


@dataclass(frozen=True)
class Paces:
    """Seconds for each voxel of validation cases, as measured.

    Attributes
    ----------
    predicting, judging
        Of predicting it, and of labelling it and comparing once.
    observing
        Of taking the ranges of features, over a voxel of a training case.
    """

    predicting: float = 0.0
    judging: float = 0.0
    observing: float = 0.0


def validate(
    network: UNet, cases: Sequence[Case], recipe: Recipe, device: str = "auto", voxels: float = _VOXELS_PER_EPOCH
) -> tuple[Figures, Paces]:
    """Score a network on some validation cases with the recipe's thresholds.

    Parameters
    ----------
    network, recipe, device
        What is scored, by which thresholds, and where it runs.
    cases
        The first of them are looked at, until they hold `voxels`.
    voxels
        In all.

    Returns
    -------
    Figures, empty without cases, and what it took.
    """
    chosen: list[Case] = []
    for case in cases:
        if not chosen or sum(c.labels.size for c in chosen) < voxels:
            chosen.append(case)
    if not chosen:
        return {}, Paces()
    judged, size = _judged(chosen, recipe), sum(case.labels.size for case in chosen)
    began = time.perf_counter()
    maps = predict_cases(network, judged, recipe, device)
    predicted = time.perf_counter()
    figures = _figures(judged, maps, recipe, recipe.label)
    return figures, Paces((predicted - began) / size, (time.perf_counter() - predicted) / size)


def rehearse(network: UNet, cases: Sequence[Case], recipe: Recipe, device: str = "auto") -> Paces:
    """Measure on a small part of a case how long validation takes, after everything is compiled that it needs."""
    case = cases[len(cases) // 2]
    window = _window(case, _BRIEF)
    part = replace(case, image=case.image[(slice(None), *window)], labels=np.ascontiguousarray(case.labels[window]))
    part = replace(part, centres=None, foreground=())
    validate(network, [part], recipe, device)
    _, paces = validate(network, [part], recipe, device)
    began = time.perf_counter()
    observe_cases(network, [part])
    return replace(paces, observing=(time.perf_counter() - began) / part.labels.size)


def seconds_of_end(
    paces: Paces, cases: Sequence[Case], held: Sequence[Case], recipe: Recipe
) -> tuple[float, float, float]:
    """Return how long calibration on `cases`, and prediction and tuning on `held`, are expected to take."""
    windows = [_window(case, _BRIEF) for case in cases]
    observed = min(_OBSERVED, sum(math.prod(part.stop - part.start for part in window) for window in windows))
    judged = sum(case.labels.size for case in held)
    return paces.observing * observed, paces.predicting * judged, paces.judging * judged * _trials_of(recipe)


def _trials_of(recipe: Recipe) -> int:
    """Return how often `tune` labels and compares all cases, figures and doubt included."""
    return 1 if recipe.data.kind != "instances" else 2 + sum(_sizes(_rounds(recipe.label)))


def evenly(cases: Sequence[Case], voxels: float) -> list[Case]:
    """Return cases, evenly chosen and at least one, that together hold about so many voxels."""
    share = voxels / max(1, sum(case.labels.size for case in cases))
    count = min(len(cases), max(1, int(share * len(cases))))
    return [cases[at] for at in np.linspace(0, len(cases) - 1, count).round().astype(int)] if cases else []


def observe_cases(network: UNet, cases: Sequence[Case], deadline: float | None = None) -> dict[str, Tensor]:
    """Return the ranges of the features over parts of cases, evenly chosen, for prediction in integers.

    Parameters
    ----------
    network
        The trained network.
    cases
        That it was trained on.
    deadline
        No part is begun after it but the first, by `time.perf_counter`; parts are smaller then.
    """
    windows = [_window(case, _WINDOW if deadline is None else _BRIEF) for case in cases]
    sizes = [math.prod(part.stop - part.start for part in window) for window in windows]
    every = math.ceil(sum(sizes) / _OBSERVED)
    chosen = list(zip(cases, windows, strict=True))[::every]

    def parts() -> Iterator[Tensor]:
        order = range(len(chosen)) if deadline is None else np.random.default_rng(0).permutation(len(chosen))
        for count, at in enumerate(order):
            if count and deadline is not None and time.perf_counter() > deadline:
                return
            case, window = chosen[at]
            part = case.image[(slice(None), *window)].float().numpy()
            yield torch.from_numpy(pad_to_stride(part, network.stride))

    return calibrate_activations(fold_batch_norms(network), parts())


def retune(model: Model, cases: Sequence[Case], held: Sequence[Case], label: LabelSettings) -> Model:
    """Return a model as a training that ends with these weights would: with ranges, thresholds and figures of today.

    Parameters
    ----------
    model
        Its thresholds are forgotten: tuning starts from those of `label`.
    cases, held
        Those that it was trained on, and those that thresholds are tuned on.
    label
        Of the recipe.
    """
    recipe = model.card.recipe.replace("label", **label.model_dump())
    ranges = observe_cases(model.network, cases)
    tuned, figures = tune(model.network, held, recipe, ranges=ranges)
    described = {"recipe": recipe.replace("label", **tuned.model_dump()), "validation": figures}
    return Model(model.network, model.card.model_copy(update=described), ranges)


def _window(case: Case, edges: Mapping[int, int] = _WINDOW) -> tuple[slice, ...]:
    """Return the part of an image around its middle, or around the middle one of the voxels of objects."""
    shape, edge = case.labels.shape, edges[case.labels.ndim]
    middle: tuple[int, ...] = tuple(size // 2 for size in shape)
    if case.foreground:
        places = case.foreground[0]
        middle = tuple(int(at) for at in np.unravel_index(places[len(places) // 2], shape))
    starts = [max(min(at - edge // 2, size - edge), 0) for at, size in zip(middle, shape, strict=True)]
    return tuple(slice(start, min(start + edge, size)) for start, size in zip(starts, shape, strict=True))


def tune(
    network: UNet,
    cases: Sequence[Case],
    recipe: Recipe,
    device: str = "auto",
    ranges: ActivationRanges | None = None,
    deadline: float | None = None,
) -> tuple[LabelSettings, Figures]:
    """Choose thresholds on validation cases.

    First what makes and drops objects, for the mean absolute count error and then for F1; then the foreground
    threshold, which moves outlines, for F1 (mean over IoU .5 … .9). Only labelled voxels count. Of settings that the
    cases cannot tell apart, those nearest to the recipe's are taken: the best of many on a few labelled windows is the
    best by chance. Those near the recipe's are tried first, until `deadline` (by `time.perf_counter`) if there is one.

    Returns
    -------
    Settings, and the figures reached with them; the recipe's own settings where there is nothing to tune on. Figure
    ``doubtful_below`` is the confidence below which at least half of the objects are wrong, where some are.
    """
    if not cases:
        return recipe.label, {}
    cases = _judged(cases, recipe)
    maps = predict_cases(network, cases, recipe, device, ranges)
    settings = recipe.label
    if recipe.data.kind == "instances":
        settings = _tune_objects(cases, maps, settings, deadline)
    return settings, {**_figures(cases, maps, recipe, settings), **_doubt(cases, maps, recipe, settings)}


def _tune_objects(
    cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings, deadline: float | None
) -> LabelSettings:
    """Choose what makes, parts, drops and outlines objects, round by round, each with its part of the time."""
    rounds = _rounds(settings)
    trials = _sizes(rounds)
    for number, (choices, counting) in enumerate(rounds):
        until = None
        if deadline is not None:
            now = time.perf_counter()
            if now > deadline:
                break
            share = trials[number] / (sum(trials[number:]) + 2)  # figures, and their doubt
            until = now + share * (deadline - now)
        settings = _best(cases, maps, settings, choices, counting=counting, until=until)
    return settings


def _rounds(settings: LabelSettings) -> list[tuple[Choices, bool]]:
    """Return what is chosen from in each round, and whether for the count first."""
    drop = [(_DROP, True)] if settings.min_size_unit == "px" else []
    return [(_OUTLINE, False), (_SEPARATE, True), *drop, (_OUTLINE, False)]


def _sizes(rounds: Sequence[tuple[Choices, bool]]) -> list[int]:
    return [math.prod(map(len, choices.values())) for choices, _ in rounds]


def _judged(cases: Sequence[Case], recipe: Recipe) -> list[Case]:
    """Leave out the objects that were outlined in part: how they should be found is unknown."""
    if recipe.data.kind != "instances":
        return list(cases)
    return [replace(case, labels=mask_partial_objects(case.labels, case.section_axis)) for case in cases]


def _views(case: Case, labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return labels as they are compared with the truth: as a whole, or plane by plane where planes are labelled."""
    if case.section_axis is None or (case.labels == UNLABELLED).all():
        return [labels]
    known = np.moveaxis(case.labels != UNLABELLED, case.section_axis, 0).any(axis=(1, 2))
    return [np.ascontiguousarray(plane) for plane in np.moveaxis(labels, case.section_axis, 0)[known]]


def predict_cases(
    network: UNet, cases: Sequence[Case], recipe: Recipe, device: str, ranges: ActivationRanges | None = None
) -> list[Maps]:
    """Predict the maps of each case, shape ``(k, [z,] y, x)``."""
    predictor = make_predictor(network, device, softmax=recipe.data.exclusive, activation_ranges=ranges)
    return [predict_image(case.image.float().numpy(), predictor) for case in cases]


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
    1984 for pruning trees: first for the count, if `counting`, then for F1. After `until` nothing is tried any more.
    """
    trials = _try_all(cases, maps, settings, choices, until)
    if counting:
        least = min(trials, key=lambda t: t.count_errors.mean())
        trials = [t for t in trials if _not_above(t.count_errors - least.count_errors)]
    top = max(trials, key=lambda t: t.f1.mean())
    trials = [t for t in trials if _not_above(top.f1 - t.f1)]
    return min(trials, key=lambda t: (t.away, -t.f1.mean())).settings


def _try_all(
    cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings, choices: Choices, until: float | None
) -> list[_Trial]:
    """Try all combinations, those nearest to `settings` first; the settings themselves are tried in any case."""
    values = product(*(sorted({*each, getattr(settings, name)}) for name, each in choices.items()))
    combinations = [dict(zip(choices, each, strict=True)) for each in values]
    away = [_away(settings, each, choices) for each in combinations]
    tried: dict[int, _Trial] = {}
    for at in np.argsort(away, kind="stable").tolist():
        if tried and until is not None and time.perf_counter() > until:
            break
        tried[at] = _try(cases, maps, settings.model_copy(update=combinations[at]), away[at])
    return [tried[at] for at in sorted(tried)]


def _away(settings: LabelSettings, values: dict[str, float], choices: Choices) -> float:
    """Return how far values are from settings, each as a share of the range of its choices."""
    steps = [
        abs(value - getattr(settings, name)) / (max(choices[name]) - min(choices[name]))
        for name, value in values.items()
    ]
    return float(sum(steps))


def _try(cases: Sequence[Case], maps: Sequence[Maps], option: LabelSettings, away: float) -> _Trial:
    each = [evaluate_instances([case], [m], option) for case, m in zip(cases, maps, strict=True)]
    # A case without any object, true or found, is a perfect one.
    f1 = np.nan_to_num([np.mean(found.f1) for found in each], nan=1.0)
    return _Trial(option, np.array([found.count_mae for found in each]), f1, away)


def _not_above(differences: NDArray[np.float64]) -> bool:
    """Whether the mean is 0 or less, or no more than `_ERRORS` times its standard error."""
    if differences.size == 1:
        return True  # one case says nothing about the next
    error = differences.std(ddof=1) / np.sqrt(differences.size)
    return bool(differences.mean() <= _ERRORS * error)


def _label(case: Case, maps: Maps, settings: LabelSettings) -> Objects:
    return label_objects(maps[0], maps[1], maps[2], settings, voxel_um=case.voxel_um)


def evaluate_instances(cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings) -> Evaluation:
    """Label the maps of all cases and compare with the annotation on labelled voxels."""
    found = [_label(case, m, settings).labels for case, m in zip(cases, maps, strict=True)]
    pairs = [(_views(case, case.labels), _views(case, labels)) for case, labels in zip(cases, found, strict=True)]
    return score_instances(*(list(chain.from_iterable(views)) for views in zip(*pairs, strict=True)))


def _figures(cases: Sequence[Case], maps: Sequence[Maps], recipe: Recipe, settings: LabelSettings) -> Figures:
    if recipe.data.kind == "instances":
        return evaluate_instances(cases, maps, settings).as_figures()
    labels = [case.labels for case in cases]
    if recipe.data.kind == "scribbles" and all((truth[truth != UNLABELLED] <= 0).all() for truth in labels):
        return {}
    found = [label_regions(m, truth.shape, recipe.data, settings) for m, truth in zip(maps, labels, strict=True)]
    regions = recipe.data.overlapping or None
    return score_classes(labels, found, recipe.data.foreground, regions=regions).as_figures()


def _doubt(cases: Sequence[Case], maps: Sequence[Maps], recipe: Recipe, settings: LabelSettings) -> Figures:
    """Return ``doubtful_below``: of the objects with less confidence at least half match no true one."""
    if recipe.data.kind != "instances":
        return {}
    confidences, wrong = [], []
    for case, found in zip(cases, map(_label, cases, maps, repeat(settings)), strict=True):
        for truth, labels in zip(_views(case, case.labels), _views(case, found.labels), strict=True):
            table = match_objects(truth, labels)
            is_wrong = ~np.isin(table.predicted_ids, table.predicted_ids[table.predicted_index[table.matches()]])
            judged = ~(is_wrong & table.mostly_unlabelled)
            confidences.append(found.confidence[table.predicted_ids[judged] - 1])
            wrong.append(is_wrong[judged])
    confidence, is_wrong = np.concatenate(confidences), np.concatenate(wrong)
    order = np.argsort(confidence)
    share = np.cumsum(is_wrong[order]) / np.arange(1, len(order) + 1)
    mostly = np.flatnonzero(share[_FEW - 1 :] >= 0.5) + _FEW - 1
    return {"doubtful_below": float(confidence[order[mostly[-1]]])} if mostly.size else {}
