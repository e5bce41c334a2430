"""Model files that are not what they say: an error that names what is wrong, before they take memory."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from biounet.core import ModelError
from biounet.core.recipe import parse_recipe
from biounet.network import (
    Card,
    Model,
    build_network,
    initialise_weights,
    load_model,
    model_predictor,
    output_channels,
    save_model,
)


@pytest.fixture
def saved(tmp_path):
    """Return the file of a small model."""
    recipe = parse_recipe({"network": {"widths": [4, 4]}})
    network = build_network(recipe)
    initialise_weights(network, 0)
    path = tmp_path / "m.safetensors"
    save_model(Model(network.eval(), Card(recipe=recipe, inputs=("intensity",), outputs=output_channels(recipe))), path)
    return path


def parts(path):
    """Return card, without its checksum, and weights of a model file."""
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["biounet"])
        weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    del card["sha256"]
    return card, weights


def put(path, card, weights):
    save_file(weights, path, metadata={"biounet": json.dumps(card)})


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 0, 1, 10])
def test_a_header_of_any_length_F077(saved, length):
    saved.write_bytes(length.to_bytes(8, "little") + saved.read_bytes()[8:])
    refusal(saved)


def test_a_number_that_is_another_in_the_card_or_in_the_weights_F077(saved):
    data = saved.read_bytes()
    changed = data.replace(b'border_sigma\\":5.0', b'border_sigma\\":6.0')
    assert changed != data
    saved.write_bytes(changed)
    assert "its checksum is another" in refusal(saved)
    saved.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "its checksum is another" in refusal(saved)


@pytest.mark.parametrize("change", [{"head.bias": None}, {"head.bias": torch.zeros(99)}, {"head.code": torch.zeros(1)}])
def test_weights_that_are_not_those_of_the_card_are_named_F079(saved, change):
    card, weights = parts(saved)
    weights = {name: value for name, value in (weights | change).items() if value is not None}
    put(saved, card, weights)
    assert f"1 of its weights do not fit its card, such as {next(iter(change))}" in refusal(saved)


@pytest.mark.parametrize(
    "network", [{"widths": [10**6] * 3}, {"widths": [10**18]}, {"widths": [4, 4], "pools": [[2, 2]] * 3}], ids=str
)
def test_a_card_that_asks_for_the_impossible_takes_no_memory_F079(saved, network):
    card, weights = parts(saved)
    card["recipe"]["network"] |= network
    put(saved, card, weights)
    refusal(saved)


def test_a_card_with_a_number_of_more_digits_than_python_reads(saved):
    card, weights = parts(saved)
    save_file(weights, saved, metadata={"biounet": json.dumps(card).replace('"format": 1', f'"format": {"1" * 5000}')})
    assert "its card cannot be read" in refusal(saved)


def test_a_card_with_a_setting_that_this_version_lacks_is_refused_with_its_name(saved):
    card, weights = parts(saved)
    card["recipe"]["augment"]["bend"] = 0.0
    put(saved, card, weights)
    assert "recipe.augment.bend: Extra inputs" in refusal(saved)


def test_a_model_is_known_by_its_file_whatever_settings_came_later(saved):
    card, weights = parts(saved)
    del card["recipe"]["augment"]["invert"]
    put(saved, card, weights)
    model = load_model(saved)
    assert model.card.recipe.augment.invert == 0
    assert model.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_a_model_does_not_change_with_the_file_that_it_came_from(saved):
    model = load_model(saved)
    before = model.network.head.weight.clone()
    with saved.open("r+b") as file:
        file.write(bytes(saved.stat().st_size))
    assert before.any()
    assert torch.equal(model.network.head.weight, before)


def test_ranges_that_do_not_fit_the_network(saved):
    card, weights = parts(saved)
    put(saved, card, {**weights, "range.encoder.0.1": torch.zeros(2, 4)})
    assert "its activation ranges do not fit" in refusal(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(saved, value):
    card, weights = parts(saved)
    for name in [name for name, weight in weights.items() if weight.is_floating_point()]:
        spoilt = weights[name].clone()
        spoilt.view(-1)[-1] = value
        put(saved, card, weights | {name: spoilt})
        assert f"NaN or infinite values, such as {name}" in refusal(saved)


def test_variances_below_zero_are_refused(saved):
    card, weights = parts(saved)
    name = next(name for name in weights if name.endswith("running_var"))
    put(saved, card, weights | {name: -weights[name] - 1})
    assert f"variances below zero, in {name}" in refusal(saved)


@pytest.mark.parametrize("factor", [1e30, -1e30])
def test_what_becomes_infinite_on_the_way_is_an_error_and_no_empty_image(saved, factor):
    card, weights = parts(saved)
    put(saved, card, {n: w * factor if w.ndim == 4 else w for n, w in weights.items()})
    image = np.random.default_rng(0).random((1, 32, 32)).astype(np.float32)
    with pytest.raises(ModelError, match="not finite"):
        model_predictor(load_model(saved), "cpu")(image)
