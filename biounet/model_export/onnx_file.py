"""A model as an ONNX file: intensities as they are stored go in, probabilities come out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biounet.core import ModelError, SettingsError, __version__, builtin_models
from biounet.model_export.float_graph import FloatArithmetic
from biounet.model_export.graph import IR_VERSION, OPSET, Graph
from biounet.model_export.int8_graph import Int8Arithmetic
from biounet.model_export.intensities import add_cropping, add_normalisation, add_padding
from biounet.model_export.network_graph import Arithmetic, add_network
from biounet.model_export.planes import Planes
from biounet.network import Card, Model, fold_batch_norms, licence_of, quantize_network

INPUT = "image"
PROBABILITIES = "probabilities"  # the output of models of classes


def write_onnx(model: Model, path: Path) -> None:
    """Write a model as ONNX in float32."""
    _save(build_onnx(model), path)


def write_onnx_int8(model: Model, path: Path) -> None:
    """Write a model as ONNX in 8-bit integers; `ModelError` without the ranges of its activations."""
    if not model.activation_ranges:
        cause = f"the model '{model.card.recipe.name}' is of an earlier version and has no ranges for 8-bit integers"
        raise ModelError(cause, hint="train it again, or export it as onnx")
    _save(build_onnx(model, int8=True), path)


def _save(proto: Any, path: Path) -> None:  # noqa: ANN401
    import onnx

    onnx.save_model(proto, str(path))


def build_onnx(model: Model, *, int8: bool = False, normalise: bool = True) -> Any:  # noqa: ANN401 - a ModelProto, and onnx has no types
    """Return a model as ONNX, in float32 or in 8-bit integers.

    The input ``image`` is float32 ``(n, channels, y, x)`` or ``(1, channels, z, y, x)`` of any size, with intensities
    as the file has them; each image is normalised on its own. Models of objects have the outputs ``foreground``,
    ``contour`` and ``distance``, each with one channel, and models of classes one, ``probabilities``, with a channel
    for each of `Card.outputs`. Unless `normalise`, the input has the scale of the training already.
    """
    card, network, graph = model.card, fold_batch_norms(model.network), Graph()
    planes = Planes(graph, network.dims)
    parts: Arithmetic = FloatArithmetic(planes, network)
    if int8:
        quantized = quantize_network(network, model.activation_ranges)
        parts = Int8Arithmetic(planes, quantized, network.shuffle_factors)
    scaled = add_normalisation(graph, INPUT, card.recipe.normalise, network.dims) if normalise else INPUT
    logits = add_network(parts, add_padding(graph, scaled, network.stride))
    return _assemble(model, graph, _add_outputs(planes, logits, model))


def output_names(card: Card) -> tuple[str, ...]:
    """Return the names of the outputs of the graph."""
    return card.outputs if card.recipe.data.kind == "instances" else (PROBABILITIES,)


def _add_outputs(planes: Planes, logits: str, model: Model) -> list[tuple[str, int]]:
    """Add what makes probabilities of shuffled logits; return the outputs and their numbers of channels."""
    card, graph = model.card, planes.graph
    dims, factors, names = planes.dims, model.network.shuffle_factors, output_names(card)
    if card.recipe.data.exclusive:
        maps = graph.add("Softmax", planes.shuffle(logits, factors), axis=1)
        add_cropping(graph, maps, INPUT, dims, names[0])
        return [(names[0], len(card.outputs))]
    probabilities = graph.add("Sigmoid", logits)
    channels = len(card.outputs) // len(names)
    parts: Sequence[str] = (probabilities,)
    if len(names) > 1:
        sizes = graph.integers(*[channels * math.prod(factors)] * len(names))
        parts = graph.add_many("Split", (probabilities, sizes), ("",) * len(names), axis=1)
    for part, name in zip(parts, names, strict=True):
        add_cropping(graph, planes.shuffle(part, factors), INPUT, dims, name)
    return [(name, channels) for name in names]


def _assemble(model: Model, graph: Graph, outputs: Sequence[tuple[str, int]]) -> Any:  # noqa: ANN401
    from onnx import TensorProto, checker, helper, numpy_helper

    axes = [*"zyx"[3 - model.network.dims :]]
    used = {value for node in graph.nodes for value in node.input}
    batch = "n" if model.network.dims == 2 else 1

    def describe(name: str, channels: int) -> Any:  # noqa: ANN401
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, *axes])

    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.card.recipe.name,
            [describe(INPUT, len(model.card.inputs))],
            [describe(name, channels) for name, channels in outputs],
            [numpy_helper.from_array(values, name) for name, values in graph.constants.items() if name in used],
            doc_string=model.card.recipe.purpose,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="biounet",
        producer_version=__version__,
    )
    helper.set_model_props(proto, describe_model(model))
    try:
        checker.check_model(proto, full_check=True)
    except ValueError as error:
        raise SettingsError(f"the model is too large for one ONNX file: {error}") from error
    return proto


def _builtin_name(model: Model) -> str:
    """Return the name of a built-in model; empty of another one, whatever it is called."""
    path = builtin_models().get(model.card.recipe.name)
    if path is None or model.file_sha256 != hashlib.sha256(path.read_bytes()).hexdigest():
        return ""
    return path.stem


def describe_model(model: Model) -> dict[str, str]:
    """Return what is said about a model in its ONNX file: text, or JSON where it is more than a word or number."""
    card, network = model.card, model.network
    data, recipe = card.recipe.data, card.recipe
    facts: dict[str, object] = {
        "biounet_version": __version__,
        "model_name": recipe.name,
        "model_sha256": model.sha256,
        "purpose": recipe.purpose,
        "licence": licence_of(card, _builtin_name(model)) or None,
        "channels": card.inputs,
        "outputs": card.outputs,
        "output_of_classes": "softmax" if data.exclusive else "sigmoid",
        "normalisation": {"inside_the_graph": True, **recipe.normalise.model_dump()},
        "label_settings": card.label.model_dump(),
        "stride": network.stride,
        "receptive_radius": network.receptive_radius,
        "object_size_px": card.object_size_px,
        "pixel_size_um": card.pixel_size_um,
        "voxel_size": data.voxel_size or None,
        "voxel_unit": data.voxel_unit,
        "orientation": card.orientation,
        "class_values": data.label_values if data.kind == "classes" else None,
        "validation": card.validation,
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
        if value is not None
    }
