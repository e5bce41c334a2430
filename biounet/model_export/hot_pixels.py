"""The replacement of hot pixels as operators of ONNX, by the rule of `biounet.preprocessing.hot_pixels`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from biounet.model_export.graph import Graph
from biounet.model_export.percentiles import add_percentile
from biounet.preprocessing import CONTRAST_ROWS, CONTRAST_SAMPLE, HOT_PIXEL_SIGMAS, MAD_OF_NORMAL

_STEPS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


def add_hot_pixel_removal(graph: Graph, image: str, dims: int, per_channel: bool) -> str:
    """Replace hot pixels of images ``(n, c, [z,] y, x)``, of each channel by its own contrast or of all together."""
    height, width = graph.size(image, dims), graph.size(image, dims + 1)
    # (groups, rows of all planes, x): channels of images, or images
    rows = graph.reshape(image, [graph.add("Mul", graph.size(image, 0), graph.size(image, 1)), -1, width])
    if not per_channel:
        rows = graph.reshape(image, [0, -1, width])
    low, contrast = _add_contrast(graph, rows, height, width)
    candidates = graph.add("NonZero", graph.add("Greater", rows, graph.add("Add", low, contrast)))
    group, row, x = graph.add_many("Split", (candidates, graph.integers(1, 1, 1)), ("",) * 3, axis=0)
    plane, y = graph.add("Div", row, height), graph.add("Mod", row, height)
    plane = graph.add("Add", graph.add("Mul", group, graph.add("Div", graph.size(rows, 1), height)), plane)
    flat = graph.reshape(image, [-1])

    def locate(y: str, x: str) -> str:
        at = graph.add("Add", graph.add("Mul", plane, height), y)
        return graph.reshape(graph.add("Add", graph.add("Mul", at, width), x), [-1])

    def near(at: str, step: int, size: str) -> str:
        return _add_reflection(graph, graph.add("Add", at, graph.integers(step)), size)

    neighbours = [graph.add("Gather", flat, locate(near(y, v, height), near(x, h, width))) for v, h in _STEPS]
    third, here = _add_third_highest(graph, neighbours), locate(y, x)
    value = graph.add("Gather", flat, here)
    excess, group = graph.add("Sub", value, third), graph.reshape(group, [-1])
    low, contrast = (graph.add("Gather", graph.reshape(each, [-1]), group) for each in (low, contrast))
    exceeds = graph.add("Greater", excess, contrast), graph.add("Greater", excess, graph.add("Sub", third, low))
    replaced = graph.add("Where", graph.add("And", *exceeds), third, value)
    cleaned = graph.add("ScatterElements", flat, here, replaced, axis=0)
    return graph.add("Reshape", cleaned, graph.add("Shape", image))


def _add_contrast(graph: Graph, rows: str, height: str, width: str) -> tuple[str, str]:
    """Return the dark level of each group, and the difference of the bright level to it, as ``(groups, 1, 1)``."""
    total, zero, one = graph.size(rows, 1), graph.constant(0, np.int64), graph.constant(1, np.int64)
    scalar_width, scalar_total = graph.add("Squeeze", width), graph.add("Squeeze", total)
    pixels = graph.add("Mul", scalar_total, scalar_width)
    steps = [
        graph.add("Div", size, graph.constant(least, np.int64))
        for size, least in ((pixels, CONTRAST_SAMPLE), (scalar_total, CONTRAST_ROWS))
    ]
    every = graph.add("Max", graph.add("Min", *steps), one)
    chosen = graph.add("Range", zero, scalar_total, every)
    first, y = graph.add("Sub", chosen, graph.add("Mod", chosen, height)), graph.add("Mod", chosen, height)
    columns = graph.add("Range", graph.constant(-1, np.int64), graph.add("Add", scalar_width, one), one)
    columns = _add_reflection(graph, columns, width)
    bands = []
    for step in (-1, 0, 1):
        near = _add_reflection(graph, graph.add("Add", y, graph.integers(step)), height)
        band = graph.add("Gather", rows, graph.add("Add", first, near), axis=1)
        bands.append(graph.add("Gather", band, columns, axis=2))

    def shift(band: str, start: int) -> str:
        end = graph.add("Add", width, graph.integers(start))
        return graph.add("Slice", band, graph.integers(start), end, graph.integers(2))

    third = _add_third_highest(graph, [shift(bands[1 + y], 1 + x) for y, x in _STEPS])
    middle = shift(bands[1], 1)
    cleaned = graph.reshape(graph.add("Min", middle, third), [0, 1, -1])
    low, high = add_percentile(graph, cleaned, 1), add_percentile(graph, cleaned, 99.8)
    # Of a single column the difference to itself, 0.
    end = graph.add("Max", graph.add("Sub", width, graph.integers(1)), graph.integers(1))
    pairs = [
        graph.add("Slice", each, graph.integers(0), end, graph.integers(2)) for each in (middle, shift(bands[1], 2))
    ]
    differences = graph.reshape(graph.add("Abs", graph.add("Sub", *pairs)), [0, 1, -1])
    noise = graph.add(
        "Mul", add_percentile(graph, differences, 50), graph.constant(HOT_PIXEL_SIGMAS / MAD_OF_NORMAL / math.sqrt(2))
    )
    return low, graph.add("Max", graph.add("Sub", high, low), noise)


def _add_third_highest(graph: Graph, values: Sequence[str]) -> str:
    """Return the third highest of three or more values at each position."""
    highest: list[str] = []
    for value in values:
        rest = value
        for rank, current in enumerate(highest):
            highest[rank], rest = graph.add("Max", current, rest), graph.add("Min", current, rest)
        highest = [*highest, rest][:3]
    return highest[2]


def _add_reflection(graph: Graph, indices: str, size: str) -> str:
    """Return indices with those just beyond an end reflected."""
    last = graph.add("Sub", size, graph.integers(1))
    distance = graph.add("Abs", graph.add("Sub", last, graph.add("Abs", indices)))
    return graph.add("Max", graph.add("Sub", last, distance), graph.integers(0))
