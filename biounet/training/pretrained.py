"""A pretrained model that a training starts from: whether it fits the images, and whether training improves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biounet.core import Recipe
from biounet.network import Model
from biounet.training.cases import Case
from biounet.training.tuning import tune
from biounet.training.validation import Metrics, primary_metric

_LARGE_RATIO = 2.0  # of sizes that count as different


@dataclass(frozen=True)
class Baseline:
    """The model that a training starts from, with thresholds tuned on the validation cases, and its metrics there."""

    model: Model
    metrics: Metrics

    def better_of(self, trained: Model) -> tuple[Model, str, bool]:
        """Return the better of both models, a sentence with the metrics of both, and whether training improved it.

        The baseline is returned unless the trained model is better; without a metric of both, the trained model is.
        """
        metric = primary_metric(self.metrics) or ""
        before, after = self.metrics.get(metric, np.nan), trained.card.validation.get(metric, np.nan)
        if np.isnan(before) or np.isnan(after):
            unknown = "no held-out image says how good they are"
            return trained, f"not compared with the model that it started from: {unknown}", False
        both = f"{metric} {after:.3f} on the held-out images, the model that it started from {before:.3f}"
        if after > before:
            return trained, both, True
        changes = {"history": trained.card.history, "versions": trained.card.versions, "validation": self.metrics}
        card = self.model.card.model_copy(update=changes)
        start = Model(self.model.network, card, self.model.activation_ranges)
        return start, f"the start is kept: training reached {both}", False


def score_baseline(
    start: Model, validation: Sequence[Case], recipe: Recipe, device: str = "auto", deadline: float | None = None
) -> Baseline:
    """Tune, beginning with its own thresholds, and score a model on the validation cases of a training from it."""
    with_thresholds = recipe.replace("label", **start.card.label.model_dump())
    label, metrics = tune(start.network, validation, with_thresholds, device, start.activation_ranges or None, deadline)
    card = start.card.model_copy(update={"recipe": start.card.recipe.replace("label", **label.model_dump())})
    return Baseline(Model(start.network, card, start.activation_ranges), metrics)


def describe_differences(start: Model, recipe: Recipe, cases: Sequence[Case], diameter: float | None) -> list[str]:
    """Return sentences on how cases, with objects of a median diameter, differ from those that a model learned from."""
    card, theirs = start.card, start.card.recipe
    differences: list[str] = []
    if theirs.data.kind != recipe.data.kind:
        differences.append(f"the start learned from {theirs.data.kind}, the recipe has {recipe.data.kind}")
    if theirs.data.channels != recipe.data.channels and len(theirs.data.channels) > 1:
        names = ", ".join(theirs.data.channels), ", ".join(recipe.data.channels)
        text = f"the start's channels are called {names[0]}, the recipe's {names[1]}: they are taken in this order"
        differences.append(text)
    size = card.object_size_px
    if diameter is not None and size is not None:
        # The range over few images is narrow.
        low, high = card.training_ranges.get("diameter", (size, size))
        if not min(low, size / _LARGE_RATIO) <= diameter <= max(high, size * _LARGE_RATIO):
            wide = f"{size:.3g} px at the median" + (f" ({low:.3g} to {high:.3g})" if low < high else "")
            differences.append(f"objects of {diameter:.3g} px at the median, the start was trained on {wide}")
    return differences + _voxel_size_differences(theirs, cases)


def _voxel_size_differences(theirs: Recipe, cases: Sequence[Case]) -> list[str]:
    spacings = [case.grid.spacing for case in cases if case.grid.spacing is not None]
    if not theirs.data.voxel_size or not spacings:
        return []
    median = np.median(spacings, axis=0)
    ratio = median / theirs.data.voxel_size
    if max(ratio.max(), 1 / ratio.min()) <= _LARGE_RATIO:
        return []
    texts = [" x ".join(f"{step:.3g}" for step in spacing) for spacing in (median, theirs.data.voxel_size)]
    return [f"voxels of {texts[0]} at the median are resampled to the {texts[1]} of the start"]
