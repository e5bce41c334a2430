"""Outlines that other programs drew are found as annotations of their images, and no other file is taken for some."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import tifffile

from biounet.core import InputError
from biounet.files import find_images, find_pairs, pair_files, pair_results, search_images
from biounet.files.dataset_index.outline_files import outline_format

FEATURES = {"type": "FeatureCollection", "features": []}
LABELME = {"version": "5.4.1", "flags": {}, "shapes": [], "imagePath": "x.tif"}
BIDS = {"RepetitionTime": 2.5, "ImageType": ["ORIGINAL"], "Units": "mm", "SliceTiming": [0, 1]}
NNUNET = {"channel_names": {"0": "T1"}, "labels": {"background": 0}, "numTraining": 1, "file_ending": ".nii.gz"}
MICROMANAGER = {"Summary": {"images": [{"file_name": "x"}]}, "annotations": "none"}


def coco(*names):
    images = [{"id": n, "file_name": name, "height": 4, "width": 4} for n, name in enumerate(names)]
    return {"info": {}, "images": images, "annotations": [], "categories": []}


def write(path, content=FEATURES):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(content if isinstance(content, str) else "0001.roi", b"Iout")
    else:
        path.write_text(json.dumps(content))
    return path


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    return path


NAMES = (
    "x.roi",
    "x.zip",
    "x_rois.zip",
    "x_RoiSet.zip",
    "x.geojson",
    "x.geojson.gz",
    "x_outlines.geojson",
    "x.tif.geojson",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["beside", "labels folder", "folders below"])
def test_outlines_are_found_by_the_name_of_their_image(tmp_path, name, place):
    first = image(tmp_path / ("images/x.tif" if place != "beside" else "x.tif"))
    drawn = write(tmp_path / {"beside": name, "labels folder": f"ann/{name}", "folders below": f"labels/{name}"}[place])
    image(first.with_name("y.tif"))
    write(drawn.with_name("y.geojson"))
    folders = (tmp_path / "images", tmp_path / "ann") if place == "labels folder" else (tmp_path,)
    pairs = find_pairs(*folders)
    assert {pair.image.name: pair.label for pair in pairs} == {"x.tif": drawn, "y.tif": drawn.with_name("y.geojson")}


@pytest.mark.parametrize("content", [FEATURES, LABELME, coco("x.tif"), coco("another.tif")])
def test_json_is_recognised_by_what_it_holds(tmp_path, content):
    first, drawn = image(tmp_path / "x.tif"), write(tmp_path / "x.json", content)
    (pair,) = find_pairs(tmp_path)
    assert (pair.image, pair.label) == (first, drawn)


def test_a_set_of_outlines_belongs_to_the_only_image_of_its_folder(tmp_path):
    for name in ("p1", "p2"):
        image(tmp_path / name / "field.tif")
        write(tmp_path / name / "RoiSet.zip")
    pairs = find_pairs(tmp_path)
    assert [pair.label.relative_to(tmp_path).as_posix() for pair in pairs] == ["p1/RoiSet.zip", "p2/RoiSet.zip"]


@pytest.mark.parametrize("place", ["coco.json", "ann/instances_default.json"])
def test_one_coco_file_holds_the_outlines_of_a_whole_folder(tmp_path, place):
    names = ["a.tif", "sub/b.tif", "c.tif"]
    for name in names:
        image(tmp_path / "img" / name)
    drawn = write(tmp_path / ("img" if place == "coco.json" else "") / place, coco(*names, "elsewhere.tif"))
    pairs = find_pairs(tmp_path / "img") if place == "coco.json" else find_pairs(tmp_path / "img", tmp_path / "ann")
    assert [pair.image.relative_to(tmp_path / "img").as_posix() for pair in pairs] == ["a.tif", "c.tif", "sub/b.tif"]
    assert {pair.label for pair in pairs} == {drawn}


def test_an_image_that_the_coco_file_does_not_name_has_no_annotation(tmp_path):
    image(tmp_path / "a.tif")
    image(tmp_path / "b.tif")
    write(tmp_path / "all.json", coco("a.tif", "c.tif"))
    pairs, unpaired = pair_files(tmp_path)
    assert [pair.image.name for pair in pairs] == ["a.tif"]
    assert [problem.cause for problem in unpaired.problems] == [f"{tmp_path / 'b.tif'} has no annotation"]


def test_several_annotations_of_one_image_are_listed(tmp_path):
    image(tmp_path / "x.tif")
    first, second = image(tmp_path / "x_masks.tif"), write(tmp_path / "x_rois.zip")
    with pytest.raises(InputError, match=r"are both annotations of one image.*data\.annotation") as caught:
        find_pairs(tmp_path)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    (pair,) = find_pairs(tmp_path, annotation=["rois"])
    assert pair.label == second


@pytest.mark.parametrize("content", [BIDS, NNUNET, MICROMANAGER, [], {}, [1, 2], "text", {"shape": [4, 4]}])
def test_other_json_is_no_annotation(tmp_path, content):
    image(tmp_path / "x.tif")
    masks = image(tmp_path / "x_masks.tif")
    for name in ("x.json", "dataset.json", "run.json"):
        write(tmp_path / name, content)
    (pair,) = find_pairs(tmp_path)
    assert pair.label == masks
    assert outline_format(tmp_path / "x.json") is None


def test_json_that_cannot_be_read_is_no_annotation(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    write(tmp_path / "z.zip", "readme.txt")
    assert outline_format(tmp_path / "x.json") is outline_format(tmp_path / "z.zip") is None


def test_a_coco_file_that_ends_early_is_a_problem(tmp_path):
    image(tmp_path / "x.tif")
    damaged = tmp_path / "all.json"
    damaged.write_text('{"images": [{"file_name": "x.tif"')
    _, unpaired = pair_files(tmp_path)
    assert str(unpaired.problems[0]).startswith(f"{damaged}: ends too early")


def test_the_format_is_told_from_the_beginning_of_a_large_file(tmp_path):
    path = write(tmp_path / "x.json", {"imageData": "A" * 300_000, **LABELME})
    assert outline_format(path) is None
    path = write(tmp_path / "x.json", {"version": "5", "imageData": "A" * 300_000, **LABELME})
    assert outline_format(path) == "LabelMe"
    outline = {"id": 1, "image_id": 1, "segmentation": [[0.5] * 100_000]}
    assert outline_format(write(path, {"annotations": [outline], **coco("x.tif")})) == "COCO"


def test_outlines_without_an_image_are_a_problem(tmp_path):
    image(tmp_path / "x.tif")
    write(tmp_path / "x.roi")
    stray = write(tmp_path / "y.roi")
    _, unpaired = pair_files(tmp_path)
    assert [str(problem) for problem in unpaired.problems] == [f"{stray} has no image"]


def test_outlines_are_no_images_and_not_listed_among_them(tmp_path):
    image(tmp_path / "x.tif")
    for name in NAMES:
        write(tmp_path / name)
    assert search_images([tmp_path]).skipped == []
    assert [found.path.name for found in find_images([tmp_path])] == ["x.tif"]


@pytest.mark.parametrize("name", ["truth/x.geojson", "truth/x_rois.zip", "truth/sub/x.roi"])
def test_results_are_compared_with_outlines(tmp_path, name):
    result = image(tmp_path / "out" / "x_labels.tif")
    drawn = write(tmp_path / name)
    image(drawn.with_name("x.tif"))  # the image lies beside them
    (pair,) = pair_results(tmp_path / "out", tmp_path / "truth")
    assert (pair.truth, pair.predicted, pair.image.name) == (drawn, result, "x")


def test_results_are_compared_with_the_outlines_of_all_images_in_one_file(tmp_path):
    results = [image(tmp_path / "out" / name) for name in ("a_labels.tif", "sub/b_labels.tif")]
    drawn = write(tmp_path / "truth" / "all.json", coco("a.tif", "sub/b.tif"))
    pairs = pair_results(tmp_path / "out", tmp_path / "truth")
    assert [(pair.truth, pair.predicted) for pair in pairs] == [(drawn, result) for result in results]


def test_what_cellpose_saves_for_itself_is_never_opened(tmp_path):
    """Its label image is used; without one, the message says how to save it."""
    image(tmp_path / "x.tif")
    image(tmp_path / "y.tif")
    masks = image(tmp_path / "x_cp_masks.png")
    for name in ("x_seg.npy", "y_seg.npy"):
        (tmp_path / name).write_bytes(pickle.dumps({"masks": 1}))
    (pair,), unpaired = pair_files(tmp_path)
    assert pair.label == masks
    (problem,) = unpaired.problems
    assert problem.cause.startswith(f"{tmp_path / 'y.tif'} has no annotation but y_seg.npy, a pickle")
    assert "y_cp_masks.png" in problem.hint
    assert {file.path.name for file in unpaired.skipped} == {"x_seg.npy", "y_seg.npy"}


def test_damaged_archives_with_the_name_of_outlines_are_annotations_that_cannot_be_read(tmp_path):
    (tmp_path / "x_rois.zip").write_bytes(b"PK\x03\x04")
    zipfile.ZipFile(tmp_path / "RoiSet.zip", "w").close()
    zipfile.ZipFile(tmp_path / "x.zip", "w").close()
    assert outline_format(tmp_path / "x_rois.zip") == outline_format(tmp_path / "RoiSet.zip") == "ImageJ ROI"
    assert outline_format(tmp_path / "x.zip") is None
    with zipfile.ZipFile(tmp_path / "y_rois.zip", "w") as archive:
        archive.writestr("\N{LATIN SMALL LETTER O WITH DIAERESIS}.roi", b"")
    content = (tmp_path / "y_rois.zip").read_bytes()
    (tmp_path / "y_rois.zip").write_bytes(content.replace("\N{LATIN SMALL LETTER O WITH DIAERESIS}".encode(), b"\xc3("))
    assert outline_format(tmp_path / "y_rois.zip") == "ImageJ ROI"


def test_a_case_has_outlines_or_a_label_image(tmp_path):
    """A case of two channels: its outlines are found, and not beside a label image of it."""
    for name in ("flair.tif", "t1.tif"):
        image(tmp_path / "p1" / name)
    drawn = write(tmp_path / "p1" / "RoiSet.zip")
    (pair,) = find_pairs(tmp_path, channels=["flair", "t1"])
    assert (pair.label, pair.image.name) == (drawn, "flair.tif")
    label = image(tmp_path / "p1" / "p1_seg.tif")
    with pytest.raises(InputError, match="are both annotations of one image") as caught:
        find_pairs(tmp_path, channels=["flair", "t1"])
    assert str(label) in str(caught.value)
