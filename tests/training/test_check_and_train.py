"""`check` reports no problem exactly where `train` runs, whatever the folder; both take the same options."""

import ast
import inspect
import re

import numpy as np
import pytest
import tifffile

import biounet
from biounet.cli import segmenting, training
from biounet.core import BiounetError, InputError
from biounet.core.recipe import parse_recipe
from biounet.files import ReadOptions, find_pairs
from biounet.training import check_data
from support import ROOT
from support.data_folders import make_data_folder
from support.images import discs

TINY = {
    "network": {"widths": [2, 2], "half_resolution": False},
    "train": {"patch": 16, "batch": 1, "steps_per_epoch": 1, "minutes": None, "epochs": 1},
}


def outcome(folder):
    """The problems that `check` lists, and the error that `train` ends with."""
    problems = check_data(folder.images, folder.labels, folder.recipe, folder.options, folder.validation).problems
    try:
        biounet.train(folder.recipe, folder.images, folder.labels, validation=folder.validation, options=folder.options)
    except BiounetError as error:
        return problems, error
    return problems, None


@pytest.mark.parametrize("seed", range(1000, 1024))
def test_check_reports_no_problem_exactly_where_training_runs(tmp_path, seed):
    folder = make_data_folder(tmp_path, seed)
    problems, error = outcome(folder)
    assert bool(problems) == (error is not None), f"{folder.what}: {problems}, {error}"


@pytest.fixture
def cells(tmp_path):
    """images/ and labels/ of three fields."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(3):
        image, labels = discs((48, 48), 5, number)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"{number}.tif", labels.astype(np.uint16))
    return tmp_path


def test_a_class_that_only_the_held_out_image_has(tmp_path):
    """What thresholds are tuned on teaches nothing: both say so."""
    recipe = parse_recipe(
        {**TINY, "data": {"kind": "classes", "classes": ["a", "b"], "validation": 0.3}, "train": TINY["train"]}
    )
    for seed in range(3):
        folder = tmp_path / str(seed)
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        for number in range(3):
            drawn = np.zeros((32, 32), np.uint8)
            drawn[4:12, 4:12] = 1
            drawn[20:28, 20:28] = 2 * (number == seed)
            tifffile.imwrite(folder / "images" / f"{number}.tif", drawn * 50 + number)
            tifffile.imwrite(folder / "labels" / f"{number}.tif", drawn)
    found = [check_data(tmp_path / str(seed) / "images", tmp_path / str(seed) / "labels", recipe) for seed in range(3)]
    (wrong,) = [seed for seed in range(3) if found[seed].problems]
    with pytest.raises(InputError, match=r"no annotation has b \(2\)"):
        biounet.train(recipe, tmp_path / str(wrong) / "images", tmp_path / str(wrong) / "labels")


def test_no_annotation_at_all_is_a_problem(cells):
    report = check_data(cells / "images", None, parse_recipe(TINY))
    assert len(report.rows) == 3
    assert {row.annotation for row in report.rows} == {None}
    assert all("has no annotation" in problem for problem in report.problems)
    with pytest.raises(InputError, match="has no annotation"):
        biounet.train(parse_recipe(TINY), cells / "images")


def test_the_same_image_twice(cells):
    """Twice in one set it is a remark, and never both learned from and tuned on; in both sets it is an error."""
    recipe = parse_recipe({**TINY, "data": {"validation": 0.5}})
    for name in ("images", "labels"):
        for number in (1, 2):
            (cells / name / f"{number}.tif").write_bytes((cells / name / "0.tif").read_bytes())
    report = check_data(cells / "images", cells / "labels", recipe)
    assert report.problems == ()
    assert sum(any("the same image as" in note for note in row.notes) for row in report.rows) == 2
    model = biounet.train(recipe, cells / "images", cells / "labels")
    assert model.card.data["images"] == 1
    assert model.card.validation == {}
    folders = (cells / "images", cells / "labels")
    assert len(check_data(*folders, recipe, validation=folders).problems) == 3
    with pytest.raises(InputError, match="in training and in validation"):
        biounet.train(recipe, *folders, validation=folders)


def test_rows_are_in_the_order_of_the_files_whatever_is_held_out(cells):
    recipe = parse_recipe({**TINY, "data": {"validation": 0.5}})
    report = check_data(cells / "images", cells / "labels", recipe)
    assert [row.image[-5:] for row in report.rows] == ["0.tif", "1.tif", "2.tif"]


def test_validation_without_labels_is_a_table_or_siblings_and_not_itself(cells, tmp_path):
    table = tmp_path / "val.csv"
    table.write_text("image,label\nimages/2.tif,labels/2.tif\n")
    for name in ("images", "labels"):
        (cells / name / "2.tif").rename(tmp_path / f"{name}2.tif")
    table.write_text("image,label\nimages2.tif,labels2.tif\n")
    recipe = parse_recipe(TINY)
    assert check_data(cells / "images", cells / "labels", recipe, validation=(table, None)).problems == ()
    model = biounet.train(recipe, cells / "images", cells / "labels", validation=(table, None))
    assert "ap" in " ".join(model.card.validation)


def test_a_channel_and_axes_for_training(tmp_path):
    """Two channels, noise first; and a stack without a word on its axes."""
    for name in ("images", "labels", "stack", "stack_labels"):
        (tmp_path / name).mkdir()
    for number in range(2):
        image, labels = discs((48, 48), 5, number)
        noise = np.random.default_rng(number).integers(90, 200, image.shape, np.uint16)
        path = f"{number}.tif"
        tifffile.imwrite(tmp_path / "images" / path, np.stack([noise, image]), imagej=True, metadata={"axes": "CYX"})
        tifffile.imwrite(tmp_path / "labels" / path, labels.astype(np.uint16))
        plain = {"metadata": None, "photometric": "minisblack"}
        tifffile.imwrite(tmp_path / "stack" / path, np.stack([image] * 12), **plain)
        tifffile.imwrite(tmp_path / "stack_labels" / path, np.stack([labels.astype(np.uint16)] * 12), **plain)
    both = tmp_path / "images", tmp_path / "labels"
    recipe = parse_recipe(TINY)
    assert len(check_data(*both, recipe).problems) == 2
    options = ReadOptions(channel=1)
    assert check_data(*both, recipe, options).problems == ()
    looks = [
        biounet.train(recipe, *both, options=ReadOptions(channel=number)).card.training_ranges for number in (0, 1)
    ]
    assert looks[0] != looks[1]
    stacks = tmp_path / "stack", tmp_path / "stack_labels"
    volumes = parse_recipe({**TINY, "data": {"dims": 3}})
    assert check_data(*stacks, volumes).problems
    options = ReadOptions(axes="ZYX", spacing=(2.0, 0.5, 0.5), dims=3)
    assert check_data(*stacks, volumes, options).problems == ()
    assert biounet.train(volumes, *stacks, options=options).card.recipe.data.voxel_size
    planes = ReadOptions(axes="ZYX", plane=3)
    assert check_data(*stacks, recipe, planes).problems == ()
    biounet.train(recipe, *stacks, options=planes)


@pytest.mark.parametrize("command", ["segment", "train", "evaluate", "check"])
def test_every_command_on_images_says_how_they_are_read(command):
    options = inspect.signature(getattr(segmenting if command == "segment" else training, command)).parameters
    assert {"axes", "spacing", "channel", "plane"} <= options.keys()


def test_hints_of_what_commands_share_name_options_that_all_of_them_have():
    shared = {"--axes", "--spacing", "--channel", "--plane"}
    package = ROOT / "biounet"
    shown = [path for room in ("core", "files", "preprocessing") for path in (package / room).rglob("*.py")]
    for path in [
        *shown,
        *(package / "training" / name for name in ("training_data.py", "working_grid.py", "planning.py", "cases.py")),
    ]:
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        hints = [ast.unparse(word.value) for call in calls for word in call.keywords if word.arg == "hint"]
        assert {option for hint in hints for option in re.findall(r"--[a-z]+", hint)} <= shared, path


def test_cellpose_names(cells):
    """Masks as Cellpose names them belong to their images, as siblings and in a folder of their own."""
    for number in range(3):
        (cells / "labels" / f"{number}.tif").rename(cells / "labels" / f"{number}_cp_masks.tif")
    pairs = find_pairs(cells / "images", cells / "labels")
    assert [pair.label.name for pair in pairs] == [f"{number}_cp_masks.tif" for number in range(3)]
    for number in range(3):
        (cells / "labels" / f"{number}_cp_masks.tif").rename(cells / "images" / f"{number}_cp_masks.tif")
    assert len(find_pairs(cells / "images")) == 3


def test_pictures_in_colours_that_hold_grey_are_trained_on_as_they_are_segmented(cells):
    for path in (cells / "images").iterdir():
        tifffile.imwrite(path, np.dstack([tifffile.imread(path)] * 3), photometric="rgb")
    recipe = parse_recipe(TINY)
    assert check_data(cells / "images", cells / "labels", recipe).problems == ()
    segmenter = biounet.train(recipe, cells / "images", cells / "labels")
    assert segmenter.segment(cells / "images" / "0.tif").volume.array.shape == (1, 48, 48)
