"""What users choose beside the model: checked, recorded, and taking the place of what the card says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from biounet.core import DataSettings, Grid, InputError, LabelSettings, SettingsError
from biounet.segmentation import SegmentOptions
from support.images import discs

CHOSEN = SegmentOptions(
    block=256,
    diameter=12.5,
    label=LabelSettings(min_size=3),
    min_size="20um2",
    max_size=500,
    foreground=0.4,
    join=0.3,
    min_confidence=0.2,
    exclude_border=True,
    fill_holes=False,
)


@pytest.mark.parametrize("options", [SegmentOptions(), CHOSEN])
def test_options_come_back_from_json(options):
    assert SegmentOptions.from_dict(json.loads(json.dumps(options.as_dict()))) == options


def test_records_of_earlier_versions_have_fewer_options():
    assert SegmentOptions.from_dict({"block": 64, "diameter": None, "label": None, "stop": None}) == SegmentOptions(64)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"min_size": "3kg"}, "min_size '3kg' is not the size of an object"),
        ({"min_size": 30, "max_size": 20}, "no object is larger than 30 px and smaller than 20 px"),
        ({"foreground": 1.5}, "foreground 1.5: a number from 0 to 1"),
        ({"foreground": 0}, "foreground 0: between 0 and 1"),
        ({"join": "high"}, "join 'high': a number from 0 to 1"),
        ({"min_confidence": float("nan")}, "min_confidence nan: a number from 0 to 1"),
        ({"exclude_border": 1}, "exclude_border 1: True or False"),
        ({"fill_holes": "no"}, "fill_holes 'no': True or False"),
    ],
)
def test_what_can_be_no_option_for_any_image_is_refused(options, cause):
    with pytest.raises(SettingsError) as caught:
        SegmentOptions(**options)
    assert cause in str(caught.value)


def test_choices_take_the_place_of_the_settings_of_the_model():
    model = LabelSettings(foreground=0.6, join=0.5, contour=0.7, min_size=9, min_size_unit="um")
    grid = Grid((8, 8), (0.5, 0.5), "um")
    assert SegmentOptions().label_settings(model, grid) == model
    settings = SegmentOptions(foreground=0.4, min_size="3um2", fill_holes=False).label_settings(model, grid)
    assert (settings.foreground, settings.fill_holes, settings.join, settings.contour) == (0.4, False, 0.5, 0.7)
    assert (settings.min_size, settings.min_size_unit) == (12, "px")


def test_a_model_of_classes_has_no_objects_to_drop_or_join():
    classes = DataSettings(kind="classes", classes=("background", "tumour"))
    SegmentOptions(foreground=0.4, block=64).check_model(classes)
    with pytest.raises(SettingsError, match="--min-size, --join: the model labels classes and not objects"):
        SegmentOptions(min_size=3, join=0.2).check_model(classes)


def test_knobs_say_how_many_objects_they_drop(segmenter):
    image, _ = discs((160, 200), 30, 77)
    everything = segmenter.segment(image, spacing=0.5)
    table = everything.table
    middle = float(table["area_um2"].median())
    options = SegmentOptions(min_size=f"{middle}um2", exclude_border=True, fill_holes=False)
    found = segmenter.segment(image, spacing=0.5, options=options)
    is_small, at_edge = table["area_um2"] < middle, table["touches_border"]
    assert not [name for name in everything.figures if name.startswith("dropped")]
    assert found.figures["dropped_exclude_border"] == (~is_small & at_edge).sum()
    assert found.figures["dropped_min_size"] >= is_small.sum()  # and what is too small for the model itself
    assert found.count == (~is_small & ~at_edge).sum()
    kept = np.flatnonzero(~is_small & ~at_edge) + 1
    assert np.array_equal(found.labels > 0, np.isin(everything.labels, kept))


def test_a_physical_size_of_an_image_without_pixel_size_is_refused(segmenter):
    image, _ = discs((64, 64), 5, 1)
    with pytest.raises(InputError, match=r"a size of 20 µm², but the pixel size is unknown .*--spacing"):
        segmenter.segment(image, options=SegmentOptions(max_size="20um2"))


def test_a_lower_foreground_finds_more_pixels_and_a_lower_join_fewer_objects(segmenter):
    image, _ = discs((160, 200), 30, 77)
    low, high = (segmenter.segment(image, options=SegmentOptions(foreground=value)) for value in (0.2, 0.8))
    assert (low.labels > 0).sum() > (high.labels > 0).sum()
    joined, divided = (segmenter.segment(image, options=SegmentOptions(join=value)) for value in (0.0, 1.0))
    assert joined.count < divided.count
