"""A package of bioimage.io is valid, offline, and its test tensors are what others compute with it."""

import gc
import importlib.util
import socket
import sys
import warnings
import zipfile

import numpy as np
import onnxruntime
import pytest

from biounet.api import load
from biounet.core import ModelError, SettingsError
from biounet.core.recipe import parse_recipe
from biounet.model_export import export_model, package
from biounet.network import Card, Model, build_network, initialise_weights, output_channels

MODELS = {
    "objects": ({"dims": 2}, {"widths": [4, 6]}, {}),
    "channels": ({"dims": 2, "channels": ["a", "b"]}, {"widths": [4, 6]}, {"per_channel": False}),
    "pixel size": ({"dims": 2, "pixel_size_um": 0.5}, {"widths": [4, 6]}, {}),
    "scribbles": ({"dims": 2, "kind": "scribbles"}, {"widths": [4, 6]}, {}),
    "classes": ({"dims": 3, "kind": "classes", "classes": ["core", "rim"]}, {"widths": [4, 6]}, {"method": "zscore"}),
}


def make_model(name="objects", **fields):
    data, network, normalise = MODELS[name]
    recipe = parse_recipe({"name": "tried", "data": data, "network": network, "normalise": normalise, **fields})
    made = build_network(recipe)
    initialise_weights(made, 0)
    return Model(made.eval(), Card(recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe)))


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def open_package(path, folder):
    """Return the description of a package, as a consumer reads it, and unpack its files into a folder."""
    from bioimageio.spec import InvalidDescr, ValidationContext, load_description

    with zipfile.ZipFile(path) as files:
        files.extractall(folder)
    with warnings.catch_warnings(), ValidationContext(perform_io_checks=True, log_warnings=False, progressbar=False):
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves files open until they are collected
        described = load_description(folder / "rdf.yaml")
        gc.collect()
    assert not isinstance(described, InvalidDescr), described.validation_summary.errors
    assert described.validation_summary.status == "valid-format"
    return described


def run_package(described, folder):
    """Return the outputs for the test input, computed from what the description says alone."""
    (image,) = described.inputs
    values = np.load(folder / image.test_tensor.source.path)
    ids = [axis.id for axis in image.axes]
    for step in image.preprocessing:
        if step.id == "scale_range":
            axes = tuple(ids.index(name) for name in step.kwargs.axes)
            ranks = (step.kwargs.min_percentile, step.kwargs.max_percentile)
            low, high = np.percentile(values, ranks, axis=axes, keepdims=True)
            values = (values - low) / (high - low + step.kwargs.eps)
    session = onnxruntime.InferenceSession(folder / described.weights.onnx.source.path)
    assert [one.name for one in session.get_outputs()] == [one.id for one in described.outputs]
    found = session.run(None, {session.get_inputs()[0].name: values.astype(np.float32)})
    tensors = dict(zip([one.id for one in described.outputs], found, strict=True))
    for output in described.outputs:
        for step in output.postprocessing:
            if step.id == "custom":
                spec = importlib.util.spec_from_file_location("decoder", folder / step.source.path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                tensors[output.id] = getattr(module, step.callable)(**step.kwargs)(*found)
    return tensors


def check(path, folder):
    described = open_package(path, folder)
    for name, values in run_package(described, folder).items():
        stated = np.load(folder / f"test_{name}.npy")
        assert values.shape == stated.shape
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, stated, atol=1e-4)
        else:
            np.testing.assert_array_equal(values, stated)
    return described


@pytest.mark.parametrize(("name", "dims", "objects"), [("nuclei", 2, 30), ("nuclei3d", 3, 3)])
def test_built_in_models_are_packages_that_give_what_they_state(biounet, tmp_path, name, dims, objects):
    code, out, err = biounet("export", name, "--format", "bioimageio", "-o", "m.zip")
    assert (code, err) == (0, "")
    assert out.startswith("m.zip: probabilities differ by ")
    described = check(tmp_path / "m.zip", tmp_path / "files")
    assert described.license == "Apache-2.0"
    assert [one.id for one in described.outputs] == ["foreground", "contour", "distance", "objects"]
    space = [axis for axis in described.inputs[0].axes if axis.type == "space"]
    assert [axis.id for axis in space] == [*"zyx"[-dims:]]
    assert np.load(tmp_path / "files" / "test_objects.npy").max() > objects
    page = (tmp_path / "files" / "README.md").read_text(encoding="utf-8")
    scores = load(name).card.validation
    assert "# Validation" in page
    assert all(f"{value:.4g}" in page for value in scores.values())


@pytest.mark.parametrize("name", MODELS)
def test_packages_of_all_kinds_of_models_are_valid(tmp_path, name):
    model = make_model(name)
    described = check(export_model(model, "bioimageio", tmp_path / "m.zip").path, tmp_path / "files")
    space = [axis for axis in described.inputs[0].axes if axis.type == "space"]
    halos = [getattr(axis, "halo", 0) for axis in described.outputs[0].axes[2:]]
    stride = model.network.stride
    if name == "classes":
        assert not any(axis.concatenable for axis in space)
        assert (halos, [axis.size.min for axis in space]) == ([0, 0, 0], [*stride])
        assert not any(step.id == "scale_range" for step in described.inputs[0].preprocessing)
    else:
        assert all(axis.concatenable for axis in space)
        assert all(axis.size.min > 2 * halo > 0 for axis, halo in zip(space, halos, strict=True))
    assert all(axis.size.step == step for axis, step in zip(space, stride, strict=True))
    assert {axis.scale for axis in space} == ({0.5} if name == "pixel size" else {1.0})
    assert any(one.id == "objects" for one in described.outputs) == (model.card.recipe.data.kind == "instances")


def test_licence_and_authors_are_those_of_the_recipe(tmp_path):
    model = make_model(licence="CC-BY-4.0", authors=["Ada"])
    described = open_package(export_model(model, "bioimageio", tmp_path / "m.zip").path, tmp_path / "m")
    assert (described.license, [one.name for one in described.authors]) == ("CC-BY-4.0", ["Ada"])
    model = make_model(licence="ask us")
    described = open_package(export_model(model, "bioimageio", tmp_path / "n.zip").path, tmp_path / "n")
    assert described.license is None


def test_equal_models_give_equal_packages(tmp_path):
    paths = [export_model(make_model(), "bioimageio", tmp_path / name).path for name in ("a.zip", "b.zip")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_package_that_is_not_valid_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "describe_package", lambda *_: {"type": "model", "format_version": "0.5.10"})
    with pytest.raises(ModelError, match=r"bioimage\.io does not accept the package: .*inputs"):
        export_model(make_model(), "bioimageio", tmp_path / "m.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_extra_that_has_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(
        SettingsError, match=r"bioimageio needs bioimageio\.spec, which is not installed .*biounet\[export\]"
    ):
        export_model(make_model(), "bioimageio", tmp_path / "m.zip")
