"""Thresholds leave what the recipe says only where the cases show that they should."""

from dataclasses import replace

import numpy as np
import pytest

from biounet.api import volume_from_array
from biounet.core import PROBABILITY_MAX, UNLABELLED, Annotation, Grid, LabelSettings, mask_partial_objects
from biounet.labelling import label_objects
from biounet.training import make_case
from biounet.training.tuning import _MIN_SIZE, _best, _not_above, tune
from biounet.training.validation import low_confidence, score_objects, whole_objects_only
from support.trainings import RECIPE, case_and_maps


def test_objects_that_meet_unlabelled_voxels_are_not_judged():
    labels = np.array([[1, 0, 2, 2, -1], [0, 0, 0, 0, 0], [3, 0, 4, 0, -1], [3, 0, 0, 5, 0]], np.int32)
    judged = np.array([[1, 0, -1, -1, -1], [0, 0, 0, 0, 0], [3, 0, 4, 0, -1], [3, 0, 0, -1, 0]], np.int32)
    assert np.array_equal(mask_partial_objects(labels), judged)
    dense = np.maximum(labels, 0)
    assert mask_partial_objects(dense) is dense


@pytest.mark.parametrize(("cases", "smallest"), [(1, 15.0), (6, 0.0)])
def test_one_case_moves_no_threshold_and_several_that_agree_do(cases, smallest):
    # Objects of 4 pixels, all found: only without a smallest size of 15 they count.
    made = [case_and_maps(range(2 + n), range(2 + n)) for n in range(cases)]
    best = _best([case for case, _ in made], [maps for _, maps in made], LabelSettings(), _MIN_SIZE)
    assert best.min_size == smallest


@pytest.mark.parametrize(("pixel", "counted"), [(1.0, 2), (0.5, 0)])
def test_a_smallest_size_in_um_is_that_of_the_working_grid(pixel, counted):
    # Squares of 2 x 2 pixels: of 4 µm², or of 1 µm².
    case, maps = case_and_maps(range(2), range(2))
    recipe = RECIPE.replace("label", min_size=3.0, min_size_unit="um").replace("data", pixel_size_um=pixel)
    volume = volume_from_array(case.labels, 2, (pixel, pixel))
    case = make_case(volume, Annotation(case.labels, "instances", Grid(case.labels.shape)), recipe)
    assert case.voxel_um == pixel**2
    found = score_objects([case], [maps], recipe.label)
    assert found.count_bias == counted - 2


def test_differences_within_two_standard_errors_are_none():
    assert _not_above(np.array([5.0]))
    assert _not_above(np.array([-1.0, 0.0, 0.5]))
    assert _not_above(np.array([0.0, 0.0, 0.0, 1.0]))
    assert not _not_above(np.array([1.0, 1.1, 0.9, 1.0]))


def test_below_the_doubtful_confidence_half_of_the_objects_are_wrong():
    made, settings = [case_and_maps(range(17), range(24)) for _ in range(3)], LabelSettings(min_size=0)
    for number, (case, maps) in enumerate(made):
        places = case.labels > 0
        maps[0][places] = PROBABILITY_MAX * (0.9 + 0.001 * case.labels[places] + 0.0001 * number)
        maps[0][~places & (maps[0] > 0)] = 0.6 * PROBABILITY_MAX
    cases, maps = zip(*made, strict=True)
    doubtful = low_confidence(cases, maps, RECIPE, settings)["doubtful_below"]
    sure = np.concatenate([label_objects(*m, settings).confidence for m in maps])
    assert (sure < doubtful).sum() == 41  # 21 wrong ones, and 20 of 51
    right = [np.where(maps[0] > 0.7 * PROBABILITY_MAX, maps[0], 0)]
    assert low_confidence(cases[:1], right, RECIPE, settings) == {}


def test_tuning_changes_no_case_and_judges_no_partial_object(untrained):
    case, _ = case_and_maps((0, 1), ())
    labels = case.labels.copy()
    labels[labels == 2] = UNLABELLED
    labels[0, 5] = 2  # beside unlabelled pixels
    case = replace(case, labels=labels)
    before = labels.copy()
    (masked,) = whole_objects_only([case], RECIPE)
    assert np.array_equal(masked.labels, np.where(before == 2, UNLABELLED, before))
    tune(untrained.network, [case], untrained.card.recipe, "cpu")
    assert np.array_equal(case.labels, before)
