"""Faults of training data, recipes and models that no other test states; `stated_faults.py` says which states which."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import tifffile
from safetensors.torch import load_file, save_file

from biounet.core import InputError, ModelError, Recipe, SettingsError, read_recipe
from biounet.core.recipe import parse_recipe
from biounet.files import find_pairs
from biounet.network import Card, Model, build_network, load_model, output_channels, save_model
from biounet.training import check_data, load_cases

GREY = np.random.default_rng(0).integers(0, 200, (33, 47)).astype(np.uint8)
LABELS = np.zeros((33, 47), np.uint8)
LABELS[5:12, 6:15] = 1


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


@pytest.fixture
def folder(tmp_path):
    """Folder of three images with annotations."""
    for name, add in (("a", 0), ("b", 1), ("c", 2)):
        tifffile.imwrite(tmp_path / f"{name}.tif", GREY + add)
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", LABELS)
    return tmp_path


@pytest.fixture
def model(tmp_path):
    """File of a small model."""
    recipe = parse_recipe({"network": {"widths": [1, 1]}})
    card = Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe))
    save_model(Model(build_network(recipe).eval(), card), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5
    return str(caught.value)


def test_a_damaged_image_is_named_before_training_begins_F071(folder):
    (folder / "b.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError) as caught:
        list(load_cases(find_pairs(folder), Recipe()))
    assert caught.value.path == folder / "b.tif"
    found = check_data(folder, None, Recipe())
    assert [problem for problem in found.problems if "b.tif" in problem] == list(found.problems)


def test_other_types_and_pixel_sizes_stand_side_by_side_F073(folder):
    calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um"}}
    tifffile.imwrite(folder / "b.tif", GREY.astype(np.uint16), **calibration)
    rows = check_data(folder, None, Recipe()).as_table()
    assert [(row[2], row[3]) for row in rows[1:]] == [
        ("uint8", "unknown"),
        ("uint16", "0.5 x 0.5 µm"),
        ("uint8", "unknown"),
    ]


@pytest.mark.parametrize(
    "text",
    ["[train]\nbatch = 2\nbatch = 4", "[train]\nbatch = no", "[train]\nbatch = 1:30", "[train]\n[train]", "\xff\xfe"],
)
def test_text_that_other_formats_would_guess_at_is_no_recipe_F074(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError) as caught:
        read_recipe(path)
    assert "not a TOML recipe" in caught.value.cause


def test_a_number_stays_a_number_F074(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[train]\n\tlearning_rate = 1e-4\n")
    assert read_recipe(path).train.learning_rate == 1e-4


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.safetensors"])
def test_a_pickle_is_no_model_and_is_not_opened_F076(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"weights": Bomb(tmp_path / "ran")}))
    refusal(path)
    with zipfile.ZipFile(path, "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(tmp_path / "ran")))
    refusal(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt"])
def test_an_archive_is_no_model_and_nothing_is_unpacked_F078_F080(tmp_path, name):
    path = tmp_path / "in" / "model.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", "type: model\nweights: {pytorch_state_dict: {source: m.pt}}\nname: $import os")
        archive.writestr(name, "x")
    refusal(path)
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == ["model.zip"]


def test_a_model_that_does_not_fit_its_card_says_what_differs_F079(model):
    from safetensors import safe_open

    with safe_open(model, framework="pt") as file:
        text = file.metadata()["biounet"]
    card = {"biounet": "{" + text[len('{"sha256":"') + 64 + len('",') :]}  # without its checksum, which sees it first
    weights = load_file(model)
    name = next(name for name in weights if name.endswith("weight"))
    for changed in (
        {key: value for key, value in weights.items() if key != name},
        weights | {name: weights[name][..., :1].clone()},
    ):
        save_file(changed, model, metadata=card)
        assert "fit" in refusal(model)
    for old, new in (('"format":1', '"format":99'), ('"inputs"', '"imputs"')):
        save_file(weights, model, metadata={"biounet": card["biounet"].replace(old, new)})
        refusal(model)
