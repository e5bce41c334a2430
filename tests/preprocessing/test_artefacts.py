"""Artefacts of acquisition do not change the count: hot pixels, black around tiles, offsets."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from biounet.api import volume_from_array
from biounet.batch import segment_batch
from biounet.core import UNLABELLED, Annotation
from biounet.core.recipe import parse_recipe
from biounet.files import find_images
from biounet.segmentation import SegmentOptions
from biounet.training import make_case
from support.images import discs

FIELD, TRUTH = discs((200, 200), 40, 5)


def largest(labels):
    return np.bincount(labels.ravel())[1:].max(initial=0)


@pytest.mark.parametrize("fill", [0, 65535])
@pytest.mark.parametrize("at", [(0, 0), (120, 340), (400, 90)])
def test_a_field_in_a_mosaic_has_the_same_cells_as_by_itself(segmenter, fill, at):
    slope = np.linspace(0, 600, 200).astype(np.uint16)  # uneven illumination, bright where it ends at the black
    field = FIELD + slope + slope[:, None]
    expected = segmenter.segment(field)
    mosaic = np.full((600, 540), fill, np.uint16)
    window = tuple(slice(start, start + 200) for start in at)
    mosaic[window] = field
    found = segmenter.segment(mosaic)
    assert abs(found.count - expected.count) <= 0.05 * expected.count
    assert largest(found.labels) <= 1.5 * largest(expected.labels)
    inside = found.labels[window].copy()
    assert np.count_nonzero(inside) == np.count_nonzero(found.labels)  # nothing outside of the field
    assert not any("saturated" in note or "hot" in note for note in found.notes)


@pytest.mark.parametrize("angle", [8, 20, 45])
def test_a_rotated_field_has_the_same_cells(segmenter, angle):
    slope = np.linspace(0, 600, 200).astype(np.uint16)
    field = FIELD + slope + slope[:, None]
    expected = segmenter.segment(field)
    found = segmenter.segment(np.rint(ndimage.rotate(field.astype(float), angle, order=1)).astype(np.uint16))
    assert abs(found.count - expected.count) <= 0.1 * expected.count
    assert largest(found.labels) <= 1.5 * largest(expected.labels)


def test_a_mosaic_has_the_same_labels_in_blocks(segmenter):
    mosaic = np.zeros((330, 400), np.uint16)
    mosaic[100:300, 150:350] = FIELD
    whole, tiled = (segmenter.segment(mosaic, options=SegmentOptions(block=block)) for block in (None, 96))
    assert np.array_equal(whole.labels, tiled.labels)


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01])
def test_hot_pixels_do_not_change_the_count(segmenter, share):
    hot = FIELD.copy()
    hot[np.random.default_rng(0).random(hot.shape) < share] = 65535
    found = segmenter.segment(hot)
    assert abs(found.count - segmenter.segment(FIELD).count) <= 1
    assert any(note.startswith("hot pixels: ") and "%" in note for note in found.notes)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_few_cells_on_a_constant_background_are_counted(segmenter, kind):
    sparse = np.full((600, 600), 20, kind)
    small, labels = discs((60, 60), 4, 3, (5, 7))
    sparse[200:260, 300:360] = np.where(labels > 0, small // 10, 20)
    assert np.mean(sparse > 20) < 0.002
    assert segmenter.segment(sparse).count == labels.max()


@pytest.mark.parametrize(("kind", "offset"), [(np.uint32, 2**31), (np.uint64, 2**62), (np.int64, -(2**62))])
def test_an_offset_does_not_change_the_count(segmenter, kind, offset):
    low = FIELD // 16
    assert segmenter.segment(low.astype(kind) + kind(offset)).count == segmenter.segment(low).count > 0


def test_unacquired_areas_are_unlabelled_in_training():
    labels = np.zeros((300, 300), np.int32)
    image = np.zeros((300, 300), np.uint16)
    image[:200, :200], labels[:200, :200] = FIELD, TRUTH
    volume = volume_from_array(image, 2)
    case = make_case(volume, Annotation(labels, "instances", volume.grid), parse_recipe({}))
    assert np.array_equal(case.labels[:200, :200], TRUTH)
    assert (case.labels[200:] == UNLABELLED).all()
    assert (case.labels[:, 200:] == UNLABELLED).all()


def test_unknown_pixel_sizes_are_reported_once_and_flag_no_image(segmenter, tmp_path):
    for name, field in (("a", FIELD), ("b", FIELD[::-1])):
        tifffile.imwrite(tmp_path / f"{name}.tif", field)
    tifffile.imwrite(tmp_path / "c.tif", FIELD, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    rows = segment_batch(find_images([tmp_path]), segmenter.model, tmp_path / "out")
    assert not any("pixel size" in row.message for row in rows)
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("unknown in 2 of 3 images") == 1
    assert "pixel size unknown" in (tmp_path / "out" / "manifest.jsonl").read_text(encoding="utf-8")
