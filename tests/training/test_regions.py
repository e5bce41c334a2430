"""Regions that contain each other, classes that nobody drew in a case, and slices that nobody labelled."""

from pathlib import Path

import numpy as np
import pytest
import torch

from biounet.core import UNLABELLED, Annotation, Grid, InputError, LabelSettings, SettingsError, keep_slices
from biounet.core.recipe import parse_recipe
from biounet.network import output_channels
from biounet.segmentation import label_regions
from biounet.training.losses import recipe_loss
from biounet.training.targets.layout import make_target

NESTED = {
    "kind": "classes",
    "classes": ["necrosis", "oedema", "enhancing"],
    "regions": {"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]},
}


def test_a_region_that_nobody_drew_in_a_case_does_not_exist_there():
    recipe = parse_recipe({"data": {**NESTED, "unknown": {"case7": ["whole"]}}})
    drawn = np.array([[0, 2, 1, 3], [0, 0, 2, 3]], np.int32)
    annotation = Annotation(drawn, "classes", Grid(drawn.shape), Path("case7.nii.gz"))
    target = torch.from_numpy(make_target(annotation, recipe, (1.0, 1.0)))[None].float()
    logits = torch.randn(1, 3, *drawn.shape, requires_grad=True)
    loss = recipe_loss(logits, target, recipe)
    loss.backward()
    assert (logits.grad[0, 0] == 0).all()
    assert (logits.grad[0, 1:] != 0).all()
    changed = logits.detach().clone()
    changed[0, 0] = torch.tensor(float("nan"))
    assert recipe_loss(changed, target, recipe) == loss


def test_targets_of_regions():
    recipe = parse_recipe({"data": NESTED})
    drawn = np.array([[0, 2, 1, 3, UNLABELLED]], np.int32)
    target = make_target(Annotation(drawn, "classes", Grid(drawn.shape)), recipe, (1.0, 1.0))
    assert output_channels(recipe) == ("whole", "core", "enhancing")
    known = [1, 1, 1, 1, 0]
    expected = [[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0], known, known, known]
    assert target[:, 0].tolist() == expected


def test_a_voxel_gets_the_value_that_only_its_innermost_region_has():
    recipe = parse_recipe({"data": NESTED})
    probability = np.array([[[0.2, 0.9, 0.9, 0.9]], [[0.1, 0.2, 0.9, 0.9]], [[0.1, 0.1, 0.2, 0.9]]])
    maps = np.rint(probability * 65535).astype(np.uint16)
    assert label_regions(maps, (1, 4), recipe.data, LabelSettings()).tolist() == [[0, 2, 1, 3]]


def test_a_class_unknown_in_a_case_makes_every_class_a_region():
    data = {"kind": "classes", "classes": ["core", "oedema"], "unknown": {"b": ["oedema"]}}
    recipe = parse_recipe({"data": data})
    assert output_channels(recipe) == ("core", "oedema")
    assert recipe.data.overlapping == {"core": (1,), "oedema": (2,)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"regions": {"whole": [1, 4]}}, "classes from 1 to 3"),
        ({"regions": {"core": [1], "whole": [1, 2]}}, "regions.core: the regions after it hold all of its classes"),
        ({"unknown": {"a": ["tumour"]}}, "'tumour' is none of"),
        ({"slices": "z"}, "no axis z"),
        ({"slice_numbers": [3]}, "needs slices"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, words):
    with pytest.raises(SettingsError, match=words):
        parse_recipe({"data": {**NESTED, **change}})


def test_only_some_slices_are_labelled():
    labels = np.zeros((4, 2, 3), np.int32)
    labels[1, 0, 0] = 5
    labels[3, 1, 2] = 2
    drawn = keep_slices(labels, "z")
    assert (drawn[[0, 2]] == UNLABELLED).all()
    assert np.array_equal(drawn[[1, 3]], labels[[1, 3]])
    named = keep_slices(labels, "x", (0, 1))
    assert (named[..., 2] == UNLABELLED).all()
    assert np.array_equal(named[..., :2], labels[..., :2])
    with pytest.raises(InputError, match="of which there are 4"):
        keep_slices(labels, "z", (4,))
