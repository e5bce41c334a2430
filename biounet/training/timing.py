"""How long validation, calibration and tuning are expected to take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from biounet.core import Recipe
from biounet.network import UNet
from biounet.training.calibration import MAX_VOXELS, SMALL_WINDOW, calibrate, central_window, window_size
from biounet.training.cases import Case
from biounet.training.tuning import count_trials
from biounet.training.validation import VoxelTimes, validate


def measure_voxel_times(network: UNet, cases: Sequence[Case], recipe: Recipe, device: str = "auto") -> VoxelTimes:
    """Measure prediction, scoring and calibration on a small part of a case, after a first run that compiles them."""
    case = cases[len(cases) // 2]
    window = central_window(case, SMALL_WINDOW)
    part = replace(
        case,
        image=case.image[(slice(None), *window)],
        labels=np.ascontiguousarray(case.labels[window]),
        labelled_voxels=None,
        object_voxels=(),
    )
    validate(network, [part], recipe, device)
    _, times = validate(network, [part], recipe, device)
    began = time.perf_counter()
    calibrate(network, [part])
    return replace(times, calibration=(time.perf_counter() - began) / part.labels.size)


def expected_seconds(
    times: VoxelTimes, cases: Sequence[Case], validation: Sequence[Case], recipe: Recipe
) -> tuple[float, float, float]:
    """Return the expected seconds of calibration on `cases`, and of prediction and tuning on `validation`."""
    calibrated = min(MAX_VOXELS, sum(window_size(central_window(case, SMALL_WINDOW)) for case in cases))
    validated = sum(case.labels.size for case in validation)
    tuning = times.scoring * validated * count_trials(recipe)
    return times.calibration * calibrated, times.prediction * validated, tuning


def subsample(cases: Sequence[Case], voxels: float) -> list[Case]:
    """Return evenly chosen cases, at least one, that together hold about this number of voxels."""
    share = voxels / max(1, sum(case.labels.size for case in cases))
    count = min(len(cases), max(1, int(share * len(cases))))
    return [cases[at] for at in np.linspace(0, len(cases) - 1, count).round().astype(int)] if cases else []
