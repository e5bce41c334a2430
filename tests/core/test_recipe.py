"""Recipes: every one that travels parses, misspelt keys are named, values are frozen and survive a round trip."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from biounet.batch.records import BatchOptions, output_settings
from biounet.core import Recipe, SettingsError, builtin_models, read_recipe
from biounet.core.recipe import parse_recipe
from biounet.network import Card, load_model, save_model

PIPELINES = Path(__file__).parents[2] / "pipelines"
FILES = sorted(PIPELINES.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_is_named_like_its_file(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.purpose


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_is_in_the_table_for_users(path):
    assert f"({path.name})" in (PIPELINES / "README.md").read_text(encoding="utf-8")


def test_nuclei_2d_states_the_defaults():
    stated = tomllib.loads((PIPELINES / "nuclei_2d.toml").read_text(encoding="utf-8"))
    defaults = Recipe().model_dump(mode="json")
    stated["train"].pop("minutes")
    sections = {key: value for key, value in stated.items() if isinstance(value, dict)}
    assert len(sections) == 7
    for section, settings in sections.items():
        assert settings == {key: defaults[section][key] for key in settings}


def test_land_cover_defines_the_colours_of_its_classes():
    data = read_recipe(PIPELINES / "land_cover.toml").data
    assert data.classes == ("land", "water", "building", "vegetation", "road")
    assert data.palette["#3C1098"] == "building"
    assert data.palette["#9B9B9B"] == "unlabelled"
    assert data.channels == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("data", "unknown", "nearest"),
    [
        ({"trian": {}}, "trian", "train"),
        ({"train": {"minuts": 10}}, "train.minuts", "minutes"),
        ({"data": {"unlabeled": 0}}, "data.unlabeled", "unlabelled"),
        ({"label": {"min_sise": 3}}, "label.min_sise", "min_size"),
    ],
)
def test_a_misspelt_key_names_the_nearest(data, unknown, nearest):
    with pytest.raises(SettingsError) as caught:
        parse_recipe(data, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert unknown in caught.value.cause
    assert f"'{nearest}'" in caught.value.hint


def test_an_unknown_key_lists_the_known_ones():
    with pytest.raises(SettingsError, match="low, high, per_channel"):
        parse_recipe({"normalise": {"zzzzzz": 1}})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"train": {"minutes": 0}}, "train.minutes = 0"),
        ({"label": {"foreground": 1.0}}, "label.foreground = 1.0"),
        ({"network": {"widths": []}}, "network.widths = []"),
        ({"network": {"widths": [8, 0]}}, "network.widths.1 = 0"),
        ({"data": {"kind": "points"}}, "data.kind = 'points'"),
        ({"data": {"kind": "classes"}}, "names of the classes"),
        ({"data": {"kind": "instances", "classes": ["a"]}}, "have no classes"),
        ({"data": {"kind": "classes", "classes": ["a", "b", "a"]}}, "classes: 'a' stands there more than once"),
        ({"data": {"channels": ["DAPI", "dapi"]}}, "channels: 'DAPI' stands there more than once"),
        ({"data": {"kind": "classes", "classes": ["a"], "palette": {"#000000": "b"}}}, "#000000 is called 'b'"),
    ],
)
def test_a_wrong_value_is_named(data, complaint):
    with pytest.raises(SettingsError) as caught:
        parse_recipe(data)
    assert complaint in str(caught.value)


def test_settings_are_frozen():
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.batch = 4
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"


def test_replace_makes_a_new_validated_recipe():
    recipe = Recipe()
    assert recipe.replace("train", batch=2).train.batch == 2
    assert recipe.train.batch == 8
    with pytest.raises(SettingsError, match=r"train\.batch"):
        recipe.replace("train", batch=0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_survives_json(path):
    recipe = read_recipe(path)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_missing_and_a_broken_file_are_one_line_each(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("[train\nminutes = 1\n")
    for path, cause in ((tmp_path / "absent.toml", "no such recipe"), (broken, "not a TOML recipe")):
        with pytest.raises(SettingsError, match=cause) as caught:
            read_recipe(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


FORMER = {
    "targets": {"parting_weight": 2.5},
    "augment": {"free": 0.25, "sides": True},
    "train": {"rate": 1e-4, "average": 0.75},
    "label": {"summit": 0.125},
}
RENAMED = {
    "targets": {"separation_weight": 2.5},
    "augment": {"affine_fraction": 0.25, "flip_x": True},
    "train": {"learning_rate": 1e-4, "ema_decay": 0.75},
    "label": {"min_peak": 0.125},
}


def test_former_names_of_settings_are_accepted():
    recipe = parse_recipe(FORMER)
    assert recipe == parse_recipe(RENAMED) != Recipe()
    written = recipe.model_dump(mode="json")
    for section, settings in RENAMED.items():
        assert settings.items() <= written[section].items()
        assert not FORMER[section].keys() & written[section].keys()


@pytest.mark.parametrize(("section", "old"), [(section, old) for section, names in FORMER.items() for old in names])
def test_both_names_of_a_setting_are_refused(section, old):
    new = dict(zip(FORMER[section], RENAMED[section], strict=True))[old]
    with pytest.raises(SettingsError, match=f"^{section}: '{old}' is the former name of '{new}'"):
        parse_recipe({section: {old: FORMER[section][old], new: RENAMED[section][new]}})


def test_a_wrong_value_under_a_former_name_is_named():
    with pytest.raises(SettingsError, match=r"train\.learning_rate = -1"):
        parse_recipe({"train": {"rate": -1}})


@pytest.mark.parametrize("path", builtin_models().values(), ids=lambda path: path.stem)
def test_models_of_earlier_versions_load_and_are_written_with_the_present_names(path, tmp_path):
    stated = re.search(rb'"(?:parting|separation)_weight\\":([0-9.]+),', path.read_bytes())
    model = load_model(path)
    assert model.card.recipe.targets.separation_weight == float(stated[1])
    save_model(model, tmp_path / "again.safetensors")
    assert b"parting_weight" not in (tmp_path / "again.safetensors").read_bytes()
    assert load_model(tmp_path / "again.safetensors").card == model.card


def test_a_card_with_former_names_of_every_setting_loads():
    card = Card.model_validate({"recipe": FORMER, "inputs": ["intensity"], "outputs": ["foreground"]})
    assert card.recipe == parse_recipe(RENAMED)
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_results_of_earlier_versions_stay_valid(untrained):
    """The settings on record, of which results keep a hash, have the name that they always had."""
    label = output_settings(untrained, BatchOptions())["label"]
    assert "summit" in label
    assert "min_peak" not in label


def test_a_setting_can_be_replaced_by_its_former_name():
    recipe = parse_recipe({"train": {"rate": 0.5}})
    assert recipe.replace("train", rate=0.25).train.learning_rate == 0.25
    assert recipe.replace("label", summit=0.5).label.min_peak == 0.5
