"""An exported model is opened by onnxruntime, and computes there what the network does."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from biounet.api import load
from biounet.core import PROBABILITY_MAX, ModelError, NormaliseSettings, SettingsError
from biounet.core.recipe import parse_recipe
from biounet.model_export import export_model, parity
from biounet.model_export.graph import Graph
from biounet.model_export.hot_pixels import add_hot_pixel_removal
from biounet.model_export.intensities import add_normalisation, add_padding
from biounet.model_export.onnx_file import build_onnx, describe_model
from biounet.network import (
    Card,
    Model,
    build_network,
    calibrate_activations,
    fold_batch_norms,
    has_fast_int8,
    initialise_weights,
    model_predictor,
    output_channels,
    save_model,
)
from biounet.preprocessing import scale_intensities
from biounet.segmentation import pad_to_stride, predict_image
from support.hot_pixels import remove_hot_pixels

THICK_SLICES = {"fold": [1, 2, 2], "pools": [[1, 2, 2], [2, 2, 2]], "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]}
CLASSES = {"kind": "classes", "classes": ["background", "inner", "outer"]}
REGIONS = {**CLASSES, "regions": {"whole": [1, 2], "inner": [1]}}
MODELS = {
    "objects": ({"dims": 2}, {"widths": [8, 12, 16]}, {}),
    "one level": ({"dims": 2}, {"widths": [8], "half_resolution": False}, {}),
    "channels": ({"dims": 2, "channels": ["a", "b"]}, {"widths": [8, 12], "convolutions": 1}, {"per_channel": False}),
    "scribbles": (
        {"dims": 2, "kind": "scribbles", "classes": ["background", "cell"]},
        {"widths": [8, 12]},
        {"low": 0.0, "high": 100.0},
    ),
    "volume": ({"dims": 3}, {"widths": [8, 12, 16], **THICK_SLICES}, {}),
    "classes": ({"dims": 3, **CLASSES, "channels": ["t1", "t2"]}, {"widths": [8, 12]}, {"method": "zscore"}),
    "regions": ({"dims": 3, **REGIONS}, {"widths": [8, 12]}, {"method": "zscore", "per_channel": False}),
}
SHAPES = {2: [(33, 50), (16, 16), (3, 5)], 3: [(5, 19, 26), (4, 8, 8)]}


def make_model(name="objects", seed=0):
    """Return a model with random weights, whose batch norms have running statistics, as after a training."""
    data, network, normalise = MODELS[name]
    recipe = parse_recipe({"name": "tried", "data": data, "network": network, "normalise": normalise})
    made = build_network(recipe)
    initialise_weights(made, seed)
    made.train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(10):
            made(torch.rand(1, len(recipe.data.channels), *(32,) * recipe.data.dims, generator=generator))
    return Model(made.eval(), Card(recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe)))


def with_ranges(model):
    """Return a model with the ranges of its activations, as after a training."""
    count = len(SHAPES[model.network.dims])
    images = [
        image for n, shape in enumerate(SHAPES[model.network.dims]) for image in random_images(model, shape, n + 1)
    ]
    scaled = [scale_intensities(image, model.card.recipe.normalise).image for image in images[:count]]
    tensors = [torch.from_numpy(pad_to_stride(image, model.network.stride)) for image in scaled]
    return replace(model, activation_ranges=calibrate_activations(fold_batch_norms(model.network), tensors))


def run(proto, **inputs):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def own_maps(model, image):
    """Return the probabilities of an image as the network computes them, step by step."""
    scaled = pad_to_stride(scale_intensities(image, model.card.recipe.normalise).image, model.network.stride)
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(scaled)[None])[0].numpy()
    inside = (slice(None), *(slice(size) for size in image.shape[1:]))
    if model.card.recipe.data.exclusive:
        powers = np.exp(logits - logits.max(0))
        return (powers / powers.sum(0))[inside]
    return (1 / (1 + np.exp(-logits)))[inside]


def random_images(model, shape, count=1):
    """Return noise with outliers, which are hot pixels."""
    rng = np.random.default_rng(count)
    return rng.gamma(2, 30, (count, len(model.card.inputs), *shape)).round().astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_computes_what_the_network_does_at_any_size(name):
    model = make_model(name)
    proto = build_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    for shape in SHAPES[model.network.dims]:
        images = random_images(model, shape, 2 if model.network.dims == 2 else 1)
        found = np.concatenate(run(proto, image=images), axis=1)
        for maps, image in zip(found, images, strict=True):
            np.testing.assert_allclose(maps, own_maps(model, image), atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_of_integers_computes_what_the_network_does(name):
    model = with_ranges(make_model(name))
    proto = build_onnx(model, int8=True)
    weights = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("weight")]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8}
    images = random_images(model, SHAPES[model.network.dims][0])
    found, own = np.concatenate(run(proto, image=images), axis=1)[0], own_maps(model, images[0])
    # With random weights; a wrong scale, zero point or order makes this about 1.
    assert np.abs(found - own).mean() < 0.15 * own.std()


@pytest.mark.skipif(not has_fast_int8(), reason="this CPU does not multiply 8-bit integers natively")
@pytest.mark.parametrize("name", ["nuclei", "nuclei3d"])
def test_the_integers_are_those_of_biounet(name):
    """What is left is the rounding of biases to integers, which moves some activations by 1."""
    model = load(name).model
    image = next(parity.synthetic_images(model))
    own = predict_image(scale_intensities(image, model.card.recipe.normalise).image, model_predictor(model, "cpu"))
    found = np.concatenate(run(build_onnx(model, int8=True), image=image[None].astype(np.float32)), axis=1)[0]
    to_float = np.abs(found - own_maps(model, image)).mean()
    assert np.abs(found - own / PROBABILITY_MAX).mean() < 0.75 * to_float


def test_outputs_are_named_and_typed():
    inputs, outputs = (build_onnx(make_model()).graph.input, build_onnx(make_model()).graph.output)
    assert [one.name for one in inputs] == ["image"]
    assert [one.name for one in outputs] == ["foreground", "contour", "distance"]
    assert [one.name for one in build_onnx(make_model("classes")).graph.output] == ["probabilities"]
    assert [axis.dim_param or axis.dim_value for axis in outputs[0].type.tensor_type.shape.dim] == ["n", 1, "y", "x"]


def test_the_file_says_what_is_needed_to_use_it():
    model = make_model("channels")
    facts = {one.key: one.value for one in build_onnx(model).metadata_props}
    assert facts["model_name"] == "tried"
    assert facts["model_sha256"] == model.sha256
    assert json.loads(facts["channels"]) == ["a", "b"]
    assert json.loads(facts["label_settings"])["foreground"] == model.card.label.foreground
    assert json.loads(facts["stride"]) == list(model.network.stride)


def test_the_licence_is_that_of_the_model_and_not_of_its_name():
    built_in = load("nuclei").model
    assert describe_model(built_in)["licence"].startswith("Apache-2.0")
    assert "licence" not in describe_model(replace(built_in, file_sha256=""))


def graph_function(build, channels=1, dims=2):
    """Return a function of arrays from a function that adds operators to a graph."""
    graph = Graph()
    result = build(graph, "image")
    shape = ["n", channels, *"zyx"[3 - dims :]]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [*graph.nodes, onnx.helper.make_node("Identity", [result], ["result"])],
            "part",
            [onnx.helper.make_tensor_value_info("image", 1, shape)],
            [onnx.helper.make_tensor_value_info("result", 1, None)],
            [onnx.numpy_helper.from_array(values, name) for name, values in graph.constants.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def test_normalisation_is_the_one_of_training_for_noise_of_any_size():
    """Below 8 pixels an image has no areas that were never acquired."""
    normalise = NormaliseSettings(low=2.5, high=96)
    scale = graph_function(lambda graph, image: add_normalisation(graph, image, normalise, 2))

    @given(arrays(np.float32, st.tuples(st.integers(2, 7), st.integers(2, 60)), elements=st.integers(0, 3)))
    @settings(max_examples=25, deadline=None)
    def law(image):
        clean, _ = remove_hot_pixels(image[None])
        low, high = np.percentile(clean, [2.5, 96])
        if high > low or clean.min() == clean.max():
            expected = scale_intensities(image[None], normalise).image
            np.testing.assert_allclose(scale(image[None, None])[0], expected, rtol=1e-5, atol=1e-5)

    law()


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("shape", [(33, 150), (7, 1), (1, 9), (2, 2), (5, 40, 33), (1, 20, 8000)])
def test_hot_pixels_are_replaced_as_in_biounet(shape, per_channel):
    rng = np.random.default_rng(len(shape))
    images = rng.gamma(2, 30, (2, 2, *shape)).round().astype(np.float32)
    images[rng.random(images.shape) < 0.02] = 4000
    images[0, 1] = 7
    dims = len(shape)
    clean = graph_function(lambda graph, image: add_hot_pixel_removal(graph, image, dims, per_channel), 2, dims)
    for found, image in zip(clean(images), images, strict=True):
        groups = image[:, None] if per_channel else image[None]
        expected = np.concatenate([remove_hot_pixels(group)[0] for group in groups])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("box", [slice(None), slice(4, 20)], ids=["body everywhere", "background removed"])
def test_z_scores_are_of_the_body(box):
    volume = np.zeros((2, 24, 24, 24), np.float32)
    volume[:, box, box, box] = np.random.default_rng(0).normal(1000, 5, volume[:, box, box, box].shape)
    normalise = NormaliseSettings(method="zscore")
    scale = graph_function(lambda graph, image: add_normalisation(graph, image, normalise, 3), channels=2, dims=3)
    np.testing.assert_allclose(scale(volume[None])[0], scale_intensities(volume, normalise).image, atol=2e-3)


@pytest.mark.parametrize("shape", [(16, 32), (1, 1), (5, 33), (31, 8)])
def test_padding_is_the_mirror_image(shape):
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    pad = graph_function(lambda graph, value: add_padding(graph, value, (16, 8)))
    np.testing.assert_array_equal(pad(image[None])[0], pad_to_stride(image, (16, 8)))


def test_a_model_is_exported_and_compared_by_a_command(biounet, tmp_path):
    code, out, err = biounet("export", "nuclei", "--format", "onnx", "-o", "cells.onnx")
    assert (code, err) == (0, "")
    assert out.startswith("cells.onnx: probabilities differ by ")
    assert out.endswith(" with biounet\n")
    maps = run(onnx.load(tmp_path / "cells.onnx"), image=np.zeros((1, 1, 40, 50), np.float32))
    assert [part.shape for part in maps] == [(1, 1, 40, 50)] * 3
    code, _, err = biounet("export", "nuclei", "--format", "onnx", "-o", "cells.onnx")
    assert (code, "is there already" in err) == (4, True)
    code, out, _ = biounet("export", "nuclei", "-f", "onnx", "-o", "cells.onnx", "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["largest"] < 1e-3


def test_a_model_is_exported_in_integers_by_its_python_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = load("nuclei").export("onnx-int8")
    assert written.path == Path("nuclei_int8.onnx")
    assert written.path.stat().st_size < 2**21
    assert 0 < written.parity.mean < 0.005
    assert abs(written.parity.objects - written.parity.own_objects) <= 2


def test_a_model_of_an_earlier_version_has_no_integers(biounet, tmp_path):
    save_model(make_model(), tmp_path / "old.safetensors")
    code, _, err = biounet("export", "old.safetensors", "--format", "onnx,onnx-int8", "--quiet")
    assert code == ModelError.exit_code
    assert err.startswith("ERROR the model 'tried' is of an earlier version and has no ranges for 8-bit integers (hint")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.safetensors", "tried.onnx"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nuclei", "-f", "parquet"], "'parquet' is a format of results, and nuclei is a model (hint: of models "),
        (["nuclei", "-f", "onnyx"], "models are not exported as 'onnyx' (hint: of models there are onnx"),
        (["nuclei", "-f", ","], "no format is named (hint: of models there are onnx"),
        ([".", "-f", "onnx"], "'onnx' is a format of models, and . is a folder of results (hint: of results "),
        (
            [".", "-f", "parquet", "-o", "x"],
            ". is a folder of results, whose exports are written into it (hint: --out is for models only",
        ),
        (["nowhere", "-f", "onnx"], "nowhere: neither a folder of results nor a built-in model (hint: see"),
    ],
)
def test_formats_of_models_and_of_results_are_not_confused(biounet, arguments, message):
    code, out, err = biounet("export", *arguments)
    assert code in (2, 5)
    assert out == ""
    assert err.startswith(f"ERROR {message}")
    assert err.count("\n") == 1


def test_a_file_that_computes_something_else_is_not_kept(biounet, tmp_path, monkeypatch):
    save_model(make_model(), tmp_path / "tried.safetensors")
    original = parity.fold_batch_norms

    def changed(network):
        folded = original(network)
        folded.head.bias += 0.1
        return folded

    monkeypatch.setattr(parity, "fold_batch_norms", changed)
    code, _, err = biounet("export", "tried.safetensors", "--format", "onnx")
    assert code == ModelError.exit_code
    assert err.startswith("ERROR the exported model does not compute what the model does: probabilities differ by")
    assert [path.name for path in tmp_path.iterdir()] == ["tried.safetensors"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra_that_has_it(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"onnx needs {package}, which is not installed .*biounet\[export\]"):
        export_model(make_model(), "onnx", tmp_path / "x.onnx")
