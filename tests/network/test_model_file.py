"""Model files of earlier versions are read, and say the same under the names of today."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import biounet
from biounet.network import Card, load_model, read_card

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
    with pytest.raises(ValidationError, match=f"{old}\n *Extra inputs are not permitted"):
        Card.model_validate({**CARD, new: CARD[old]})


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_built_in_models_are_read(path):
    card = read_card(path)
    assert load_model(path).card == card
    assert ("diameter" in card.training_ranges) == (path.stem == "nuclei")
