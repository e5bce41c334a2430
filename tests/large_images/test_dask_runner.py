"""Tasks on workers of Dask: of this machine, of a scheduler that runs, of jobs that SLURM would start."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from biounet.core import InputError, WorkerDiedError
from biounet.large_images.attempts import ClusterError, RunLimits
from biounet.large_images.dask_runner import DaskRunner, connect
from support import ROOT
from support.worker_tasks import Part, answer_with, fail_to_iterate, process_of_worker, work_on

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed", "ignore::DeprecationWarning:tornado")
SCHEDULER_AT = r"Scheduler at: +(tcp://\S+)"
WORKER_AT = r"Registered to: +(tcp://\S+)"


PATIENT = 900.0  # seconds for workers to start again: a machine with much to do is no fault


@pytest.fixture(scope="module")
def local():
    """Two workers of this machine, which start without torch and the like: tasks of these tests use none of it."""
    limits = RunLimits(no_worker=PATIENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biounet.large_images.dask_cluster._PRELOAD", "signal")
        with connect("local:2", memory=2 * 1500 * 2**20, limits=limits) as runner:
            yield runner


def parts(folder, number, **special):
    return [Part(folder, index, **special.get(f"at{index}", {})) for index in range(number)]


def run(runner, tasks, function=work_on, **how):
    return {task.number: answer for task, answer in runner.run(function, tasks, threading.Event(), **how)}


def test_workers_are_processes_with_one_thread(local, tmp_path):
    assert local.workers == 2
    answers = run(local, parts(tmp_path, 12), process_of_worker)
    pids = {pid for pid, *_ in answers.values()}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {threads for _, *threads in map(list, answers.values()) for threads in threads} == {"1"}


def test_no_task_is_lost_when_workers_are_killed(local, tmp_path):
    deadly = {f"at{index}": {"deaths": 1} for index in (0, 3, 4, 9, 15)}
    tasks = parts(tmp_path, 20, **deadly)
    assert run(local, tasks) == {index: 2 * index for index in range(20)}
    assert sum(task.begins() for task in tasks) <= 35  # an answer that its worker takes with it is computed again


@pytest.mark.parametrize("answer", [None, (1, 2), (1, ValueError("no error"), None)])
def test_an_answer_is_what_it_is_though_its_worker_dies_as_it_is_fetched(local, tmp_path, monkeypatch, answer):
    """The worker dies between the moment in which the answer is here and that in which its state is read."""
    from distributed import Future

    fetch, lost = Future._result, []

    async def fetch_late(self, raiseit=True):
        result = await fetch(self, raiseit)
        lost.append(self.key)
        self._state.lose()
        return result

    monkeypatch.setattr(Future, "_result", fetch_late)
    answers = run(local, parts(tmp_path, 4), partial(answer_with, answer))
    assert repr([answers[number] for number in range(4)]) == repr([answer] * 4)
    assert len(lost) == 4


def test_a_call_whose_answer_cannot_be_fetched_is_submitted_again(local, tmp_path, monkeypatch):
    """The worker dies with an answer, and the scheduler gives the call up before it is fetched."""
    from distributed import Future, KilledWorker

    fetch, lost = Future._result, []

    async def fetch_in_vain(self, raiseit=True):
        result = await fetch(self, raiseit)
        if not lost:
            lost.append(self.key)
            raise KilledWorker(self.key, None, 0)
        return result

    monkeypatch.setattr(Future, "_result", fetch_in_vain)
    tasks = parts(tmp_path, 4)
    assert run(local, tasks) == {0: 0, 1: 2, 2: 4, 3: 6}
    assert sum(task.begins() for task in tasks) == 5


def test_an_error_of_a_task_is_no_lost_answer(local, tmp_path):
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        run(local, parts(tmp_path, 3), fail_to_iterate)


def test_a_task_that_kills_its_workers_is_named(local, tmp_path):
    tasks, answers = parts(tmp_path, 5, at2={"deaths": 99}), []
    with pytest.raises(WorkerDiedError, match=r"^part 2: the worker died each time, in 4 attempts .*memory"):
        answers.extend(local.run(work_on, tasks, threading.Event(), keep_going=True))
    assert sorted(answer for _, answer in answers) == [0, 2, 6, 8]
    assert tasks[2].begins() == 4


def test_a_damaged_chunk_is_told_as_it_is(local, tmp_path):
    with pytest.raises(InputError, match=r"^image-1.zarr: a chunk is damaged$"):
        run(local, parts(tmp_path, 5, at1={"damaged": True}))


def test_a_hanging_worker_is_left_and_starts_again(local, tmp_path):
    hasty = DaskRunner(local._connection, RunLimits(least_seconds=1.0, factor=0.0, no_worker=PATIENT))
    tasks = parts(tmp_path, 6, at1={"hangs": 1})
    assert run(hasty, tasks) == {index: 2 * index for index in range(6)}
    assert tasks[1].begins() >= 2
    assert run(local, parts(tmp_path, 4)) == {0: 0, 1: 2, 2: 4, 3: 6}


def test_a_task_that_computes_may_take_long_and_one_behind_it_may_wait(local, tmp_path):
    hasty = DaskRunner(local._connection, RunLimits(least_seconds=0.5, factor=0.0, delays=0, no_worker=PATIENT))
    tasks = parts(tmp_path, 6, at0={"computes": 3}, at1={"computes": 3})
    assert run(hasty, tasks) == {index: 2 * index for index in range(6)}
    assert [task.begins() for task in tasks] == [1] * 6


def test_workers_see_the_folder_and_nothing_is_left_in_it(local, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    assert run(DaskRunner(local._connection, RunLimits(), folder), parts(tmp_path, 2)) == {0: 0, 1: 2}
    assert list(folder.iterdir()) == []


def test_nothing_of_a_cluster_remains(tmp_path):
    """Ctrl-C in a run of two workers: exit in seconds, no process and no line of Dask's logs."""
    program = f"""
import sys, threading
from pathlib import Path
sys.path.insert(0, {str(ROOT / "tests")!r})
from biounet.core import stop_on_signals, Stopped
from biounet.large_images.dask_runner import connect
from support.worker_tasks import Part, work_on

def main():
    with stop_on_signals() as stop, connect("local:2") as runner:
        tasks = (Part(Path({str(tmp_path)!r}), number, hangs=number > 3) for number in range(100))
        try:
            for task, answer in runner.run(work_on, tasks, stop):
                print(answer, flush=True)
        except Stopped as error:
            print(error)

if __name__ == "__main__":
    main()
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, script], **streams) as child:
        for _ in range(4):
            child.stdout.readline()
        time.sleep(0.5)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does it
        out, err = child.communicate(timeout=30)
    assert (out, err) == ("stopped\n", "")
    assert ended_within(10, child.pid)


def ended_within(seconds, group):
    """Whether all processes of a group end."""
    for _ in range(10 * seconds):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@contextmanager
def started(*arguments, address):
    """A program of Dask, and the address that it says (or None)."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            yield child, next(found[1] for line in child.stderr if (found := re.search(address, line)))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.stderr.close()


@pytest.fixture(scope="module")
def scheduler():
    """A scheduler that somebody else started, without workers."""
    with started("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", address=SCHEDULER_AT) as it:
        yield it


def test_a_scheduler_that_runs_already_is_used_until_it_ends(scheduler, tmp_path):
    process, address = scheduler
    nobody = pytest.raises(ClusterError, match=r"^no worker came within 0.5 s .*same command")
    with connect(address, tmp_path, limits=RunLimits(no_worker=0.5)) as runner, nobody:
        run(runner, parts(tmp_path, 3))
    with (
        started("worker", address, "--nthreads", "1", "--no-dashboard", address=WORKER_AT),
        connect(address, tmp_path) as runner,
    ):
        assert run(runner, parts(tmp_path, 5)) == {0: 0, 1: 2, 2: 4, 3: 6, 4: 8}
        answers = runner.run(work_on, parts(tmp_path, 9, at8={"hangs": 9}), threading.Event())
        assert next(answers)[1] >= 0
        process.kill()
        start = time.monotonic()
        with pytest.raises(ClusterError, match=r"^the scheduler of Dask has ended .*the same command again"):
            list(answers)
        assert time.monotonic() - start < 30


def test_a_scheduler_that_nobody_started_is_one_line(monkeypatch):
    monkeypatch.setattr("biounet.large_images.dask_cluster._CONNECT", 1)
    line = r"^no scheduler of Dask answers at tcp://127.0.0.1:9 \(hint: [^\n]+\)$"
    with pytest.raises(ClusterError, match=line), connect("tcp://127.0.0.1:9"):  # the port of "discard"
        pass
