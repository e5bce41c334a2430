"""What everyday mistakes are told: each hint leads on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from biounet.core import Annotation, Grid, InputError, Recipe, SettingsError, inspect_annotation
from biounet.files import FoundImage, ReadOptions, find_pairs, read_volume
from biounet.reporting import check_output_folder
from biounet.training import check_data

PLANE = np.arange(64, dtype=np.uint16).reshape(8, 8)


def refusal(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, ReadOptions(**options))
    return str(caught.value)


def test_dimensions_that_do_not_fit_the_model_have_a_hint(tmp_path):
    stack, image = tmp_path / "stack.tif", tmp_path / "image.tif"
    tifffile.imwrite(stack, np.stack([PLANE] * 5), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(image, PLANE)
    assert "choose one with --plane, or take a model or a recipe for volumes, such as nuclei3d" in refusal(stack)
    assert "hint: take a model or a recipe for images, such as nuclei or nuclei_2d" in refusal(image, dims=3)


def test_masks_and_swapped_folders_have_hints():
    mask = np.zeros((64, 64), np.int32)
    for y in range(2, 60, 12):
        for x in range(2, 60, 12):
            mask[y : y + 6, x : x + 6 + y // 12] = 255
    hints = [found.hint for found in inspect_annotation(Annotation(mask, "instances", Grid(mask.shape)))]
    assert any("number the objects, in Fiji with Analyze Particles" in hint for hint in hints)
    y, x = np.indices((96, 96))
    image = (1000 * np.exp(-((y % 24 - 12) ** 2 + (x % 24 - 12) ** 2) / 30)).astype(np.int32)
    hints = [found.hint for found in inspect_annotation(Annotation(image, "instances", Grid(image.shape)))]
    assert any("if it is an image, exchange the folders" in hint for hint in hints)


def test_channels_are_numbered_from_0(tmp_path):
    one, three = tmp_path / "one.tif", tmp_path / "three.tif"
    tifffile.imwrite(one, PLANE)
    tifffile.imwrite(three, np.stack([PLANE] * 3), imagej=True, metadata={"axes": "CYX"})
    assert "no channel 1: there is one, with number 0" in refusal(one, channel=1)
    assert "no channel 3: there are 3, from 0 to 2" in refusal(three, channel=3)


@pytest.mark.parametrize("absent", [("b",), ("b", "c")])
def test_images_without_annotations_have_one_hint(tmp_path, absent):
    for name in "abc":
        for folder in ("images", "labels"):
            if folder == "images" or name not in absent:
                (tmp_path / folder).mkdir(exist_ok=True)
                tifffile.imwrite(tmp_path / folder / f"{name}.tif", PLANE)
    way = "keep images that nobody annotated in another folder, or name the pairs in a CSV"
    with pytest.raises(InputError, match="has no annotation") as caught:
        find_pairs(tmp_path / "images", tmp_path / "labels")
    assert str(caught.value).count(way) == 1
    problems = [str(problem) for problem in check_data(tmp_path / "images", tmp_path / "labels", Recipe()).problems]
    assert sum("has no annotation" in problem for problem in problems) == len(absent)
    assert sum(way in problem for problem in problems) == 1


@pytest.mark.parametrize(
    ("place", "out", "refused"),
    [
        ("images/a.tif", "images", True),
        ("images/a.tif", "images/../images/", True),
        ("images/a.tif", ".", False),
        ("images/a.tif", "images/out", False),
        ("images/sub/a.tif", "images", True),
    ],
)
def test_results_are_not_written_among_the_images(tmp_path, monkeypatch, place, out, refused):
    monkeypatch.chdir(tmp_path)
    image = FoundImage(Path(place), Path(place).relative_to("images"))
    if not refused:
        check_output_folder([image], Path(out))
        return
    with pytest.raises(SettingsError, match="the results would lie among the images"):
        check_output_folder([image], Path(out))
