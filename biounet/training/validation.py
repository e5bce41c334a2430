"""A network scored on validation cases, with given thresholds, on labelled voxels only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from biounet.core import UNLABELLED, LabelSettings, Recipe, mask_partial_objects
from biounet.evaluation import Evaluation, match_objects, score_classes, score_instances
from biounet.labelling import Objects, label_objects
from biounet.network import ActivationRanges, UNet, make_predictor
from biounet.segmentation import label_regions, predict_image
from biounet.training.cases import Case

Metrics = dict[str, float]
Maps = NDArray[np.uint16]  # probabilities (k, [z,] y, x)

_VOXELS_PER_EPOCH = 3_000_000  # of validation between epochs, so that it stays a small part of the run
_MIN_OBJECTS = 20  # of the lowest confidences, for the share of wrong ones to mean anything


@dataclass(frozen=True)
class VoxelTimes:
    """Seconds per voxel, as measured: of a validation case, or for calibration of a training case."""

    prediction: float = 0.0
    scoring: float = 0.0  # labelling and comparing with the truth, once
    calibration: float = 0.0


def validate(
    network: UNet, cases: Sequence[Case], recipe: Recipe, device: str = "auto", voxels: float = _VOXELS_PER_EPOCH
) -> tuple[Metrics, VoxelTimes]:
    """Score a network with the recipe's thresholds on the first cases, as many as hold this number of voxels.

    Return the metrics, empty without cases, and the time that it took.
    """
    if not cases:
        return {}, VoxelTimes()
    sizes = np.cumsum([case.labels.size for case in cases])
    chosen = whole_objects_only(cases[: int(np.searchsorted(sizes, voxels)) + 1], recipe)
    size = sum(case.labels.size for case in chosen)
    began = time.perf_counter()
    maps = predict_cases(network, chosen, recipe, device)
    predicted = time.perf_counter()
    metrics = score_maps(chosen, maps, recipe, recipe.label)
    return metrics, VoxelTimes((predicted - began) / size, (time.perf_counter() - predicted) / size)


def primary_metric(metrics: Metrics) -> str | None:
    """Return the name of the metric by which models are compared: AP of objects, or Dice of classes and regions."""
    return next((name for name in ("ap", "dice") if name in metrics), None)


def whole_objects_only(cases: Sequence[Case], recipe: Recipe) -> list[Case]:
    """Mark objects that were outlined in part as unlabelled: what should be found there is unknown."""
    if recipe.data.kind != "instances":
        return list(cases)
    return [replace(case, labels=mask_partial_objects(case.labels, case.section_axis)) for case in cases]


def predict_cases(
    network: UNet, cases: Sequence[Case], recipe: Recipe, device: str, ranges: ActivationRanges | None = None
) -> list[Maps]:
    """Return the probabilities of each case."""
    predictor = make_predictor(network, device, softmax=recipe.data.exclusive, activation_ranges=ranges)
    return [predict_image(case.image.float().numpy(), predictor) for case in cases]


def score_maps(cases: Sequence[Case], maps: Sequence[Maps], recipe: Recipe, settings: LabelSettings) -> Metrics:
    """Label the probabilities of all cases and compare with the annotations; empty if nothing can be compared."""
    if recipe.data.kind == "instances":
        return score_objects(cases, maps, settings).as_figures()
    labels = [case.labels for case in cases]
    if recipe.data.kind == "scribbles" and all((truth[truth != UNLABELLED] <= 0).all() for truth in labels):
        return {}
    found = [label_regions(m, truth.shape, recipe.data, settings) for m, truth in zip(maps, labels, strict=True)]
    regions = recipe.data.overlapping or None
    return score_classes(labels, found, recipe.data.foreground, regions=regions).as_figures()


def score_objects(cases: Sequence[Case], maps: Sequence[Maps], settings: LabelSettings) -> Evaluation:
    """Label the objects of all cases and compare with the annotations."""
    found = [_label(case, m, settings).labels for case, m in zip(cases, maps, strict=True)]
    pairs = [(_sections(case, case.labels), _sections(case, labels)) for case, labels in zip(cases, found, strict=True)]
    return score_instances(*(list(chain.from_iterable(sections)) for sections in zip(*pairs, strict=True)))


def low_confidence(cases: Sequence[Case], maps: Sequence[Maps], recipe: Recipe, settings: LabelSettings) -> Metrics:
    """Return ``doubtful_below``: at least half of the objects of less confidence match no true one."""
    if recipe.data.kind != "instances":
        return {}
    confidences, mismatches = [], []
    for case, m in zip(cases, maps, strict=True):
        found = _label(case, m, settings)
        for truth, labels in zip(_sections(case, case.labels), _sections(case, found.labels), strict=True):
            table = match_objects(truth, labels)
            is_wrong = ~np.isin(table.predicted_ids, table.predicted_ids[table.predicted_index[table.matches()]])
            counted = ~(is_wrong & table.mostly_unlabelled)
            confidences.append(found.confidence[table.predicted_ids[counted] - 1])
            mismatches.append(is_wrong[counted])
    confidence, is_wrong = np.concatenate(confidences), np.concatenate(mismatches)
    order = np.argsort(confidence)
    share = np.cumsum(is_wrong[order]) / np.arange(1, len(order) + 1)
    mostly_wrong = np.flatnonzero(share[_MIN_OBJECTS - 1 :] >= 0.5) + _MIN_OBJECTS - 1
    return {"doubtful_below": float(confidence[order[mostly_wrong[-1]]])} if mostly_wrong.size else {}


def _sections(case: Case, labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the labels to compare with the truth: as a whole, or plane by plane where planes are labelled."""
    if case.section_axis is None or (case.labels == UNLABELLED).all():
        return [labels]
    labelled = np.moveaxis(case.labels != UNLABELLED, case.section_axis, 0).any(axis=(1, 2))
    return [np.ascontiguousarray(plane) for plane in np.moveaxis(labels, case.section_axis, 0)[labelled]]


def _label(case: Case, maps: Maps, settings: LabelSettings) -> Objects:
    return label_objects(maps[0], maps[1], maps[2], settings, voxel_um=case.voxel_um)
