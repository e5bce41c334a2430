"""A model that a training starts from: does it fit the images, and is what comes out better than it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biounet.core import Recipe
from biounet.network import Model
from biounet.training.dataset import Case
from biounet.training.tuning import Figures, tune

_FAR = 2.0  # times as large, or as small, is another size
_UNKNOWN = "no held-out image says how good they are"
PRIMARY = ("ap", "dice")  # the figure that decides, whichever there is


@dataclass(frozen=True)
class Rival:
    """The start of a training, with thresholds tuned as those of the model that comes out.

    Attributes
    ----------
    model
        The start, with these thresholds.
    figures
        That it reaches on the validation cases.
    """

    model: Model
    figures: Figures

    def beaten_by(self, trained: Model) -> tuple[Model, str, bool]:
        """Return the better one of start and trained model, a sentence with both figures, and whether it is the latter.

        The figure is the mean AP of objects, or the mean Dice of classes or regions. The start stays where neither is
        better. Without a figure for both there is no telling, and the trained model is returned.
        """
        theirs, name = trained.card.validation, next((n for n in PRIMARY if n in self.figures), "")
        before, after = self.figures.get(name, np.nan), theirs.get(name, np.nan)
        if np.isnan(before) or np.isnan(after):
            return trained, f"not compared with the model that it started from: {_UNKNOWN}", False
        both = f"{name} {after:.3f} on the held-out images, the model that it started from {before:.3f}"
        if after > before:
            return trained, both, True
        notes = self.model.card.notes
        card = self.model.card.model_copy(update={"validation": self.figures, "history": trained.card.history})
        card = card.model_copy(update={"notes": notes, "versions": trained.card.versions})
        start = Model(self.model.network, card, self.model.activation_ranges)
        return start, f"the start is kept: training reached {both}", False


def score_start(
    start: Model, held: Sequence[Case], recipe: Recipe, device: str = "auto", deadline: float | None = None
) -> Rival:
    """Score the model that a training starts from on the cases that the trained one is scored on.

    Parameters
    ----------
    start
        The model. Its thresholds are tuned, beginning with its own.
    held
        Validation cases.
    recipe
        Of the training.
    device
        Where it runs.
    deadline
        As of `biounet.training.tune`.
    """
    own = recipe.replace("label", **start.card.label.model_dump())
    label, figures = tune(start.network, held, own, device, start.activation_ranges or None, deadline)
    tuned = start.card.recipe.replace("label", **label.model_dump())
    card = start.card.model_copy(update={"recipe": tuned})
    return Rival(Model(start.network, card, start.activation_ranges), figures)


def remarks_on(start: Model, recipe: Recipe, cases: Sequence[Case], diameter: float | None) -> list[str]:
    """Say in what the images differ from those that the start was trained on, with figures.

    Parameters
    ----------
    start
        The model.
    recipe
        What is trained.
    cases
        The training images.
    diameter
        Median diameter of their objects, in voxels of the working grid; None where there are none.
    """
    card, known = start.card, start.card.recipe
    remarks: list[str] = []
    if known.data.kind != recipe.data.kind:
        remarks.append(f"the start learned from {known.data.kind}, the recipe has {recipe.data.kind}")
    if known.data.channels != recipe.data.channels and len(known.data.channels) > 1:
        theirs, ours = ", ".join(known.data.channels), ", ".join(recipe.data.channels)
        remarks.append(f"the start's channels are called {theirs}, the recipe's {ours}: they are taken in this order")
    size = card.object_size_px
    if diameter is not None and size is not None:
        # What was seen in few images is a narrow range.
        low, high = card.training_ranges.get("diameter", (size, size))
        if not min(low, size / _FAR) <= diameter <= max(high, size * _FAR):
            wide = f"{size:.3g} px at the median" + (f" ({low:.3g} to {high:.3g})" if low < high else "")
            remarks.append(f"objects of {diameter:.3g} px at the median, the start was trained on {wide}")
    return remarks + _voxels(known, cases)


def _voxels(known: Recipe, cases: Sequence[Case]) -> list[str]:
    """Say where images are resampled by much to the voxels of the start."""
    sizes = [case.grid.spacing for case in cases if case.grid.spacing is not None]
    if not known.data.voxel_size or not sizes:
        return []
    ours = np.median(sizes, axis=0)
    ratio = ours / known.data.voxel_size
    if max(ratio.max(), 1 / ratio.min()) <= _FAR:
        return []
    texts = [" x ".join(f"{size:.3g}" for size in each) for each in (ours, known.data.voxel_size)]
    return [f"voxels of {texts[0]} at the median are resampled to the {texts[1]} of the start"]
