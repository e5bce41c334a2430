"""What a package of bioimage.io says of a model: the content of ``rdf.yaml``, and the page for its readers.

The specification is https://bioimage-io.github.io/spec-bioimage-io, of which version 0.5.10 has custom post-processing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from biounet.core import NormaliseSettings, builtin_models
from biounet.model_export.graph import OPSET
from biounet.model_export.onnx_file import INPUT, describe_model, output_names
from biounet.network import Card, Model, licence_of, use_sections

FORMAT_VERSION = "0.5.10"
OBJECTS = "objects"  # output of labels, which the decoder makes of the others
DECODER, DECODER_CLASS = "biounet_decoder.py", "LabelObjects"
WEIGHTS, README = "weights.onnx", "README.md"
EPSILON = 1e-6  # of ``scale_range``, which it adds to the span of intensities

_UNITS = {"um": "micrometer", "mm": "millimeter"}
_HALO = 32  # pixels, where the size of objects is not known
_DESCRIPTIONS = {
    "foreground": "probability that a pixel is part of an object",
    "contour": "probability that a pixel is on the rim of an object",
    "distance": "distance to the edge of the object, as a share of the largest in this object",
    "probabilities": "probability of each class or region",
    OBJECTS: "labels of objects by the post-processing; without it, the foreground",
}
_CITATIONS = {
    2: ("Ronneberger et al., U-Net, MICCAI 2015", "10.1007/978-3-319-24574-4_28"),
    3: ("Çiçek et al., 3D U-Net, MICCAI 2016", "10.1007/978-3-319-46723-8_49"),
}
_TRAINING_CITATIONS = {
    "nuclei": (
        (
            "Caicedo et al., Nucleus segmentation across imaging experiments, Nat Methods 2019",
            "10.1038/s41592-019-0612-7",
        ),
        ("Ljosa et al., Annotated high-throughput microscopy image sets, Nat Methods 2012", "10.1038/nmeth.2083"),
    )
}


def is_scaled_outside(card: Card) -> bool:
    """Whether intensities are scaled by pre-processing of the package: then parts of an image share its percentiles."""
    return card.recipe.normalise.method == "percentiles"


def finds_objects(card: Card) -> bool:
    """Whether the package has a decoder."""
    return card.recipe.data.kind == "instances"


def halo(model: Model) -> tuple[int, ...]:
    """Return the width of the edge, along each axis, that is cut off where an image is worked on in parts.

    Two objects wide or more. All that the network can see is several times as wide and seldom needed; images would
    have to be that large.
    """
    network, size = model.network, model.card.object_size_px
    width = _HALO if size is None else 2 * size
    sizes = zip(network.receptive_radius, network.stride, strict=True)
    return tuple(math.ceil(min(width, radius) / stride) * stride for radius, stride in sizes)


def smallest_size(model: Model) -> tuple[int, ...]:
    """Return the smallest image that fits the package, along each axis."""
    edges = halo(model) if is_scaled_outside(model.card) else (0,) * model.network.dims
    return tuple(2 * edge + stride for edge, stride in zip(edges, model.network.stride, strict=True))


def describe_package(model: Model, name: str, hashes: dict[str, str]) -> dict[str, Any]:
    """Return the content of ``rdf.yaml``; `name` is that of a built-in model or its file, `hashes` are SHA-256."""
    card, dims = model.card, model.network.dims
    author = "biounet" if name in builtin_models() else "not stated"
    described = {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": _title(card),
        "description": card.recipe.purpose or f"Segmentation by a U-Net, trained with the recipe {card.recipe.name}.",
        "authors": [{"name": author.replace("/", " ")} for author in card.recipe.authors] or [{"name": author}],
        "cite": [{"text": text, "doi": doi} for text, doi in (_CITATIONS[dims], *_TRAINING_CITATIONS.get(name, ()))],
        "documentation": _file(README, hashes),
        "tags": ["biounet", "unet", "segmentation", f"{dims}d"],
        "inputs": [_input(model, hashes)],
        "outputs": [_output(model, output, hashes) for output in package_outputs(card)],
        "weights": {"onnx": {**_file(WEIGHTS, hashes), "opset_version": OPSET}},
        "config": {"biounet": describe_model(model)},
    }
    if licence := _spdx(card, name):
        described["license"] = licence
    return described


def package_outputs(card: Card) -> tuple[str, ...]:
    """Return the names of the outputs, in the order of the graph."""
    return (*output_names(card), *((OBJECTS,) if finds_objects(card) else ()))


def tensor_file(name: str) -> str:
    """Return the file of the test tensor of an input or output."""
    return f"test_{name}.npy"


def _title(card: Card) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_+() -]', ' ', card.recipe.name)} (biounet)"


def _file(source: str, hashes: dict[str, str]) -> dict[str, str]:
    return {"source": source, "sha256": hashes[source]}


def _spdx(card: Card, name: str) -> str:
    """Return the identifier of the licence; empty where it is not known or is none of the list of SPDX."""
    from bioimageio.spec.model.v0_5 import LicenseId

    first = licence_of(card, name).replace(",", " ").split(" ")[0]
    try:
        return str(LicenseId(first))
    except ValueError:
        return ""


def _input(model: Model, hashes: dict[str, str]) -> dict[str, Any]:
    card = model.card
    described = {
        "id": INPUT,
        "description": "intensities as the file has them",
        "axes": [_batch(model), {"type": "channel", "channel_names": [*card.inputs]}, *_input_axes(model)],
        "test_tensor": _file(tensor_file(INPUT), hashes),
        "data": {"type": "float32"},
    }
    if is_scaled_outside(card):
        kwargs = _scaling(card.recipe.normalise, model.network.dims)
        described["preprocessing"] = [{"id": "scale_range", "kwargs": kwargs}]
    return described


def _scaling(normalise: NormaliseSettings, dims: int) -> dict[str, Any]:
    joint = [*([] if normalise.per_channel else ["channel"]), *"zyx"[-dims:]]
    return {"axes": joint, "min_percentile": normalise.low, "max_percentile": normalise.high, "eps": EPSILON}


def _output(model: Model, name: str, hashes: dict[str, str]) -> dict[str, Any]:
    card = model.card
    channels = [*card.outputs] if name not in (*card.outputs, OBJECTS) else [name]
    described = {
        "id": name,
        "description": _DESCRIPTIONS.get(name, name),
        "axes": [_batch(model), {"type": "channel", "channel_names": channels}, *_output_axes(model)],
        "test_tensor": _file(tensor_file(name), hashes),
        "data": {"type": "int32"} if name == OBJECTS else {"type": "float32", "range": [0.0, 1.0]},
    }
    if name == OBJECTS:
        custom = {"id": "custom", "callable": DECODER_CLASS, **_file(DECODER, hashes), "kwargs": decoder_settings(card)}
        described["postprocessing"] = [custom]
    return described


def decoder_settings(card: Card) -> dict[str, Any]:
    """Return the settings of the decoder: as tuned in the training; the smallest object is in pixels of the network."""
    settings = card.label.model_dump(exclude={"min_size_unit"})
    if card.label.min_size_unit == "um":
        voxel = math.prod(_steps(card) or (math.inf,))
        settings["min_size"] = card.label.min_size / voxel
    return settings


def _batch(model: Model) -> dict[str, Any]:
    return {"type": "batch"} if model.network.dims == 2 else {"type": "batch", "size": 1}


def _input_axes(model: Model) -> Iterator[dict[str, Any]]:
    for axis, least, stride in zip(_axes(model), smallest_size(model), model.network.stride, strict=True):
        size = {"min": least, "step": stride}
        yield {**axis, "size": size, "concatenable": is_scaled_outside(model.card)}


def _output_axes(model: Model) -> Iterator[dict[str, Any]]:
    for axis, edge in zip(_axes(model), halo(model), strict=True):
        size = {"tensor_id": INPUT, "axis_id": axis["id"]}
        yield {**axis, "size": size} | ({"halo": edge} if is_scaled_outside(model.card) else {})


def _axes(model: Model) -> list[dict[str, Any]]:
    """Return the axes, with the voxel size at which the network works where it has one."""
    dims, steps = model.network.dims, _steps(model.card)
    unit = model.card.unit or ("um" if model.card.recipe.data.pixel_size_um is not None else None)
    axes: list[dict[str, Any]] = [{"type": "space", "id": name} for name in "zyx"[-dims:]]
    if steps and unit is not None:
        axes = [{**axis, "scale": step, "unit": _UNITS[unit]} for axis, step in zip(axes, steps, strict=True)]
    return axes


def _steps(card: Card) -> tuple[float, ...]:
    data = card.recipe.data
    if data.voxel_size:
        return tuple(data.voxel_size)
    return () if data.pixel_size_um is None else (data.pixel_size_um,) * data.dims


def readme(model: Model, name: str) -> str:
    """Return the page about a package, in Markdown; its chapter on validation is one that bioimage.io looks for."""
    sections = use_sections(model.card, name)
    sections["Validation"] = sections.pop("Scores")
    chapters = {_title(model.card): [model.card.recipe.purpose], "How it works": [*_workings(model)], **sections}
    return "\n".join(f"# {title}\n\n{_markdown(lines)}\n" for title, lines in chapters.items())


def _workings(model: Model) -> Iterator[str]:
    card, normalise = model.card, model.card.recipe.normalise
    if is_scaled_outside(card):
        edges = " x ".join(map(str, halo(model)))
        yield (
            f"Pre-processing scales intensities by percentiles {normalise.low:g} and {normalise.high:g} of the whole "
            f"image. An image may be worked on in parts with a halo of {edges} pixels, at least two objects wide; "
            "on whole images the maps are those of biounet in float32. What biounet also does is left out: it replaces "
            "hot pixels, and leaves areas that were never acquired out of the percentiles."
        )
    else:
        yield "The graph normalises intensities by the whole image: do not cut it into parts."
    maps = ", ".join(f"`{name}` ({_DESCRIPTIONS.get(name, name)})" for name in output_names(card))
    yield f"Outputs: {maps}."
    if finds_objects(card):
        yield (
            f"Post-processing `custom`, the file `{DECODER}`, makes labels of the maps in `{OBJECTS}` and needs NumPy "
            "only. Programs that run no such code can use the maps: an object is where the foreground is at least "
            f"{card.label.foreground:g}, and the contour is between objects that touch."
        )


def _markdown(lines: Sequence[str]) -> str:
    """Return lines as Markdown: each is a paragraph, and figures, which are indented, are a block."""
    text = ""
    for line in lines:
        is_figure = line.startswith("    ")
        text += f"{line}\n" if is_figure else f"\n{line}\n\n"
    return text.replace("\n\n\n", "\n\n").strip("\n")
