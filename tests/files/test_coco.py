"""COCO JSON: what pycocotools decodes is the label image again, and what is read back too."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from biounet.core import Grid
from biounet.files import LabelledImage, export_formats, write_export
from biounet.files.outlines.coco_masks import decode_lengths, encode_masks, masked_pixels

# pycocotools has not followed NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PICTURES = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))


def labelled(labels, **more):
    columns = {"label": np.unique(labels[labels > 0]), **more.pop("columns", {})}
    grid = Grid(labels.shape[1:] if more.get("times") else labels.shape)
    return LabelledImage("x", labels, grid, more.pop("kind", "objects"), columns, file_name="x.tif", **more)


def exported(image, folder, name="coco"):
    """The file as pycocotools loads it."""
    (coco,) = export_formats([name])
    path = write_export(image, coco, folder)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def decoded(coco, image_id):
    """The label image of one image, by pycocotools alone."""
    size = coco.imgs[image_id]["height"], coco.imgs[image_id]["width"]
    labels = np.zeros(size, np.int32)
    for one in coco.imgToAnns[image_id]:
        labels[coco.annToMask(one) > 0] = one.get("track_id", one["id"])
    return labels


@given(PICTURES)
def test_masks_are_those_of_pycocotools_to_the_letter(labels):
    masks = encode_masks(labels)
    assert masks.labels.tolist() == [value for value in np.unique(labels) if value]
    for label, area, box, text in zip(*masks, strict=True):
        expected = coco_masks.encode(np.asfortranarray(labels == label, np.uint8))
        assert text == expected["counts"].decode()
        assert area == coco_masks.area(expected)
        assert box.tolist() == coco_masks.toBbox(expected).tolist()


@given(PICTURES)
def test_masks_are_decoded_to_the_pixels_they_were_made_of(labels):
    masks = encode_masks(labels)
    again = np.zeros(labels.size, np.int32)
    for label, text in zip(masks.labels, masks.texts, strict=True):
        again[masked_pixels(decode_lengths(text), labels.shape)] = label
    assert (again.reshape(labels.shape) == labels).all()


@pytest.mark.parametrize("lengths", [[0, 2**62, 2**62], [2**63 - 1, 1], [0, 13], [[0, 4]], [-1, 4]])
def test_lengths_beyond_the_image_are_no_mask(lengths):
    with pytest.raises(ValueError, match=r"^$"):
        masked_pixels(lengths, (3, 4))


@pytest.mark.parametrize("text", ["", "P", "é", "1 2", "o" * 20])
def test_other_text_is_no_mask(text):
    with pytest.raises(ValueError):  # noqa: PT011 - its caller says what and where
        decode_lengths(text)


@settings(deadline=None)
@given(PICTURES)
def test_pycocotools_loads_the_labels(tmp_path_factory, labels):
    coco = exported(labelled(labels), tmp_path_factory.mktemp("coco"))
    values, numbered = np.unique(np.append(0, labels), return_inverse=True)
    assert (decoded(coco, 1) == numbered[1:].reshape(labels.shape)).all()
    assert sorted(coco.anns) == list(range(1, len(values)))
    assert {one["name"] for one in coco.cats.values()} == {"object"}


def test_a_picture_of_two_objects(tmp_path):
    labels = np.array([[0, 1, 1], [2, 1, 0]], np.int32)
    coco = exported(labelled(labels, columns={"confidence": np.array([0.75, np.nan])}), tmp_path)
    assert coco.imgs == {1: {"id": 1, "width": 3, "height": 2, "file_name": "x.tif"}}
    first, second = coco.anns[1], coco.anns[2]
    assert (first["area"], first["bbox"], first["score"]) == (3, [1, 0, 2, 2], 0.75)
    assert (second["area"], second["bbox"], "score" in second) == (1, [0, 1, 1, 1], False)


def test_a_volume_has_an_image_for_each_slice(tmp_path):
    labels = np.zeros((3, 4, 5), np.int32)
    labels[:2, 1:3, 1:3] = 7
    labels[1:, 0, 4] = 9
    coco = exported(labelled(labels), tmp_path)
    assert [image["z"] for image in coco.imgs.values()] == [0, 1, 2]
    assert (np.stack([decoded(coco, number) for number in (1, 2, 3)]) == labels).all()


def test_a_time_series_has_an_image_for_each_frame(tmp_path):
    labels = np.zeros((2, 4, 5), np.int32)
    labels[:, 1:3, 1:3] = 3
    columns = {"t": np.array([0, 5]), "label": np.array([3, 3]), "confidence": np.array([0.5, 0.25])}
    coco = exported(labelled(labels, times=(0, 5), columns=columns), tmp_path)
    assert [image["t"] for image in coco.imgs.values()] == [0, 5]
    assert [one["score"] for one in coco.anns.values()] == [0.5, 0.25]


def test_classes_are_categories(tmp_path):
    labels = np.array([[0, 2, 2], [3, 3, 0]], np.int32)
    image = labelled(labels, kind="classes", class_names={1: "necrosis", 2: "oedema"})
    coco = exported(image, tmp_path)
    assert {number: one["name"] for number, one in coco.cats.items()} == {1: "necrosis", 2: "oedema", 3: "class 3"}
    assert [one["category_id"] for one in coco.anns.values()] == [2, 3]


def test_an_image_without_objects_has_no_annotations(tmp_path):
    coco = exported(labelled(np.zeros((3, 4), np.int32)), tmp_path)
    assert json.loads((tmp_path / "x_coco.json").read_text())["annotations"] == []
    assert len(coco.imgs) == 1


def test_polygons_are_read_by_pycocotools_as_the_objects_without_their_holes(tmp_path):
    """Its rule for pixels at an edge is another one, by up to half a pixel."""
    labels = np.zeros((60, 60), np.int32)
    labels[5:40, 5:35], labels[5:40, 35:50], labels[50:55, 5:15], labels[15:25, 15:25] = 1, 2, 2, 0
    coco = exported(labelled(labels), tmp_path, "coco-polygons")
    assert [len(one["segmentation"]) for one in coco.anns.values()] == [1, 2]
    assert [one["area"] for one in coco.anns.values()] == [35 * 30 - 100, 35 * 15 + 50]
    filled = labels.copy()
    filled[15:25, 15:25] = 1
    assert (decoded(coco, 1) != filled).sum() < 0.1 * (labels > 0).sum()
