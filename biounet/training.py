"""Training: annotated images in, a model out. The loop reads from top to bottom."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import biounet
from biounet.checkpoint import State, begin, keep, restore
from biounet.dataset import Case, Patches, Steps, fit_patch
from biounet.errors import InputError, Stopped, TrainingError
from biounet.loss import recipe_loss
from biounet.machine import cores_given
from biounet.model import Card, Model, continued, new_network, outputs_of
from biounet.orientation import orientation_stated
from biounet.predict import has_fast_bfloat16, pick_device
from biounet.quality import Looks, looks_of, ranges_of
from biounet.recipe import Recipe
from biounet.tune import Figures, observe_cases, tune, validate

_TIMED = (5, 30)  # steps between which the speed is measured that a budget in minutes is turned into steps with
_DEFAULT_MINUTES = 10.0
SPLIT_BY_SHAPE = "learned from strokes: objects that touch are split by the shape of the foreground alone"
_GENTLY = 1 / 3  # of the learning rate, from a model: larger steps forget what it knows
_CLIP = 5.0  # largest norm of the gradient


@dataclass(frozen=True)
class Progress:
    """What is known at the end of a step.

    Attributes
    ----------
    step, steps
        Steps done and planned; `steps` is 0 as long as nothing is planned.
    seconds, left
        Time spent, and an estimate of the time left.
    loss
        Mean over the epoch so far.
    figures
        Of the last validation.
    """

    step: int
    steps: int
    seconds: float
    left: float
    loss: float
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Where and how a training runs; nothing here changes what is learned.

    Attributes
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:n``.
    workers
        Processes that make patches; None: none on a CPU, whose cores are busy, else up to eight.
    checkpoint
        File that the state is written to after each epoch, and read from when `resume` is true.
    resume
        Continue from `checkpoint` if it exists.
    report
        Called after each step.
    stop
        When it is set, the state is written to `checkpoint` after the present step, and `Stopped` is raised.
    """

    device: str = "auto"
    workers: int | None = None
    checkpoint: Path | None = None
    resume: bool = False
    report: Callable[[Progress], None] = lambda progress: None
    stop: Event | None = None


def train(
    cases: Sequence[Case],
    validation: Sequence[Case],
    recipe: Recipe,
    run: Run | None = None,
    start: Model | None = None,
) -> Model:
    """Train a model.

    Parameters
    ----------
    cases
        Annotated images that patches are drawn from.
    validation
        Annotated images that thresholds are tuned on; empty leaves them as the recipe has them.
    recipe
        What to train. A budget of neither minutes nor epochs is 10 minutes.
    run
        Device, checkpoint and progress.
    start
        A model to continue from instead of random weights: its network and normalisation replace the recipe's, and the
        learning rate is a third of the recipe's.

    Returns
    -------
    The model with the running average of the weights, thresholds tuned, and a card that says what it was made of.

    Raises
    ------
    TrainingError
        If the loss is not finite; it names the images of the batch.
    InputError
        If there is nothing to learn from.
    Stopped
        If `run.stop` was set; the same call goes on from the checkpoint if `run.resume` is true.
    """
    run = run or Run()
    if not cases:
        raise InputError("no annotated image to train on")
    device = pick_device(run.device)
    if start is not None:
        recipe = continued(recipe, start).replace("train", rate=recipe.train.rate * _GENTLY)
    recipe = fit_patch(recipe, cases, new_network(recipe).stride)
    state = begin(recipe, start, device)
    if run.resume and run.checkpoint is not None and run.checkpoint.exists():
        restore(state, run.checkpoint, recipe)
    _learn(state, cases, validation, recipe, run)
    state.average.eval()
    ranges = observe_cases(state.average.cpu(), cases)
    label, figures = tune(state.average, validation, recipe, run.device, ranges)
    card = _card(recipe.replace("label", **label.model_dump()), cases, state, figures)
    return Model(state.average, card, ranges)


def _learn(state: State, cases: Sequence[Case], validation: Sequence[Case], recipe: Recipe, run: Run) -> None:
    """Take all steps that are left."""
    device = next(state.network.parameters()).device
    settings = recipe.train
    clock = _Clock(state.seconds)
    if settings.minutes is None and settings.epochs is not None:
        state.steps = settings.epochs * settings.steps_per_epoch
    for image, target, numbers in _batches(cases, recipe, state.step, run, device):
        for group in state.optimizer.param_groups:
            group["lr"] = settings.rate * _schedule(state.step, state.steps)
        loss = _take_step(state, image.to(device), target.to(device), recipe)
        if not math.isfinite(loss):
            names = ", ".join(sorted({Path(cases[int(n)].name).name for n in numbers}))
            raise TrainingError(
                f"the loss is {loss} at step {state.step}, in a batch of {names}", hint="lower train.rate"
            )
        state.step += 1
        done_in_epoch = (state.step - 1) % settings.steps_per_epoch + 1
        state.loss += (loss - state.loss) / done_in_epoch
        state.seconds = clock.seconds(state.step)
        if not state.steps and state.step == _TIMED[1]:
            state.steps = _plan(clock, recipe)
        last, mean = state.step == state.steps, state.loss
        if done_in_epoch == settings.steps_per_epoch or last:
            _end_epoch(state, validation, recipe, run)
        figures = state.history[-1] if state.history else {}
        run.report(Progress(state.step, state.steps, state.seconds, clock.left(state), mean, figures))
        if last:
            return
        if run.stop is not None and run.stop.is_set():
            _stop(state, recipe, run)


def _take_step(state: State, image: Tensor, target: Tensor, recipe: Recipe) -> float:
    layout = torch.channels_last if recipe.data.dims == 2 else torch.channels_last_3d
    with torch.autocast(image.device.type, torch.bfloat16, enabled=has_fast_bfloat16(image.device)):
        logits = state.network(image.to(memory_format=layout))
    loss = recipe_loss(logits, target, recipe)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), _CLIP)
    state.optimizer.step()
    _follow(state.average, state.network, min(recipe.train.average, (1 + state.step) / (10 + state.step)))
    return loss.item()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running average of weights, and of the statistics of batch norm that go with them, to the network."""
    mine, theirs = average.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
    real = [name for name, value in theirs.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in real], [theirs[name] for name in real], 1 - decay)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero; as long as the number of steps is unknown, the warm-up goes on."""
    warm = max(1, min(100, steps // 10)) if steps else 100
    return min(1.0, (step + 1) / warm) * (0.5 * (1 + math.cos(math.pi * step / steps)) if steps else 1.0)


def _end_epoch(state: State, validation: Sequence[Case], recipe: Recipe, run: Run) -> None:
    state.average.eval()
    figures = validate(state.average, validation, recipe, run.device)
    epoch = math.ceil(state.step / recipe.train.steps_per_epoch)
    state.history.append({"epoch": epoch, "step": state.step, "loss": state.loss, **figures})
    state.loss = 0.0
    if run.checkpoint is not None:
        keep(state, run.checkpoint, recipe)


def _stop(state: State, recipe: Recipe, run: Run) -> NoReturn:
    if run.checkpoint is not None and state.steps:  # until the steps are planned there is nothing to lose
        keep(state, run.checkpoint, recipe)
    raise Stopped(f"{state.step} of {state.steps or 'unknown'} steps done")


class _Clock:
    """Seconds of training, over interruptions."""

    def __init__(self, before: float) -> None:
        self.before = before
        self.began = time.perf_counter()
        self.marks: dict[int, float] = {}

    def seconds(self, step: int) -> float:
        now = self.before + time.perf_counter() - self.began
        if step in _TIMED:
            self.marks[step] = now
        return now

    def per_step(self) -> float:
        return (self.marks[_TIMED[1]] - self.marks[_TIMED[0]]) / (_TIMED[1] - _TIMED[0])

    def left(self, state: State) -> float:
        return state.seconds / state.step * (state.steps - state.step) if state.steps else math.inf


def _plan(clock: _Clock, recipe: Recipe) -> int:
    """Turn minutes into steps, once, so that an interrupted run can end with the weights of an unbroken one."""
    seconds = 60 * (recipe.train.minutes or _DEFAULT_MINUTES)
    reserve = 0.06 * seconds  # validations between the epochs
    return max(_TIMED[1] + 1, int((seconds - reserve) / clock.per_step()))


def _batches(
    cases: Sequence[Case], recipe: Recipe, first: int, run: Run, device: torch.device
) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    workers = run.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else min(8, cores_given())
    steps = Steps(first, 2**40, recipe.train.batch)
    return DataLoader(
        Patches(cases, recipe), batch_sampler=steps, num_workers=workers, pin_memory=device.type == "cuda"
    )


def _card(recipe: Recipe, cases: Sequence[Case], state: State, figures: Figures) -> Card:
    voxels = sum(case.labels.size for case in cases)
    labelled = sum(case.labelled for case in cases)
    sizes = _object_sizes(cases) if recipe.data.kind == "instances" else np.empty(0)
    spacings = [np.mean(case.grid.spacing[-2:]) for case in cases if case.grid.spacing and case.grid.unit == "um"]
    calibrated = len(spacings) == len(cases)
    return Card(
        recipe=recipe,
        inputs=recipe.data.channels,
        outputs=outputs_of(recipe),
        object_size_px=float(np.median(sizes)) if len(sizes) else None,
        pixel_size_um=float(np.median(spacings)) if calibrated else None,
        orientation=orientation_stated(case.grid for case in cases),
        body_alone=all(case.body_alone for case in cases),
        lengths=recipe.targets.unit,
        seen=seen_of(cases, recipe),
        data={"images": len(cases), "objects": len(sizes), "voxels": labelled, "share": labelled / voxels},
        validation=figures,
        history=tuple(state.history),
        notes=(SPLIT_BY_SHAPE,) if recipe.data.kind == "scribbles" else (),
        versions={"biounet": biounet.__version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def seen_of(cases: Iterable[Case], recipe: Recipe) -> dict[str, tuple[float, float]]:
    """Return the ranges of how images of cases look and how large their objects are, for the card."""
    looks: list[Looks] = []
    for case in cases:
        one = looks_of(case.image.numpy())
        if recipe.data.kind == "instances" and (case.labels > 0).any():
            one["diameter"] = float(np.median(_object_sizes([case])))
        looks.append(one)
    return ranges_of(looks)


def _object_sizes(cases: Sequence[Case]) -> np.ndarray:
    """Diameters of circles, or balls, of the size of each object, in voxels."""
    counts = np.concatenate([np.bincount(case.labels[case.labels > 0]) for case in cases])
    counts = counts[counts > 0].astype(float)
    dims = cases[0].labels.ndim
    return 2 * np.sqrt(counts / np.pi) if dims == 2 else 2 * np.cbrt(counts * 3 / (4 * np.pi))
