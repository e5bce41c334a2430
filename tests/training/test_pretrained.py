"""A model that a training starts from: it has to fit, and what is not better than it does not replace it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from biounet.api import Segmenter
from biounet.core import ModelError, Recipe
from biounet.core.recipe import parse_recipe
from biounet.files import find_pairs
from biounet.network import Model, load_model, read_card, save_model
from biounet.training import TrainCallbacks, load_cases, train
from biounet.training.pretrained import Baseline, describe_differences
from support.trainings import tiny_recipe, weights_hash

SPOILING = {"learning_rate": 3.0, "epochs": 1, "steps_per_epoch": 6, "ema_decay": 0.0}
HARMLESS = {"learning_rate": 1e-12, "epochs": 1, "steps_per_epoch": 1, "ema_decay": 0.9999}


@pytest.fixture(scope="module")
def cases(cell_folder: Path) -> list:
    return list(load_cases(find_pairs(cell_folder / "images", cell_folder / "labels"), tiny_recipe()))


def test_a_start_that_training_made_worse_is_kept_and_both_figures_are_told(cases, segmenter):
    warnings: list[str] = []
    start = segmenter.model
    callbacks = TrainCallbacks(on_warning=warnings.append)
    kept = train(cases[:4], cases[4:], tiny_recipe(train=SPOILING), start=start, callbacks=callbacks)
    assert weights_hash(kept) == weights_hash(start)
    (note,) = warnings
    assert note == kept.card.notes[-1]
    assert "the start is kept" in note
    assert f"{kept.card.validation['ap']:.3f}" in note
    assert kept.card.validation["ap"] > 0.5
    assert len(kept.card.history) == 1  # of what was tried


def test_a_training_that_beats_its_start_replaces_it_and_says_by_how_much(cases):
    warnings: list[str] = []
    random = train(cases[:1], cases[4:], tiny_recipe(train={"epochs": 1, "steps_per_epoch": 1}))
    better = {"epochs": 5, "steps_per_epoch": 40, "batch": 4, "patch": 64, "learning_rate": 3e-2, "ema_decay": 0.9}
    callbacks = TrainCallbacks(on_warning=warnings.append)
    model = train(cases[:4], cases[4:], tiny_recipe(train=better), start=random, callbacks=callbacks)
    assert warnings == []
    assert weights_hash(model) != weights_hash(random)
    assert f"{model.card.validation['ap']:.3f}" in model.card.notes[-1]
    assert f"{random.card.validation['ap']:.3f}" in model.card.notes[-1]


def test_a_start_that_is_not_beaten_is_kept_even_when_nothing_got_worse(cases, segmenter):
    baseline = Baseline(segmenter.model, {"ap": 0.7})
    for value, kept in ((0.7, True), (0.69, True), (0.71, False)):
        card = segmenter.card.model_copy(update={"validation": {"ap": value}})
        trained = Model(segmenter.model.network, card)
        model, note, better = baseline.better_of(trained)
        assert better != kept
        assert (model is trained) == better
        assert f"{value:.3f}" in note
        assert "0.700" in note


@pytest.mark.parametrize(("before", "after"), [({}, {}), ({"ap": np.nan}, {"ap": 0.5}), ({"ap": 0.5}, {})])
def test_without_figures_nothing_is_claimed(segmenter, before, after):
    trained = Model(segmenter.model.network, segmenter.card.model_copy(update={"validation": after}))
    model, note, better = Baseline(segmenter.model, before).better_of(trained)
    assert model is trained
    assert not better
    assert "not compared" in note


def test_a_start_of_other_channels_is_refused_with_both_numbers(cases, untrained):
    recipe = parse_recipe({"data": {"channels": ["dapi", "gfp"]}})
    with pytest.raises(ModelError, match=r"1 channels \(intensity\).* 2 \(dapi, gfp\).*without --from"):
        train(cases[:1], [], recipe, start=untrained)


def _model(untrained: Model, **changes: object) -> Model:
    return replace(untrained, card=untrained.card.model_copy(update=changes))


def test_objects_of_another_size_are_told_with_figures(cases, untrained):
    recipe = Recipe()
    assert describe_differences(untrained, recipe, cases, 12.0) == []  # nobody knows what it was trained on
    assert describe_differences(_model(untrained, object_size_px=10.0), recipe, cases, 12.0) == []
    (remark,) = describe_differences(_model(untrained, object_size_px=40.0), recipe, cases, 12.0)
    assert "12 px" in remark
    assert "40 px" in remark
    ranged = _model(untrained, object_size_px=40.0, training_ranges={"diameter": (8.0, 90.0)})
    assert describe_differences(ranged, recipe, cases, 12.0) == []


def test_the_command_keeps_the_start_and_says_so_in_spite_of_quiet(biounet, cell_folder, segmenter, tmp_path):
    Segmenter(segmenter.model).save(tmp_path / "start.safetensors")
    text = "[network]\nwidths = [8, 12, 16]\n"
    text += "[train]\nlearning_rate = 9.0\nsteps_per_epoch = 6\nema_decay = 0.0\npatch = 32\n"
    (tmp_path / "r.toml").write_text(text + "[data]\nvalidation = 0.34\n", encoding="utf-8")
    data = ["--images", str(cell_folder / "images"), "--labels", str(cell_folder / "labels")]
    options = ["--epochs", "1", "--from", "start.safetensors", "-o", "m.safetensors"]
    code, stdout, stderr = biounet("train", "r.toml", *data, *options, "--quiet")
    assert (code, stdout) == (0, "")
    (line,) = stderr.splitlines()
    assert line.startswith("WARNING the start is kept")
    card = read_card(tmp_path / "m.safetensors")
    assert card.notes[-1] in line
    assert card.fingerprint == segmenter.card.fingerprint
    theirs, mine = segmenter.model.network, load_model(tmp_path / "m.safetensors").network
    for name, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value)
    _, stdout, _ = biounet("train", "r.toml", *data, *options, "--json")
    assert json.loads(stdout)["notes"] == list(card.notes)


def test_a_start_on_voxels_as_stored_stays_on_them(tmp_path):
    from biounet.api import load
    from biounet.api import train as learn
    from biounet.core import sample_folder

    stacks = sample_folder() / "stacks"
    start = load("nuclei3d")
    assert start.card.recipe.data.voxel_size == ()
    recipe = parse_recipe(
        {
            "data": {"dims": 3},
            "train": {"patch": [4, 16, 16], "batch": 1, "epochs": 1, "steps_per_epoch": 1},
            "label": {"min_size": 30},
        }
    )
    save_model(start.model, tmp_path / "s.safetensors")
    model = learn(recipe, stacks / "images", stacks / "labels", start=tmp_path / "s.safetensors").model
    assert model.card.recipe.data.voxel_size == ()
