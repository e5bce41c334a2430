"""Training: annotated images in, a model out. The loop reads from top to bottom."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from biounet.core import InputError, Recipe, Stopped, TrainingError, __version__, available_cores, stated_orientation
from biounet.network import (
    Card,
    Model,
    build_network,
    has_fast_bfloat16,
    inherit_settings,
    output_channels,
    pick_device,
)
from biounet.preprocessing import distinct_textures, training_ranges
from biounet.training.budget import CALIBRATING, PREDICTING, TUNING, Budget, Clock, factor_at
from biounet.training.checkpoint import State, begin, keep, restore
from biounet.training.dataset import Case, Patches, Steps, fit_patch
from biounet.training.losses import recipe_loss
from biounet.training.start import Rival, remarks_on, score_start
from biounet.training.tuning import Figures, evenly, observe_cases, rehearse, seconds_of_end, tune, validate

SPLIT_BY_SHAPE = "learned from strokes: objects that touch are split by the shape of the foreground alone"
_GENTLY = 1 / 3  # of the learning rate, from a model: larger steps forget what it knows
_CLIP = 5.0  # largest norm of the gradient
_VALIDATING = 0.03  # of an epoch in minutes
_TOO_LARGE = 4  # times as much: a validation is left out
_FEW_STEPS = 30  # from random weights, fewer teach nothing


@dataclass(frozen=True)
class Progress:
    """What is known at the end of a step.

    Attributes
    ----------
    step, steps
        Steps done, and in all: of a budget in minutes an estimate, 0 before there is one.
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
class TrainOptions:
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
    remark
        Called with each sentence that whoever trains should read, such as that the start was kept; the card's notes
        hold them too.
    began
        When the budget in minutes began, by `time.perf_counter`; None for when the call did.
    """

    device: str = "auto"
    workers: int | None = None
    checkpoint: Path | None = None
    resume: bool = False
    report: Callable[[Progress], None] = lambda progress: None
    stop: Event | None = None
    remark: Callable[[str], None] = lambda remark: None
    began: float | None = None


@dataclass(frozen=True)
class _Job:
    """All that a training is made of, but for its state; `held` are validation cases."""

    cases: Sequence[Case]
    held: Sequence[Case]
    recipe: Recipe
    run: TrainOptions
    budget: Budget


def train(
    cases: Sequence[Case],
    validation: Sequence[Case],
    recipe: Recipe,
    run: TrainOptions | None = None,
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
        What to train. A budget of neither minutes nor epochs is 10 minutes. Minutes are wall time with everything
        inside; epochs give the same weights however often they were interrupted.
    run
        Device, checkpoint and progress.
    start
        A model to continue from instead of random weights: its network and normalisation replace the recipe's, and the
        learning rate is a third of the recipe's. It is scored on the validation images with thresholds tuned as well,
        and comes back with a note on its card if training does not beat it.

    Returns
    -------
    The model with the running average of the weights, thresholds tuned, and a card that says what it was made of.

    Raises
    ------
    TrainingError
        If the loss is not finite; it names the images of the batch.
    InputError
        If there is nothing to learn from.
    ModelError
        If the start predicts something else, or takes other channels.
    Stopped
        If `run.stop` was set; the same call goes on from the checkpoint if `run.resume` is true.
    """
    run = replace(run or TrainOptions(), began=(run and run.began) or time.perf_counter())
    if not cases:
        raise InputError("no annotated image to train on")
    remarks = remarks_on(start, recipe, cases, _median_size(cases, recipe)) if start is not None else []
    if start is not None:
        recipe = inherit_settings(recipe, start).replace("train", learning_rate=recipe.train.learning_rate * _GENTLY)
    recipe = fit_patch(recipe, cases, build_network(recipe).stride)
    state = _begin(recipe, start, run)
    job = _Job(cases, validation, recipe, run, Budget(recipe.train, Clock(run.began, state.seconds)))
    job = replace(job, held=_affordable(state, job))
    rival = _score(start, job) if start is not None else None
    _learn(state, job)
    model = _finish(state, job)
    looks = training_statistics([*cases, *validation], recipe)  # those that there was no time to validate on as well
    model = replace(model, card=model.card.model_copy(update=looks))
    return _better(model, rival, remarks + _remarks(state, job, start, len(validation)), run)


def _better(model: Model, rival: Rival | None, remarks: list[str], run: TrainOptions) -> Model:
    """Return the model, or its start where that is as good, with all remarks on its card."""
    for remark in remarks:
        run.remark(remark)
    notes = list(remarks)
    if rival is not None:
        model, note, better = rival.beaten_by(model)
        notes.append(note)
        if not better:
            run.remark(note)
    return replace(model, card=model.card.model_copy(update={"notes": (*model.card.notes, *notes)}))


def _begin(recipe: Recipe, start: Model | None, run: TrainOptions) -> State:
    """Return the state before the first step, or where a training was interrupted."""
    state = begin(recipe, start, pick_device(run.device))
    if run.resume and run.checkpoint is not None and run.checkpoint.exists():
        restore(state, run.checkpoint, recipe)
    return state


def _remarks(state: State, job: _Job, start: Model | None, validation: int) -> list[str]:
    """Say what there was no time for."""
    remarks = []
    if len(job.held) < validation:
        remarks.append(f"validated on {len(job.held)} of {validation} held-out images: there was no time for more")
    if start is None and job.budget.timed and state.step < _FEW_STEPS:
        remarks.append(f"only {state.step} steps in the time given: from random weights a model needs some hundred")
    return remarks


def _score(start: Model, job: _Job) -> Rival:
    """Score the start, and learn from it how long tuning takes."""
    budget, began = job.budget, time.perf_counter()
    rival = score_start(start, job.held, job.recipe, job.run.device, budget.deadline(TUNING))
    calibrating, predicting, _ = seconds_of_end(budget.paces, job.cases, job.held, job.recipe)
    budget.expect(calibrating, predicting, max(0.0, time.perf_counter() - began - predicting))
    return rival


def _affordable(state: State, job: _Job) -> Sequence[Case]:
    """Return the validation cases that there is time for, all of them where the budget is in epochs."""
    budget = job.budget
    if not budget.timed or not job.held:
        return job.held
    budget.paces = rehearse(state.average, job.held, job.recipe, job.run.device)
    held = evenly(job.held, PREDICTING * budget.total / budget.paces.predicting)
    budget.expect(*seconds_of_end(budget.paces, job.cases, held, job.recipe))
    return held


def _learn(state: State, job: _Job) -> None:
    """Take all steps that are left; none where a training was interrupted behind its last one."""
    cases, recipe, run, budget = job.cases, job.recipe, job.run, job.budget
    device = next(state.network.parameters()).device
    budget.start()
    if budget.is_over(state):
        if state.share < 1:  # reading again took the time that was left
            budget.finish(state)
            _end_epoch(state, job, last=True)
        return
    for image, target, numbers in _batches(cases, recipe, state.step, run, device):
        for group in state.optimizer.param_groups:
            group["lr"] = recipe.train.learning_rate * factor_at(state, budget)
        loss = _take_step(state, image.to(device), target.to(device), recipe)
        if not math.isfinite(loss):
            names = ", ".join(sorted({Path(cases[int(n)].name).name for n in numbers}))
            raise TrainingError(
                f"the loss is {loss} at step {state.step}, in a batch of {names}", hint="lower train.learning_rate"
            )
        budget.advance(state)
        since = state.step - (int(state.history[-1]["step"]) if state.history else 0)
        state.loss += (loss - state.loss) / since
        mean, last = state.loss, budget.is_over(state)
        if last:
            budget.finish(state)
        if last or since == recipe.train.steps_per_epoch or _is_half_way(state, budget):
            _end_epoch(state, job, last)
        figures = state.history[-1] if state.history else {}
        run.report(Progress(state.step, state.steps, state.seconds, budget.left(state), mean, figures))
        if last:
            return
        if run.stop is not None and run.stop.is_set():
            _stop(state, job)


def _is_half_way(state: State, budget: Budget) -> bool:
    """Whether half of a training in minutes has gone without a validation: one says how long tuning will take."""
    return budget.timed and not state.history and state.share >= 0.5


def _take_step(state: State, image: Tensor, target: Tensor, recipe: Recipe) -> float:
    layout = torch.channels_last if recipe.data.dims == 2 else torch.channels_last_3d
    with torch.autocast(image.device.type, torch.bfloat16, enabled=has_fast_bfloat16(image.device)):
        logits = state.network(image.to(memory_format=layout))
    loss = recipe_loss(logits, target, recipe)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), _CLIP)
    state.optimizer.step()
    _follow(state.average, state.network, min(recipe.train.ema_decay, (1 + state.step) / (10 + state.step)))
    return loss.item()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running average of weights, and of the statistics of batch norm that go with them, to the network."""
    mine, theirs = average.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
    real = [name for name, value in theirs.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in real], [theirs[name] for name in real], 1 - decay)


def _end_epoch(state: State, job: _Job, last: bool) -> None:
    """Validate and write a checkpoint. The last epoch of a budget in minutes is validated by tuning."""
    state.average.eval()
    figures: Figures = {}
    if not job.budget.timed:
        figures, _ = validate(state.average, job.held, job.recipe, job.run.device)
    elif job.held and not last:
        figures = _validate_briefly(state, job)
    state.history.append({"epoch": len(state.history) + 1, "step": state.step, "loss": state.loss, **figures})
    state.loss = 0.0
    if job.run.checkpoint is not None:
        keep(state, job.run.checkpoint, job.recipe)


def _validate_briefly(state: State, job: _Job) -> Figures:
    """Validate on so many cases as are a small part of the time, and learn from it what the end will take."""
    budget, smallest = job.budget, job.held[0].labels.size
    voxels = _VALIDATING * state.seconds / (len(state.history) + 1) / budget.paces.predicting
    if smallest > _TOO_LARGE * voxels or smallest * budget.paces.predicting > budget.until_end() / 2:
        return {}
    figures, paces = validate(state.average, job.held, job.recipe, job.run.device, voxels)
    budget.paces = replace(budget.paces, predicting=paces.predicting, judging=paces.judging)
    budget.expect(*seconds_of_end(budget.paces, job.cases, job.held, job.recipe))
    return figures


def _finish(state: State, job: _Job) -> Model:
    """Calibrate and tune the running average of the weights."""
    recipe, budget = job.recipe, job.budget
    state.average.eval()
    ranges = observe_cases(state.average.cpu(), job.cases, budget.deadline(CALIBRATING))
    label, figures = tune(state.average, job.held, recipe, job.run.device, ranges, budget.deadline(1.0))
    if budget.timed and state.history:
        state.history[-1].update(figures)
    return Model(state.average, _card(recipe.replace("label", **label.model_dump()), job, state, figures), ranges)


def _stop(state: State, job: _Job) -> NoReturn:
    if job.run.checkpoint is not None:
        keep(state, job.run.checkpoint, job.recipe)
    done = f"{state.step} of {state.steps} steps done"
    if job.budget.timed:
        done = f"{state.step} steps in {state.share:.0%} of the time done"
    raise Stopped(done)


def _batches(
    cases: Sequence[Case], recipe: Recipe, first: int, run: TrainOptions, device: torch.device
) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    workers = run.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else min(8, available_cores())
    steps = Steps(first, 2**40, recipe.train.batch)
    return DataLoader(
        Patches(cases, recipe), batch_sampler=steps, num_workers=workers, pin_memory=device.type == "cuda"
    )


def _card(recipe: Recipe, job: _Job, state: State, figures: Figures) -> Card:
    cases = job.cases
    voxels = sum(case.labels.size for case in cases)
    labelled = sum(case.labelled for case in cases)
    sizes = _object_sizes(cases) if recipe.data.kind == "instances" else np.empty(0)
    spacings = [np.mean(case.grid.spacing[-2:]) for case in cases if case.grid.spacing and case.grid.unit == "um"]
    calibrated = len(spacings) == len(cases)
    learned = {"images": len(cases), "objects": len(sizes), "voxels": labelled, "share": labelled / voxels}
    return Card(
        recipe=recipe,
        inputs=recipe.data.channels,
        outputs=output_channels(recipe),
        object_size_px=_median_size(cases, recipe),
        pixel_size_um=float(np.median(spacings)) if calibrated else None,
        orientation=stated_orientation(case.grid for case in cases),
        surroundings_removed=all(case.surroundings_removed for case in cases),
        target_unit=recipe.targets.unit,
        data={**learned, "held_out": len(job.held)},
        validation=figures,
        history=tuple(state.history),
        notes=(SPLIT_BY_SHAPE,) if recipe.data.kind == "scribbles" else (),
        versions={"biounet": __version__, "torch": torch.__version__, "python": platform.python_version()},
    )


def training_statistics(cases: Iterable[Case], recipe: Recipe) -> dict[str, Any]:
    """Return what the card says of how the images of cases look: ``training_ranges`` and ``textures``."""
    looks = []
    for case in cases:
        one = dict(case.looks)
        if recipe.data.kind == "instances" and (case.labels > 0).any():
            one["diameter"] = float(np.median(_object_sizes([case])))
            one["at_border"] = _share_at_border(case.labels)
        looks.append(one)
    return {"training_ranges": training_ranges(looks), "textures": distinct_textures(looks)}


def _share_at_border(labels: NDArray[np.int32]) -> float:
    """Return the share of the objects that touch the border of the image."""
    ends = [labels.take(end, axis) for axis in range(labels.ndim) for end in (0, -1)]
    touching = np.unique(np.concatenate([end.ravel() for end in ends]))
    return float(np.count_nonzero(touching > 0) / np.count_nonzero(np.bincount(labels[labels > 0])))


def _median_size(cases: Sequence[Case], recipe: Recipe) -> float | None:
    sizes = _object_sizes(cases) if recipe.data.kind == "instances" else np.empty(0)
    return float(np.median(sizes)) if len(sizes) else None


def _object_sizes(cases: Sequence[Case]) -> np.ndarray:
    """Diameters of circles, or balls, of the size of each object, in voxels."""
    counts = np.concatenate([np.bincount(case.labels[case.labels > 0]) for case in cases])
    counts = counts[counts > 0].astype(float)
    dims = cases[0].labels.ndim
    return 2 * np.sqrt(counts / np.pi) if dims == 2 else 2 * np.cbrt(counts * 3 / (4 * np.pi))
