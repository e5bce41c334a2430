"""Outlines of a large label image, strip by strip: memory is that of the objects of a strip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import find_label_runs
from biounet.files.disk_arrays import forget
from biounet.files.outlines.trace import Polygon, trace

_BAND = 1 << 22  # pixels of which the runs are made at a time
_STRIP = 1 << 22  # pixels whose objects are traced together


def trace_strips(labels: NDArray[np.integer[Any]]) -> Iterator[tuple[int, list[Polygon]]]:
    """Give the label and polygons of each object, as `trace` does.

    Objects that begin in one strip of a large image are traced together, so that only their outlines are in memory;
    within it, they come by their labels.
    """
    height, width = labels.shape
    rows = max(1, _STRIP // width)
    if rows >= height:
        yield from trace(labels)
        return
    first, last = _rows_of_objects(labels)
    for top in range(0, height, rows):
        begins = (first >= top) & (first < top + rows)
        if begins.any():
            strip, corner = labels[top : last[begins].max() + 1], np.array([top, 0], np.int32)
            for label, polygons in trace(np.where(begins[strip], strip, 0)):
                yield label, [tuple(ring + corner for ring in polygon) for polygon in polygons]
            forget(labels)


def _rows_of_objects(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last row of each label; -1 of those that are not there."""
    height, width = labels.shape
    first, last, rows = np.zeros((0,), np.int64), np.zeros((0,), np.int64), max(1, _BAND // width)
    for top in range(0, height, rows):
        begin, _, label = find_label_runs(labels[None, top : top + rows]).T
        more = (0, max(0, int(label.max(initial=0)) + 1 - len(first)))
        first, last = (np.pad(known, more, constant_values=-1) for known in (first, last))
        row = begin // width + top
        last[label] = row  # of several with one label, the last one stays
        is_new = first[label] < 0
        first[label[is_new][::-1]] = row[is_new][::-1]
        forget(labels)
    return first, last
