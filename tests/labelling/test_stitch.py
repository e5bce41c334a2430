import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from biounet.core import PROBABILITY_MAX, LabelSettings, SettingsError
from biounet.labelling import label_block, label_objects, required_halo, stitch
from biounet.labelling.holes import fill_holes
from biounet.labelling.label import label_surface
from biounet.tiling import block_lattice

PLAIN = LabelSettings(min_size=0, min_peak=0, fill_holes=False)


@st.composite
def random_maps(draw):
    """Maps of a few large cells in noise: paths that are long, cross several blocks, and meet ties."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=24))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([3, 40, PROBABILITY_MAX]))
    smooth = [ndimage.gaussian_filter(random.random(shape), draw(st.sampled_from([0.0, 1.0, 3.0]))) for _ in range(3)]
    scaled = [(a - a.min()) / max(float(np.ptp(a)), 1e-9) for a in smooth]
    return [(np.rint(a * levels) * (PROBABILITY_MAX // levels)).astype(np.uint16) for a in scaled]


def in_blocks(maps, rule, size, order=None):
    shape = maps[0].shape
    parts = [
        label_block(*(values[block.grown(required_halo(has_distance=True))] for values in maps), rule, block=block)
        for block in block_lattice(shape, size)
    ]
    return stitch(parts if order is None else [parts[i] for i in order(len(parts))], shape, rule)


@settings(deadline=None, max_examples=40)
@given(
    random_maps(),
    st.lists(st.integers(1, 25), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
)
def test_tiling_is_invisible(maps, size, join, contour, fill):
    rule = LabelSettings(min_size=3, join=join, contour=contour, fill_holes=fill)
    once = label_objects(*maps, rule)
    cut = in_blocks(maps, rule, tuple(size[: maps[0].ndim]), order=lambda n: np.random.default_rng(n).permutation(n))
    for name in ("labels", "count", "confidence"):
        assert np.array_equal(getattr(once, name), getattr(cut, name)), name


@settings(deadline=None, max_examples=40)
@given(random_maps(), st.booleans())
def test_objects_are_connected_and_numbered_in_scan_order(maps, fill):
    found = label_objects(*maps, LabelSettings(min_size=2, fill_holes=fill))
    ids, first, count = np.unique(found.labels[found.labels > 0], return_index=True, return_counts=True)
    assert ids.tolist() == list(range(1, found.count.size + 1))
    assert (np.diff(first) > 0).all()
    assert count.tolist() == found.count.tolist()
    for label in ids:
        assert ndimage.label(found.labels == label, np.ones((3,) * found.labels.ndim))[1] == 1
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(13, 17), (6, 7, 8)]), st.integers(0, 7))
def test_turning_the_maps_turns_the_labels(seed, shape, which):
    random = np.random.default_rng(seed)
    distance = random.permutation(np.arange(1, np.prod(shape) + 1, dtype=np.uint16)).reshape(shape)
    foreground = random.integers(20000, PROBABILITY_MAX, shape).astype(np.uint16)

    def turn(values):
        flipped = np.flip(values, [axis for axis in range(len(shape)) if which >> axis & 1])
        return np.ascontiguousarray(np.swapaxes(flipped, 0, 1))

    rule = LabelSettings(min_size=0, min_peak=0, join=0.9)

    def label(inside, surface):
        block = block_lattice(surface.shape, max(surface.shape))[0]
        return stitch([label_surface(inside, surface, PROBABILITY_MAX // 2, block=block)], surface.shape, rule).labels

    here, there = turn(label(foreground, distance)), label(turn(foreground), turn(distance))
    pairs = np.unique(np.stack((here.ravel(), there.ravel())), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 19), (4, 5, 6)])
def test_constant_maps(shape):
    full, none = np.full(shape, PROBABILITY_MAX, np.uint16), np.zeros(shape, np.uint16)
    rule = LabelSettings(min_size=0)
    assert (label_objects(full, None, full, rule).labels == 1).all()
    assert label_objects(full, None, full, rule).confidence.tolist() == [1.0]
    assert label_objects(none, None, full, rule).count.size == 0
    assert not label_objects(none, none, none, rule).labels.any()


def test_confidence_is_the_mean_log_odds_of_the_foreground():
    # Log-odds 0, 4 and 8 and more of the natural logarithm.
    probability = np.array([[0.5, 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-8)), 1.0, 0.2, 0.5, 0.5, 0.2, 1.0, 1.0]])
    foreground = np.rint(probability * PROBABILITY_MAX).astype(np.uint16)
    found = label_objects(
        foreground, None, np.full(foreground.shape, PROBABILITY_MAX, np.uint16), LabelSettings(min_size=0)
    )
    assert found.labels.tolist() == [[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]]
    assert found.confidence == pytest.approx([(0 + 0.5 + 1 + 1) / 4, 0, 1], abs=0.01)


@pytest.mark.parametrize(("join", "expected"), [(0.5, [0, 1, 1, 1, 1, 1, 0]), (0.51, [0, 1, 1, 1, 2, 2, 0])])
def test_a_low_saddle_separates_objects_and_a_high_one_joins_them(join, expected):
    # The saddle is the voxel of height 300, half of the lower peak; it belongs to its higher neighbour, 900.
    distance = np.array([[0, 300, 900, 300, 400, 600, 0]], np.uint16)
    foreground = np.where(distance > 0, PROBABILITY_MAX, 0).astype(np.uint16)
    part = label_surface(foreground, distance, PROBABILITY_MAX, block=block_lattice((1, 7), 7)[0])
    found = stitch([part], (1, 7), PLAIN.model_copy(update={"join": join}))
    assert found.labels.tolist() == [expected]


@pytest.mark.parametrize(("join", "count"), [(0.62, 1), (0.63, 2)])
def test_one_gap_in_a_border_does_not_make_one_cell_of_two(join, count):
    # The first column touches the others in eight pairs of height 200 and two of 900: (900 + 3400 / 10) / 2 = 620.
    distance = np.array([[999, 200, 1000], [999, 200, 1000], [999, 200, 1000], [999, 900, 1000]], np.uint16)
    foreground = np.full(distance.shape, PROBABILITY_MAX, np.uint16)
    part = label_surface(foreground, distance, PROBABILITY_MAX, block=block_lattice(distance.shape, 7)[0])
    found = stitch([part], distance.shape, PLAIN.model_copy(update={"join": join}))
    assert found.count.size == count


def test_a_low_peak_joins_its_neighbour_and_is_dropped_without_one():
    distance = np.array([[900, 200, 300, 0, 300, 0, 800]], np.uint16) * np.uint16(70)
    foreground = np.where(distance > 0, PROBABILITY_MAX, 0).astype(np.uint16)
    rule = PLAIN.model_copy(update={"join": 1.0, "min_peak": 0.5})
    part = label_surface(foreground, distance, PROBABILITY_MAX, block=block_lattice((1, 7), 7)[0])
    assert stitch([part], (1, 7), rule).labels.tolist() == [[1, 1, 1, 0, 0, 0, 2]]


def test_a_peak_between_two_objects_joins_the_one_across_the_higher_saddle():
    # From the lowest saddle up, the middle peak of 400 would join the left one first: 250 is more than half of it.
    distance = np.array([[1000, 250, 400, 390, 900]], np.uint16)
    foreground = np.full(distance.shape, PROBABILITY_MAX, np.uint16)
    part = label_surface(foreground, distance, PROBABILITY_MAX, block=block_lattice((1, 5), 5)[0])
    assert stitch([part], (1, 5), PLAIN.model_copy(update={"join": 0.5})).labels.tolist() == [[1, 1, 2, 2, 2]]


@pytest.mark.parametrize(("peak", "expected"), [(32767, 0), (32768, 1)])
def test_the_lowest_peak_of_an_object(peak, expected):
    full = np.full((1, 1), PROBABILITY_MAX, np.uint16)
    part = label_surface(full, np.full((1, 1), peak, np.uint16), 1, block=block_lattice((1, 1), 1)[0])
    assert stitch([part], (1, 1), PLAIN.model_copy(update={"min_peak": 0.5})).labels.tolist() == [[expected]]


def test_without_a_distance_map_touching_discs_are_separated_by_their_shape():
    y, x = np.ogrid[:21, :37]
    left, right = (np.hypot(y - 10, x - centre) <= 9 for centre in (10, 26))
    foreground = np.where(left | right, PROBABILITY_MAX, 0).astype(np.uint16)
    found = label_objects(foreground, None, None, PLAIN.model_copy(update={"join": 0.6}))
    assert (found.labels[left & ~right].max(), found.labels[right & ~left].min(), found.count.size) == (1, 2, 2)


def test_the_smallest_object_in_voxels_and_in_micrometres():
    mask = np.array([[1, 1, 1, 0, 1, 1]], np.uint16) * np.uint16(PROBABILITY_MAX)
    assert label_objects(mask, None, mask, PLAIN.model_copy(update={"min_size": 3})).count.tolist() == [3]
    physical = PLAIN.model_copy(update={"min_size": 0.75, "min_size_unit": "um"})
    assert label_objects(mask, None, mask, physical, voxel_um=0.25).count.tolist() == [3]
    with pytest.raises(SettingsError, match="calibration"):
        label_objects(mask, None, mask, physical)


def test_more_objects_than_uint16_holds():
    foreground = np.zeros((600, 600), np.uint16)
    foreground[::2, ::2] = PROBABILITY_MAX
    found = in_blocks([foreground, foreground, foreground], PLAIN.model_copy(update={"join": 1.0}), 250)
    assert found.count.size == found.labels.max() == 90_000


@pytest.mark.parametrize(
    "right_foreground", [np.full((1, 3), PROBABILITY_MAX, np.uint16), np.array([[PROBABILITY_MAX, 0, 0]], np.uint16)]
)
def test_maps_that_differ_between_blocks_are_an_error(right_foreground):
    """In each block, the first voxel of the other one is higher: the path is a closed loop."""
    left, right = block_lattice((1, 4), (1, 2))
    full = np.full((1, 3), PROBABILITY_MAX, np.uint16)
    rising = np.array([[1, 2, 3]], np.uint16)
    parts = [
        label_surface(full, rising, PROBABILITY_MAX, block=left),
        label_surface(right_foreground, rising[:, ::-1], PROBABILITY_MAX, block=right),
    ]
    with pytest.raises(ValueError, match="different maps"):
        stitch(parts, (1, 4), PLAIN)


def test_a_closed_loop_beside_a_whole_object_is_an_error():
    full = np.full((1, 6), PROBABILITY_MAX, np.uint16)
    full[0, 4] = 0
    views = [[1, 2, 3, 0, 0, 0], [0, 9, 5, 4, 0, 0], [0, 0, 0, 0, 0, 7]]
    parts = []
    for block, view in zip(block_lattice((1, 6), (1, 2)), views, strict=True):
        ring = block.grown(1)
        parts.append(label_surface(full[ring], np.array([view], np.uint16)[ring], PROBABILITY_MAX, block=block))
    with pytest.raises(ValueError, match="closed"):
        stitch(parts, (1, 6), PLAIN)


def test_an_image_without_voxels_has_no_objects():
    assert stitch([], (0, 5), PLAIN).labels.shape == (0, 5)


HOLES = """
1 1 1 1 . 2 2 2 . 3 3 3 3
1 . . 1 . 2 . . . 3 . . 4
1 . . 1 . 2 2 2 . 3 3 4 4
1 1 1 1 . . . . . . . . .
5 5 . . . . 6 6 6 . 7 7 7
. . 5 . . . 6 8 6 . 7 . 7
5 5 5 . . . 6 . 6 . 7 . 7
. . . . . . 6 6 6 . 7 . 7
"""
FILLED = """
1 1 1 1 . 2 2 2 . 3 3 3 3
1 1 1 1 . 2 . . . 3 . . 4
1 1 1 1 . 2 2 2 . 3 3 4 4
1 1 1 1 . . . . . . . . .
5 5 . . . . 6 6 6 . 7 7 7
. . 5 . . . 6 8 6 . 7 . 7
5 5 5 . . . 6 . 6 . 7 . 7
. . . . . . 6 6 6 . 7 . 7
"""


def picture(text):
    rows = text.replace(".", "0").strip().splitlines()
    return np.array([row.split() for row in rows], np.int32)


def test_only_a_hole_of_one_object_is_filled():
    labels = picture(HOLES)
    owner, filled = fill_holes(labels)
    assert labels.tolist() == picture(FILLED).tolist()
    assert (owner.tolist(), filled.tolist()) == ([1, 1], [2, 2])


def test_a_hole_that_another_object_touches_anywhere_is_not_filled():
    for x in (1, 2, 3):
        labels = np.ones((4, 5), np.int32)
        labels[1, 1:4] = 0
        labels[2, x] = 2
        fill_holes(labels)
        assert not labels[1, 1:4].any()


def test_a_cavity_is_filled_and_a_tunnel_is_not():
    cavity = np.ones((5, 5, 5), np.int32)
    cavity[1:4, 2, 2] = 0
    fill_holes(cavity)
    assert cavity.all()
    tunnel = np.ones((5, 5, 5), np.int32)
    tunnel[:, 2, 2] = 0
    fill_holes(tunnel)
    assert not tunnel[:, 2, 2].any()


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=8), elements=st.integers(0, 1)))
def test_one_object_is_filled_as_scipy_fills_it(labels):
    expected = ndimage.binary_fill_holes(labels)
    before = labels.sum()
    _, filled = fill_holes(labels)
    assert np.array_equal(labels > 0, expected)
    assert filled.sum() == labels.sum() - before
