"""What of the channels of a whole image the rows of its objects need, from parts of the image in any order.

The background of a channel is the median of all voxels of no object. It is found digit by digit: pixels of 8 and 16
bits are read once, those of 32 bits twice and those of 64 bits four times. Whatever the parts are, it is that of
`biounet.measurement.intensities.background_median`, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from biounet.core import LazyImage, Region
from biounet.measurement.intensities import is_wide, largest_magnitude, may_be_wide
from biounet.measurement.regions import MeasuredChannels
from biounet.preprocessing import RankCounts

_MEDIAN = (50.0,)


class Labels(Protocol):
    """Labels of an image, of which regions are read."""

    def read(self, region: Region) -> NDArray[Any]:
        """Return the labels of a region."""

    def has_labels(self, region: Region) -> bool:
        """Whether there may be any label in a region; this reads no pixel."""


@dataclass
class _Channel:
    """What has been found of one channel; `median` is None where the background is not wanted, or there is none."""

    dtype: np.dtype[Any]
    median: RankCounts | None
    magnitude: int = 0  # the largest one of 64-bit integers

    @property
    def unfinished(self) -> RankCounts | None:
        return self.median if self.median is not None and self.median.unfinished else None


class ChannelSearch:
    """A search for the backgrounds of channels, and for those whose sums need more than 64 bits.

    As long as it is `unfinished`, all parts of the image are counted, by any number of searches that go on from one
    `as_dict`; one of them merges what each of them `counted`, and finishes the pass.

    Attributes
    ----------
    passes
        Number of passes that are finished.
    """

    def __init__(self, types: Mapping[str, np.dtype[Any]], *, background: bool) -> None:
        """Begin in channels of some types by their names; `background`: whether theirs is wanted."""
        self.passes = 0
        self._channels: dict[str, _Channel] = {}
        for name, dtype in types.items():
            kind = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")
            self._channels[name] = _Channel(kind, RankCounts(kind, _MEDIAN) if background else None)

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Channels of which all parts of the image have to be counted, once more if they were."""
        channels = self._channels.items()
        return tuple(name for name, one in channels if one.unfinished or (self.passes == 0 and may_be_wide(one.dtype)))

    def count(self, name: str, values: NDArray[Any], is_background: NDArray[np.bool_] | None, times: int = 1) -> None:
        """Count a part of a channel.

        Parameters
        ----------
        values
            Of any shape.
        is_background
            Which of them belong to no object; None: all.
        times
            How often each value occurs.
        """
        channel = self._channels[name]
        values = values.view(np.uint8) if values.dtype == np.bool_ else values.astype(channel.dtype, copy=False)
        if self.passes == 0 and may_be_wide(channel.dtype):
            channel.magnitude = max(channel.magnitude, largest_magnitude(values))
        if (median := channel.unfinished) is not None:
            median.add(values if is_background is None else values[is_background], times)

    def counted(self) -> dict[str, NDArray[Any]]:
        """Return what was counted in this pass, as arrays by their names."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, channel in enumerate(self._channels.values()):
            arrays[f"{number}.magnitude"] = np.array([channel.magnitude], np.uint64)
            if (median := channel.unfinished) is not None:
                arrays[f"{number}.keys"], arrays[f"{number}.times"] = median.counted
        return arrays

    def merge(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add what another search counted in the same pass."""
        for number, channel in enumerate(self._channels.values()):
            channel.magnitude = max(channel.magnitude, int(arrays[f"{number}.magnitude"][0]))
            if (median := channel.unfinished) is not None:
                median.merge(arrays[f"{number}.keys"], arrays[f"{number}.times"])

    def finish_pass(self) -> None:
        """End a pass in which all parts were counted."""
        for channel in self._channels.values():
            if (median := channel.unfinished) is None:
                continue
            if self.passes == 0 and not median.counted[1].size:
                channel.median = None  # every voxel belongs to an object
            else:
                median.finish_pass()
        self.passes += 1

    @property
    def backgrounds(self) -> dict[str, float]:
        """The background of each channel that has one."""
        medians = {name: channel.median for name, channel in self._channels.items()}
        return {name: median.percentiles[0] for name, median in medians.items() if median is not None}

    def wide(self, voxels: int) -> frozenset[str]:
        """Return the channels of 64-bit integers whose sums over an image of so many voxels may be larger."""
        return frozenset(name for name, one in self._channels.items() if is_wide(one.magnitude, voxels))

    def as_dict(self) -> dict[str, Any]:
        """Return what finished passes found, for JSON."""
        channels = {
            name: [one.dtype.str, one.magnitude, None if one.median is None else one.median.passed]
            for name, one in self._channels.items()
        }
        return {"passes": self.passes, "channels": channels}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ChannelSearch:
        """Return a search that goes on from `as_dict`, in which nothing is counted yet."""
        search = cls({}, background=False)
        search.passes = raw["passes"]
        for name, (text, magnitude, passed) in raw["channels"].items():
            dtype = np.dtype(text)
            median = None if passed is None else RankCounts.resume(dtype, _MEDIAN, passed)
            search._channels[name] = _Channel(dtype, median, magnitude)
        return search


def count_channels(
    search: ChannelSearch, region: Region, labels: Labels, image: LazyImage, channels: MeasuredChannels
) -> None:
    """Count the channels that a search is about in a region of an image; of what the file does not store, nothing."""
    background = labels.read(region) == 0 if labels.has_labels(region) else None
    constant = {} if background is not None else channels.constant(image, region)
    for name in search.unfinished:
        if name in constant:
            search.count(name, constant[name], None, math.prod(part.stop - part.start for part in region))
    if all(name in constant for name in search.unfinished):
        return
    values = channels.read(image, region)
    for name in search.unfinished:
        if name not in constant:
            # Plane by plane, since a copy is made of what is background
            for number, plane in enumerate(values[name]):
                search.count(name, plane, None if background is None else background[number])
