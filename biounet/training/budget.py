"""The budget of a training, in epochs or in minutes, and the learning rate schedule over it.

A budget in epochs is a number of steps, and the same steps give the same weights. A budget in minutes is wall time from
the command to the written model: reading, validation, calibration and tuning are inside. The speed of a machine changes
with its load, so that no speed is ever turned into a number of steps; the schedule follows the time left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from biounet.core import Recipe, TrainSettings
from biounet.network import UNet
from biounet.training.calibration import MAX_VOXELS, SMALL_WINDOW, calibrate, central_window, window_size
from biounet.training.cases import Case
from biounet.training.checkpoint import TrainingState
from biounet.training.tuning import count_trials
from biounet.training.validation import VoxelTimes, validate

_DEFAULT_MINUTES = 10.0
_WARM_UP = 100  # steps
_WARM_UP_SHARE = 0.1  # of a shorter training
# Largest shares of a budget in minutes. To fit them, fewer thresholds are tried, fewer voxels calibrated on and fewer
# validation images used, so that a change of load between estimate and end, by a factor of two at the worst, moves the
# end by a few per cent.
CALIBRATING, PREDICTING, TUNING, FINDING, WRITING = 0.03, 0.05, 0.08, 0.05, 0.02
_WRITING_SECONDS = 2.0  # the model, its history and the picture of it
_SMOOTHING = 0.2  # weight of the last step in the running mean of step times


class Budget:
    """The time or the number of steps that a training may take: minutes win over epochs; neither means 10 minutes.

    `steps` is 0 for a budget in minutes, and `total`, in seconds, infinite for one in epochs. `reserve` are the seconds
    of it for what comes after the last step, of which `writing` is for the file and `finding` for what comes just
    before it. `voxel_times` are those measured last.
    `clock` returns the seconds that the training has taken, over interruptions.
    """

    def __init__(self, settings: TrainSettings, clock: Callable[[], float]) -> None:
        self.clock = clock
        by_steps = settings.minutes is None and settings.epochs is not None
        self.steps = (settings.epochs or 0) * settings.steps_per_epoch if by_steps else 0
        self.total = math.inf if by_steps else 60 * (settings.minutes or _DEFAULT_MINUTES)
        self.writing = 0.0 if by_steps else min(_WRITING_SECONDS, WRITING * self.total)
        self.reserve = self.writing + (0.0 if by_steps else (CALIBRATING + TUNING) * self.total)
        self.voxel_times, self.finding = VoxelTimes(), 0.0
        self._step_seconds = 0.0
        self._last = clock()

    @property
    def is_timed(self) -> bool:
        """Whether it is in minutes."""
        return not self.steps

    def reserve_seconds(self, calibrating: float, predicting: float, tuning: float, finding: float) -> None:
        """Reserve the seconds that the parts after the last step are expected to take, each at most its share."""
        if self.is_timed:
            self.finding = min(finding, FINDING * self.total)
            parts = ((calibrating, CALIBRATING), (predicting, 2 * PREDICTING), (tuning, TUNING), (finding, FINDING))
            self.reserve = self.writing + sum(min(seconds, share * self.total) for seconds, share in parts)

    def start(self) -> None:
        """Begin the first step now."""
        self._last = self.clock()

    def seconds_left(self, state: TrainingState) -> float:
        """Estimate the seconds until the model is written, or until the last step of a budget in epochs."""
        if self.is_timed:
            return max(0.0, self.total - self.clock())
        return state.seconds / state.step * (self.steps - state.step) if state.step else math.inf

    def deadline(self, share: float) -> float | None:
        """Return until when a task that starts now may take a share of the budget; None of a budget in epochs."""
        if not self.is_timed:
            return None
        left = self.total - self.writing - self.clock()
        return time.perf_counter() + min(share * self.total, left)

    def tuning_deadline(self) -> float | None:
        """Return until when thresholds may be tried."""
        deadline = self.deadline(1.0)
        return None if deadline is None else deadline - self.finding

    def seconds_to_last_step(self) -> float:
        """Return the seconds until the last step of a budget in minutes."""
        return self.total - self.reserve - self.clock()

    def is_finished(self, state: TrainingState) -> bool:
        """Whether no further step is to be taken; the first one always is."""
        if not self.is_timed:
            return state.step >= self.steps
        if state.step == 0:
            return False
        return state.share >= 1 or self.seconds_to_last_step() < self._step_seconds / 2

    def record_step(self, state: TrainingState) -> None:
        """Record that a step was taken."""
        now = self.clock()
        taken, available = now - self._last, self.total - self.reserve - self._last
        mean = self._step_seconds or taken
        self._step_seconds = mean + _SMOOTHING * (taken - mean)
        self._last, state.seconds = now, now
        state.step += 1
        if self.is_timed:
            # The rest of the schedule is spread over the rest of the time, whatever was lost before.
            state.share += (1 - state.share) * min(1.0, taken / max(available, 1e-9))
            state.steps = max(state.step, round(state.step / state.share)) if state.share else 0
        else:
            state.steps, state.share = self.steps, state.step / self.steps

    def record_finish(self, state: TrainingState) -> None:
        """Record that no further step is taken."""
        state.share, state.steps = 1.0, state.step


def learning_rate_factor(state: TrainingState, budget: Budget) -> float:
    """Return the factor of the learning rate of the next step: linear warm-up, then a cosine to zero."""
    if not budget.is_timed:
        warm_up = max(1, min(_WARM_UP, budget.steps // 10))
        return min(1.0, (state.step + 1) / warm_up) * _cosine(state.step / budget.steps)
    return min(1.0, max((state.step + 1) / _WARM_UP, state.share / _WARM_UP_SHARE)) * _cosine(state.share)


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


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
) -> tuple[float, float, float, float]:
    """Return the expected seconds of calibration on `cases`, of prediction and tuning on `validation`, and of objects.

    The last is the time in which the objects of all cases are found.
    """
    calibrated = min(MAX_VOXELS, sum(window_size(central_window(case, SMALL_WINDOW)) for case in cases))
    validated = sum(case.labels.size for case in validation)
    tuning = times.scoring * validated * count_trials(recipe)
    every = validated + sum(case.labels.size for case in cases)
    finding = 0.0 if recipe.data.kind == "classes" else (times.prediction + times.scoring) * every
    return times.calibration * calibrated, times.prediction * validated, tuning, finding


def subsample(cases: Sequence[Case], voxels: float) -> list[Case]:
    """Return evenly chosen cases, at least one, that together hold about this number of voxels."""
    share = voxels / max(1, sum(case.labels.size for case in cases))
    count = min(len(cases), max(1, int(share * len(cases))))
    return [cases[at] for at in np.linspace(0, len(cases) - 1, count).round().astype(int)] if cases else []
