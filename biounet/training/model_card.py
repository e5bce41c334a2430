"""The card of a trained model: what it was made of."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biounet.core import Recipe, __version__, stated_orientation
from biounet.measurement import ball_diameters, label_statistics
from biounet.network import Card, output_channels
from biounet.preprocessing import ImageStatistics, distinct_textures, training_ranges
from biounet.training.cases import Case
from biounet.training.validation import Metrics

SPLIT_BY_SHAPE = "learned from strokes: objects that touch are split by the shape of the foreground alone"


def make_card(
    recipe: Recipe, cases: Sequence[Case], validation: Sequence[Case], history: list[Metrics], metrics: Metrics
) -> Card:
    """Return the card of a model, whose recipe has the tuned thresholds."""
    sizes = object_diameters(cases, recipe)
    labelled = sum(case.labelled_count for case in cases)
    spacings = [np.mean(case.grid.spacing[-2:]) for case in cases if case.grid.spacing and case.grid.unit == "um"]
    return Card(
        recipe=recipe,
        inputs=recipe.data.channels,
        outputs=output_channels(recipe),
        object_size_px=median_diameter(cases, recipe),
        pixel_size_um=float(np.median(spacings)) if len(spacings) == len(cases) else None,
        orientation=stated_orientation(case.grid for case in cases),
        surroundings_removed=all(case.surroundings_removed for case in cases),
        target_unit=recipe.targets.unit,
        data={
            "images": len(cases),
            "objects": len(sizes),
            "voxels": labelled,
            "share": labelled / sum(case.labels.size for case in cases),
            "held_out": len(validation),
        },
        validation=metrics,
        history=tuple(history),
        notes=(SPLIT_BY_SHAPE,) if recipe.data.kind == "scribbles" else (),
        versions={"biounet": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def training_statistics(cases: Iterable[Case], found: Iterable[ImageStatistics | None]) -> dict[str, Any]:
    """Return the statistics of the images of cases that a card holds: ``training_ranges`` and ``textures``.

    Those of the objects are of what the model finds in each case, from `found_statistics`: so it is judged by what it
    did on the images that it knows. Where that is not known they are those of the annotation.
    """
    pairs = zip(cases, found, strict=True)
    statistics = [case.statistics | (_annotated(case) if objects is None else objects) for case, objects in pairs]
    return {"training_ranges": training_ranges(statistics), "textures": distinct_textures(statistics)}


def median_diameter(cases: Sequence[Case], recipe: Recipe) -> float | None:
    """Return the median diameter of the objects, in voxels of the working grid; None if there are none."""
    sizes = object_diameters(cases, recipe)
    return float(np.median(sizes)) if len(sizes) else None


def object_diameters(cases: Sequence[Case], recipe: Recipe) -> NDArray[np.float64]:
    """Return the diameters of circles, or balls, of the size of each object, in voxels; none unless of instances."""
    if recipe.data.kind != "instances":
        return np.empty(0)
    counts = np.concatenate([np.bincount(case.labels[case.labels > 0]) for case in cases])
    counts = counts[counts > 0].astype(float)
    return ball_diameters(counts, recipe.data.dims)


def _annotated(case: Case) -> ImageStatistics:
    """Return the statistics of annotated objects, whose confidence is not known."""
    _, labels = np.unique(np.maximum(case.labels, 0), return_inverse=True)
    labels = labels.reshape(case.labels.shape) + (0 if (case.labels <= 0).any() else 1)
    return label_statistics(labels, np.ones(labels.max(initial=0)), None)
