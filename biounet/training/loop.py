"""Training: annotated images in, a model out. The loop reads from top to bottom."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from biounet.core import InputError, Recipe, Stopped, TrainingError, available_cores
from biounet.network import (
    Model,
    build_network,
    has_fast_bfloat16,
    inherit_settings,
    load_model,
    pick_device,
    save_model,
)
from biounet.training.budget import (
    CALIBRATING,
    FINDING,
    PREDICTING,
    TUNING,
    Budget,
    expected_seconds,
    learning_rate_factor,
    measure_voxel_times,
    subsample,
)
from biounet.training.calibration import calibrate
from biounet.training.cases import Case
from biounet.training.checkpoint import TrainingState, initial_state, load_checkpoint, memory_layout, save_checkpoint
from biounet.training.found_objects import found_statistics
from biounet.training.losses import recipe_loss
from biounet.training.model_card import make_card, median_diameter, training_statistics
from biounet.training.patches import Patches, fit_patch, step_batches
from biounet.training.pretrained import Baseline, describe_differences, score_baseline
from biounet.training.processes import Processes
from biounet.training.tuning import tune
from biounet.training.validation import Metrics, validate

_FINE_TUNING = 1 / 3  # of the learning rate, from a model: larger steps forget what it has learned
_MAX_GRADIENT_NORM = 5.0
_VALIDATION_SHARE = 0.03  # of an epoch in minutes
_TOO_LARGE = 4  # times as many voxels: a validation is left out
_FEW_STEPS = 30  # from random weights, fewer teach nothing


@dataclass(frozen=True)
class Progress:
    """The state at the end of a step, with the metrics of the last validation."""

    step: int
    steps: int  # in all: of a budget in minutes an estimate, 0 before there is one
    seconds: float
    left: float  # seconds, an estimate
    loss: float  # mean over the epoch so far
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class TrainOptions:
    """Where and how a training runs; nothing here changes what is learned."""

    device: str = "auto"  # or "cpu", "cuda", "cuda:n"
    workers: int | None = None  # processes that make patches; None: none on a CPU, whose cores are busy, else up to 16
    checkpoint: Path | None = None  # file that the state is saved to after each epoch
    resume: bool = False  # continue from the checkpoint if it exists
    started: float | None = None  # when the budget in minutes began, by `time.perf_counter`; None: with the call
    processes: Processes = field(default_factory=Processes)  # those that train together, of `join_processes`


@dataclass(frozen=True)
class TrainCallbacks:
    """What watches and stops a training.

    `on_step` is called after each step, and `on_warning` with each sentence that the user should read, such as that the
    start was kept; the notes of the card hold them too. If `stop` is set, the state is saved to the checkpoint after
    the present step, and `Stopped` is raised.
    """

    on_step: Callable[[Progress], None] = lambda progress: None
    on_warning: Callable[[str], None] = lambda warning: None
    stop: Event | None = None


@dataclass(frozen=True)
class _Training:
    cases: Sequence[Case]
    validation: Sequence[Case]
    recipe: Recipe
    options: TrainOptions
    callbacks: TrainCallbacks
    budget: Budget

    @property
    def processes(self) -> Processes:
        return self.options.processes


def train(
    cases: Sequence[Case],
    validation: Sequence[Case],
    recipe: Recipe,
    options: TrainOptions | None = None,
    start: Model | None = None,
    callbacks: TrainCallbacks | None = None,
) -> Model:
    """Train a model.

    Parameters
    ----------
    cases, validation
        Annotated images to draw patches from, and those to tune thresholds on; without the latter thresholds stay those
        of the recipe.
    recipe
        What to train, for 10 minutes by default. Minutes are wall time with everything inside; epochs give the same
        weights however often they were interrupted.
    start
        A model to continue from instead of random weights, with its network and normalisation and a third of the
        recipe's learning rate. It is returned, with a note on its card, if training does not beat it.

    Returns
    -------
    The model with the moving average of the weights, tuned thresholds, and a card that says what it was made of; the
    same in all processes that train together.

    Raises
    ------
    TrainingError
        If the loss is not finite; it names the images of the batch.
    InputError, ModelError
        If there are no cases, or the start predicts something else or takes other channels.
    Stopped
        If `callbacks.stop` was set; the same call with `options.resume` continues from the checkpoint.
    """
    options, callbacks = options or TrainOptions(), callbacks or TrainCallbacks()
    began = options.started or time.perf_counter()
    if not cases:
        raise InputError("no annotated image to train on")
    warnings = describe_differences(start, recipe, cases, median_diameter(cases, recipe)) if start else []
    recipe = _fit_recipe(recipe, cases, start)
    options = replace(options, device=options.processes.device or options.device)
    options.processes.part_of([0] * recipe.train.batch)  # says at once that there are too many processes
    state = initial_state(recipe, start, pick_device(options.device))
    _resume(state, options, recipe)
    began -= state.seconds  # of the runs that were interrupted
    budget = Budget(recipe.train, lambda: time.perf_counter() - began)
    training = _Training(cases, validation, recipe, options, callbacks, budget)
    if options.processes.is_first:
        return _share_model(_make_model(state, training, start, warnings), options.processes)
    _run_steps(state, training)
    return _share_model(None, options.processes)


def _make_model(state: TrainingState, training: _Training, start: Model | None, warnings: list[str]) -> Model:
    """Take the steps that are left, and return the model that comes of them, or the one to start from if it is better.

    This is what the first process does; the others only take the steps.
    """
    cases, validation, budget = training.cases, training.validation, training.budget
    training = _limit_validation(state, training)
    baseline = _score_start(start, training) if start is not None else None
    _run_steps(state, training)
    model = _finish(state, training)
    # Statistics are those of all images, including those that there was no time to validate on.
    every = [*cases, *validation]
    found = found_statistics(model, every, training.options.device, budget.deadline(FINDING))
    model = _with_card(model, training_statistics(every, found))
    warnings = warnings + _time_warnings(state, training, start, len(validation))
    return _better(model, baseline, warnings, training.callbacks)


def _fit_recipe(recipe: Recipe, cases: Sequence[Case], start: Model | None) -> Recipe:
    """Return the recipe with the settings of the model to start from, and a patch that fits the cases."""
    if start is not None:
        recipe = inherit_settings(recipe, start)
        recipe = recipe.replace("train", learning_rate=recipe.train.learning_rate * _FINE_TUNING)
    return fit_patch(recipe, cases, build_network(recipe).stride)


def _resume(state: TrainingState, options: TrainOptions, recipe: Recipe) -> None:
    """Continue from the checkpoint, if there is one and that was asked for; the first process alone has to reach it."""
    path, processes = options.checkpoint, options.processes
    if options.resume and path is not None and processes.decide(processes.is_first and path.exists())[0]:
        load_checkpoint(state, path, recipe, processes.from_first(path.read_bytes) if processes.size > 1 else None)


def _share_model(model: Model | None, processes: Processes) -> Model:
    """Return the model of the first process, in all processes."""
    if model is not None and processes.size == 1:
        return model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        if model is not None:
            save_model(model, path)
        content = processes.from_first(path.read_bytes)
        if model is None:
            path.write_bytes(content)
        return model or load_model(path)


def _with_card(model: Model, changes: dict[str, Any]) -> Model:
    return replace(model, card=model.card.model_copy(update=changes))


def _better(model: Model, baseline: Baseline | None, warnings: list[str], callbacks: TrainCallbacks) -> Model:
    """Return the model, or its start if that is as good, with all warnings on its card."""
    for warning in warnings:
        callbacks.on_warning(warning)
    notes = list(warnings)
    if baseline is not None:
        model, note, improved = baseline.better_of(model)
        notes.append(note)
        if not improved:
            callbacks.on_warning(note)
    return _with_card(model, {"notes": (*model.card.notes, *notes)})


def _time_warnings(state: TrainingState, training: _Training, start: Model | None, validation: int) -> list[str]:
    warnings = []
    used = len(training.validation)
    if used < validation:
        warnings.append(f"validated on {used} of {validation} held-out images: there was no time for more")
    if start is None and training.budget.is_timed and state.step < _FEW_STEPS:
        steps = f"{state.step} step{'' if state.step == 1 else 's'}"
        warnings.append(f"only {steps} in the time given: from random weights a model needs some hundred")
    return warnings


def _score_start(start: Model, training: _Training) -> Baseline:
    """Score the start, and estimate from it how long tuning takes."""
    budget, began = training.budget, time.perf_counter()
    deadline = budget.deadline(TUNING)
    baseline = score_baseline(start, training.validation, training.recipe, training.options.device, deadline)
    calibrating, predicting, _, finding = _expected_seconds(training)
    tuning = max(0.0, time.perf_counter() - began - predicting)
    budget.reserve_seconds(calibrating, predicting, tuning, finding)
    return baseline


def _expected_seconds(training: _Training) -> tuple[float, float, float, float]:
    return expected_seconds(training.budget.voxel_times, training.cases, training.validation, training.recipe)


def _limit_validation(state: TrainingState, training: _Training) -> _Training:
    """Keep the validation cases that there is time for: all of them if the budget is in epochs."""
    budget, cases = training.budget, training.validation
    if not budget.is_timed or not cases:
        return training
    budget.voxel_times = measure_voxel_times(state.average, cases, training.recipe, training.options.device)
    affordable = subsample(cases, PREDICTING * budget.total / budget.voxel_times.prediction)
    training = replace(training, validation=affordable)
    budget.reserve_seconds(*_expected_seconds(training))
    return training


def _run_steps(state: TrainingState, training: _Training) -> None:
    """Take all steps that are left; none if a training was interrupted after its last one."""
    budget, processes = training.budget, training.processes
    budget.start()
    if processes.decide(budget.is_finished(state))[0]:
        if state.share < 1 and processes.is_first:  # reading again took the time that was left
            budget.record_finish(state)
            _end_epoch(state, training, last=True)
        return
    forward = processes.distribute(state.network)
    for image, target, _ in _batches(state, training):
        for group in state.optimizer.param_groups:
            group["lr"] = training.recipe.train.learning_rate * learning_rate_factor(state, budget)
        loss = _take_step(state, forward, image, target, training)
        if not math.isfinite(loss):
            names = ", ".join(_names_in_batch(state, training))
            cause = f"the loss is {loss} at step {state.step}, in a batch of {names}"
            raise TrainingError(cause, hint="lower train.learning_rate")
        if processes.is_first:
            last, stopped = _end_step(state, training, loss)
        else:
            last, stopped = False, False
            state.step += 1
        decided = processes.decide(last, stopped, state.share, state.steps)
        last, stopped, state.share, state.steps = bool(decided[0]), bool(decided[1]), decided[2], int(decided[3])
        if last:
            return
        if stopped:
            _stop(state, training)


def _end_step(state: TrainingState, training: _Training, loss: float) -> tuple[bool, bool]:
    """Record a step and what is due after it; return whether it was the last one, and whether work should stop."""
    recipe, callbacks, budget = training.recipe, training.callbacks, training.budget
    budget.record_step(state)
    since_epoch = state.step - (int(state.history[-1]["step"]) if state.history else 0)
    state.loss += (loss - state.loss) / since_epoch
    mean, last = state.loss, budget.is_finished(state)
    if last:
        budget.record_finish(state)
    if last or since_epoch == recipe.train.steps_per_epoch or _needs_first_validation(state, budget):
        _end_epoch(state, training, last)
    metrics = state.history[-1] if state.history else {}
    callbacks.on_step(Progress(state.step, state.steps, state.seconds, budget.seconds_left(state), mean, metrics))
    return last, callbacks.stop is not None and callbacks.stop.is_set()


def _names_in_batch(state: TrainingState, training: _Training) -> list[str]:
    """Return the names of the images that the patches of the present step are drawn from, in all processes."""
    patches = Patches(training.cases, training.recipe)
    batch = next(iter(step_batches(state.step, training.recipe.train.batch)))
    return sorted({Path(patches.case_of(number).name).name for number in batch})


def _needs_first_validation(state: TrainingState, budget: Budget) -> bool:
    """Whether half of a training in minutes went without a validation, which tells how long tuning will take."""
    return budget.is_timed and not state.history and state.share >= 0.5


def _take_step(state: TrainingState, forward: nn.Module, image: Tensor, target: Tensor, training: _Training) -> float:
    recipe, device = training.recipe, next(state.network.parameters()).device
    # From pinned memory the copies are queued, and nothing waits for the device before the loss is read.
    image, target = image.to(device, non_blocking=True), target.to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        logits = forward(image.to(memory_format=memory_layout(recipe)))
    loss = recipe_loss(logits, target, recipe, training.processes.total)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), _MAX_GRADIENT_NORM)
    state.optimizer.step()
    if training.processes.is_first:
        _update_average(state.average, state.network, min(recipe.train.ema_decay, (1 + state.step) / (10 + state.step)))
    return loss.item()


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update the exponential moving average of the weights, and of the statistics of batch norm."""
    averages, current = average.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
    names = [name for name, value in current.items() if value.is_floating_point()]
    torch._foreach_lerp_([averages[name] for name in names], [current[name] for name in names], 1 - decay)


def _end_epoch(state: TrainingState, training: _Training, last: bool) -> None:
    """Validate and save a checkpoint. The last epoch of a budget in minutes is validated by tuning."""
    state.average.eval()
    metrics: Metrics = {}
    if not training.budget.is_timed:
        metrics, _ = validate(state.average, training.validation, training.recipe, training.options.device)
    elif training.validation and not last:
        metrics = _validate_briefly(state, training)
    state.history.append({"epoch": len(state.history) + 1, "step": state.step, "loss": state.loss, **metrics})
    state.loss = 0.0
    if training.options.checkpoint is not None:
        save_checkpoint(state, training.options.checkpoint, training.recipe)


def _validate_briefly(state: TrainingState, training: _Training) -> Metrics:
    """Validate on as many cases as take a small share of the time, and estimate from it what the end will take."""
    budget, cases = training.budget, training.validation
    smallest = cases[0].labels.size
    seconds_per_voxel = budget.voxel_times.prediction
    voxels = _VALIDATION_SHARE * state.seconds / (len(state.history) + 1) / seconds_per_voxel
    if smallest > _TOO_LARGE * voxels or smallest * seconds_per_voxel > budget.seconds_to_last_step() / 2:
        return {}
    metrics, times = validate(state.average, cases, training.recipe, training.options.device, voxels)
    budget.voxel_times = replace(budget.voxel_times, prediction=times.prediction, scoring=times.scoring)
    budget.reserve_seconds(*_expected_seconds(training))
    return metrics


def _finish(state: TrainingState, training: _Training) -> Model:
    """Calibrate and tune the moving average of the weights."""
    recipe, budget = training.recipe, training.budget
    state.average.eval()
    ranges = calibrate(state.average.cpu(), training.cases, budget.deadline(CALIBRATING))
    deadline = budget.tuning_deadline()
    label, metrics = tune(state.average, training.validation, recipe, training.options.device, ranges, deadline)
    if budget.is_timed and state.history:
        state.history[-1].update(metrics)
    recipe = recipe.replace("label", **label.model_dump())
    return Model(state.average, make_card(recipe, training.cases, training.validation, state.history, metrics), ranges)


def _stop(state: TrainingState, training: _Training) -> NoReturn:
    if training.options.checkpoint is not None and training.processes.is_first:
        save_checkpoint(state, training.options.checkpoint, training.recipe)
    if training.budget.is_timed:
        raise Stopped(f"{state.step} steps in {state.share:.0%} of the time done")
    raise Stopped(f"{state.step} of {state.steps} steps done")


def _batches(state: TrainingState, training: _Training) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    device = next(state.network.parameters()).device
    workers = training.options.workers
    if workers is None:
        cores = available_cores() // training.processes.launch.local_size
        workers = 0 if device.type == "cpu" else max(1, min(16, cores))
    batches = step_batches(state.step, training.recipe.train.batch)
    return DataLoader(
        Patches(training.cases, training.recipe),
        batch_sampler=map(training.processes.part_of, batches),
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
