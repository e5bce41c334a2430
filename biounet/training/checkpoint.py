"""The state of a training: begun, written to disk, and found again after an interruption."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from biounet.core import ModelError, Recipe
from biounet.files import atomic_path
from biounet.network import Model, UNet, build_network, initialise_weights

_PROGRESS = ("step", "steps", "seconds", "loss")
_SHARE = "share"  # not in checkpoints of earlier versions


@dataclass
class State:
    """Everything that an unbroken run would have at this step.

    Attributes
    ----------
    network, average
        The network that is trained, and the one of its running averages.
    optimizer
        With its moments.
    step, steps
        Steps done, and in all: of a budget in minutes an estimate, 0 before there is one.
    share
        Of the schedule that is done; 1 after the last step.
    seconds
        Time spent.
    loss
        Mean over the epoch so far.
    history
        One mapping for each epoch.
    """

    network: UNet
    average: UNet
    optimizer: torch.optim.AdamW
    step: int = 0
    steps: int = 0
    share: float = 0.0
    seconds: float = 0.0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def begin(recipe: Recipe, start: Model | None, device: torch.device) -> State:
    """Return the state before the first step: random weights from the recipe's seed, or those of a model."""
    network = build_network(recipe)
    initialise_weights(network, recipe.train.seed)
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    layout = torch.channels_last if recipe.data.dims == 2 else torch.channels_last_3d
    network = network.to(device)
    network = network.to(memory_format=layout).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    settings = recipe.train
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return State(network, average, optimizer)


def keep(state: State, path: Path, recipe: Recipe) -> None:
    """Write the state as a checkpoint, whole or not at all."""
    kept = {
        "recipe": recipe.model_dump_json(),
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "progress": {name: getattr(state, name) for name in (*_PROGRESS, _SHARE)},
        "history": state.history,
    }
    with atomic_path(path) as part:
        torch.save(kept, part)


def restore(state: State, path: Path, recipe: Recipe) -> None:
    """Bring a state to that of a checkpoint.

    Raises
    ------
    ModelError
        If the file is damaged, or was made with another recipe.
    """
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        made_with = Recipe.model_validate_json(kept["recipe"])
        progress = {name: kept["progress"][name] for name in _PROGRESS}
        done = progress["step"] / progress["steps"] if progress["steps"] else 0.0
        progress[_SHARE] = kept["progress"].get(_SHARE, min(done, 1.0))
    # What is no checkpoint raises whatever its bytes are taken for: UnpicklingError, KeyError, RuntimeError, …
    except Exception as error:
        raise ModelError("not a readable checkpoint", path=path, hint="remove it, or train without --resume") from error
    if made_with != recipe:
        raise ModelError("this checkpoint was made with other settings", path=path, hint="train without --resume")
    state.network.load_state_dict(kept["network"])
    state.average.load_state_dict(kept["average"])
    state.optimizer.load_state_dict(kept["optimizer"])
    for name, value in progress.items():
        setattr(state, name, value)
    state.history = kept["history"]
