"""The text beside a model says how to use it, on what and how good it is, with the figures of its card only."""

import re
from dataclasses import replace

import pytest

from biounet.api import Segmenter
from biounet.core import builtin_models
from biounet.core.recipe import parse_recipe
from biounet.network import Card, describe_use, load_model, output_channels, read_card


def card_of(changes=None, **fields):
    recipe = parse_recipe({"name": "tried", "purpose": "cells of a test", **(changes or {})})
    return Card(recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe), **fields)


def section(text, title):
    """Return the text below a title."""
    return re.search(rf"^{title}\n-+\n(.*?)\n(?:\n|\Z)", text, re.DOTALL | re.MULTILINE)[1]


def test_it_is_written_with_the_model_and_shown_by_a_command(biounet, tmp_path, untrained):
    Segmenter(untrained).save(tmp_path / "m.safetensors")
    text = (tmp_path / "m_howto.txt").read_text(encoding="utf-8")
    assert "biounet segment images/ -m m.safetensors -o out/" in section(text, "How to use it")
    assert biounet("models", "m.safetensors") == (0, text, "")
    Segmenter(replace(untrained, card=card_of())).save(tmp_path / "m.safetensors")
    assert (tmp_path / "m_howto.txt").read_text(encoding="utf-8") != text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "m_howto.txt"]


@pytest.mark.parametrize("name", ["nuclei", "nuclei3d"])
def test_built_in_models_have_one(biounet, name):
    code, text, _ = biounet("models", name)
    card = read_card(builtin_models()[name])
    assert code == 0
    assert f"-m {name} -o out/" in text
    assert card.recipe.purpose in text.replace("\n", " ")
    assert f"{card.data['images']:.0f} images with {card.data['objects']:.0f} objects, all pixels labelled" in text
    for figure, value in card.validation.items():
        assert re.search(rf"^    {figure} +{value:.4g}( |$)", text, re.MULTILINE)
    assert "Apache-2.0" in section(text, "Licence")


def test_an_unknown_model_is_an_error(biounet):
    code, _, err = biounet("models", "nucleii")
    assert (code, "no such model file" in err) == (5, True)


def test_what_is_not_known_is_not_said():
    text = describe_use(card_of(), builtin_models()["nuclei"].with_name("mine.safetensors"))
    assert "None: there were no held-out images" in section(text, "Scores")
    assert section(text, "Licence").startswith("Not stated.")
    assert "diameter" not in text
    assert "µm" not in text
    assert "SHA-256" not in text


def test_the_licence_is_that_of_the_recipe(tmp_path):
    licence = section(describe_use(card_of({"licence": "CC-BY-4.0"}), tmp_path / "m.safetensors"), "Licence")
    assert licence == "CC-BY-4.0, as its recipe states."


def test_sizes_channels_and_notes_are_those_of_the_card(tmp_path):
    data = {
        "channels": ["t1c", "flair"],
        "kind": "classes",
        "classes": ["core", "rim"],
        "dims": 3,
        "voxel_size": [2, 1, 1],
    }
    card = card_of({"data": {**data, "voxel_unit": "mm"}}, orientation="RAS", notes=("one thing more",))
    card = card.model_copy(
        update={"data": {"images": 3.0, "share": 0.031, "held_out": 1.0}, "validation": {"dice": 0.8}}
    )
    text = describe_use(card, tmp_path / "m.safetensors")
    assert "biounet segment t1c=FILE flair=FILE -m m.safetensors" in text
    assert "3D volumes with 2 channels: t1c, flair." in text
    assert "voxel size of 2 x 1 x 1 mm (z, y, x)" in text
    assert "Classes: 1 core, 2 rim." in text
    assert "3 images, 0.031 of the pixels labelled." in text
    assert "On 1 held-out image, by which" in text
    assert "one thing more" in section(text, "Limits")


def test_sizes_have_no_exponent(tmp_path):
    card = card_of({}, object_size_px=20.04, training_ranges={"diameter": (0.338, 1234.5)})
    text = describe_use(card, tmp_path / "m.safetensors")
    assert "diameter of 20 pixels (median), from 0.338 to 1234 in the images" in text


def test_an_old_model_is_described_by_its_file(tmp_path, untrained):
    Segmenter(untrained).save(tmp_path / "old.safetensors")
    (tmp_path / "old_howto.txt").unlink()
    assert "old.safetensors: a model of biounet" in describe_use(
        load_model(tmp_path / "old.safetensors").card, tmp_path / "old.safetensors"
    )
