"""Several processes train as one does with the whole batch; when one of them ends, all end, with one line."""

import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from biounet.api import volume_from_array
from biounet.core import UNLABELLED, Annotation, BiounetError, Grid, SettingsError, Stopped
from biounet.network import build_network
from biounet.training import TrainCallbacks, TrainOptions, join_processes, make_case, train
from biounet.training import loop as training_loop
from biounet.training.patches import Patches
from biounet.training.processes import Launch, Processes
from biounet.training.shared_batch_norm import SharedBatchNorm, share_batch_norms
from biounet.training.targets.layout import TargetLayout
from support.images import discs
from support.launched import run_launched
from support.trainings import TINY, tiny_recipe

STEPS, BATCH = 20, 4
RECIPE = tiny_recipe(train={"epochs": 1, "steps_per_epoch": STEPS, "batch": BATCH, "patch": (32, 32)})
LAYOUT = TargetLayout.from_recipe(RECIPE)


def sparse_cases():
    """One field labelled all over, one in a window, and one with labels that count nowhere, as after augmentation."""
    cases = []
    for seed, window in enumerate([slice(None), slice(30, 62), slice(None)]):
        image, labels = discs((96, 96), 12, seed)
        kept = np.full_like(labels, UNLABELLED)
        kept[window, window] = labels[window, window]
        volume = volume_from_array(image, 2)
        cases.append(make_case(volume, Annotation(kept, "instances", Grid(kept.shape)), RECIPE))
    nothing = cases[2].target.clone()
    LAYOUT.split(nothing).weights[:] = 0
    return [*cases[:2], replace(cases[2], target=nothing)]


def record(out, processes, stop_at=None, **options):
    """Train, and write the losses of all steps, the network after the last one and the model."""
    losses, states, stop = [], [], Event()
    take_step = training_loop._take_step

    def watch(state, *rest):
        losses.append(take_step(state, *rest))
        states[:] = [state]
        return losses[-1]

    def ask(progress):
        if progress.step == stop_at:
            stop.set()

    training_loop._take_step = watch
    try:
        run = TrainOptions(device="cpu", workers=0, processes=processes, **options)
        model = train(sparse_cases(), [], RECIPE, run, callbacks=TrainCallbacks(ask, stop=stop))
    finally:
        training_loop._take_step = take_step
    weights = {f"network.{name}": value for name, value in states[0].network.state_dict().items()}
    weights |= {f"model.{name}": value for name, value in model.network.state_dict().items()}
    np.savez(f"{out}.{processes.launch.rank}.npz", losses=losses, **{n: v.numpy() for n, v in weights.items()})


def record_launched(out, stop_at=None, checkpoint=None, resume=False):
    with contextlib.suppress(Stopped), join_processes("cpu") as processes:
        record(out, processes, stop_at, checkpoint=checkpoint, resume=resume)


def read(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A training in one process, with the whole batch."""
    out = tmp_path_factory.mktemp("alone") / "alone"
    record(out, Processes())
    return read(f"{out}.0.npz")


def differences(first, second):
    assert first.keys() == second.keys()
    return {name: float(np.abs(value.astype(float) - second[name]).max()) for name, value in first.items()}


def test_one_process_that_was_launched_trains_the_same_bits(alone, tmp_path):
    assert run_launched(record_launched, 1, tmp_path / "one") == [0]
    assert max(differences(alone, read(tmp_path / "one.0.npz")).values()) == 0


@pytest.mark.parametrize("size", [2, 3])  # 3: parts of a batch of 4 differ in size
def test_several_processes_train_as_one_with_the_whole_batch(alone, tmp_path, size):
    assert run_launched(record_launched, size, tmp_path / "part") == [0] * size
    parts = [read(tmp_path / f"part.{rank}.npz") for rank in range(size)]
    for part in parts:
        assert max(differences(parts[0], part).values()) == 0
    apart = differences(alone, parts[0])
    assert len(alone["losses"]) == STEPS
    assert max(apart.values()) < 1e-5, max(apart, key=apart.get)


def test_some_of_those_steps_have_a_process_without_any_label():
    patches = Patches(sparse_cases(), RECIPE)
    labelled = [bool((LAYOUT.split(patches[n][1]).weights > 0).any()) for n in range(STEPS * BATCH)]
    halves = [any(labelled[n : n + BATCH // 2]) for n in range(0, STEPS * BATCH, BATCH // 2)]
    assert halves.count(False) >= 2


def test_a_training_goes_on_with_another_number_of_processes(alone, tmp_path):
    checkpoint = tmp_path / "m.checkpoint.pt"
    assert run_launched(record_launched, 2, tmp_path / "begun", 6, checkpoint) == [0, 0]
    assert not list(tmp_path.glob("*.npz")), "both were stopped"
    assert run_launched(record_launched, 3, tmp_path / "resumed", None, checkpoint, True) == [0, 0, 0]
    rest = read(tmp_path / "resumed.2.npz")
    assert len(rest["losses"]) == STEPS - 6
    assert max(differences({**alone, "losses": alone["losses"][6:]}, rest).values()) < 1e-5


def write_error(folder, act):
    """Train, with something happening in the last process; write the error that this process is to report."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        with join_processes("cpu") as processes:
            if rank == size - 1:
                act()
            record(folder / "unused", processes)
    except BiounetError as error:
        Path(folder, f"{rank}.txt").write_text(str(error), encoding="utf-8")
        sys.exit(error.exit_code)


def die():
    take_step, taken = training_loop._take_step, []

    def kill_in_third(*arguments):
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return take_step(*arguments)

    training_loop._take_step = kill_in_third


def fail():
    raise SettingsError("only here", hint="nothing")


def nothing():
    """Let the training be what it is."""


def reported(folder):
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]


def test_when_one_process_is_killed_the_others_end_and_one_of_them_says_so(tmp_path):
    codes = run_launched(write_error, 3, tmp_path, die)
    assert codes == [5, 5, -signal.SIGKILL]
    (text,) = reported(tmp_path)
    assert text.startswith("another process of this training has ended")
    assert "--resume" in text


def test_an_error_of_one_process_ends_all_and_is_told_once(tmp_path):
    assert run_launched(write_error, 2, tmp_path, fail) == [5, 2]
    assert reported(tmp_path) == ["only here (hint: nothing)"]


def test_more_processes_than_a_batch_has_patches_are_refused_once(tmp_path):
    assert run_launched(write_error, BATCH + 1, tmp_path, nothing) == [2] * (BATCH + 1)
    (text,) = reported(tmp_path)
    assert text.startswith("a batch of 4 cannot be divided among 5 processes")


def run_command(folder, *arguments):
    """Run the command with what it shows in a file of each process."""
    from biounet.cli.commands import main

    os.chdir(folder)
    shown = os.open(f"shown{os.environ['RANK']}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    sys.argv = ["biounet", *map(str, arguments)]
    main()


def test_the_command_shows_and_writes_once(cell_folder, tmp_path):
    recipe = tmp_path / "tiny.toml"
    lines = [f"[{table}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for table, each in TINY.items()]
    recipe.write_text("\n".join(lines), encoding="utf-8")
    data = ["--images", cell_folder / "images", "--labels", cell_folder / "labels"]
    command = ["train", recipe, *data, "-o", "m.safetensors", "--device", "cpu", "--jobs", 0]
    assert run_launched(run_command, 2, tmp_path, *command) == [0, 0]
    first, second = (tmp_path / f"shown{rank}.txt" for rank in range(2))
    assert "m.safetensors: ap " in first.read_text(encoding="utf-8")
    assert second.read_text(encoding="utf-8") == ""
    names = {"m.safetensors", "m_howto.txt", "m.history.csv", "m.curve.png", "tiny.toml", first.name, second.name}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_parts_of_a_batch_are_the_batch():
    for size in range(1, 8):
        parts = [Processes(Launch(rank, size)).part_of(list(range(7))) for rank in range(size)]
        assert [number for part in parts for number in part] == list(range(7))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("dims", [2, 3])
def test_shared_batch_norm_of_one_part_is_batch_norm(dims):
    recipe = tiny_recipe(data={"dims": dims})
    network, image = build_network(recipe).train(), torch.rand(2, 1, *(16,) * dims) * 3 + 100
    shared = build_network(recipe).train()
    shared.load_state_dict(network.state_dict())
    share_batch_norms(shared, lambda part: part[None])
    assert sum(isinstance(module, SharedBatchNorm) for module in shared.modules()) == 6
    torch.testing.assert_close(shared(image), network(image))
    torch.testing.assert_close(shared.state_dict(), network.state_dict())
    assert shared.state_dict().keys() == network.state_dict().keys()
