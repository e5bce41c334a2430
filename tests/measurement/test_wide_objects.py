"""Objects so wide that the sums of their squared coordinates do not fit into 64 bits."""

import math

import numpy as np
import pytest

from biounet.core import Grid
from biounet.measurement import Boxes, MeasuredChannels, OwnedObjects, measure_objects, measure_region, moments
from support.super_blocks import CountedLabels, lazy


def measure(labels):
    return measure_objects(labels, (), Grid(labels.shape), None, ()).columns


def second_of_rows(width, rows):
    """Return the sums of yy, yx and xx of a rectangle, counted from its first pixel."""
    sum_x, sum_y = (n * (n - 1) // 2 for n in (width, rows))
    of_squares = [n * (n - 1) * (2 * n - 1) // 6 for n in (width, rows)]
    return [width * of_squares[1], sum_x * sum_y, rows * of_squares[0]]


def rectangle_runs(width, rows, first=0):
    """Return the runs of a rectangle as wide as its image, from the row `first` on."""
    begin = (first + np.arange(rows)) * width
    return np.stack([begin, begin + width, np.ones(rows, np.int64)], axis=1)


@pytest.mark.parametrize("width", [100_000, 2_000_000])
def test_axes_of_a_thin_strip_are_those_of_the_formula(width):
    found = measure(np.ones((3, width), np.int32))
    major, minor = (4 * math.sqrt((n * n - 1) / 12) for n in (width, 3))
    assert found["axis_major_length_px"].item() == pytest.approx(major, rel=1e-12)
    assert found["axis_minor_length_px"].item() == pytest.approx(minor, rel=1e-4)
    assert found["eccentricity"].item() == pytest.approx(1)
    assert found["solidity"].item() == 1
    assert found["centroid_x_px"].item() == (width - 1) / 2


def test_a_wide_object_beside_ordinary_ones_changes_nothing_of_them():
    labels = np.zeros((6, 2_000_000), np.int32)
    labels[:3], labels[4, :50], labels[5, 7:60] = 2, 1, 3
    alone = measure(np.where(labels[4:, :100] == 3, 2, labels[4:, :100]))
    together = measure(labels)
    for name in ("axis_major_length_px", "axis_minor_length_px", "eccentricity", "area_px"):
        assert together[name][[0, 2]].tolist() == alone[name].tolist(), name


def test_a_wide_object_has_the_same_row_in_super_blocks():
    height, width = 6, 2_000_000
    labels = np.ones((height, width), np.int32)
    labels[2:, 5:800_000], labels[0, 1_500_000:] = 0, 0
    grid, core = Grid(labels.shape), (slice(0, height), slice(0, 250_000))
    box = Boxes(np.array([[0, 0]]), np.array([[height - 1, width - 1]]))
    image, reader = lazy(labels, grid, np.zeros((1, *labels.shape), np.uint8)), CountedLabels(labels)
    objects = OwnedObjects(np.array([1]), np.array([np.count_nonzero(labels)]), box)
    table = measure_region(objects, core, reader, image, MeasuredChannels()).columns
    assert reader.largest < labels.size
    for name, column in measure(labels).items():
        np.testing.assert_array_equal(table[name], column, err_msg=name)


@pytest.mark.parametrize("width", [70_000, 100_000, 3_000_000])
def test_sums_are_exact_in_one_piece_and_joined_from_strips(width):
    rows, cut = min(width, 100_000), 30_000
    whole = moments.sum_coordinates(rectangle_runs(width, rows), (1, rows, width), 1)
    assert [int(whole.second[0, i]) for i in (3, 4, 5)] == second_of_rows(width, rows)
    strips = [moments.sum_coordinates(rectangle_runs(width, cut), (1, rows, width), 1)]
    strips.append(moments.sum_coordinates(rectangle_runs(width, rows - cut, cut), (1, rows, width), 1))
    joined = moments.join_coordinates(*strips)
    assert joined.second.tolist() == whole.second.tolist()
    assert joined.first.tolist() == whole.first.tolist()
    covariances = [moments.covariances(sums.size, sums.first, sums.second)[0, 1:, 1:] for sums in (whole, joined)]
    assert covariances[0].tolist() == covariances[1].tolist()
    expected = [(rows**2 - 1) / 12, 0, (width**2 - 1) / 12]
    yy, yx, _, xx = covariances[0].ravel()
    assert [yy, xx] == pytest.approx(expected[::2], rel=1e-12)
    assert abs(yx) < 1e-12 * math.sqrt(yy * xx)


@pytest.mark.parametrize("edge", [1_000, 70_000, 300_000, 2_000_000])
def test_sums_of_scattered_runs_are_exact(edge):
    """As they follow from sums of powers of the indices, in integers of Python."""
    rng = np.random.default_rng(0)
    begin = np.unique(rng.integers(0, edge**3 - edge, 50) // edge * edge + rng.integers(0, edge // 2, 50))
    runs = np.stack([begin, begin + rng.integers(1, edge // 2, len(begin)), rng.integers(1, 4, len(begin))], axis=1)
    found = moments.sum_coordinates(runs, (edge,) * 3, 3)
    for k in range(3):
        own = [[int(number) for number in run] for run in runs if run[2] == k + 1]
        places = [(run[0] // edge**2, run[0] // edge % edge, run[0] % edge, run[1] - run[0]) for run in own]
        z0, y0, x0, _ = places[0]
        expected = np.zeros(6, object)
        for z, y, x, n in ((z - z0, y - y0, x - x0, n) for z, y, x, n in places):
            sum_x, sum_xx = n * x + n * (n - 1) // 2, n * x * x + x * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
            expected += [n * z * z, n * z * y, z * sum_x, n * y * y, y * sum_x, sum_xx]
        assert found.second[k].tolist() == expected.tolist()
