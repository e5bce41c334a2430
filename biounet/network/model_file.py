"""A model is a network and a card; together they are one safetensors file, with the card in its metadata.

The card carries everything that is needed to use the network and to judge whether it fits an image: nothing that makes
a result lies beside the file, and reading the file runs no code.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import AliasChoices, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from biounet.core import LabelSettings, MachineError, ModelError, Recipe, Settings, Unit
from biounet.files import atomic_path
from biounet.network.activation_ranges import ActivationRanges, channels_observed
from biounet.network.unet import UNet

_KEY = "biounet"
_SUM = '{"sha256":"'  # with which the text of a card begins in a file
_RANGE = "range."  # begins the names of what is no weight
_SHOWN = 3  # names of weights that a message lists
FORMAT = 1
HEADS = {"instances": ("foreground", "contour", "distance")}


class Card(Settings):
    """What a model is and what it was made of.

    Attributes
    ----------
    format
        Version of the file's layout.
    recipe
        The recipe that it was trained with; its ``label`` section holds the thresholds tuned after training.
    inputs, outputs
        Names of the channels of the image and of the network's output.
    object_size_px
        Median diameter of a training object, of a circle or ball of the same size, in pixels of the working grid.
    pixel_size_um
        Median pixel size of the training images in µm, None where they were not calibrated.
    orientation
        ``"RAS"``: volumes are brought to it (see `biounet.core`). ``"as stored"``: no training image said how
        it is oriented. None in models of earlier versions, which learned from voxels in the order of their files: RAS
        is assumed of them, with a remark where a volume is stored otherwise.
    surroundings_removed
        Whether the surroundings of the body were removed from all training images, such as skull-stripped brains.
    target_unit
        Unit of the lengths in the recipe's targets, ``"px"`` or ``"um"``.
    training_ranges
        Ranges over the training images of `image_statistics`, of the median diameter of the objects in an image
        in pixels of the working grid, and of the share of them at its border, from `training_ranges`; of
        built-in models also of the share of objects found that are ``unsure``.
    textures
        Of the training images, from `biounet.preprocessing.distinct_textures`.
    data
        How much was learned from: images, objects, labelled voxels and the share of voxels that were labelled; and how
        many images were held out, on which thresholds were tuned.
    fingerprint
        SHA-256 over the names and contents of the training files.
    validation
        Figures on the validation voxels after tuning.
    history
        One mapping per epoch.
    versions
        Of biounet, torch and Python.
    notes
        Remarks for the user.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # a figure that could not be measured is none

    format: int = FORMAT
    recipe: Recipe
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    object_size_px: float | None = None
    pixel_size_um: float | None = None
    orientation: Literal["RAS", "as stored"] | None = None
    surroundings_removed: bool = Field(
        default=False, validation_alias=AliasChoices("surroundings_removed", "body_alone")
    )
    target_unit: str = Field(default="px", validation_alias=AliasChoices("target_unit", "lengths"))
    training_ranges: dict[str, tuple[float, float]] = Field(
        default_factory=dict, validation_alias=AliasChoices("training_ranges", "seen")
    )
    textures: tuple[tuple[float, float, float], ...] = ()
    data: dict[str, float] = Field(default_factory=dict)
    fingerprint: str = ""
    validation: dict[str, float] = Field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> Unit | None:
        """Unit of the voxel size that the model works at; None where it takes voxels as they are."""
        return self.recipe.data.voxel_unit

    @property
    def label(self) -> LabelSettings:
        """How probabilities of this model become objects."""
        return self.recipe.label


@dataclass(frozen=True)
class Model:
    """A trained network and its card.

    Attributes
    ----------
    network, card
        What was learned, and what it is.
    ranges
        Of the features, for prediction in integers (see `biounet.network`); empty in models of earlier versions.
    file
        Hash of the file that all this was read from.
    """

    network: UNet
    card: Card
    ranges: ActivationRanges = field(default_factory=dict)
    file: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hash of the file that this model was read from, or of the one that `save_model` writes for it.

        These differ when the file is older than a setting of the recipe, which its card does not have.
        """
        return self.file or hashlib.sha256(_as_bytes(self)).hexdigest()


def output_channels(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the network's output channels."""
    if recipe.data.kind == "instances":
        return HEADS["instances"]
    return tuple(recipe.data.overlapping) or ("background", *recipe.data.foreground)


def inherit_settings(recipe: Recipe, start: Model) -> Recipe:
    """Take from the model that training starts from what its weights depend on: network, normalisation, voxel size.

    Raises
    ------
    ModelError
        If the model predicts something else than the recipe asks for, or takes another number of channels.
    """
    known = start.card.recipe
    if output_channels(recipe) != output_channels(known) or recipe.data.dims != known.data.dims:
        raise ModelError(
            f"the model predicts {', '.join(start.card.outputs)}, "
            f"the recipe asks for {', '.join(output_channels(recipe))}",
            hint="train without --from",
        )
    mine, theirs = recipe.data.channels, known.data.channels
    if len(mine) != len(theirs):
        ours = f"the recipe has {len(mine)} ({', '.join(mine)})"
        raise ModelError(
            f"the model takes {len(theirs)} channels ({', '.join(theirs)}), {ours}", hint="train without --from"
        )
    data = recipe.data.model_copy(update={"voxel_size": known.data.voxel_size, "voxel_unit": known.data.voxel_unit})
    return recipe.model_copy(update={"network": known.network, "normalise": known.normalise, "data": data})


def build_network(recipe: Recipe) -> UNet:
    """Return the network that a recipe describes, with weights not yet initialised by a seed."""
    return UNet(recipe.data.dims, len(recipe.data.channels), len(output_channels(recipe)), recipe.network)


def save_model(model: Model, path: str | Path) -> None:
    """Write a model as one file, whole or not at all.

    Raises
    ------
    MachineError
        If the folder cannot be written to.
    """
    with atomic_path(Path(path)) as part:
        part.write_bytes(_as_bytes(model))


def _as_bytes(model: Model) -> bytes:
    ranges = {f"{_RANGE}{name}": value for name, value in model.ranges.items()}
    there = {**model.network.state_dict(), **ranges}
    tensors = {name: value.detach().cpu().contiguous() for name, value in there.items()}
    card = model.card.model_dump_json()
    # In the card, as a second entry would stand before or behind the first by chance.
    return to_safetensors(tensors, metadata={_KEY: f'{_SUM}{_digest(card, tensors)}",{card[1:]}'})


def _digest(card: str, tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of all that a model is; safetensors itself sees no bit that has changed."""
    digest = hashlib.sha256(card.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(text: str) -> tuple[str, str]:
    """Return the card, and the digest that stands before it; files of earlier versions have none."""
    if not text.startswith(_SUM):
        return text, ""
    end = len(_SUM) + hashlib.sha256().digest_size * 2
    return "{" + text[end + len('",') :], text[len(_SUM) : end]


def load_model(path: str | Path) -> Model:
    """Read a model.

    Raises
    ------
    MachineError
        If there is no such file.
    ModelError
        If it is damaged, was not written by biounet, or comes from a later version.
    """
    text, digest = _split(_read_metadata(path))
    card = _parse_card(text, path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"not a readable model file: {_first_line(error)}", path=path) from error
    if digest and digest != _digest(text, tensors):
        raise ModelError("damaged: its checksum is another", path=path, hint="copy it again from where it came from")
    weights = {name: value for name, value in tensors.items() if not name.startswith(_RANGE)}
    ranges = {name.removeprefix(_RANGE): value.clone() for name, value in tensors.items() if name.startswith(_RANGE)}
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_numbers(weights, path)
    network = _network(card, weights, path)
    _check_ranges(ranges, network, path)
    return Model(network, card, ranges, digest)


def _check_numbers(weights: dict[str, torch.Tensor], path: str | Path) -> None:
    """Refuse weights with which every probability would be no number, and an image look empty."""
    wrong = sorted(name for name, value in weights.items() if not bool(value.isfinite().all()))
    if wrong:
        shown = ", ".join(wrong[:_SHOWN])
        cause = f"damaged: {len(wrong)} of its weights hold NaN or infinite values, such as {shown}"
        raise ModelError(cause, path=path, hint="train again, or take an earlier copy")
    below = sorted(name for name, value in weights.items() if name.endswith("running_var") and bool((value < 0).any()))
    if below:
        raise ModelError(f"damaged: variances below zero, in {', '.join(below[:_SHOWN])}", path=path)


def _check_ranges(ranges: ActivationRanges, network: UNet, path: str | Path) -> None:
    expected = {name: (2, channels) for name, channels in channels_observed(network).items()}
    there = {name: tuple(value.shape) for name, value in ranges.items()}
    if ranges and (there != expected or not all(bool(value.isfinite().all()) for value in ranges.values())):
        raise ModelError("the ranges of its features do not fit its network", path=path)


def _network(card: Card, tensors: dict[str, torch.Tensor], path: str | Path) -> UNet:
    """Return the network of a card with the given weights, which are copied: they may be a view of the file."""
    try:
        with torch.device("meta"):  # takes no memory, whatever a card asks for
            network = build_network(card.recipe)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ModelError(f"its card describes no network: {_first_line(error)}", path=path) from error
    expected = {name: value.shape for name, value in network.state_dict().items()}
    there = {name: value.shape for name, value in tensors.items()}
    wrong = sorted(name for name in expected.keys() | there.keys() if expected.get(name) != there.get(name))
    if wrong:
        shown = ", ".join(wrong[:_SHOWN])
        raise ModelError(f"{len(wrong)} of its weights do not fit its card, such as {shown}", path=path)
    network.to_empty(device="cpu").load_state_dict(tensors)
    return network.eval()


def read_card(path: str | Path) -> Card:
    """Read only the card of a model; errors as in `load_model`."""
    return _parse_card(_split(_read_metadata(path))[0], path)


def _read_metadata(path: str | Path) -> str:
    if not Path(path).is_file():
        raise MachineError("no such model file", path=path, hint="'biounet models' lists the built-in ones")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"not a readable model file: {_first_line(error)}", path=path) from error
    if _KEY not in metadata:
        raise ModelError("a safetensors file, but not a biounet model", path=path)
    return str(metadata[_KEY])


def _parse_card(text: str, path: str | Path) -> Card:
    try:
        raw = json.loads(text)
        version = raw.get("format")
        if version != FORMAT:
            raise ModelError(f"model format {version}, this version reads {FORMAT}", path=path, hint="update biounet")
        return _with_unit(Card.model_validate(raw))
    except ModelError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = "written by another version of biounet?" if first["type"] == "extra_forbidden" else None
        raise ModelError(f"its card cannot be read: {where}: {first['msg']}", path=path, hint=hint) from error
    except (ValueError, AttributeError, RecursionError) as error:  # of the JSON, or of the settings in it
        raise ModelError(f"its card cannot be read: {_first_line(error)}", path=path) from error


def _with_unit(card: Card) -> Card:
    """Add the unit of the voxel size to a card of an earlier version, which has the pixel size in µm or none in mm."""
    data = card.recipe.data
    if not data.voxel_size or data.voxel_unit is not None:
        return card
    unit = "mm" if card.pixel_size_um is None else "um"
    return card.model_copy(update={"recipe": card.recipe.replace("data", voxel_unit=unit)})


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    """Return a copy of the weights and running statistics, by name."""
    return {name: value.detach().clone() for name, value in model.network.state_dict().items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
