"""A model: a network and its card, in one safetensors file, which is read without running code from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from biounet.core import LabelSettings, MachineError, ModelError, Recipe, Settings, Unit
from biounet.files import atomic_path
from biounet.network.activation_ranges import ActivationRanges, calibrated_channels
from biounet.network.unet import UNet, current_name

_FORMAT = 1
_KEY = "biounet"
_DIGEST_PREFIX = '{"sha256":"'  # of the metadata: the digest comes first, then the card
_RANGE_PREFIX = "range."  # of the names of activation ranges; all other tensors are weights
_EXPORTED = (".onnx", ".zip")  # suffixes of what models are exported to
_MAX_LISTED = 3  # names of weights in a message
_DAMAGE = (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError)  # from reading any bytes


class Card(Settings):
    """What is needed to use a network, and to judge whether it fits an image.

    Attributes
    ----------
    recipe
        That of the training; its ``label`` section has the thresholds tuned afterwards.
    object_size_px
        Median diameter of a training object, of a circle or ball of the same size, in pixels of the working grid.
    pixel_size_um
        Median of the training images, None where they were not calibrated.
    orientation
        ``"RAS"``: volumes are reoriented to it (see `biounet.core`). ``"as stored"``: no training image stated its
        orientation. None in models of earlier versions, which learned from voxels in the order of their files: RAS is
        assumed, with a remark where a volume is stored otherwise.
    surroundings_removed
        Whether all training images were skull-stripped, or reduced to the body in another way.
    target_unit
        Of lengths in the recipe's targets, ``"px"`` or ``"um"``.
    training_ranges
        From `biounet.preprocessing.training_ranges`, over the training images: of their statistics, of the median
        diameter of the objects in an image in pixels of the working grid, and of the share of objects at its border;
        in built-in models also of the share of detected objects that are ``unsure``.
    textures
        From `biounet.preprocessing.distinct_textures`.
    data
        Amount of training data: images, objects, labelled voxels and the share of voxels that were labelled; and the
        number of held-out images, on which thresholds were tuned.
    fingerprint
        SHA-256 over the names and contents of the training files.
    """

    former_names: ClassVar[Mapping[str, str]] = {
        "seen": "training_ranges",
        "lengths": "target_unit",
        "body_alone": "surroundings_removed",
    }
    model_config = ConfigDict(allow_inf_nan=True)  # a score that could not be measured is NaN

    format: int = _FORMAT
    recipe: Recipe
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    object_size_px: float | None = None
    pixel_size_um: float | None = None
    orientation: Literal["RAS", "as stored"] | None = None
    surroundings_removed: bool = False
    target_unit: str = "px"
    training_ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
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
    """A trained network and its card."""

    network: UNet
    card: Card
    activation_ranges: ActivationRanges = field(default_factory=dict)  # for 8-bit integers; empty in old models
    file_sha256: str = ""  # of the file that the model was read from

    @cached_property
    def sha256(self) -> str:
        """Hash of the file that this model was read from, or of the one that `save_model` would write.

        These differ when the file is older than a setting of the recipe, which its card does not have.
        """
        return self.file_sha256 or hashlib.sha256(_to_bytes(self)).hexdigest()


def output_channels(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the network's output channels."""
    if recipe.data.kind == "instances":
        return "foreground", "contour", "distance"
    return tuple(recipe.data.overlapping) or ("background", *recipe.data.foreground)


def inherit_settings(recipe: Recipe, start: Model) -> Recipe:
    """Return a recipe with the settings that the weights of a model depend on: network, normalisation, voxel size.

    A model with other outputs than the recipe, or another number of input channels, raises `ModelError`.
    """
    trained = start.card.recipe
    outputs, ours, theirs = output_channels(recipe), recipe.data.channels, trained.data.channels
    difference = ""
    if outputs != output_channels(trained) or recipe.data.dims != trained.data.dims:
        difference = f"predicts {', '.join(start.card.outputs)}, the recipe asks for {', '.join(outputs)}"
    elif len(ours) != len(theirs):
        takes, has = f"{len(theirs)} channels ({', '.join(theirs)})", f"{len(ours)} ({', '.join(ours)})"
        difference = f"takes {takes}, the recipe has {has}"
    if difference:
        raise ModelError(f"the model {difference}", hint="train without --from")
    data = recipe.data.model_copy(update={"voxel_size": trained.data.voxel_size, "voxel_unit": trained.data.voxel_unit})
    return recipe.model_copy(update={"network": trained.network, "normalise": trained.normalise, "data": data})


def build_network(recipe: Recipe) -> UNet:
    """Return the network that a recipe describes, with random weights."""
    return UNet(recipe.data.dims, len(recipe.data.channels), len(output_channels(recipe)), recipe.network)


def save_model(model: Model, path: str | Path) -> None:
    """Write a model as one file, whole or not at all; `MachineError` where its folder cannot be written to."""
    with atomic_path(Path(path)) as part:
        part.write_bytes(_to_bytes(model))


def load_model(path: str | Path) -> Model:
    """Read a model.

    Raises
    ------
    MachineError
        If there is no such file.
    ModelError
        If it is damaged, was not written by biounet, or comes from a later version.
    """
    text, digest = _read_metadata(path)
    card = _parse_card(text, path)
    with _model_errors("not a readable model file", path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if digest and digest != _digest(text, tensors):
        raise ModelError("damaged: its checksum is another", path=path, hint="copy it again from where it came from")
    with Path(path).open("rb") as file:
        file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    weights = {current_name(name): value for name, value in tensors.items() if not name.startswith(_RANGE_PREFIX)}
    ranges = {
        current_name(name.removeprefix(_RANGE_PREFIX)): value.clone()
        for name, value in tensors.items()
        if name.startswith(_RANGE_PREFIX)
    }
    _check_numbers(weights, path)
    # On the meta device a network takes no memory, whatever the card asks for.
    with _model_errors("its card describes no network", path), torch.device("meta"):
        network = build_network(card.recipe)
    _check_shapes(network, weights, ranges, path)
    network.to_empty(device="cpu").load_state_dict(weights)  # a copy: tensors may be a view of the file
    return Model(network.eval(), card, ranges, file_sha256)


def read_card(path: str | Path) -> Card:
    """Read only the card of a model; errors as of `load_model`."""
    return _parse_card(_read_metadata(path)[0], path)


def _to_bytes(model: Model) -> bytes:
    ranges = {f"{_RANGE_PREFIX}{name}": value for name, value in model.activation_ranges.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in (model.network.state_dict() | ranges).items()}
    card = model.card.model_dump_json()
    # Within the card's text, since safetensors writes several entries of metadata in random order.
    return to_safetensors(tensors, metadata={_KEY: f'{_DIGEST_PREFIX}{_digest(card, tensors)}",{card[1:]}'})


def _digest(card: str, tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of card and tensors; safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(card.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_numbers(weights: dict[str, Tensor], path: str | Path) -> None:
    """Check that weights are finite and variances positive; else every probability would be NaN."""
    wrong = sorted(name for name, value in weights.items() if not bool(value.isfinite().all()))
    if wrong:
        listed = ", ".join(wrong[:_MAX_LISTED])
        cause = f"damaged: {len(wrong)} of its weights hold NaN or infinite values, such as {listed}"
        raise ModelError(cause, path=path, hint="train again, or take an earlier copy")
    below = sorted(name for name, value in weights.items() if name.endswith("running_var") and bool((value < 0).any()))
    if below:
        raise ModelError(f"damaged: variances below zero, in {', '.join(below[:_MAX_LISTED])}", path=path)


def _check_shapes(network: UNet, weights: dict[str, Tensor], ranges: dict[str, Tensor], path: str | Path) -> None:
    expected = {name: value.shape for name, value in network.state_dict().items()}
    stored = {name: value.shape for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
    if wrong:
        listed = ", ".join(wrong[:_MAX_LISTED])
        raise ModelError(f"{len(wrong)} of its weights do not fit its card, such as {listed}", path=path)
    sizes = {name: (2, channels) for name, channels in calibrated_channels(network).items()}
    found = {name: tuple(value.shape) for name, value in ranges.items()}
    if ranges and (found != sizes or not all(bool(value.isfinite().all()) for value in ranges.values())):
        raise ModelError("its activation ranges do not fit its network", path=path)


def _read_metadata(path: str | Path) -> tuple[str, str]:
    """Return the card's text, and the digest before it, which files of earlier versions do not have."""
    if not Path(path).is_file():
        raise MachineError("no such model file", path=path, hint="'biounet models' lists the built-in ones")
    if Path(path).suffix.lower() in _EXPORTED:
        raise ModelError("no model of biounet", path=path, hint="take the .safetensors file that it was exported from")
    with _model_errors("not a readable model file", path), safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise ModelError("a safetensors file, but not a biounet model", path=path)
    if not text.startswith(_DIGEST_PREFIX):
        return text, ""
    end = len(_DIGEST_PREFIX) + hashlib.sha256().digest_size * 2
    return "{" + text[end + len('",') :], text[len(_DIGEST_PREFIX) : end]


def _parse_card(text: str, path: str | Path) -> Card:
    with _model_errors("its card cannot be read", path):
        raw = json.loads(text)
        version = raw.get("format")
        if version != _FORMAT:
            raise ModelError(f"model format {version}, this version reads {_FORMAT}", path=path, hint="update biounet")
        return _add_voxel_unit(Card.model_validate(raw))


def _add_voxel_unit(card: Card) -> Card:
    """Add the unit of the voxel size to a card of an earlier version, which has the pixel size in µm or none in mm."""
    data = card.recipe.data
    if not data.voxel_size or data.voxel_unit is not None:
        return card
    unit = "mm" if card.pixel_size_um is None else "um"
    return card.model_copy(update={"recipe": card.recipe.replace("data", voxel_unit=unit)})


@contextmanager
def _model_errors(cause: str, path: str | Path) -> Iterator[None]:
    """Raise what a damaged or foreign file causes as a `ModelError`."""
    try:
        yield
    except ModelError:
        raise
    except _DAMAGE as error:
        found, hint = str(error).strip().split("\n")[0], None
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            hint = "written by another version of biounet?" if first["type"] == "extra_forbidden" else None
        raise ModelError(f"{cause}: {found}", path=path, hint=hint) from error
