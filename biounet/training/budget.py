"""How far a training has come, by its steps or by the clock, and what is left of it.

A budget in epochs is a number of steps, and the same steps give the same weights. A budget in minutes is wall time from
the command to the written model: reading, validation, calibration and tuning are inside. How fast a machine is changes
with what else it does, so that no pace is ever turned into a number of steps; the schedule follows the time left.
"""

from __future__ import annotations

import math
import time

from biounet.core import TrainSettings
from biounet.training.checkpoint import State
from biounet.training.tuning import Paces

_DEFAULT_MINUTES = 10.0
_WARM = 100  # steps
_WARM_SHARE = 0.1  # of a shorter training
# Shares of a budget in minutes, at most. What is scaled down to fit is thresholds that are tried, voxels that the
# ranges of features are taken over, and held-out images, so that a change of load between estimate and end, by a factor
# of two at the worst, moves the end by a few per cent.
CALIBRATING, PREDICTING, TUNING, WRITING = 0.03, 0.05, 0.08, 0.02
_WRITING_SECONDS = 2.0  # the model, its history and the picture of it
_RECENT = 0.2  # weight of the last step in the mean time of a step


class Clock:
    """Seconds that a training has taken, over interruptions.

    Parameters
    ----------
    began
        When this run began, by `time.perf_counter`; None for now.
    before
        Seconds of the runs before.
    """

    def __init__(self, began: float | None = None, before: float = 0.0) -> None:
        self.began = time.perf_counter() if began is None else began
        self.before = before

    def seconds(self) -> float:
        """Return the seconds until now."""
        return self.before + time.perf_counter() - self.began


class Budget:
    """What a training may take.

    Parameters
    ----------
    settings
        With minutes or epochs; minutes win, and neither means 10 minutes.
    clock
        Of this training.

    Attributes
    ----------
    steps
        All steps of a budget in epochs; 0 for minutes.
    total
        Seconds of a budget in minutes; infinite for epochs.
    reserve
        Seconds of it that are kept for what comes after the last step.
    writing
        Those of them in which the model is written.
    paces
        How long validation takes, as measured last.
    """

    def __init__(self, settings: TrainSettings, clock: Clock) -> None:
        self.clock = clock
        by_steps = settings.minutes is None and settings.epochs is not None
        self.steps = (settings.epochs or 0) * settings.steps_per_epoch if by_steps else 0
        self.total = math.inf if by_steps else 60 * (settings.minutes or _DEFAULT_MINUTES)
        self.writing = 0.0 if by_steps else min(_WRITING_SECONDS, WRITING * self.total)
        self.reserve = self.writing + (0.0 if by_steps else (CALIBRATING + TUNING) * self.total)
        self.paces = Paces()
        self._pace = 0.0
        self._last = clock.seconds()

    @property
    def timed(self) -> bool:
        """Whether the budget is in minutes."""
        return not self.steps

    def expect(self, calibrating: float, predicting: float, tuning: float) -> None:
        """Say how many seconds the parts of the end will take, as measured so far; each takes its share at most."""
        if self.timed:
            parts = ((calibrating, CALIBRATING), (predicting, 2 * PREDICTING), (tuning, TUNING))
            self.reserve = self.writing + sum(min(seconds, share * self.total) for seconds, share in parts)

    def start(self) -> None:
        """Note that the first step begins now."""
        self._last = self.clock.seconds()

    def left(self, state: State) -> float:
        """Return an estimate of the seconds until the model is written; of epochs until the last step."""
        if self.timed:
            return max(0.0, self.total - self.clock.seconds())
        return state.seconds / state.step * (self.steps - state.step) if state.step else math.inf

    def deadline(self, share: float) -> float | None:
        """Return when, by `time.perf_counter`, something has to end that may take a share of the budget from now on.

        That is never later than when the model has to be written. A budget in epochs has no such time.
        """
        if not self.timed:
            return None
        left = self.total - self.writing - self.clock.seconds()
        return time.perf_counter() + min(share * self.total, left)

    def until_end(self) -> float:
        """Return the seconds of a budget in minutes until its last step."""
        return self.total - self.reserve - self.clock.seconds()

    def is_over(self, state: State) -> bool:
        """Whether there is no further step to take; the first one always is."""
        if not self.timed:
            return state.step >= self.steps
        if state.step == 0:
            return False
        return state.share >= 1 or self.until_end() < self._pace / 2

    def advance(self, state: State) -> None:
        """Note in the state that a step was taken."""
        now = self.clock.seconds()
        taken, until_end = now - self._last, self.total - self.reserve - self._last
        self._pace = taken if not self._pace else self._pace + _RECENT * (taken - self._pace)
        self._last, state.seconds = now, now
        state.step += 1
        if self.timed:
            # What is left of the schedule is spread over what is left of the time, whatever was lost before.
            state.share += (1 - state.share) * min(1.0, taken / max(until_end, 1e-9))
            state.steps = max(state.step, round(state.step / state.share)) if state.share else 0
        else:
            state.steps, state.share = self.steps, state.step / self.steps

    def finish(self, state: State) -> None:
        """Note in the state that no further step is taken."""
        state.share, state.steps = 1.0, state.step


def factor_at(state: State, budget: Budget) -> float:
    """Return by how much the learning rate of the next step is multiplied: linear warm-up, then a cosine to zero."""
    if not budget.timed:
        warm = max(1, min(_WARM, budget.steps // 10))
        return min(1.0, (state.step + 1) / warm) * _cosine(state.step / budget.steps)
    return min(1.0, max((state.step + 1) / _WARM, state.share / _WARM_SHARE)) * _cosine(state.share)


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
