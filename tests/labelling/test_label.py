from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from biounet.core import PROBABILITY_MAX, LabelSettings
from biounet.labelling import ascent, label_block, label_classes, required_halo, stitch
from biounet.labelling.label import label_surface
from biounet.tiling import block_lattice

SETTINGS = LabelSettings(min_size=0)


def whole(shape):
    return block_lattice(shape, max(shape))[0]


def dense(objects):
    """Return the basins of a block as an array of its core, -1 for background."""
    shape = tuple(part.stop - part.start for part in objects.block.core)
    basins = np.full(int(np.prod(shape)), -1)
    n = 0
    for begin, end in objects.runs:
        basins[begin:end] = objects.basins[n : n + end - begin]
        n += end - begin
    return basins.reshape(shape)


def maps(dims):
    return hnp.arrays(np.uint16, hnp.array_shapes(min_dims=dims, max_dims=dims, max_side=9), elements=st.integers(0, 4))


def test_two_hills_and_the_saddle_between_them():
    height = np.array([[0, 3, 9, 4, 2, 5, 7, 1]], np.uint16)
    found = label_surface(
        np.where(height > 0, PROBABILITY_MAX, 0).astype(np.uint16), height, PROBABILITY_MAX, block=whole((1, 8))
    )
    left, right = np.argsort(found.root)
    assert dense(found).tolist() == [[-1, left, left, left, right, right, right, right]]
    assert found.root[[left, right]].tolist() == [2, 6]
    assert found.height[[left, right]].tolist() == [9, 7]
    assert found.count[[left, right]].tolist() == [3, 4]
    assert found.first[[left, right]].tolist() == [1, 4]
    assert found.edges.tolist() == [[0, 1]]
    assert found.border_minima.tolist() == [[2, 2, 1]]


def test_a_path_that_leaves_the_core_ends_at_the_ring():
    height = np.array([[1, 2, 3, 4, 5, 6]], np.uint16)
    full = np.full_like(height, PROBABILITY_MAX)
    left, right = block_lattice((1, 6), (1, 3))
    found = label_surface(full[left.grown(1)], height[left.grown(1)], PROBABILITY_MAX, block=left)
    assert found.root.tolist() == [3]
    assert found.exits_block.tolist() == [True]
    assert found.face_voxels.tolist() == [[2, 0]]
    found = label_surface(full[right.grown(1)], height[right.grown(1)], PROBABILITY_MAX, block=right)
    assert found.root[~found.exits_block].tolist() == [5]
    assert found.face_voxels[:, 0].tolist() == [3]


def test_the_surface_is_the_distance_less_the_contour_smoothed():
    distance = np.array([[0, 0, 0, 160, 160, 160, 0]], np.uint16)
    contour = np.array([[0, 0, 0, 0, 160, 0, 160]], np.uint16)
    foreground = np.full_like(distance, PROBABILITY_MAX)
    rule = SETTINGS.model_copy(update={"contour": 0.5})
    found = label_block(foreground, contour, distance, rule, block=whole(distance.shape))
    # Lowered: 0 0 0 160 80 160 0; smoothed: 1 1 40 100 120 100 40, since foreground is never below 1.
    assert found.height.max() == 120
    assert found.root[found.height.argmax()] == 4
    assert 1 in found.height


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_the_surface_is_smoothed_along_each_axis_but_not_across_the_only_slice(surface):
    expected = surface.astype(np.int64)
    for axis in range(1 if len(surface) == 1 else 0, 3):
        expected = ndimage.correlate1d(expected, [1, 2, 1], axis, mode="nearest")
    assert np.array_equal(ascent.smooth(surface), expected >> (4 if len(surface) == 1 else 6))


def test_an_edge_that_another_one_displaces_from_the_table_is_listed():
    table, edges = np.full((4, 5), -1), np.zeros((1, 5), int)
    assert ascent.store_edge(table, edges, 0, np.array([0, 31, 5, 5, 1])) == 0
    assert ascent.store_edge(table, edges, 0, np.array([0, 31, 7, 7, 1])) == 0
    assert ascent.store_edge(table, edges, 0, np.array([1, 4, 9, 9, 1])) == 1
    assert edges.tolist() == [[0, 31, 7, 12, 2]]
    assert table[3].tolist() == [1, 4, 9, 9, 1]


@settings(deadline=None, max_examples=50)
@given(maps(2) | maps(3))
def test_the_paths_of_a_basin_end_at_its_highest_voxel(height):
    found = label_surface(
        np.where(height > 0, PROBABILITY_MAX, 0).astype(np.uint16), height, PROBABILITY_MAX, block=whole(height.shape)
    )
    basins = dense(found)
    assert np.array_equal(basins >= 0, height > 0)
    assert not found.exits_block.any()
    for basin, root in enumerate(found.root):
        assert basins.flat[root] == basin
        assert height.flat[root] == height[basins == basin].max()
    assert found.count.sum() == (height > 0).sum()
    assert found.certainty.sum() == PROBABILITY_MAX * (height > 0).sum()


@settings(deadline=None, max_examples=50)
@given(maps(2) | maps(3))
def test_border_minima_are_those_of_all_touching_pairs(height):
    found = label_surface(
        np.where(height > 0, PROBABILITY_MAX, 0).astype(np.uint16), height, PROBABILITY_MAX, block=whole(height.shape)
    )
    basins = dense(found)
    expected = defaultdict(list)
    for place in np.ndindex(height.shape):
        for step in np.ndindex((3,) * height.ndim):
            other = tuple(np.add(place, step) - 1)
            if other > place and all(0 <= i < n for i, n in zip(other, height.shape, strict=True)):
                pair = tuple(sorted((int(basins[place]), int(basins[other]))))
                if pair[0] >= 0 and pair[0] != pair[1]:
                    expected[pair].append(int(min(height[place], height[other])))
    counted = defaultdict(lambda: [0, 0, 0])
    for pair, (highest, total, number) in zip(found.edges.tolist(), found.border_minima.tolist(), strict=True):
        before = counted[tuple(pair)]
        counted[tuple(pair)] = [max(before[0], highest), before[1] + total, before[2] + number]
    assert counted == {pair: [max(minima), sum(minima), len(minima)] for pair, minima in expected.items()}


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (17, 19), (3, 4, 5)])
@pytest.mark.parametrize("value", [1, PROBABILITY_MAX])
def test_ties_go_to_the_first_voxel_so_that_a_constant_map_is_one_basin(shape, value):
    height = np.full(shape, value, np.uint16)
    found = label_surface(np.full(shape, PROBABILITY_MAX, np.uint16), height, PROBABILITY_MAX, block=whole(shape))
    assert found.count.sum() == height.size
    assert found.root.tolist() == [0]
    assert found.height.tolist() == [value]


def test_maps_of_another_shape_are_refused():
    block = block_lattice((8, 8), 4)[0]
    core_only = np.zeros((4, 4), np.uint16)
    with pytest.raises(ValueError, match="the block and its ring"):
        label_block(core_only, None, core_only, SETTINGS, block=block)


def label_components(mask, block):
    foreground = mask.astype(np.uint16) * np.uint16(PROBABILITY_MAX)
    return label_surface(foreground, np.full(mask.shape, PROBABILITY_MAX, np.uint16), PROBABILITY_MAX, block=block)


def test_components_touch_at_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)
    found = stitch([label_components(mask, block=whole(mask.shape))], mask.shape, SETTINGS)
    assert found.labels.tolist() == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 2]]


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9)), st.integers(1, 9))
def test_components_are_those_of_scipy_in_any_blocks(mask, size):
    found = [label_components(mask[block.grown(1)], block=block) for block in block_lattice(mask.shape, size)]
    labels = stitch(found, mask.shape, SETTINGS.model_copy(update={"fill_holes": False})).labels
    assert np.array_equal(labels, ndimage.label(mask, np.ones((3,) * mask.ndim))[0])


@pytest.mark.parametrize("shape", [(70, 70), (2, 2300), (2, 46, 50)])
def test_more_basins_runs_and_face_voxels_than_the_buffers_hold_at_first(shape):
    mask = np.zeros(shape, bool)
    mask[(slice(None, None, 2),) * len(shape)] = True
    blocks = block_lattice(shape, (1, *shape[1:]) if shape[0] == 2 else 69)
    found = [label_components(mask[block.grown(1)], block=block) for block in blocks]
    labels = stitch(found, shape, SETTINGS.model_copy(update={"fill_holes": False})).labels
    assert np.array_equal(labels[mask], np.arange(1, mask.sum() + 1))
    full = np.ones(shape, bool)
    found = [label_components(full[block.grown(1)], block=block) for block in blocks]
    assert stitch(found, shape, SETTINGS).labels.all()
    assert len(found[0].face_voxels) == (np.prod(shape[1:]) if shape[0] == 2 else 2 * 69 - 1)


def test_every_voxel_of_the_ring_can_be_a_root():
    height = np.ones((2, 2300), np.uint16)
    height[0] = np.tile([2, 0], 1150)
    foreground = np.where(height > 0, PROBABILITY_MAX, 0).astype(np.uint16)
    found = label_surface(foreground, height, PROBABILITY_MAX, block=block_lattice(height.shape, (1, 2300))[0])
    assert found.count.tolist() == [1] * 1150 + [0] * 2300
    assert found.exits_block.tolist() == [False] * 1150 + [True] * 2300


def test_the_most_probable_class_wins_and_the_lower_of_equals():
    probabilities = np.array([[[5, 1, 2, 3]], [[1, 5, 2, 3]], [[0, 0, 9, 3]]], np.uint16)
    assert label_classes(probabilities).tolist() == [[0, 1, 2, 0]]


def test_inner_regions_replace_outer_ones():
    regions = np.array([[[0, 40000, 40000]], [[60000, 0, 60000]]], np.uint16)
    assert label_classes(regions, thresholds=(0.5, 0.95)).tolist() == [[0, 1, 1]]
    assert label_classes(regions, thresholds=(0.5, 0.9)).tolist() == [[2, 1, 2]]
    assert label_classes(np.array([[[0, 1]]], np.uint16), thresholds=(0.0,)).tolist() == [[0, 1]]


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 90))), st.integers(5, 50))
def test_shape_surface_does_not_depend_on_the_blocks(mask, size):
    foreground = mask.astype(np.uint16) * np.uint16(PROBABILITY_MAX)
    once = stitch([label_block(foreground, None, None, SETTINGS, block=whole(mask.shape))], mask.shape, SETTINGS)
    ring = required_halo(has_distance=False)
    cut = [
        label_block(foreground[block.grown(ring)], None, None, SETTINGS, block=block)
        for block in block_lattice(mask.shape, size)
    ]
    assert np.array_equal(once.labels, stitch(cut, mask.shape, SETTINGS).labels)
