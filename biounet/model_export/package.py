"""A model as a package of bioimage.io: the graph, its description, test tensors and a decoder in one zip file."""

from __future__ import annotations

import gc
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import ModelError, NormaliseSettings, builtin_models, require_extra
from biounet.files import hash_file
from biounet.model_export.decoder import LabelObjects
from biounet.model_export.formats import EXTRA
from biounet.model_export.onnx_file import INPUT, build_onnx
from biounet.model_export.package_description import (
    DECODER,
    EPSILON,
    OBJECTS,
    README,
    WEIGHTS,
    decoder_settings,
    describe_package,
    finds_objects,
    is_scaled_outside,
    package_outputs,
    readme,
    smallest_size,
    tensor_file,
)
from biounet.model_export.parity import Maps, Parity, compare_with, open_session, synthetic_image
from biounet.network import Card, Model

_DESCRIPTION = "rdf.yaml"
_TEST_SHAPE = {2: (256, 256), 3: (16, 64, 64)}  # of the test tensor, or as large as the model needs
_TEST_SEED = 2
_DATE = (1980, 1, 1, 0, 0, 0)  # of all files, so that equal models give equal bytes


def write_package(model: Model, path: Path) -> None:
    """Write a model as a package of bioimage.io, which is valid for `bioimageio.spec`.

    Raises
    ------
    SettingsError
        If `bioimageio.spec` is not installed.
    ModelError
        If the package is not valid.
    """
    require_extra(EXTRA, "bioimageio.spec", "bioimageio")
    name = _builtin_name(model)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _save_graph(model, root / WEIGHTS)
        (root / README).write_text(readme(model, name), encoding="utf-8")
        if finds_objects(model.card):
            (root / DECODER).write_bytes(Path(__file__).with_name("decoder.py").read_bytes())
        for tensor, values in example_tensors(model, root / WEIGHTS).items():
            np.save(root / tensor_file(tensor), values)
        hashes = {file.name: hash_file(file) for file in root.iterdir()}
        described = describe_package(model, name, hashes)
        _validate(described, root)
        _save_description(described, root / _DESCRIPTION)
        _pack([root / _DESCRIPTION, *(root / file for file in sorted(hashes))], path)


def compare_package(path: Path, model: Model) -> Parity:
    """Run the graph of a package behind its pre-processing, and the network that it was made from."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as package:
        weights = Path(folder, WEIGHTS)
        weights.write_bytes(package.read(WEIGHTS))
        return compare_with(package_runner(model.card, weights), model)


def example_tensors(model: Model, weights: Path) -> dict[str, NDArray[Any]]:
    """Return an image and what the package gives for it, with batch and channel in front, by the names of tensors."""
    shapes = zip(_TEST_SHAPE[model.network.dims], smallest_size(model), model.network.stride, strict=True)
    shape = tuple(-(-max(usual, least) // stride) * stride for usual, least, stride in shapes)
    image = synthetic_image(model, _TEST_SEED, shape).astype(np.float32)
    maps = package_runner(model.card, weights)(image)
    outputs = package_outputs(model.card)
    if not finds_objects(model.card):
        return {INPUT: image[None], outputs[0]: maps[None]}
    tensors = {name: one[None, None] for name, one in zip(outputs, maps, strict=False)}
    labels = LabelObjects(**decoder_settings(model.card))(*tensors.values())
    return {INPUT: image[None], **tensors, OBJECTS: labels}


def package_runner(card: Card, weights: Path) -> Callable[[NDArray[Any]], Maps]:
    """Return a function of images ``(c, [z,] y, x)`` that gives the maps of a package ``(k, [z,] y, x)``."""
    session, outputs = open_session(weights), [name for name in package_outputs(card) if name != OBJECTS]

    def run(image: NDArray[Any]) -> Maps:
        scaled = _scale_range(image, card.recipe.normalise) if is_scaled_outside(card) else image
        maps: Maps = np.concatenate(session.run(outputs, {INPUT: scaled[None].astype(np.float32)}), axis=1)[0]
        return maps

    return run


def _scale_range(image: NDArray[Any], normalise: NormaliseSettings) -> NDArray[np.float32]:
    """Apply the pre-processing of that name, as bioimage.io defines it."""
    axes = tuple(range(1 if normalise.per_channel else 0, image.ndim))
    low, high = np.percentile(image, (normalise.low, normalise.high), axis=axes, keepdims=True)
    scaled: NDArray[np.float32] = ((image - low) / (high - low + EPSILON)).astype(np.float32)
    return scaled


def _save_graph(model: Model, path: Path) -> None:
    import onnx

    proto = build_onnx(model, normalise=not is_scaled_outside(model.card))
    if finds_objects(model.card):
        first = proto.graph.output[0]
        proto.graph.node.append(onnx.helper.make_node("Identity", [first.name], [OBJECTS]))
        proto.graph.output.append(onnx.helper.make_value_info(OBJECTS, first.type))
    onnx.save_model(proto, str(path))


def _builtin_name(model: Model) -> str:
    """Return the name of a built-in model, or how the file of another one is called."""
    builtin = {hash_file(path): name for name, path in builtin_models().items()}
    return builtin.get(model.sha256, f"{model.card.recipe.name}.safetensors")


def _pack(files: list[Path], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for file in files:
            entry = zipfile.ZipInfo(file.name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, file.read_bytes())


def _save_description(described: dict[str, Any], path: Path) -> None:
    from bioimageio.spec import save_bioimageio_yaml_only

    save_bioimageio_yaml_only(described, path)


def _validate(described: dict[str, Any], root: Path) -> None:
    """Raise `ModelError` unless a package is valid, hashes and test tensors included; nothing is downloaded."""
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description

    context = ValidationContext(root=root, perform_io_checks=True, log_warnings=False, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves files open until they are collected
        read = build_description(described, context=context)
        gc.collect()
    if isinstance(read, InvalidDescr):
        found = [f"{'.'.join(map(str, error.loc))}: {error.msg}" for error in read.validation_summary.errors]
        raise ModelError(f"bioimage.io does not accept the package: {'; '.join(found)}", hint="please report it")
