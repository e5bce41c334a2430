"""Normalisation and padding as operators of ONNX, computed as in `preprocessing` and `segmentation`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from biounet.core import NormaliseSettings
from biounet.model_export.graph import Graph, onnx_type
from biounet.model_export.hot_pixels import add_hot_pixel_removal
from biounet.model_export.percentiles import add_percentile
from biounet.preprocessing import BACKGROUND_MAJORITY, BACKGROUND_NOISE, MIN_BACKGROUND_SHARE


def add_normalisation(graph: Graph, image: str, settings: NormaliseSettings, dims: int) -> str:
    """Bring intensities ``(n, c, [z,] y, x)`` to the scale of the training, each image by its own statistics.

    Areas that were never acquired are not left out, as `biounet.preprocessing.scale_intensities` does it.
    """
    spatial = range(2, 2 + dims)
    per_group = [1, *spatial] if not settings.per_channel else [*spatial]
    if settings.method == "zscore":
        return _add_zscore(graph, image, per_group)
    image = add_hot_pixel_removal(graph, image, dims, settings.per_channel)
    flat = graph.reshape(image, [0, 0, -1] if settings.per_channel else [0, 1, -1])
    low, high = add_percentile(graph, flat, settings.low), add_percentile(graph, flat, settings.high)
    # Where objects are too few to reach the percentiles, the whole range takes their place.
    reached, axis = graph.add("Greater", high, low), graph.integers(2)
    low = graph.add("Where", reached, low, graph.add("ReduceMin", flat, axis))
    high = graph.add("Where", reached, high, graph.add("ReduceMax", flat, axis))
    low, span = (
        graph.add("Unsqueeze", each, graph.integers(*spatial[1:])) for each in (low, graph.add("Sub", high, low))
    )
    return graph.add("Mul", graph.add("Sub", image, low), _add_inverse(graph, span))


def _add_zscore(graph: Graph, image: str, axes: Sequence[int]) -> str:
    """Return (v - mean) / deviation over the voxels of the body, and 0 around it."""
    body = graph.add("Cast", _add_body_mask(graph, image, axes), to=onnx_type(np.float32))
    over = graph.integers(*axes)
    count = graph.add("Max", graph.add("ReduceSum", body, over), graph.constant(1))
    # Differences to a first estimate: sums of float32 lose the digits of large intensities.
    near = graph.add("Sub", image, graph.add("ReduceMean", image, over))
    mean = graph.add("Div", graph.add("ReduceSum", graph.add("Mul", near, body), over), count)
    centred = graph.add("Mul", graph.add("Sub", near, mean), body)
    square = graph.add("ReduceSum", graph.add("Mul", centred, centred), over)
    deviation = graph.add("Sqrt", graph.add("Div", square, count))
    return graph.add("Mul", centred, _add_inverse(graph, deviation))


def _add_body_mask(graph: Graph, image: str, axes: Sequence[int]) -> str:
    """Return where an image differs from a removed background, or true everywhere where there is none.

    The rule of `biounet.preprocessing.body_mask.body_mask`, but for images that were padded with another value.
    """
    over, spatial = graph.integers(*axes), [axis for axis in axes if axis > 1]
    near = graph.add("Sub", image, graph.add("ReduceMean", image, over))
    deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", near, near), over))
    tolerance = graph.add("Mul", deviation, graph.constant(BACKGROUND_NOISE))
    groups = 0 if 1 not in axes else 1
    lines = [_add_edges(graph, image, axis, spatial) for axis in spatial]
    flat = graph.add("Concat", *(graph.reshape(line, [0, groups, -1]) for line in lines), axis=2)
    middle = graph.add("Div", graph.add("Sub", graph.size(flat, 2), graph.integers(1)), graph.integers(2))
    lowest, _ = graph.add_many("TopK", (flat, graph.add("Add", middle, graph.integers(1))), ("", ""), axis=2, largest=0)
    value = graph.add("Unsqueeze", graph.add("Gather", lowest, middle, axis=2), graph.integers(*spatial[1:]))

    def has_value(values: str) -> str:
        return graph.add("LessOrEqual", graph.add("Abs", graph.add("Sub", values, value)), tolerance)

    pairs = []
    for line, axis in zip(lines, spatial, strict=True):
        same, at, one = has_value(line), graph.integers(axis), graph.integers(1)
        following = graph.add("Slice", same, one, graph.integers(2**62), at)
        before = graph.add("Slice", same, graph.integers(0), graph.integers(-1), at)
        both = graph.add("Cast", graph.add("And", before, following), to=onnx_type(np.float32))
        pairs.append(graph.reshape(both, [0, groups, -1]))
    majority = graph.add("ReduceMean", graph.add("Concat", *pairs, axis=2), graph.integers(2))
    majority = graph.add("Unsqueeze", majority, graph.integers(*spatial[1:]))
    background = has_value(image)
    share = graph.add("ReduceMean", graph.add("Cast", background, to=onnx_type(np.float32)), over)
    is_removed = graph.add(
        "And",
        graph.add("Greater", majority, graph.constant(BACKGROUND_MAJORITY)),
        graph.add("Greater", share, graph.constant(MIN_BACKGROUND_SHARE)),
    )
    return graph.add("Not", graph.add("And", background, is_removed))


def _add_edges(graph: Graph, image: str, axis: int, spatial: Sequence[int]) -> str:
    """Return the edges of an image along an axis, on which the other axes have a size of 2: their first and last."""
    for other in spatial:
        if other != axis:
            image = graph.add("Gather", image, graph.integers(0, -1), axis=other)
    return image


def _add_inverse(graph: Graph, value: str) -> str:
    """Return 1 / value, and 0 where that is not positive."""
    positive = graph.add("Greater", value, graph.constant(0))
    safe = graph.add("Where", positive, value, graph.constant(1))
    return graph.add("Where", positive, graph.add("Reciprocal", safe), graph.constant(0))


def add_padding(graph: Graph, image: str, strides: Sequence[int]) -> str:
    """Mirror an image ``(n, c, [z,] y, x)`` at the end of each axis up to a multiple of the stride.

    As `biounet.segmentation.pad_to_stride`, which repeats the pixel at the end; ``Pad`` of ONNX cannot do that.
    """
    for axis, stride in enumerate(strides, 2):
        if stride == 1:
            continue
        size = graph.add("Squeeze", graph.size(image, axis))
        missing = graph.add("Mod", graph.add("Neg", size), graph.constant(stride, np.int64))
        beyond = graph.add("Range", size, graph.add("Add", size, missing), graph.constant(1, np.int64))
        period = graph.add("Add", size, size)
        phase = graph.add("Mod", beyond, period)
        back = graph.add("Sub", graph.add("Sub", period, graph.constant(1, np.int64)), phase)
        mirrored = graph.add("Gather", image, graph.add("Min", phase, back), axis=axis)
        image = graph.add("Concat", image, mirrored, axis=axis)
    return image


def add_cropping(graph: Graph, maps: str, image: str, dims: int, name: str) -> str:
    """Cut maps ``(n, k, [z,] y, x)`` to the size of the image."""
    axes = graph.integers(*range(2, 2 + dims))
    ends = graph.add("Shape", image, start=2)
    return graph.add("Slice", maps, graph.integers(*(0,) * dims), ends, axes, name=name)
