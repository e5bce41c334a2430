"""What channels hold in each object, in the ring around it, and where no object is.

Columns are ``intensity_mean_<channel>``, ``intensity_max_<channel>``, ``intensity_sum_<channel>`` and
``intensity_sd_<channel>``, the standard deviation of the voxels of an object (``intensity_std`` of scikit-image). With
a ring also ``ring_area_px`` (of a volume ``ring_volume_px``), the same four with ``ring_`` instead of ``intensity_``,
and ``background_<channel>``, the median of all voxels of the image that belong to no object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.measurement import moments
from biounet.measurement.table import Columns
from biounet.preprocessing import percentiles

_LARGEST_SUM = 2**63


class Regions(NamedTuple):
    """Where objects or their rings are: runs from `biounet.core.find_label_runs`, and the number of voxels of each."""

    runs: NDArray[np.int64]
    size: NDArray[np.int64]


@dataclass(frozen=True)
class IntensitySums:
    """Sums over the voxels of each of n objects, or of its ring, to which parts of an image are added in scan order.

    Attributes
    ----------
    size
        (n,) number of voxels.
    total, peak
        (n,) sum and maximum, of integers in 64 bits.
    squares
        (n,) of the differences from the mean.
    """

    size: NDArray[np.int64]
    total: NDArray[Any]
    peak: NDArray[Any]
    squares: NDArray[np.float64]

    @classmethod
    def empty(cls, n: int, *, integers: bool) -> IntensitySums:
        """Return sums over nothing, of integers or floats."""
        kind = np.int64 if integers else np.float64
        return cls(np.zeros(n, np.int64), np.zeros(n, kind), np.zeros(n, kind), np.zeros(n))

    @classmethod
    def of(cls, channel: NDArray[Any], runs: NDArray[np.int64], n: int) -> IntensitySums:
        """Return the sums of a `summable` channel ``([z,] y, x)``, which has all voxels of the objects, over runs."""
        sums = cls.empty(n, integers=channel.dtype.kind in "iu")
        sums.add(channel, runs)
        sums.add_squares(channel, runs)
        return sums

    def add(self, channel: NDArray[Any], runs: NDArray[np.int64]) -> None:
        """Add the voxels of runs in a part of a `summable` channel."""
        moments.sum_intensity(channel.reshape(-1), runs, self.size, self.total, self.peak)

    def add_squares(self, channel: NDArray[Any], runs: NDArray[np.int64]) -> None:
        """Add the squares, once all parts have been added, for each part again in the same order."""
        moments.sum_squares(channel.reshape(-1), runs, self.mean, self.squares)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean (n,); 0 of no voxels."""
        return np.asarray(self.total / np.maximum(self.size, 1))

    def columns(self, names: str) -> Columns:
        """Return mean, maximum, sum and standard deviation; `names` is the name of a column with ``{}`` for these."""
        deviation = np.sqrt(self.squares / np.maximum(self.size, 1))
        figures = {"mean": self.mean, "max": self.peak, "sum": self.total, "sd": deviation}
        return {names.format(figure): values for figure, values in figures.items()}

    def ring_columns(self, names: str) -> Columns:
        """Return the same of rings: NaN of one without any voxel."""
        return {name: np.where(self.size > 0, values, np.nan) for name, values in self.columns(names).items()}


def mean_intensities(channel: NDArray[Any], regions: Regions) -> NDArray[Any]:
    """Return the mean of a channel ``([z,] y, x)`` in each region."""
    values = summable(channel, is_wide=has_wide_sums(channel))
    return IntensitySums.of(values, regions.runs, len(regions.size)).mean


def background_median(channel: NDArray[Any], is_object: NDArray[np.bool_]) -> float:
    """Return the median of the voxels of a channel that belong to no object; NaN without any, or if one is NaN."""
    values = channel.reshape(-1)[~is_object.reshape(-1)]
    if not values.size or (values.dtype.kind == "f" and np.isnan(values).any()):
        return np.nan
    return percentiles(values.view(np.uint8) if values.dtype == np.bool_ else values, (50.0,))[0]


def has_wide_sums(channel: NDArray[Any]) -> bool:
    """Whether sums of the integers of a channel may not fit into 64 bits, and are therefore sums of floats."""
    return may_be_wide(channel.dtype) and is_wide(largest_magnitude(channel), channel.size)


def may_be_wide(dtype: np.dtype[Any]) -> bool:
    """Whether sums of integers of a type may not fit into 64 bits."""
    return dtype.kind in "iu" and dtype.itemsize >= np.dtype(np.int64).itemsize


def largest_magnitude(channel: NDArray[Any]) -> int:
    """Return the largest distance from 0 of the integers of a channel; 0 of none."""
    return max(abs(int(channel.min())), abs(int(channel.max()))) if channel.size else 0


def is_wide(magnitude: int, voxels: int) -> bool:
    """Whether the sum of so many integers, of which one has this magnitude, may not fit into 64 bits."""
    return magnitude * voxels >= _LARGEST_SUM


def summable(channel: NDArray[Any], *, is_wide: bool) -> NDArray[Any]:
    """Return a contiguous channel of a type that numba supports and whose sums fit into 64 bits.

    `is_wide`: whether the whole channel `has_wide_sums`.
    """
    kind, width = channel.dtype.kind, channel.dtype.itemsize
    if kind == "b":
        return np.ascontiguousarray(channel).view(np.uint8)
    if kind in "iu" and width == np.dtype(np.int64).itemsize:
        return np.ascontiguousarray(channel, np.float64 if is_wide else np.int64)
    if kind == "f" and width not in (4, 8):
        return np.ascontiguousarray(channel, np.float32 if width == 2 else np.float64)
    return np.ascontiguousarray(channel, channel.dtype.newbyteorder("="))
