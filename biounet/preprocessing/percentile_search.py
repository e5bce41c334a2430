"""Percentiles of the specimen in an image that is read in parts: without hot pixels and areas not acquired."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.preprocessing.channel_groups import ChannelGroup, Extremes, is_offset, without_offset
from biounet.preprocessing.hot_pixels import (
    HotPixelRule,
    HotPixelSearch,
    contrast_rows,
    hot_pixel_rule,
    neighbour_rows,
)
from biounet.preprocessing.image_parts import Consumer, Part, Search
from biounet.preprocessing.intensity_scale import ChannelScale
from biounet.preprocessing.order_statistics import RankCounts
from biounet.preprocessing.unacquired import BorderTest, may_be_unacquired

_FEW_VALUES = 2  # bytes of types of which it is counted how often each value occurs


def search_percentiles(group: ChannelGroup, ranks: tuple[float, float], extremes: Extremes) -> Search[ChannelScale]:
    """Find the percentiles of some channels that become 0 and 1.

    Areas that were never acquired are left out, and hot pixels are replaced by a neighbour. Where the rest has no
    contrast, these areas belong to a picture of two values; where objects are too few to reach the percentiles on a
    constant background, that is left out.
    """
    sample = _ContrastSample(group)
    counts = RankCounts(group.dtype, ranks) if group.dtype.itemsize <= _FEW_VALUES else None

    def look(part: Part, tile: NDArray[Any]) -> None:
        values = tile[group.channels]
        sample.add(part, values)
        if counts is None:
            extremes.add(*part.distinct(values))
        else:
            counts.add(*part.distinct(values))

    yield look
    if counts is not None:
        values, times = counts.value_counts
        extremes.low, extremes.high = values[0].item(), values[-1].item()
        extremes.at_low, extremes.at_high, extremes.count = (int(n) for n in (times[0], times[-1], times.sum()))
    if is_offset(group.dtype):
        group.offset = extremes.low
    unacquired = yield from _search_unacquired(group, extremes)
    rule = sample.rule(group.offset, extremes.low - group.offset, unacquired)
    hot = rule if rule.is_needed(extremes.high - group.offset) else None
    search = _CleanedPercentiles(group, ranks, hot, counts)
    low, high = yield from search.percentiles(unacquired)
    if high <= low and unacquired:
        unacquired = ()
        low, high = yield from search.percentiles(())
    if high <= low:
        next_low, next_high = yield from search.percentiles((low,))
        low, high = min(low, next_low), max(high, next_high)
    found = ChannelScale(group.channels.start, group.channels.stop, offset=group.offset, hot_rule=hot)
    found = replace(found, hot_pixels=search.hot_pixels)
    return replace(found, low=low, width=high - low, unacquired=unacquired) if high > low else found


class _ContrastSample:
    """The rows of some channels from which their contrast is estimated, and those above and below."""

    def __init__(self, group: ChannelGroup) -> None:
        depth, height, width = group.shape
        self._rows = contrast_rows(depth * group.number, height, width)
        self._planes = self._rows // height
        near = neighbour_rows(self._rows, height)
        self._near = near
        self._bands = [np.empty((len(self._rows), width), group.dtype) for _ in near]
        self._depth = depth

    def add(self, part: Part, values: NDArray[Any]) -> None:
        """Take a part ``(c, z, y, x)``."""
        depth, rows, columns = part.region
        channel, z = np.divmod(self._planes, self._depth)
        in_depth = (z >= depth.start) & (z < depth.stop)
        for near, band in zip(self._near, self._bands, strict=True):
            chosen = np.flatnonzero(in_depth & (near >= rows.start) & (near < rows.stop))
            if chosen.size:
                band[chosen, columns] = values[channel[chosen], z[chosen] - depth.start, near[chosen] - rows.start]

    def rule(self, offset: int, minimum: Any, unacquired: tuple[Any, ...]) -> HotPixelRule:  # noqa: ANN401
        """Return which pixels are hot."""
        return hot_pixel_rule([without_offset(band, offset) for band in self._bands], minimum, unacquired)


def _search_unacquired(group: ChannelGroup, extremes: Extremes) -> Search[tuple[Any, ...]]:
    size = group.number * math.prod(group.shape)
    ends = ((extremes.low, extremes.at_low), (extremes.high, extremes.at_high))
    tests = [
        BorderTest(value - group.offset, group.number, group.shape)
        for value, count in ends
        if may_be_unacquired(count, size, group.shape)
    ]

    def look(part: Part, tile: NDArray[Any]) -> None:
        for test in tests:
            test.add(group.of(part, tile), part.region, part.constant is not None)

    if tests:
        yield look
    return next(((test.value,) for test in tests if test.passed), ())


class _CleanedPercentiles:
    """Percentiles of channels in which hot pixels are replaced."""

    def __init__(
        self, group: ChannelGroup, ranks: tuple[float, float], rule: HotPixelRule | None, counts: RankCounts | None
    ) -> None:
        self._group, self._ranks, self._rule, self._counts = group, ranks, rule, counts
        self.hot_pixels = 0

    def percentiles(self, exclude: tuple[Any, ...]) -> Search[tuple[float, float]]:
        """Return percentiles of all values but those in `exclude`, unless nothing else is left."""
        if self._counts is not None:
            if self._counts.unfinished:
                if self._rule is not None:
                    yield self._counter(self._rule, self._counts)
                self._counts.finish_pass()
            low, high = self._counts.excluding(exclude).percentiles
            return low, high
        counts = RankCounts(without_offset(np.empty(0, self._group.dtype), 0).dtype, self._ranks, exclude)
        while counts.unfinished:
            yield self._counter(self._rule, counts, with_all=True)
            counts.finish_pass()
        low, high = counts.percentiles
        return low, high

    def _counter(self, rule: HotPixelRule | None, counts: RankCounts, *, with_all: bool = False) -> Consumer:
        """Return what replaces hot pixels among numbers that were counted, or that it counts as well."""
        search = None if rule is None else HotPixelSearch(rule, self._group.shape)
        self.hot_pixels = 0

        def look(part: Part, tile: NDArray[Any]) -> None:
            values = self._group.of(part, tile)
            if with_all:
                counts.add(*part.distinct(values))
            if search is not None:
                hot, replacement = search.add(part.planes(values), part.region, part.constant is not None)
                if hot.size:
                    counts.add(hot, -1)
                    counts.add(replacement)
                    self.hot_pixels += hot.size

        return look
