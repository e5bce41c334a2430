"""Summaries of tables: parts in any order add up to what the whole table says, to the last bit."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from biounet.core import Grid
from biounet.measurement import (
    AcquiredExtent,
    Boxes,
    FrameCounts,
    Table,
    TableSummary,
    TrainingReference,
    acquired_part,
    frame_figures,
    frame_notes,
    image_figures,
    join_summaries,
    measure_objects,
    quality_warnings,
    table_statistics,
)
from biounet.measurement.exact_sums import ExactSum
from support.label_images import label_images, pixels
from support.super_blocks import lattice

TRAINING = TrainingReference({"diameter": (2.0, 3.0), "at_border": (0.0, 0.3)}, (), 0.5)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def through_json(one):
    return type(one).decode(json.loads(json.dumps(one.encode())))


@given(st.lists(FLOATS, max_size=30), st.integers(0, 30), st.randoms(use_true_random=False))
@example([5e-324, -5e-324, 5e-324], 1, None)
@example([1.7e308, 1.7e308, -1e-300, 1e16, 1.0, -1e16], 3, None)
@settings(deadline=None)
def test_sums_are_exact_and_the_same_in_any_order(values, cut, random):
    total = sum(map(Fraction, values))
    whole = ExactSum.of(np.array(values))
    if random:
        random.shuffle(values)
    parts = ExactSum.of(np.array(values[:cut])) + through_json(ExactSum.of(np.array(values[cut:])))
    assert parts == whole
    assert math.isnan(whole.mean) if not values else whole.mean == float(total / len(values))


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1.0, np.inf], np.inf), ([-np.inf, 1], -np.inf), ([np.inf, -np.inf], np.nan), ([np.nan, 1], np.nan)],
)
def test_sums_of_what_is_not_finite(values, mean):
    both = through_json(ExactSum.of(np.array(values[:1]))) + ExactSum.of(np.array(values[1:]))
    np.testing.assert_equal([both.mean, ExactSum.of(np.array(values)).mean], [mean, mean])


def rows_of(table, chosen):
    columns = {name: column[chosen] for name, column in table.columns.items()}
    return Table(table.kind, columns, Boxes(table.boxes.low[chosen], table.boxes.high[chosen]))


def described(summary, grid):
    return (
        image_figures(summary),
        table_statistics(summary, TRAINING, 1.7),
        quality_warnings({}, summary, TRAINING, 1.7),
        frame_figures(summary.frame, grid),
        frame_notes(summary.frame),
    )


@given(
    st.sampled_from([2, 3]).flatmap(lambda dims: label_images(dims, 7)),
    st.booleans(),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=80)
def test_parts_of_a_table_say_what_the_whole_table_says(labels, calibrated, place):
    grid = Grid(labels.shape, (0.3,) * labels.ndim, "um") if calibrated else Grid(labels.shape)
    confidence = np.array([0.1, 0.7, 0.2])[: labels.max()]
    table = measure_objects(labels, pixels(labels.shape, 1), grid, confidence, ["a"])
    part, low = acquired_part(grid, None), TRAINING.low_confidence
    whole = TableSummary.of(table, low, FrameCounts.of(table.boxes, grid, part))
    pieces = [rows_of(table, np.array(place[: labels.max()], int) == k) for k in range(4)]
    parts = [TableSummary.of(one, low, FrameCounts.of(one.boxes, grid, part)) for one in pieces[::-1]]
    joined = join_summaries(map(through_json, parts))
    assert described(joined, grid) == described(whole, grid)


def test_figures_are_medians_and_means_of_the_columns():
    rng = np.random.default_rng(0)
    columns = {
        "label": np.arange(1, 1001),
        "area_px": rng.integers(1, 90, 1000),
        "touches_border": rng.random(1000) < 0.2,
    }
    columns |= {
        "area_um2": columns["area_px"] * 0.37,
        "confidence": rng.random(1000),
        "intensity_mean_a": rng.random(1000),
    }
    table = Table("objects", columns | {"background_a": np.full(1000, 0.1)})
    figures = image_figures(table)
    assert figures["median_area_um2"] == float(f"{np.median(columns['area_um2']):.6g}")
    assert figures["mean_intensity_a"] == float(f"{np.mean(columns['intensity_mean_a']):.6g}")
    assert figures["background_a"] == 0.1
    found = table_statistics(table, TRAINING, 1.7)
    assert found["diameter"] == np.median(2 * np.sqrt(columns["area_px"] / np.pi) * 1.7)
    assert found["at_border"] == np.mean(columns["touches_border"])
    assert found["unsure"] == np.mean(columns["confidence"] < 0.5)


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(*[st.integers(0, 5)] * 4),
    st.booleans(),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(deadline=None)
def test_the_acquired_part_is_found_from_regions(shape, box, has_hole, edges):
    grid, acquired = Grid(shape), np.zeros(shape, bool)
    acquired[min(box[:2]) : max(box[:2]) + 1, min(box[2:]) : max(box[2:]) + 1] = True
    acquired[tuple(n // 2 for n in shape)] &= not has_hole
    regions = [(AcquiredExtent.of(acquired[r], [part.start for part in r])) for r in lattice(shape, edges)]
    assert sum(regions[::-1], AcquiredExtent()).part == acquired_part(grid, acquired)
