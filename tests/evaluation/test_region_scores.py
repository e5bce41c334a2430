"""Surfaces and lesions of volumes: distances that can be counted on the fingers, and those of MONAI."""

import json
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from biounet.core import UNLABELLED, Grid, InputError, SettingsError
from biounet.evaluation import score_classes
from biounet.evaluation.region_scores import compare_lesions, compare_surfaces

SHAPE = (8, 9, 10)
STEPS = (5.0, 1.0, 0.5)
GRID = Grid(SHAPE, STEPS, "mm")


def box(z, y, x, shape=SHAPE):
    mask = np.zeros(shape, np.bool_)
    mask[z, y, x] = True
    return mask


def classes(*masks):
    labels = np.zeros(masks[0].shape, np.int32)
    for value, mask in enumerate(masks, 1):
        labels[mask] = value
    return labels


VOXEL = box(2, 3, 4)
CUBE = box(slice(2, 5), slice(3, 6), slice(2, 5))


class TestSurfaces:
    @pytest.mark.parametrize(
        ("moved", "distance"),
        [((2, 3, 4), 0), ((3, 3, 4), 5), ((2, 5, 4), 2), ((2, 3, 9), 2.5), ((2, 6, 0), math.hypot(3, 2))],
    )
    def test_the_distance_of_two_voxels(self, moved, distance):
        found = compare_surfaces(VOXEL, box(*moved), STEPS, tolerance=2.0)
        assert found.hd95 == pytest.approx(distance)
        assert found.nsd == (distance <= 2)

    def test_a_cube_shifted_by_one_voxel(self):
        for axis, step in enumerate(STEPS):
            moved = np.roll(CUBE, 1, axis)
            assert compare_surfaces(CUBE, moved, STEPS, tolerance=step).nsd == 1
            # Of 26 surface voxels of each cube, the 9 that stick out of the other one are a step away from it, and so
            # is the one in the middle of the opposite side, which lies inside of the other one.
            assert compare_surfaces(CUBE, moved, STEPS, 0).nsd == pytest.approx(1 - 10 / 26)
            assert compare_surfaces(CUBE, moved, STEPS, 0).hd95 == pytest.approx(step)

    def test_hd95_leaves_out_the_farthest_of_twenty(self):
        line = box(4, 4, slice(0, 40), (9, 9, 40))
        spur = line | box(5, 4, 39, line.shape)
        far = line | box(8, 4, 39, line.shape) | box(8, 4, 38, line.shape) | box(8, 4, 37, line.shape)
        assert compare_surfaces(line, spur, (1, 1, 1), 0).hd95 == 0
        assert compare_surfaces(line, far, (1, 1, 1), 0).hd95 > 3
        assert compare_surfaces(line, spur, (1, 1, 1), 0).nsd == 80 / 81

    def test_the_edge_of_the_image_is_a_surface(self):
        full = np.ones((3, 3, 3), np.bool_)
        hollow = full & ~box(1, 1, 1, (3, 3, 3))
        assert compare_surfaces(full, hollow, (1, 1, 1), 0) == (0, 1)

    def test_empty_masks(self):
        empty = np.zeros(SHAPE, np.bool_)
        for pair in ((empty, CUBE), (CUBE, empty)):
            found = compare_surfaces(*pair, STEPS, 1)
            assert math.isnan(found.hd95)
            assert found.nsd == 0
        assert all(math.isnan(figure) for figure in compare_surfaces(empty, empty, STEPS, 1))

    @pytest.mark.parametrize("steps", [(0.1, 0.1, 0.1), (0.3, 0.7, 0.9)])
    def test_exactly_the_tolerance_is_within_it(self, steps):
        for axis, step in enumerate(steps):
            assert compare_surfaces(VOXEL, np.roll(VOXEL, 3, axis), steps, 3 * step).nsd == 1

    masks = st.tuples(*[hnp.arrays(np.bool_, (4, 5, 6), elements=st.booleans())] * 2)

    @pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's own
    @settings(max_examples=30, deadline=None)
    @given(masks, st.sampled_from([0.0, 0.5, 1.1, 5.0]))
    def test_figures_are_those_of_monai(self, pair, tolerance):
        import torch  # takes seconds
        from monai.metrics import compute_hausdorff_distance, compute_surface_dice

        truth, found = pair
        truth[1, 1, 1] = found[2, 3, 4] = True
        batch = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (found, truth)]
        options = {"include_background": True, "spacing": STEPS}
        one = compare_surfaces(truth, found, STEPS, tolerance)
        other = float(compute_hausdorff_distance(*batch, percentile=95, **options))  # interpolated in 32 bits
        assert one.hd95 == pytest.approx(other, rel=1e-5, abs=1e-4)
        assert one.nsd == pytest.approx(float(compute_surface_dice(*batch, [tolerance], **options)), rel=1e-6)

    @given(masks)
    def test_truth_and_prediction_can_be_swapped(self, pair):
        one, other = compare_surfaces(*pair, STEPS, 1), compare_surfaces(*reversed(pair), STEPS, 1)
        np.testing.assert_array_equal(one, other)


class TestLesions:
    def test_found_missed_and_false_positives(self):
        truth = box(0, 0, slice(0, 4)) | box(4, 4, slice(0, 2)) | box(7, 8, 9)
        found = box(0, 0, slice(2, 6)) | box(4, 4, slice(0, 2)) | box(0, 8, 0)
        # Dice of 2 shared voxels of 4 and 4, of 2 of 2 and 2, and of none.
        assert compare_lesions(truth, found) == (3, 2, 1, 0.5 + 1)

    def test_corners_connect(self):
        truth = box(0, 0, 0) | box(1, 1, 1)
        assert compare_lesions(truth, truth) == (1, 1, 0, 1)
        assert compare_lesions(truth | box(3, 1, 1), truth).true == 2

    def test_a_lesion_in_two_pieces_is_compared_with_both(self):
        assert compare_lesions(box(0, 0, slice(0, 5)), box(0, 0, [0, 1, 3, 4])) == (1, 1, 0, 8 / 9)

    def test_lesions_below_the_smallest_size_are_ignored(self):
        truth = box(0, 0, slice(0, 4)) | box(4, 4, slice(0, 2))
        found = box(0, 0, slice(0, 3)) | box(6, 6, slice(0, 2)) | box(7, 1, 1)
        assert compare_lesions(truth, found) == (2, 1, 2, 6 / 7)
        assert compare_lesions(truth, found, min_voxels=2) == (2, 1, 1, 6 / 7)
        assert compare_lesions(truth, found, min_voxels=3) == (1, 1, 0, 6 / 7)

    def test_two_lesions_in_one_piece_are_each_compared_with_all_of_it(self):
        assert compare_lesions(box(0, 0, [0, 1, 3, 4]), box(0, 0, slice(0, 5))) == (2, 2, 0, 2 * 4 / 7)

    def test_nothing(self):
        empty = np.zeros(SHAPE, np.bool_)
        assert compare_lesions(empty, empty) == (0, 0, 0, 0)
        assert compare_lesions(empty, VOXEL) == (0, 0, 1, 0)
        assert compare_lesions(VOXEL, empty) == (1, 0, 0, 0)


class TestVolumes:
    def test_figures_of_classes(self):
        truths = [classes(CUBE, VOXEL), classes(CUBE, VOXEL & False)]
        predicted = [classes(np.roll(CUBE, 1, 0), VOXEL & False), classes(CUBE, VOXEL)]
        found = score_classes(truths, predicted, ["a", "b"], [GRID, GRID])
        assert found.surfaces.unit == "mm"
        assert found.surfaces.images == (2, 1)
        assert found.surfaces.missed == (0, 1)
        assert found.surfaces.hd95[0] == pytest.approx((5 + 0) / 2, abs=1)
        assert math.isnan(found.surfaces.hd95[1])
        assert found.surfaces.nsd[1] == 0
        assert (found.lesions.true, found.lesions.found) == ((2, 1), (2, 0))
        assert (found.lesions.missed, found.lesions.false_positives) == ((0, 1), (0, 1))
        assert found.lesions.f1 == (1, 0)
        figures = found.as_figures()
        assert {"hd95_mm", "hd95_mm_a", "nsd_b", "lesion_f1_a", "lesion_dice"} <= set(figures)
        assert "hd95_mm_b" not in figures
        loaded = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        assert loaded["surfaces"]["hd95"][1] is None
        assert list(loaded["lesions"]) == ["true", "found", "missed", "spurious", "f1", "dice"]
        assert loaded["lesions"]["spurious"] == [0, 1]
        table = found.as_table()
        assert len({len(row) for row in table}) == 1
        assert table[0][5:] == ("HD95 (mm)", "NSD (1 mm)", "lesion F1", "lesion Dice", "lesions")
        assert table[2][-1] == "0 of 1, 1 spurious"

    def test_without_grids_nothing_is_added(self):
        found = score_classes([classes(CUBE)], [classes(CUBE)], ["a"])
        assert set(found.as_figures()) == {"dice", "iou", "dice_a", "iou_a"}
        assert set(found.as_dict()) == {"classes", "dice", "iou", "dice_per_image", "iou_per_image", "images"}

    def test_regions_contain_each_other(self):
        truth, predicted = classes(CUBE, box(0, 0, slice(0, 4))), classes(CUBE & False, CUBE | box(0, 0, slice(0, 4)))
        whole, core = {"whole": [1, 2]}, {"core": [2]}
        found = score_classes([truth], [predicted], ["x", "y"], [GRID], whole | core)
        assert found.classes == ("whole", "core")
        assert found.dice == (1, 2 * 4 / (4 + 31))
        assert found.surfaces.hd95[0] == 0
        assert found.lesions.true == (2, 1)
        assert found.lesions.false_positives == (0, 1)

    def test_uncalibrated_grids_count_voxels(self):
        found = score_classes([classes(VOXEL)], [classes(np.roll(VOXEL, 2, 0))], ["a"], [Grid(SHAPE)], tolerance=2)
        assert found.as_figures()["hd95_px"] == 2
        assert found.as_figures()["nsd"] == 1

    def test_only_densely_labelled_volumes_have_surfaces_and_lesions(self):
        sparse = classes(CUBE)
        sparse[0] = UNLABELLED
        found = score_classes([sparse, classes(VOXEL)], [classes(CUBE), classes(VOXEL)], ["a"], [GRID, GRID])
        assert (found.surfaces.images, found.lesions.true) == ((1,), (1,))
        found = score_classes([sparse], [classes(CUBE)], ["a"], [GRID])
        assert found.dice == (1,)
        assert set(found.as_figures()) == {"dice", "iou", "dice_a", "iou_a"}

    @given(hnp.arrays(np.int32, (3, 4, 5), elements=st.integers(-1, 2)), st.data())
    def test_unlabelled_voxels_change_nothing(self, truth, data):
        grid = Grid(truth.shape, (2.0, 1.0, 1.0), "um")
        drawn = hnp.arrays(np.int32, truth.shape, elements=st.integers(0, 2))
        found, other = data.draw(drawn), data.draw(drawn)
        changed = np.where(truth == UNLABELLED, other, found)
        one, two = (score_classes([truth], [image], "ab", [grid]).as_dict() for image in (found, changed))
        assert one == two

    def test_refusals(self):
        one = [classes(CUBE)]
        with pytest.raises(InputError, match="in mm and in px"):
            score_classes(one * 2, one * 2, ["a"], [GRID, Grid(SHAPE)])
        with pytest.raises(InputError, match=r"\(8, 9, 10\), its grid \(1, 1, 1\)"):
            score_classes(one, one, ["a"], [Grid((1, 1, 1))])
        with pytest.raises(InputError, match="2 grids, but 1 images"):
            score_classes(one, one, ["a"], [GRID] * 2)
        for tolerance in (-1, math.nan, math.inf):
            with pytest.raises(SettingsError, match="tolerance"):
                score_classes(one, one, ["a"], [GRID], tolerance=tolerance)
