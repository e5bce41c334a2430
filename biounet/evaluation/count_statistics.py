"""What automatic counts are worth: intervals for the count of one image, and group means corrected by hand counts.

Both need images that somebody counted by hand and that were **drawn at random**; images that were chosen because they
looked odd say nothing about the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biounet.core import SettingsError

_ROUNDING = 1e-9  # of a product of two roots, or of a quotient: far below the distance of two counts
_MIN_SLOPE_COUNTS = 50
"""Hand counts from which the slope of hand on automatic counts is estimated.

With 20 from counts that are skewed, as those of nuclei are, 90 % intervals with a slope hold the mean in 76 to 85 % of
the draws, and those without in 87 to 90 % (`benchmarks/RESULTS.md`).
"""


@dataclass(frozen=True)
class CountCalibration:
    """How far automatic counts are from hand counts, for intervals by split conformal prediction.

    Attributes
    ----------
    scores
        Shape ``(n,)``, sorted: ``|hand - automatic| / sqrt(automatic + 1)`` of each calibration image.
    """

    scores: tuple[float, ...]

    def interval(self, count: float, coverage: float = 0.9) -> tuple[int, int]:
        """Return the lowest and highest of the whole numbers among which the hand count of a new image lies.

        It does so with a probability of `coverage`, or more where many errors are equal.

        That holds on average over images like the calibrated ones, whatever the distribution of the errors (Vovk et al.
        2005; Lei et al. 2018, J. Am. Stat. Assoc. 113). Intervals of several images do not add up to one of their sum:
        see `corrected_mean`.

        Raises
        ------
        SettingsError
            If there are too few calibration images for this coverage: 9 for 90 %, 19 for 95 %.
        """
        rank = math.ceil((len(self.scores) + 1) * coverage)
        if not 0 < coverage < 1 or rank > len(self.scores):
            fewest = math.ceil(coverage / (1 - coverage) - _ROUNDING) if 0 < coverage < 1 else None
            need = f"at least {fewest} are needed" if fewest else "a coverage lies between 0 and 1"
            cause = f"no interval of {coverage:.0%} can be had from {len(self.scores)} hand-counted images: {need}"
            raise SettingsError(cause, hint="count more by hand, or ask for a lower coverage" if fewest else None)
        margin = self.scores[rank - 1] * math.sqrt(count + 1) + _ROUNDING
        return max(0, math.ceil(count - margin)), math.floor(count + margin)


def calibrate_counts(automatic: ArrayLike, by_hand: ArrayLike) -> CountCalibration:
    """Compare automatic counts with hand counts of images that were drawn at random.

    Parameters
    ----------
    automatic, by_hand
        Shape ``(n,)``.
    """
    found, truth = _pairs(automatic, by_hand)
    return CountCalibration(tuple(np.sort(np.abs(truth - found) / np.sqrt(found + 1)).tolist()))


@dataclass(frozen=True)
class CorrectedMean:
    """The mean count of a group of images, corrected by hand counts of some of them.

    Attributes
    ----------
    images, counted
        Number of images, and how many of them were counted by hand.
    automatic, corrected
        Mean automatic count, and the corrected mean.
    low, high
        Interval of the corrected mean.
    hand_only, hand_only_half_width
        Mean of the hand counts, and half the width of its interval: what they say without the automatic counts.
    bias
        Mean of automatic minus hand counts.
    correlation
        Of automatic with hand counts; NaN where one of them does not vary.
    error_sd
        Standard deviation of what the correction leaves of the errors.
    confidence
        Of the intervals.
    """

    images: int
    counted: int
    automatic: float
    corrected: float
    low: float
    high: float
    hand_only: float
    hand_only_half_width: float
    bias: float
    correlation: float
    error_sd: float
    confidence: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def gain(self) -> float:
        """Half width of the hand counts alone, as a multiple of the half width with the automatic counts."""
        return self.hand_only_half_width / self.half_width if self.half_width else math.nan

    def counts_needed(self, half_width: float) -> int:
        """Return how many of the images must be counted by hand for an interval of at most this half width.

        For the mean of these images, with errors as large as those seen.
        """
        from scipy import stats

        n = np.arange(2, self.images + 1)
        widths = stats.t.ppf(0.5 + self.confidence / 2, n - 1) * self.error_sd * np.sqrt((1 - n / self.images) / n)
        enough = n[widths <= half_width]  # all images always are
        return int(enough[0]) if len(enough) else self.images


def corrected_mean(
    automatic: ArrayLike,
    drawn: Sequence[int],
    by_hand: ArrayLike,
    *,
    confidence: float = 0.95,
    of_population: bool = False,
) -> CorrectedMean:
    """Correct the mean automatic count of a group by hand counts of images drawn from it at random.

    The difference estimator of survey sampling (Cochran 1977, chapter 7; as prediction-powered inference in
    Angelopoulos et al. 2023, arXiv:2301.09633) with intervals from Student's t: the automatic counts may have any bias,
    the interval stays right, and it is the narrower the better they follow the hand counts.

    Parameters
    ----------
    automatic
        Automatic counts of all images of the group, shape ``(N,)``.
    drawn
        Which of them were counted by hand.
    by_hand
        Their hand counts, shape ``(n,)``.
    confidence
        Of the interval.
    of_population
        Whether the mean of the population is meant that the images were drawn from, and not that of these images alone.

    Raises
    ------
    SettingsError
        If fewer than two images were counted by hand, or one twice.
    """
    counts = np.asarray(automatic, float)
    if len({*drawn}) != len(drawn) or len(drawn) < 2:
        raise SettingsError(f"{len({*drawn})} of the images were counted by hand: at least 2 different ones are needed")
    found, truth = _pairs(counts[list(drawn)], by_hand)
    total, n = len(counts), len(truth)
    slope = _slope(found, truth) if n >= _MIN_SLOPE_COUNTS else 1.0
    errors = truth - slope * found
    corrected = slope * counts.mean() + errors.mean()
    freedom = n - 1 if n < _MIN_SLOPE_COUNTS else n - 2  # the slope was estimated, too
    error_sd, hand_sd = float(errors.std(ddof=n - freedom)), float(truth.std(ddof=1))
    drawn_from = _Draw(n, total, hand_sd if of_population else 0.0, confidence)
    half, alone = drawn_from.half_width(error_sd, freedom), drawn_from.half_width(hand_sd, n - 1)
    varies = found.std() > 0 and truth.std() > 0
    return CorrectedMean(
        images=total,
        counted=n,
        automatic=float(counts.mean()),
        corrected=float(corrected),
        low=float(corrected - half),
        high=float(corrected + half),
        hand_only=float(truth.mean()),
        hand_only_half_width=alone,
        bias=float((found - truth).mean()),
        correlation=float(np.corrcoef(found, truth)[0, 1]) if varies else math.nan,
        error_sd=error_sd,
        confidence=confidence,
    )


def _pairs(automatic: ArrayLike, by_hand: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found, truth = np.asarray(automatic, float), np.asarray(by_hand, float)
    if found.shape != truth.shape or found.ndim != 1:
        raise SettingsError(f"{found.size} automatic counts and {truth.size} hand counts: one of each per image")
    for counts in (found, truth):
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise SettingsError("a count is a number that is not negative")
    return found, truth


def _slope(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return the slope that makes the errors smallest, not below 0."""
    variance = found.var(ddof=1)
    return max(float(np.cov(found, truth)[0, 1] / variance), 0.0) if variance else 1.0


@dataclass(frozen=True)
class _Draw:
    """`n` images drawn from `total`, whose counts differ by `between` if those come from a population themselves."""

    n: int
    total: int
    between: float
    confidence: float

    def half_width(self, sd: float, freedom: int) -> float:
        """Return half the width of an interval; a finite population is corrected for (Cochran 1977, section 2)."""
        from scipy import stats

        variance = sd**2 / self.n * (1 - self.n / self.total) + self.between**2 / self.total
        return float(stats.t.ppf(0.5 + self.confidence / 2, freedom) * math.sqrt(variance))
