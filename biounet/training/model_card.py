"""The card of a trained model: what it was made of."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biounet.core import Recipe, __version__, stated_orientation
from biounet.network import Card, output_channels
from biounet.preprocessing import distinct_textures, training_ranges
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


def training_statistics(cases: Iterable[Case], recipe: Recipe) -> dict[str, Any]:
    """Return the statistics of the images of cases that a card holds: ``training_ranges`` and ``textures``."""
    statistics = []
    for case in cases:
        one = dict(case.statistics)
        if recipe.data.kind == "instances" and (case.labels > 0).any():
            one["diameter"] = float(np.median(object_diameters([case], recipe)))
            one["at_border"] = _share_at_border(case.labels)
        statistics.append(one)
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
    diameters = 2 * np.sqrt(counts / np.pi) if recipe.data.dims == 2 else 2 * np.cbrt(counts * 3 / (4 * np.pi))
    return np.asarray(diameters)


def _share_at_border(labels: NDArray[np.int32]) -> float:
    """Return the share of the objects that touch the border of the image."""
    borders = [labels.take(end, axis) for axis in range(labels.ndim) for end in (0, -1)]
    touching = np.unique(np.concatenate([border.ravel() for border in borders]))
    return float(np.count_nonzero(touching > 0) / np.count_nonzero(np.bincount(labels[labels > 0])))
