"""The state of a training: initialised, saved, and loaded after an interruption."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch

from biounet.core import ModelError, Recipe
from biounet.files import atomic_path
from biounet.network import Model, UNet, build_network, initialise_weights

_FORMAT = 2
_MODULES = ("network", "average", "optimizer")
_PROGRESS = ("step", "steps", "share", "seconds", "loss", "history")


@dataclass
class TrainingState:
    """Everything that an uninterrupted training would have at this step."""

    network: UNet
    average: UNet  # exponential moving average of the weights
    optimizer: torch.optim.AdamW
    step: int = 0
    steps: int = 0  # in all: of a budget in minutes an estimate, 0 before there is one
    share: float = 0.0  # of the learning rate schedule that is done; 1 after the last step
    seconds: float = 0.0
    loss: float = 0.0  # mean over the epoch so far
    history: list[dict[str, float]] = field(default_factory=list)  # one mapping for each epoch


def initial_state(recipe: Recipe, start: Model | None, device: torch.device) -> TrainingState:
    """Return the state before the first step: random weights from the recipe's seed, or those of a model."""
    network = build_network(recipe)
    initialise_weights(network, recipe.train.seed)
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    network = network.to(device)
    network = network.to(memory_format=memory_layout(recipe)).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    settings = recipe.train
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return TrainingState(network, average, optimizer)


def memory_layout(recipe: Recipe) -> torch.memory_format:
    """Return the layout in which convolutions are fastest."""
    return torch.channels_last if recipe.data.dims == 2 else torch.channels_last_3d


def save_checkpoint(state: TrainingState, path: Path, recipe: Recipe) -> None:
    """Write the state, whole or not at all."""
    checkpoint = {
        "format": _FORMAT,
        "recipe": recipe.model_dump_json(),
        **{name: getattr(state, name).state_dict() for name in _MODULES},
        "progress": {name: getattr(state, name) for name in _PROGRESS},
    }
    with atomic_path(path) as temporary:
        torch.save(checkpoint, temporary)


def load_checkpoint(state: TrainingState, path: Path, recipe: Recipe, content: bytes | None = None) -> None:
    """Set a state to that of a checkpoint, which this version has to have written with the same recipe.

    `content` is that of the file, where another process has read it.
    """
    try:
        source = path if content is None else io.BytesIO(content)
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
        made_with, version = checkpoint["recipe"], checkpoint.get("format")
        progress = {name: checkpoint["progress"][name] for name in _PROGRESS} if version == _FORMAT else {}
    # What is no checkpoint raises whatever its bytes are taken for: UnpicklingError, KeyError, RuntimeError, …
    except Exception as error:
        raise ModelError("not a readable checkpoint", path=path, hint="remove it, or train without --resume") from error
    if version != _FORMAT:
        raise ModelError("written by another version of biounet", path=path, hint="train without --resume")
    if made_with != recipe.model_dump_json():
        raise ModelError("this checkpoint was made with other settings", path=path, hint="train without --resume")
    for name in _MODULES:
        getattr(state, name).load_state_dict(checkpoint[name])
    for name, value in progress.items():
        setattr(state, name, value)
