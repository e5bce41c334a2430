"""The kinds of annotation, from the drawing to what is found."""

import numpy as np
import pytest
import tifffile

import biounet
from biounet.core import InputError, check_classes_present, check_whole_objects, has_whole_object
from biounet.core.recipe import parse_recipe
from biounet.training import check_data
from support.images import discs

TRAIN = {"patch": 64, "batch": 4, "epochs": 3, "steps_per_epoch": 60, "learning_rate": 1e-2, "ema_decay": 0.9}
SMALL = {"network": {"widths": [8, 12, 16]}, "train": TRAIN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """images/ of discs, and strokes/ and classes/ drawn on them: bright discs are class 2, dim ones class 1."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in ("images", "strokes", "classes"):
        (folder / name).mkdir()
    for number in range(5):
        image, labels = discs((96, 96), 12, number, radius=(6, 10))
        bright = labels % 2 == 0
        image = np.where(labels > 0, np.where(bright, image, image // 3 + 200), image).astype(np.uint16)
        classes = np.where(labels > 0, np.where(bright, 2, 1), 0).astype(np.uint8)
        classes[:, 80:] = 255
        strokes = np.zeros(labels.shape, np.uint8)
        strokes[::9] = np.where(labels[::9] > 0, 2, 1)
        for name, array in (("images", image), ("classes", classes), ("strokes", strokes)):
            tifffile.imwrite(folder / name / f"{number}.tif", array)
    return folder


def test_strokes_give_separate_objects_by_their_shape(folder):
    recipe = parse_recipe({**SMALL, "data": {"kind": "scribbles", "classes": ["background", "cell"]}})
    model = biounet.train(recipe, folder / "images", folder / "strokes")
    assert model.card.data["share"] < 0.2
    assert "dice" in model.card.validation
    assert any("shape" in note for note in model.card.notes)
    image, truth = discs((96, 96), 10, 99, radius=(6, 10))
    found = model.segment(image)
    assert abs(found.count - truth.max()) <= 2
    assert ((found.labels > 0) == (truth > 0)).mean() > 0.95


def test_classes_give_an_area_for_each_class(folder):
    recipe = parse_recipe({**SMALL, "data": {"kind": "classes", "classes": ["dim", "bright"], "unlabelled": 255}})
    model = biounet.train(recipe, folder / "images", folder / "classes")
    assert model.card.data["share"] == pytest.approx(80 / 96, rel=1e-3)
    found = model.segment(folder / "images" / "0.tif")
    truth = tifffile.imread(folder / "classes" / "0.tif")
    assert found.count is None
    assert (found.labels == truth)[:, :80].mean() > 0.9
    assert list(found.table["class"]) == ["dim", "bright"]
    assert list(found.table["area_px"]) == [(found.labels == k).sum() for k in (1, 2)]


def test_a_boundary_loss_can_be_added(folder):
    data = {"kind": "classes", "classes": ["dim", "bright"], "unlabelled": 255}
    recipe = parse_recipe({**SMALL, "data": data, "loss": {"boundary": 0.05}})
    brief, without = recipe.replace("train", epochs=1, steps_per_epoch=2), recipe.replace("loss", boundary=0.0)
    without = without.replace("train", epochs=1, steps_per_epoch=2)
    models = [biounet.train(each, folder / "images", folder / "classes") for each in (brief, without)]
    assert not np.array_equal(*(model.model.network.state_dict()["head.weight"] for model in models))
    model = biounet.train(recipe, folder / "images", folder / "classes")
    assert model.card.validation["dice"] > 0.7


def test_what_is_to_be_learned_occurs_somewhere():
    regions = {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    check_classes_present({-1, 0, 3}, regions)
    check_classes_present({0, 7}, {})  # instances are not named
    with pytest.raises(InputError, match=r"no annotation has core \(2, 3\), enhancing \(3\)"):
        check_classes_present({0, 1}, regions)


def test_training_and_check_say_which_class_no_case_has(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        drawn = np.zeros((40, 40), np.uint8)
        drawn[5:20, 5:20] = 1
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", drawn * 100 + ord(name))
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", drawn)
    recipe = parse_recipe({"data": {"kind": "classes", "classes": ["road", "roof"]}})
    folders = tmp_path / "images", tmp_path / "labels"
    assert list(check_data(*folders, recipe).problems) == [
        "no annotation has roof (2) (hint: take it out of the recipe, or add a case that has it)"
    ]
    with pytest.raises(InputError, match="no annotation has roof"):
        biounet.train(recipe, *folders)


def test_annotations_of_parts_alone_are_refused():
    plane = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.int32)
    hidden = np.full_like(plane, -1)
    drawn = np.stack([hidden, plane, hidden])
    assert has_whole_object(plane, None)
    assert has_whole_object(drawn, None) is False
    assert has_whole_object(drawn, 0)
    assert has_whole_object(0 * plane, None) is None
    check_whole_objects([False, True])
    check_whole_objects([None])
    with pytest.raises(InputError, match="slices = 'z'"):
        check_whole_objects([False, None, False])
