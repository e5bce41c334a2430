"""Percentiles as operators of ONNX."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from biounet.model_export.graph import Graph, onnx_type


def add_percentile(graph: Graph, flat: str, rank: float) -> str:
    """Return a percentile of ``(n, c, values)``, linear between neighbours as in numpy, as ``(n, c, 1)``.

    Only the values beyond it are sorted, 1 % of an image. Its position is computed in integers, since float32 cannot
    number the pixels of a large image.
    """
    numerator, denominator = (Decimal(str(rank)) / 100).as_integer_ratio()
    last = graph.add("Sub", graph.size(flat, 2), graph.integers(1))
    product = graph.add("Mul", last, graph.integers(numerator))
    position = graph.add("Div", product, graph.integers(denominator))
    rest = graph.add("Cast", graph.add("Mod", product, graph.integers(denominator)), to=onnx_type(np.float32))
    share = graph.add("Div", rest, graph.constant(denominator))
    following = graph.add("Min", graph.add("Add", position, graph.integers(1)), last)
    from_top = rank > 50
    if from_top:
        position, following = (graph.add("Sub", last, at) for at in (position, following))
    count = graph.add("Add", graph.add("Max", position, following), graph.integers(1))
    sorted_values, _ = graph.add_many("TopK", (flat, count), ("", ""), axis=2, largest=int(from_top))
    below, above = (graph.add("Gather", sorted_values, at, axis=2) for at in (position, following))
    return graph.add("Add", below, graph.add("Mul", graph.add("Sub", above, below), share))
