"""How far the work on a large image is: its stages, the parts of each that are done, and the time that is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from biounet.core import format_seconds

_LOG_EVERY = 30.0  # seconds
_WORDS = {
    "find": "predicting",
    "gaps": "filling holes",
    "paint": "writing labels",
    "channels": "counting background",
    "measure": "measuring",
}
_OTHER = "writing levels"
# What stages take relative to the first, on a confluent field of 8192 x 8192; and what comes after them.
_TAKES = {"find": 1.0, "gaps": 0.06, "paint": 0.06, "channels": 0.0, "measure": 0.18, "level1": 0.07, "level2": 0.03}
_AFTER = 0.15
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartsDone:
    """How far the work on one large image is.

    Attributes
    ----------
    image
        Its name.
    stage
        Which stage it is in, in words.
    done, total
        Parts of the stage.
    share
        Of all the work, 0 to 1; about.
    left
        Seconds that are left; about. None where nothing is known of the speed yet.
    """

    image: str
    stage: str
    done: int
    total: int
    share: float
    left: float | None = None

    def describe(self) -> str:
        """Return it in words."""
        left = "" if self.left is None else f", about {format_seconds(self.left)} left"
        return f"{self.image}: {self.stage}, {self.done} of {self.total} parts{left}"


ShowParts = Callable[[PartsDone], None]
"""Called each time that a part of a large image is done."""


class PartsClock:
    """Tells the progress of one image, with the time that is left by the speed so far.

    What an earlier run has done says nothing of the speed.
    """

    def __init__(self, image: str, show: ShowParts, clock: Callable[[], float] = time.monotonic) -> None:
        self._image, self._show, self._clock = image, show, clock
        self._first: tuple[float, float] | None = None  # time and share when the work was first heard of

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say that so many parts of a stage are done."""
        # Channels to measure are counted in passes, which are few and fast.
        stage = "channels" if stage.startswith("channels") else stage
        now, share = self._clock(), _share(stage, done / total if total else 1.0)
        if self._first is None:
            self._first = now, share
        gained = share - self._first[1]
        left = (now - self._first[0]) / gained * (1 - share) if gained > 0 else None
        self._show(PartsDone(self._image, _WORDS.get(stage, _OTHER), done, total, share, left))


def _share(stage: str, part: float) -> float:
    """Return about how much of the work is done when a part of a stage is."""
    names = list(_TAKES)
    before = names[: names.index(stage)] if stage in names else names
    return (sum(_TAKES[name] for name in before) + part * _TAKES.get(stage, 0.0)) / (sum(_TAKES.values()) + _AFTER)


def log_parts() -> ShowParts:
    """Return a function that logs the progress, at most every few seconds."""
    last = time.monotonic()

    def log(parts: PartsDone) -> None:
        nonlocal last
        if time.monotonic() - last > _LOG_EVERY:
            last = time.monotonic()
            _log.warning("%s", parts.describe())

    return log
