"""A training in minutes ends when they are over, whatever the machine does; one in epochs takes its steps."""

from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import LabelSettings, ModelError, Stopped, TrainSettings
from biounet.files import find_pairs
from biounet.training import Progress, TrainCallbacks, TrainOptions, load_cases, train
from biounet.training.budget import Budget, expected_seconds, learning_rate_factor, subsample
from biounet.training.checkpoint import TrainingState, initial_state, load_checkpoint, save_checkpoint
from biounet.training.tuning import _try_all, _tune_objects
from biounet.training.validation import VoxelTimes
from support.trainings import RECIPE, case_and_maps, tiny_recipe, weights_hash

MINUTES = {"minutes": 0.02, "epochs": None}


@pytest.fixture(scope="module")
def cases(cell_folder: Path) -> list:
    return list(load_cases(find_pairs(cell_folder / "images", cell_folder / "labels"), tiny_recipe()))


class FakeClock:
    """A clock whose time is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _state() -> TrainingState:
    return TrainingState(torch.nn.Identity(), torch.nn.Identity(), None)  # type: ignore[arg-type]


def _run(budget: Budget, clock: FakeClock, state: TrainingState, seconds: list[float]) -> list[float]:
    """Take steps of so many seconds each, over and over; return the factors of the learning rate."""
    factors = []
    budget.start()
    while not budget.is_finished(state):
        factors.append(learning_rate_factor(state, budget))
        clock.now += seconds[state.step % len(seconds)]
        budget.record_step(state)
    return factors


@given(
    seconds=st.lists(st.floats(0.05, 2.0), min_size=1, max_size=40),
    read=st.floats(0, 20),
    tuning=st.floats(0, 100),
)
def test_minutes_end_in_time_and_the_rate_with_them_however_the_pace_changes(seconds, read, tuning):
    clock = FakeClock()
    clock.now = read
    budget, state = Budget(TrainSettings(minutes=2), clock), _state()
    budget.reserve_seconds(0.0, 5.0, tuning, 3.0)
    factors = _run(budget, clock, state, seconds)
    end = 120 - budget.reserve
    assert budget.reserve <= 0.2 * 120
    assert end - 2.0 <= clock.now <= end + 2.0  # a step more or less
    warm = max(range(len(factors)), key=factors.__getitem__)
    assert factors[warm:] == sorted(factors[warm:], reverse=True)
    assert factors[-1] < 0.05
    assert max(factors) > 0.7


@given(at=st.floats(5, 90), lost=st.floats(0, 60))
def test_an_interrupted_training_in_minutes_goes_on_with_what_is_left(at, lost):
    clock = FakeClock()
    budget, state = Budget(TrainSettings(minutes=2), clock), _state()
    budget.start()
    while clock.now < at:
        clock.now += 0.5
        budget.record_step(state)
    before = learning_rate_factor(state, budget)
    again = FakeClock()
    again.now = state.seconds + lost
    budget = Budget(TrainSettings(minutes=2), again)
    factors = _run(budget, again, state, [0.5])
    assert again.now <= max(at + lost, 120 - budget.reserve) + 1
    if factors:
        assert factors[0] == before  # no jump, whatever was lost


def test_a_step_is_taken_even_when_reading_took_all_the_time():
    clock = FakeClock()
    clock.now = 500.0
    budget, state = Budget(TrainSettings(minutes=2), clock), _state()
    assert _run(budget, clock, state, [1.0]) == [pytest.approx(0.01)]
    assert state.step == 1


def test_the_rate_of_epochs_is_that_of_their_steps():
    budget, state = Budget(TrainSettings(epochs=2, steps_per_epoch=100), FakeClock()), _state()
    factors = _run(budget, FakeClock(), state, [1.0])
    steps = np.arange(200)
    assert factors == pytest.approx(np.minimum(1, (steps + 1) / 20) * 0.5 * (1 + np.cos(np.pi * steps / 200)))


def test_minutes_end(cases):
    seen: list[Progress] = []
    model = train(cases[:2], cases[4:], tiny_recipe(train=MINUTES), callbacks=TrainCallbacks(seen.append))
    assert seen[-1].step == seen[-1].steps
    assert all(progress.left < np.inf for progress in seen)
    assert model.card.history[-1]["step"] == seen[-1].step
    assert {"ap", "count_mae"} <= model.card.validation.keys() & model.card.history[-1].keys()
    assert any("steps in the time given" in note for note in model.card.notes) == (seen[-1].step < 30)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("settings", [{}, MINUTES], ids=["epochs", "minutes"])
def test_a_death_behind_the_last_step_is_resumed_without_a_step(cases, tmp_path, settings):
    recipe, checkpoint = tiny_recipe(train={"steps_per_epoch": 1, **settings}), tmp_path / "m.checkpoint.pt"

    def kill(progress: Progress) -> None:
        if torch.load(checkpoint, weights_only=True)["progress"]["share"] == 1:
            raise _Killed

    with pytest.raises(_Killed):
        train(cases[:4], cases[4:], recipe, TrainOptions(checkpoint=checkpoint), None, TrainCallbacks(kill))
    kept = torch.load(checkpoint, weights_only=True)
    assert kept["progress"]["share"] == 1
    again: list[Progress] = []
    options = TrainOptions(checkpoint=checkpoint, resume=True)
    resumed = train(cases[:4], cases[4:], recipe, options, callbacks=TrainCallbacks(again.append))
    assert again == []
    for name, value in resumed.network.state_dict().items():
        assert torch.equal(value, kept["average"][name])
    if not settings:
        assert weights_hash(resumed) == weights_hash(train(cases[:4], cases[4:], recipe))


@pytest.mark.parametrize("at", [1, 3])
def test_a_training_in_minutes_is_stopped_and_resumed_at_any_step(cases, tmp_path, at):
    stop, checkpoint = Event(), tmp_path / "m.checkpoint.pt"

    def ask(progress: Progress) -> None:
        if progress.step >= at:
            stop.set()

    recipe = tiny_recipe(train={"minutes": 0.1, "epochs": None})
    with pytest.raises(Stopped, match=f"{at} steps in .*% of the time done"):
        train(cases[:2], [], recipe, TrainOptions(checkpoint=checkpoint), None, TrainCallbacks(ask, stop=stop))
    again: list[Progress] = []
    options = TrainOptions(checkpoint=checkpoint, resume=True)
    train(cases[:2], [], recipe, options, callbacks=TrainCallbacks(again.append))
    assert again[0].step == at + 1
    assert again[0].seconds > 0


def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path):
    recipe, path = tiny_recipe(), tmp_path / "old.pt"
    state = initial_state(recipe, None, torch.device("cpu"))
    save_checkpoint(state, path, recipe)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["format"]
    torch.save(checkpoint, path)
    with pytest.raises(ModelError, match=r"old\.pt: written by another version of biounet.*without --resume") as caught:
        load_checkpoint(state, path, recipe)
    assert "\n" not in str(caught.value)


def test_tuning_without_time_leaves_the_thresholds_as_they_are():
    cases, maps = zip(*(case_and_maps(range(2 + n), range(2 + n)) for n in range(6)), strict=True)
    assert _tune_objects(cases, maps, LabelSettings(), deadline=0.0) == LabelSettings()
    assert _tune_objects(cases, maps, LabelSettings(), None).min_size == 0.0
    near = _try_all(cases, maps, LabelSettings(), {"min_size": (0.0, 10.0, 40.0)}, until=0.0)
    assert [trial.settings.min_size for trial in near] == [15.0]


@given(voxels=st.floats(0, 1e6), count=st.integers(1, 30))
def test_as_many_cases_as_there_is_time_for_and_at_least_one(voxels, count):
    case, _ = case_and_maps((0, 1), ())
    chosen = subsample([case] * count, voxels)
    assert 1 <= len(chosen) <= count
    assert len(chosen) == 1 or sum(c.labels.size for c in chosen) <= voxels * 1.0001


def test_what_the_end_takes_follows_from_what_was_measured():
    case, _ = case_and_maps((0, 1), ())
    size = case.labels.size
    ends = expected_seconds(VoxelTimes(1e-3, 1e-4, 1e-2), [case] * 3, [case] * 2, RECIPE)
    tuning = 2 * size * 1e-4 * (2 + 8 + 210 + 7 + 8)
    assert ends == pytest.approx((3 * size * 1e-2, 2 * size * 1e-3, tuning, 5 * size * 1.1e-3))
    *_, finding = expected_seconds(
        VoxelTimes(1e-3, 1e-4, 1e-2), [case], [], tiny_recipe(data={"kind": "classes", "classes": ["a"]})
    )
    assert finding == 0


def test_thresholds_leave_time_to_look_at_the_training_images():
    budget = Budget(TrainSettings(minutes=2), FakeClock())
    assert budget.tuning_deadline() == pytest.approx(budget.deadline(1.0), abs=0.1)
    budget.reserve_seconds(0.0, 0.0, 0.0, 5.0)
    assert budget.deadline(1.0) - budget.tuning_deadline() == pytest.approx(5.0, abs=0.1)
    assert Budget(TrainSettings(epochs=2), FakeClock()).tuning_deadline() is None


def test_a_resumed_training_without_time_for_a_step_ends_with_what_it_has(cases, tmp_path):
    stop, checkpoint = Event(), tmp_path / "m.checkpoint.pt"
    stop.set()
    recipe = tiny_recipe(train={"minutes": 0.1, "epochs": None})
    with pytest.raises(Stopped):
        train(cases[:2], [], recipe, TrainOptions(checkpoint=checkpoint), None, TrainCallbacks(stop=stop))
    kept = torch.load(checkpoint, weights_only=True)
    kept["progress"]["seconds"] = 60.0
    torch.save(kept, checkpoint)
    again: list[Progress] = []
    options = TrainOptions(checkpoint=checkpoint, resume=True)
    model = train(cases[:2], [], recipe, options, callbacks=TrainCallbacks(again.append))
    assert again == []
    assert [epoch["step"] for epoch in model.card.history] == [1]


def test_a_checkpoint_without_all_progress_changes_nothing_and_is_refused(tmp_path):
    recipe, path = tiny_recipe(), tmp_path / "part.pt"
    state = initial_state(recipe, None, torch.device("cpu"))
    save_checkpoint(state, path, recipe)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["progress"]["loss"]
    torch.save(checkpoint, path)
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        load_checkpoint(state, path, recipe)
