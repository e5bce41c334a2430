"""Model files of earlier versions are read, and their fields and weights have the names of today."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open

import biounet
from biounet.core import ModelError
from biounet.network import Card, load_model, read_card, save_model

CARD = json.loads((Path(__file__).parent / "card_0.1.0.json").read_text(encoding="utf-8"))
MODELS = sorted((Path(biounet.__file__).parent / "models").glob("*.safetensors"))
RENAMED = {"seen": "training_ranges", "lengths": "target_unit", "body_alone": "surroundings_removed"}


def test_a_card_with_the_old_names_of_its_fields_is_read():
    card = Card.model_validate(CARD)
    assert card.training_ranges == {"diameter": (5.5, 11.0), "unlikeness": (0.0, 0.25)}
    assert card.target_unit == "um"
    assert card.surroundings_removed
    written = json.loads(card.model_dump_json())
    assert {*written} == {RENAMED.get(name, name) for name in CARD}
    assert Card.model_validate(written) == card


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_card_with_both_names_of_a_field_is_refused(old, new):
    with pytest.raises(ValidationError, match=f"'{old}' is the former name of '{new}'"):
        Card.model_validate({**CARD, new: CARD[old]})


def _tensors(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_weights_and_ranges_are_read_by_the_old_names_and_written_by_the_new_ones(tmp_path):
    (path,) = (path for path in MODELS if path.stem == "nuclei3d")  # a file of the first version
    stored, model = _tensors(path), load_model(path)
    assert any(name.startswith("rises.") for name in stored)
    save_model(model, tmp_path / "new.safetensors")
    written = _tensors(tmp_path / "new.safetensors")
    assert {*written} == {name.replace("rises.", "up_blocks.") for name in stored}
    assert all(torch.equal(written[name.replace("rises.", "up_blocks.")], value) for name, value in stored.items())
    again = load_model(tmp_path / "new.safetensors")
    assert again.card == model.card
    assert {*again.activation_ranges} == {*model.activation_ranges} != set()


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_built_in_models_are_read(path):
    card = read_card(path)
    assert load_model(path).card == card
    assert ("diameter" in card.training_ranges) == (path.stem == "nuclei")


@pytest.mark.parametrize("name", ["m.onnx", "m_bioimageio.zip"])
def test_a_model_for_other_programs_is_none_for_biounet(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"no model of biounet \(hint: take the \.safetensors file"):
        load_model(tmp_path / name)
