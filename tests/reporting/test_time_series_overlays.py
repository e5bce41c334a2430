"""The overlay of a time series: which frames it shows, and that a track keeps its colour."""

import json

import numpy as np
import pytest

from biounet.core import Grid, Volume
from biounet.measurement import Table
from biounet.reporting.overlays import draw_outlines
from biounet.reporting.time_series_overlays import colour_by_track, compose_time_series
from biounet.reporting.view_files import view_data


def series(count: int, shape: tuple[int, ...] = (300, 300)) -> tuple[Volume, np.ndarray]:
    """Frames that are all the brighter, with one object that moves and is numbered anew in each."""
    labels = np.zeros((count, *shape), np.int32)
    for t in range(count):
        labels[t, ..., 100:140, 100 + t : 140 + t] = t + 1
    array = (labels > 0) * 200 + np.arange(count).reshape(-1, *(1,) * len(shape))
    grid = Grid(shape, (0.5,) * len(shape), "um")
    return Volume(array[None].astype(np.uint16), grid, times=tuple(range(5, 5 + count))), labels


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [0]), (4, [0, 1, 2, 3]), (5, [0, 1, 3, 4]), (7, [0, 1, 2, 4, 5, 6]), (25, [0, 3, 6, 9])]
)
def test_up_to_nine_frames_fill_their_rows(count, shown):
    canvas = compose_time_series(*series(count))
    assert [t for t in shown if t + 1 not in canvas.labels] == []
    assert len(np.unique(canvas.labels)) - 1 == {1: 1, 4: 4, 5: 4, 7: 6, 25: 9}[count]
    assert max(canvas.labels.shape) <= 2048
    assert canvas.labels.shape == canvas.picture.shape[:2]


def test_a_track_keeps_its_colour():
    volume, labels = series(4)
    canvas = compose_time_series(volume, labels)
    linked = Table("objects", {"label": np.arange(1, 5), "track": np.array([1, 1, 2, 2])})
    coloured = colour_by_track(canvas, linked)
    assert {*np.unique(coloured.labels)} == {0, 1, 2}
    np.testing.assert_array_equal(coloured.labels > 0, canvas.labels > 0)
    assert (draw_outlines(coloured) != draw_outlines(canvas)).any()
    for tracks in (np.full(4, np.nan), None):
        columns = {"label": np.arange(1, 5)} | ({} if tracks is None else {"track": tracks})
        assert colour_by_track(canvas, Table("objects", columns)) is canvas


def test_volumes_over_time_have_their_panels_in_each_frame():
    canvas = compose_time_series(*series(2, (6, 160, 160)))
    assert {1, 2} <= {*np.unique(canvas.labels)}


def test_the_viewer_gets_the_labels_of_several_panels():
    volume, labels = series(4)
    columns = {"label": np.arange(1, 5), "area_px": np.full(4, 1600), "track": np.ones(4, int)}
    view = json.loads(view_data(compose_time_series(volume, labels), Table("objects", columns), None, {}))
    assert (view["objects"], view["hidden"], "source" in view) == (4, 0, False)
