"""The overlay of a time series: frames at equal distances in panels, in which what is followed keeps its colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Volume
from biounet.measurement import Table
from biounet.reporting.overlays import MAX_SIDE, Canvas, prepare_canvas
from biounet.reporting.panels import Panel, arrange
from biounet.reporting.volume_overlays import compose_volume

_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 6: 3, 9: 3}  # of panels, by their number: all rows are full
_MIN_SIDE = 256  # pixels along the longest side of a panel: smaller frames are enlarged


def compose_time_series(volume: Volume, labels: NDArray[Any], *, classes: bool = False) -> Canvas:
    """Return up to nine frames of a time series in panels without outlines, named by their numbers in the file.

    Parameters
    ----------
    volume
        The time series.
    labels
        ``(t, [z,] y, x)``.
    classes
        Whether labels are classes and not objects.
    """
    count = max(number for number in _COLUMNS if number <= len(volume.times))
    chosen = np.linspace(0, len(volume.times) - 1, count).round().astype(int).tolist()
    panels = [_panel(volume.frame(index), labels[index], f"t = {volume.times[index]}", classes) for index in chosen]
    rows = [panels[n : n + _COLUMNS[count]] for n in range(0, count, _COLUMNS[count])]
    zoom = max(1.0, _MIN_SIDE / max(panels[0].size))
    return arrange(rows, zoom, (0, MAX_SIDE), panels[0].canvas.bright)


def _panel(frame: Volume, labels: NDArray[Any], name: str, classes: bool) -> Panel:
    grid = frame.grid
    if grid.dims == 3:
        canvas = compose_volume(frame.array, labels, grid, classes=classes, names=False)
        return Panel(canvas, name, canvas.labels.shape, 1.0, None)
    canvas = prepare_canvas(frame.array, labels)
    pixel = grid.steps[1] * grid.shape[1] / canvas.labels.shape[1]
    return Panel(canvas, name, canvas.labels.shape, pixel, grid.unit)


def colour_by_track(canvas: Canvas, table: Table) -> Canvas:
    """Return a canvas with the number of its track in place of each object's, where objects have tracks."""
    tracks = table.columns.get("track")
    if tracks is None or tracks.dtype.kind == "f" or not len(tracks):
        return canvas
    numbers = np.concatenate([[0], tracks]).astype(np.int32)
    return canvas._replace(labels=numbers[canvas.labels])
