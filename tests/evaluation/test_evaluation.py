"""Figures on pictures whose answer is visible, against a reference that tries everything, and as laws."""

import json
import math
import tracemalloc
from itertools import permutations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from biounet.core import UNLABELLED, InputError
from biounet.evaluation import match_objects, score_classes, score_instances
from biounet.evaluation.matching import THRESHOLDS, tally


def picture(*rows):
    """Labels from text: digits are ids, ``.`` background, ``?`` unlabelled."""
    ids = {".": 0, "?": UNLABELLED}
    return np.array([[ids[letter] if letter in ids else int(letter) for letter in row] for row in rows], np.int32)


def score(truth, predicted):
    return score_instances([truth], [predicted])


small = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
labels = small.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(0, 4))] * 2))
sparse = small.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.int32, shape, elements=st.integers(UNLABELLED, 4)),
        hnp.arrays(np.int32, shape, elements=st.integers(0, 4)),
    )
)


def reference(truth, predicted, threshold):
    """TP, FP and FN by trying every assignment of predicted to true objects, counted voxel by voxel."""
    labelled = truth != UNLABELLED
    true = [labelled & (truth == n) for n in np.unique(truth[truth > 0])]
    found = [predicted == n for n in np.unique(predicted[labelled & (predicted > 0)])]
    mostly_unlabelled = [2 * (mask & labelled).sum() < mask.sum() for mask in found]
    iou = [[(a & b).sum() / (a | (b & labelled)).sum() for b in found] for a in true]
    best = (0, 0)
    for order in permutations([*range(len(found)), *[None] * len(true)], len(true)):
        hits = [b for a, b in enumerate(order) if b is not None and iou[a][b] >= threshold]
        best = max(best, (len(hits), -sum(mostly_unlabelled[b] for b in hits)))  # the fewest of these
    hits, ignored_hits = best[0], -best[1]
    return hits, len(found) - sum(mostly_unlabelled) - (hits - ignored_hits), len(true) - hits


class TestPictures:
    def test_one_true_positive_one_miss_one_false_positive(self):
        truth = picture("11..22", "11..22", "......", "......")
        found = picture("11....", "11....", "......", "..33..")
        result = score(truth, found)
        assert result.ap == (1 / 3,) * 9
        assert result.f1 == (1 / 2,) * 9
        assert (result.pq, result.sq, result.rq) == (0.5, 1.0, 0.5)
        assert (result.count_mae, result.count_bias, result.count_error) == (0, 0, 0)

    def test_iou_of_exactly_a_threshold_matches(self):
        truth, found = picture("11111"), picture("111..")  # IoU 3 / 5
        assert score(truth, found).ap == (1, 1, 1, 0, 0, 0, 0, 0, 0)
        assert score(truth, found).sq == 0.6

    @pytest.mark.parametrize("threshold", THRESHOLDS)
    def test_every_threshold_includes_itself(self, threshold):
        truth, found = np.ones((1, 20), np.int32), np.ones((1, 20), np.int32)
        found[0, round(threshold * 20) :] = 0
        assert score(truth, found).ap == tuple(float(t <= threshold) for t in THRESHOLDS)

    def test_main_figures_are_those_of_their_thresholds(self):
        truth = np.repeat(np.arange(1, 5, dtype=np.int32)[:, None], 20, axis=1)
        found = truth.copy()
        for row, size in enumerate((20, 17, 14, 10)):  # IoU 1, 0.85, 0.7, 0.5
            found[row, size:] = 0
        figures = score(truth, found).as_figures()
        hits = (4, 3, 3, 3, 3, 2, 2, 2, 1)
        ap = [n / (8 - n) for n in hits]
        assert figures["ap"] == pytest.approx(sum(ap) / 9)
        assert [figures[name] for name in ("ap50", "ap75", "ap90", "f1_50")] == [1, 2 / 6, 1 / 7, 1]
        assert figures["pq"] == (1 + 0.85 + 0.7 + 0.5) / 4

    def test_two_halves_are_one_match_and_a_split(self):
        overlaps = match_objects(picture("1111"), picture("7733"))
        assert overlaps.iou.tolist() == [0.5, 0.5]
        assert overlaps.predicted_ids[overlaps.predicted_index[overlaps.matches()]].tolist() == [3]
        result = score(picture("1111"), picture("7733"))
        assert (result.ap[0], result.splits, result.merges) == (0.5, 1, 0)
        assert (result.count_bias, result.count_error) == (1, 1)

    def test_two_as_one_are_one_match_and_a_merge(self):
        result = score(picture("5522"), picture("9999"))
        assert (result.ap[0], result.splits, result.merges) == (0.5, 0, 1)
        assert result.count_bias == -1

    def test_parts_below_a_tenth_are_no_split(self):
        truth = np.ones((1, 20), np.int32)
        found = truth.copy()
        found[0, :2] = 2  # IoU of exactly 0.1
        assert score(truth, found).splits == 0
        found[0, :3] = 2
        assert score(truth, found).splits == 1

    def test_images_are_pooled_or_averaged(self):
        one, two = picture("1.2.3"), picture("1....")
        result = score_instances([one, one, two * 0], [one, two, two * 0])
        assert result.ap[0] == 4 / 6
        assert result.ap_per_image[0] == (1 + 1 / 3) / 2  # the empty image has no AP
        assert (result.count_mae, result.count_bias, result.count_error) == (2 / 3, -2 / 3, 2 / 6)
        assert result.truth_counts == (3, 3, 0)
        assert result.predicted_counts == (3, 1, 0)

    def test_errors_of_counts_cancel_in_the_sum_only(self):
        result = score_instances([picture("1.2"), picture("1..")], [picture("1.."), picture("1.2")])
        assert (result.count_mae, result.count_bias, result.count_error) == (1, 0, 0)

    def test_volumes(self):
        truth = np.zeros((3, 4, 4), np.int32)
        truth[:2, :2], truth[2, 2:] = 1, 2
        found = np.zeros_like(truth)
        found[:2, :2] = 8
        assert score(truth, found).ap == (0.5,) * 9
        truth[1] = UNLABELLED
        assert score(truth, found).truth_counts == (2,)
        found[0, 0, 0] = 0  # what is left of the object counts, and it is a third in the unlabelled plane
        assert score(truth, found).ap[:5] == (0.5,) * 5

    def test_many_objects_need_no_table_of_all_pairs(self):
        truth = np.arange(1, 27_001, dtype=np.int32).reshape(30, 30, 30)
        tracemalloc.start()
        result = score(truth, truth[::-1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (result.truth_counts, result.ap) == ((27_000,), (1,) * 9)
        assert peak < 50e6  # all pairs are 729 million


class TestSparseTruth:
    def test_what_is_found_in_unlabelled_voxels_is_nothing(self):
        result = score(picture("11..????"), picture("11..2233"))
        assert result.ap == (1,) * 9
        assert result.predicted_counts == (1,)

    def test_objects_cut_off_by_the_labelled_window_match(self):
        result = score(picture("..11????"), picture("..111111"))
        assert result.ap == (1,) * 9
        assert (result.pq, result.count_mae) == (1, 0)

    def test_mostly_unlabelled_is_no_false_positive(self):
        assert score(picture("11..????"), picture("11.22222")).ap == (1,) * 9

    def test_half_labelled_is_a_false_positive(self):
        assert score(picture("11....??"), picture("11..2222")).ap == (0.5,) * 9

    def test_mostly_unlabelled_objects_count_only_if_they_match(self):
        # 5 of 8 labelled: IoU 5 / 8 with the object; its other 9 voxels are unlabelled.
        result = score(picture("11111111?????????"), picture("...11111111111111"))
        assert result.ap == (1, 1, 1, 0, 0, 0, 0, 0, 0)
        assert result.f1 == result.ap

    @pytest.mark.parametrize("ids", [(1, 2), (2, 1)])
    def test_of_two_halves_the_mostly_unlabelled_one_is_ignored(self, ids):
        judged, mostly_unlabelled = ids
        found = np.array([[judged, *[mostly_unlabelled] * 3]], np.int32)
        assert score(picture("44??"), found).ap[0] == 1

    def test_nothing_labelled_counts_nothing(self):
        result = score(picture("????"), picture("11.2"))
        assert result.truth_counts == result.predicted_counts == (0,)
        assert math.isnan(result.ap[0])

    @given(sparse, st.data())
    def test_predictions_in_unlabelled_voxels_change_nothing(self, pair, data):
        truth, found = pair
        outside = truth == UNLABELLED
        # Objects that reach labelled voxels stay: how much of them is unlabelled may excuse them.
        free = outside & ~np.isin(found, found[~outside])
        other = found.copy()
        other[free] = data.draw(hnp.arrays(np.int32, int(free.sum()), elements=st.sampled_from([0, 7, 8, 9])))
        assert tally(truth, other) == tally(truth, found)

    @given(sparse)
    def test_pairs_depend_on_labelled_voxels_only(self, pair):
        truth, found = pair
        inside = np.where(truth == UNLABELLED, 0, found)
        for name in ("truth", "true_positives", "iou", "splits", "merges"):
            assert getattr(tally(truth, found), name) == getattr(tally(truth, inside), name)

    @given(sparse)
    def test_hiding_truth_behind_a_perfect_prediction_keeps_it_perfect(self, pair):
        mask, whole = pair
        truth = np.where(mask == UNLABELLED, UNLABELLED, whole)
        result = tally(truth, whole)
        assert result.true_positives == (result.truth,) * 9
        assert result.false_positives == (0,) * 9
        assert result.predicted == result.truth


class TestLaws:
    @settings(max_examples=150, deadline=None)
    @given(st.one_of(labels, sparse))
    def test_as_good_as_the_best_assignment(self, pair):
        truth, found = pair
        result = tally(truth, found)
        for hits, extra, threshold in zip(result.true_positives, result.false_positives, THRESHOLDS, strict=True):
            assert (hits, extra, result.truth - hits) == reference(truth, found, threshold)

    @given(sparse)
    def test_overlaps_are_those_counted_voxel_by_voxel(self, pair):
        truth, found = pair
        overlaps = match_objects(truth, found)
        for n, size in zip(overlaps.truth_ids, overlaps.truth_sizes, strict=True):
            assert size == (truth == n).sum()
        for n, size in zip(overlaps.predicted_ids, overlaps.predicted_sizes, strict=True):
            assert size == ((found == n) & (truth != UNLABELLED)).sum()
        pairs = zip(
            overlaps.truth_ids[overlaps.truth_index], overlaps.predicted_ids[overlaps.predicted_index], strict=True
        )
        counted = {(a, b): ((truth == a) & (found == b)).sum() for a, b in pairs}
        assert overlaps.intersection.tolist() == list(counted.values())
        assert overlaps.intersection.sum() == ((truth > 0) & (found > 0)).sum()

    @given(sparse, st.permutations([3, 17, 2**31 - 1, 40_000]), st.permutations([9, 2**31 - 1, 1, 70_000]))
    def test_ids_are_only_names(self, pair, true_names, found_names):
        truth, found = pair
        renamed = np.array([0, *true_names, UNLABELLED], np.int32)[truth]
        assert tally(renamed, np.array([0, *found_names], np.int32)[found]) == tally(truth, found)

    @given(labels)
    def test_truth_against_itself_is_perfect(self, pair):
        truth, _ = pair
        result = score(truth, truth)
        assert result.count_mae == result.count_bias == result.splits == result.merges == 0
        if truth.any():
            assert result.ap == result.f1 == result.ap_per_image == (1,) * 9
            assert result.pq == result.sq == result.rq == 1
            assert result.count_error == 0

    @given(labels)
    def test_pq_is_sq_times_rq_and_ap_follows_from_f1(self, pair):
        result = score(*pair)
        if not math.isnan(result.sq):
            assert result.pq == pytest.approx(result.sq * result.rq)
        for ap, f1 in zip(result.ap, result.f1, strict=True):
            assert math.isnan(ap) or ap == pytest.approx(f1 / (2 - f1))

    @given(labels)
    def test_order_of_images_does_not_matter(self, pair):
        truth, found = pair
        one, two = score_instances([truth, found], [found, found]), score_instances([found, truth], [found, found])
        assert one.as_figures() == two.as_figures()

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64, np.uint64])
    def test_integers_of_any_width(self, dtype):
        truth = picture("11.22")
        assert score(truth.astype(dtype), truth[:, ::-1].astype(dtype)).ap == (1,) * 9


class TestUndefined:
    @pytest.mark.parametrize("images", [[], [np.zeros((2, 2), np.int32)], [np.zeros((0, 2), np.int32)]])
    def test_nothing_anywhere_has_no_figures(self, images):
        result = score_instances(images, images)
        assert all(math.isnan(ap) for ap in result.ap)
        assert set(result.as_figures()) <= {"count_mae"}
        assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["ap"] == [None] * 9
        assert all(len(row) == 4 for row in result.as_table())

    def test_nothing_found_is_zero(self):
        result = score(picture("1.2"), picture("..."))
        assert result.as_figures() == {
            "ap": 0, "ap50": 0, "ap75": 0, "ap90": 0, "f1_50": 0, "pq": 0, "count_mae": 2, "count_error": 1,
        }  # fmt: skip
        assert result.as_dict()["sq"] is None  # the mean IoU of no pairs

    def test_false_positives_in_empty_images(self):
        result = score(picture("..."), picture("1.2"))
        assert (result.ap[0], result.count_mae) == (0, 2)
        assert "count_error" not in result.as_figures()


class TestRefusals:
    def test_shapes_differ(self):
        with pytest.raises(InputError, match=r"\(1, 2\).*\(1, 3\)"):
            score(picture("..."), picture(".."))
        with pytest.raises(InputError, match=r"\(1, 2\).*\(1, 3\)"):
            score_classes([picture("...")], [picture("..")], ["cell"])

    def test_numbers_of_images_differ(self):
        with pytest.raises(InputError, match="2 predicted images, but 1 true"):
            score_instances([picture(".")], [picture(".")] * 2)

    def test_ids_that_do_not_fit(self):
        with pytest.raises(InputError, match="2147483648"):
            score(picture("1"), np.array([[2**31]]))
        with pytest.raises(InputError, match="float32"):
            score(picture("1"), np.ones((1, 1), np.float32))
        with pytest.raises(InputError, match="-2"):
            score(np.array([[-2]]), picture("1"))

    def test_classes_without_a_name(self):
        with pytest.raises(InputError, match="prediction has classes 1 to 2"):
            score_classes([picture("11")], [picture("12")], ["cell"])


class TestClasses:
    truth = picture("1122..", "??2222")
    found = picture("112.2.", "111222")

    def test_dice_and_iou(self):
        result = score_classes([self.truth], [self.found], ["nucleus", "membrane", "debris"])
        # nucleus: 2 shared, 2 true, 3 found; membrane: 4 shared, 6 true, 5 found; debris: nowhere.
        assert result.dice[:2] == (4 / 5, 8 / 11)
        assert result.iou[:2] == (2 / 3, 4 / 7)
        assert math.isnan(result.dice[2])
        figures = result.as_figures()
        assert figures["dice"] == (4 / 5 + 8 / 11) / 2
        assert figures["iou_membrane"] == 4 / 7
        assert not [name for name in figures if "debris" in name]
        assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["dice"][2] is None
        assert result.as_table()[3] == ("debris", "-", "-", "-", "-")

    def test_voxels_of_all_images_are_pooled(self):
        cut = [np.hsplit(image, 2) for image in (self.truth, self.found)]
        assert score_classes(*cut, ["a", "b"]).dice == score_classes([self.truth], [self.found], ["a", "b"]).dice

    def test_figures_of_images_are_averaged_where_they_have_the_class(self):
        truths = [picture("11.."), picture("1111"), picture("....")]
        result = score_classes(truths, [picture("1..."), picture("1111"), picture("....")], ["cell", "debris"])
        assert result.dice[0] == 2 * 5 / (6 + 5)
        assert result.dice_per_image[0] == (2 / 3 + 1) / 2  # the third has no cell
        assert result.iou_per_image[0] == (1 / 2 + 1) / 2
        assert math.isnan(result.dice_per_image[1])

    def test_nothing_labelled(self):
        assert score_classes([picture("??")], [picture("11")], ["cell"]).as_figures() == {}

    @given(sparse, st.data())
    def test_unlabelled_voxels_do_not_exist(self, pair, data):
        truth, found = pair
        other = data.draw(hnp.arrays(np.int32, truth.shape, elements=st.integers(0, 4)))
        changed = np.where(truth == UNLABELLED, other, found)
        one, two = (score_classes([truth], [image], list("abcd")).as_figures() for image in (found, changed))
        assert one == two

    @given(labels)
    def test_dice_and_iou_are_one_figure(self, pair):
        result = score_classes([pair[0]], [pair[1]], list("abcd"))
        for dice, iou in zip(result.dice, result.iou, strict=True):
            assert math.isnan(dice) or dice == pytest.approx(2 * iou / (1 + iou))
