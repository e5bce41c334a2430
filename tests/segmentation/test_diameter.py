"""Images of another magnification than the training are segmented at the size at which they look like it."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tifffile
from skimage.transform import resize

from biounet.api import Segmenter, load
from biounet.batch import read_run
from biounet.core import ModelError, NoteCode, SettingsError, find_warnings, note_code
from biounet.segmentation import SegmentOptions, resolve_diameter
from biounet.synthetic import FieldSettings, make_field

NATIVE = SegmentOptions(diameter="native")


@cache
def nuclei():
    return load("nuclei", "cpu")


@cache
def field(factor=1.0):
    """A field of some ten nuclei of 20 pixels, magnified."""
    image, _ = make_field(3, FieldSettings(shape=(160, 160), clustering=0, overlap=0, spots=0))
    shape = tuple(round(size * factor) for size in image.shape)
    return np.rint(resize(image.astype(float), shape, order=1, anti_aliasing=factor < 1)).astype(np.uint16)


def codes(found):
    return [note_code(note) for note in found.notes]


def test_an_image_that_looks_like_the_training_is_taken_as_it_is():
    found, native = nuclei().segment(field()), nuclei().segment(field(), options=NATIVE)
    assert np.array_equal(found.labels, native.labels)
    assert found.count >= 8
    assert "diameter_px" not in found.figures
    assert NoteCode.DIAMETER_FOUND not in codes(found)


def test_an_image_of_a_higher_magnification_has_the_same_objects():
    found, native = nuclei().segment(field(5)), nuclei().segment(field())
    assert found.count == pytest.approx(native.count, rel=0.1)
    assert find_warnings(found.notes) == ()
    (note,) = (note for note in found.notes if note_code(note) == NoteCode.DIAMETER_FOUND)
    assert note.figure == pytest.approx(found.figures["diameter_px"], abs=0.01)
    stated = nuclei().segment(field(5), options=SegmentOptions(diameter=note.figure))
    assert np.array_equal(found.labels, stated.labels)
    assert find_warnings(nuclei().segment(field(5), options=NATIVE).notes)


def test_the_smallest_object_of_a_model_may_be_in_um():
    model = nuclei().model
    recipe = model.card.recipe.replace("label", min_size=3.0, min_size_unit="um")
    in_um = Segmenter(replace(model, card=model.card.model_copy(update={"recipe": recipe})), "cpu")
    assert in_um.segment(field(5), spacing=0.1).figures["diameter_px"] > 50


def test_the_diameter_found_does_not_depend_on_blocks():
    whole, blocks = nuclei().segment(field(5)), nuclei().segment(field(5), options=SegmentOptions(block=128))
    assert np.array_equal(whole.labels, blocks.labels)
    assert whole.figures == blocks.figures


def test_an_image_too_large_to_be_tried_at_other_sizes_says_so(monkeypatch):
    monkeypatch.setattr("biounet.segmentation.pipeline.LARGEST_SEARCHED", 1000)
    found, native = nuclei().segment(field(5)), nuclei().segment(field(5), options=NATIVE)
    assert np.array_equal(found.labels, native.labels)
    assert NoteCode.DIAMETER_NOT_SOUGHT in codes(found)
    assert NoteCode.DIAMETER_NOT_SOUGHT not in codes(nuclei().segment(field()))
    assert "diameter_px" not in found.figures


def test_objects_too_small_for_the_model_are_flagged_though_enlarging_finds_more():
    found, native = nuclei().segment(field(0.3)), nuclei().segment(field(0.3), options=NATIVE)
    assert found.figures["diameter_px"] < 10
    assert found.count >= native.count
    assert NoteCode.OBJECT_SIZE in [note.code for note in find_warnings(found.notes)]


def test_what_decides_unless_the_user_does(untrained):
    card = nuclei().card
    assert resolve_diameter(None, card) == "auto"
    assert resolve_diameter("native", card) == "native"
    calibrated = card.model_copy(update={"recipe": card.recipe.replace("data", pixel_size_um=0.5)})
    assert resolve_diameter(None, calibrated) == "native"
    assert resolve_diameter("auto", calibrated) == "auto"
    assert resolve_diameter(None, untrained.card) == "native"
    with pytest.raises(ModelError, match="states no size of objects, which --diameter auto needs"):
        resolve_diameter("auto", untrained.card)


@pytest.mark.parametrize("diameter", ["big", 0, -3, float("nan"), True, ""])
def test_what_is_no_diameter(diameter):
    with pytest.raises(SettingsError, match="a positive number, auto or native"):
        SegmentOptions(diameter=diameter)


def test_a_batch_with_diameters_found_is_verified_and_done_once(biounet, tmp_path):
    tifffile.imwrite("large.tif", field(5))
    assert biounet("segment", "large.tif")[0] == 0
    code, out, _ = biounet("verify", "biounet-out")
    assert (code, out) == (0, "large.tif: same\n")
    assert read_run(tmp_path / "biounet-out").options.segment.diameter == "auto"
    (row,) = (tmp_path / "biounet-out" / "counts.csv").read_text().splitlines()[1:]
    assert row.startswith("large.tif,ok,")
    assert biounet("segment", "large.tif", "--diameter", "auto", "--json")[0] == 0
    code, _, err = biounet("segment", "large.tif", "--diameter", "native")
    assert code == 2
    assert "other settings (diameter auto, now none)" in err


def test_results_of_versions_that_took_images_as_they_were_stay_verifiable(biounet, tmp_path):
    tifffile.imwrite("large.tif", field(5))
    assert biounet("segment", "large.tif", "--diameter", "native")[0] == 0
    path = tmp_path / "biounet-out" / "run.json"
    run = json.loads(path.read_text())
    assert run["settings"]["segment"]["diameter"] == "native"
    run["settings"]["segment"]["diameter"] = None
    path.write_text(json.dumps(run))
    assert biounet("verify", "biounet-out")[1].startswith("large.tif: same\n")


@pytest.mark.parametrize("text", ["wide", "0.5", "-3", "nan"])
def test_the_command_says_what_a_diameter_is(biounet, text):
    tifffile.imwrite("x.tif", field())
    code, _, err = biounet("segment", "x.tif", f"--diameter={text}")
    assert code == 2
    assert err.strip() == f"ERROR --diameter {text}: a number of pixels from 1, auto or native"
