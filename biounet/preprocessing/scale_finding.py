"""The statistics of a whole image by which its intensities are scaled, from an image that is read in parts."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import DataSettings, LazyImage, NormaliseSettings
from biounet.preprocessing.body_mask import Body, box_of_bodies, common_region, has_body_box, search_body
from biounet.preprocessing.channel_groups import ChannelGroup, Extremes, is_offset
from biounet.preprocessing.exact_moments import Moments
from biounet.preprocessing.image_parts import Part, PartReader, Search, read_stack, stack_shape
from biounet.preprocessing.intensity_scale import ChannelScale, IntensityScale
from biounet.preprocessing.percentile_search import search_percentiles
from biounet.preprocessing.scaled_regions import acquired_stack
from biounet.tiling import relative_region

_FULL_SCALES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)  # highest values of cameras and scanners


def find_scale(
    image: LazyImage,
    settings: NormaliseSettings,
    data: DataSettings,
    stop: Event | None = None,
    executor: Executor | None = None,
) -> IntensityScale:
    """Find the scale of an image in the canonical orientation, in a few passes over its parts.

    It does not depend on the chunks of the image. Of what the file does not store, nothing is read.

    Parameters
    ----------
    stop, executor
        As in `biounet.tiling.run_blocks`. The executor reads parts ahead.

    Raises
    ------
    InputError
        If a part of the image is damaged.
    Stopped
        If `stop` was set.
    """
    reader, shape = PartReader(image, executor, stop), stack_shape(image)
    dtype = np.dtype(np.uint8) if image.dtype == bool else image.dtype.newbyteorder("=")
    count = image.channels
    spans = [slice(n, n + 1) for n in range(count)] if settings.per_channel else [slice(0, count)]
    groups = [ChannelGroup(span, shape, dtype) for span in spans]
    extremes = [Extremes() for _ in groups]
    pairs = zip(groups, extremes, strict=True)
    if settings.method == "zscore":
        channels = reader.run([search_zscore(image, *pair) for pair in pairs])
    else:
        channels = reader.run([search_percentiles(group, (settings.low, settings.high), each) for group, each in pairs])
    scale = IntensityScale(
        method=settings.method,
        shape=image.grid.shape,
        channels=tuple(channels),
        body_box=tuple(slice(0, size) for size in image.grid.shape),
        hot=sum(each.hot_pixels for each in channels) / (count * math.prod(shape)),
    )
    if has_body_box(settings, data):
        bodies = [each.body for each in channels]
        if len(bodies) < count:
            single = [ChannelGroup(slice(n, n + 1), shape, dtype) for n in range(count)]
            bodies = reader.run([search_body(image, group) for group in single])
        removed = all(body.backgrounds for body in bodies)
        scale = replace(scale, body_box=box_of_bodies(bodies, image.grid.shape), background_removed=removed)
    return _with_saturation(scale, reader, extremes)


def search_zscore(image: LazyImage, group: ChannelGroup, extremes: Extremes) -> Search[ChannelScale]:
    """Find mean and standard deviation over the body in some channels."""

    def look(part: Part, tile: NDArray[Any]) -> None:
        extremes.add(*part.distinct(tile[group.channels]))

    yield look
    if is_offset(group.dtype):
        group.offset = extremes.low
    found = ChannelScale(group.channels.start, group.channels.stop, offset=group.offset)
    body = yield from search_body(image, group)
    moments, within = Moments(_central_value(image, group)), Extremes()

    def measure(part: Part, tile: NDArray[Any]) -> None:
        values, times = _in_body(body, part, group.of(part, tile))
        if values.size:
            moments.add(values, times)
            within.add(values, times)

    yield measure
    found = replace(found, body=body)
    if not moments.count or within.low == within.high:
        return found
    return replace(found, low=moments.mean, width=moments.deviation)


def _in_body(body: Body, part: Part, values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the values of a part that belong to the body, and how often each occurs."""
    if not body.backgrounds:
        return part.distinct(values)
    if body.box is None:
        return values[:0], 0
    common = Part(common_region(part.region, body.box), part.constant)
    if not common.voxels:
        return values[:0], 0
    values, times = common.distinct(values[(slice(None), *relative_region(common.region, part.region))])
    return values[body.within(values)], times


def _central_value(image: LazyImage, group: ChannelGroup) -> float:
    region = tuple(slice(size // 2, size // 2 + 1) for size in group.shape)
    return float(group.of(Part(region), read_stack(image, region)).flat[0])


def _with_saturation(scale: IntensityScale, reader: PartReader, extremes: list[Extremes]) -> IntensityScale:
    """Add the share of the acquired pixels at the full scale of a camera."""
    image = reader.image
    if image.dtype.kind not in "iu":
        return scale
    if scale.has_unacquired:
        (total,) = reader.run([_search_acquired(image, scale)])
    else:
        total = Extremes()
        for each in extremes:
            total.merge(each)
    if total.high not in _FULL_SCALES or total.low == total.high:
        return scale
    return replace(scale, saturated=total.at_high / total.count, top=total.high)


def _search_acquired(image: LazyImage, scale: IntensityScale) -> Search[Extremes]:
    """Find the extremes of pixels that were acquired in some channel."""
    total = Extremes()

    def look(part: Part, tile: NDArray[Any]) -> None:
        if part.constant is None:
            total.add(tile[:, acquired_stack(image, scale, part.region)], 1)
        elif any(bool((each.prepare(tile[:, :1, :1, :1]) != each.unacquired[0]).any()) for each in scale.channels):
            total.add(*part.distinct(tile))

    yield look
    return total
