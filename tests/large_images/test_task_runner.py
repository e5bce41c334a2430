"""Tasks are carried out once, on whatever is there, and none is lost."""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biounet.core import InputError, MachineError, SettingsError, Stopped, WorkerDiedError
from biounet.large_images.attempts import RunLimits, RunOrder, carry_out
from biounet.large_images.task_runner import InThisProcess
from support.worker_tasks import compute


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("biounet.large_images.attempts._POLL", 0.002)


class Death(Exception):
    """Of the worker that has a task."""


class ScriptedCrew:
    """Workers whose calls end as `script` says for each task, attempt by attempt, and then with twice the task.

    A list has the seconds that a call has computed, look by look, and it is answered after the last one.
    """

    def __init__(self, script, workers=2):
        self.script = {task: iter(outcomes) for task, outcomes in script.items()}
        self.counts = itertools.repeat(workers) if isinstance(workers, int) else iter(workers)
        self.submitted, self.elsewhere, self.forgotten, self.open, self.computed = [], [], [], {}, {}

    def count(self):
        return next(self.counts)

    def submit(self, function, task, elsewhere):
        call = Future()
        self.submitted.append(task)
        self.elsewhere.append(elsewhere)
        self.open[call] = task
        outcome = next(self.script.get(task, iter(())), None)
        if isinstance(outcome, Exception):
            call.set_exception(outcome)
        elif isinstance(outcome, list):
            self.computed[call] = outcome
        elif outcome != "silent":
            call.set_result(function(task))
        return call

    def count_deaths(self, error):
        return isinstance(error, Death)

    def seconds_computed(self, call):
        script = self.computed.get(call)
        if script is None:
            return 0.0
        seconds = script.pop(0)
        if not script and not call.done():
            call.set_result(2 * self.open[call])
        return seconds

    def forget(self, call):
        self.forgotten.append(self.open[call])


def double(task):
    return 2 * task


def outcome(crew, tasks, stop=None, is_done=None, keep_going=False, **limits):
    limits = {"least_seconds": 5.0, "factor": 0.0, "clock": itertools.count().__next__} | limits
    order = RunOrder(double, stop or threading.Event(), is_done, keep_going)
    return carry_out(crew, order, tasks, RunLimits(**limits))


def test_tasks_are_answered_as_they_are_completed():
    slow = threading.Event()

    def call(task):
        if task == 0:
            slow.wait(10)
        if task == 5:
            slow.set()
        return 2 * task

    answers = list(InThisProcess(2).run(call, range(8), threading.Event()))
    assert sorted(answers) == [(task, 2 * task) for task in range(8)]
    assert answers.index((0, 0)) >= 4


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_twice_the_workers_are_on_their_way(workers):
    taken = itertools.count()

    def endless():
        while True:
            yield next(taken)

    answers = InThisProcess(workers).run(double, endless(), threading.Event())
    for answered, (task, _) in enumerate(itertools.islice(answers, 50), 1):
        assert task < answered + 2 * workers
    answers.close()
    assert next(taken) <= 50 + 2 * workers + 1


def test_what_is_done_is_passed_over():
    crew = ScriptedCrew({})
    assert list(outcome(crew, range(6), is_done=lambda task: task % 2 == 0)) == [(1, 2), (3, 6), (5, 10)]
    assert crew.submitted == [1, 3, 5]


def test_what_was_done_before_its_worker_died_is_not_done_again():
    crew = ScriptedCrew({3: [Death()]})
    assert dict(outcome(crew, range(3, 5), is_done=lambda task: task == 3 in crew.submitted)) == {4: 8}
    assert crew.submitted.count(3) == 1


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 3)), st.integers(1, 4))
def test_no_task_is_lost_when_workers_die(deaths, workers):
    crew = ScriptedCrew({task: [Death()] * number for task, number in deaths.items()}, workers)
    assert sorted(outcome(crew, range(10))) == [(task, 2 * task) for task in range(10)]
    assert Counter(crew.submitted) == {task: 1 + deaths.get(task, 0) for task in range(10)}


class FragileCrew:
    """Workers with a queue each: when a call kills its worker, all calls of its queue end with it."""

    def __init__(self, workers, deadly):
        self.queues = [[] for _ in range(workers)]
        self.deadly, self.deaths = deadly, Counter()

    def count(self):
        for calls in self.queues:
            if calls and calls[0][1] in self.deadly:
                self.deaths[calls[0][1]] += 1
                for call, _ in calls:
                    call.set_exception(Death())
                calls.clear()
            elif calls:
                call, task = calls.pop(0)
                call.set_result(2 * task)
        return len(self.queues)

    def submit(self, function, task, elsewhere):
        call = Future()
        min(self.queues, key=len).append((call, task))
        return call

    def count_deaths(self, error):
        return isinstance(error, Death)

    def seconds_computed(self, call):
        return None

    def forget(self, call):
        pass


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("deadly", [{7}, {0, 1, 2}, {11}, {0, 3, 7}])
def test_a_task_that_kills_each_worker_is_named_and_not_those_beside_it(workers, deadly):
    crew, answers = FragileCrew(workers, deadly), []
    with pytest.raises(WorkerDiedError, match=r"^\d+: the worker died each time, in 4 attempts") as raised:
        answers.extend(outcome(crew, range(12), keep_going=True, least_seconds=1e9))
    assert int(raised.value.cause.split(":")[0]) in deadly
    assert ("more part" in raised.value.cause) == (len(deadly) > 1)
    assert {task for task, _ in answers} == {*range(12)} - deadly
    assert {*crew.deaths} == deadly
    assert max(crew.deaths.values()) <= 4


def test_an_error_of_the_machine_is_tried_again_and_then_named():
    crew = ScriptedCrew({1: [OSError("stale file handle"), MemoryError()]})
    assert dict(outcome(crew, range(3))) == {0: 0, 1: 2, 2: 4}
    full = MachineError("no space left", path="out", hint="make room")
    with pytest.raises(MachineError, match=r"^out: no space left \(1, the last of 4 attempts\) \(hint: make room\)$"):
        list(outcome(ScriptedCrew({1: [full] * 4}), range(3)))


def test_memory_that_runs_out_each_time_ends_the_image_and_not_the_batch():
    with pytest.raises(InputError, match=r"^not enough memory \(1, the last of 4 attempts\) \(hint: a smaller --ram"):
        list(outcome(ScriptedCrew({1: [MemoryError()] * 4}), range(3)))


@pytest.mark.parametrize("error", [InputError("chunk 3 is damaged"), SettingsError("no"), ZeroDivisionError("defect")])
def test_other_errors_are_raised_at_once_as_they_are(error):
    crew = ScriptedCrew({0: [error]})
    with pytest.raises(type(error)) as raised:
        list(outcome(crew, range(100)))
    assert raised.value is error
    assert len(crew.submitted) <= 4


def test_the_other_tasks_are_done_before_a_damaged_chunk_is_told():
    damaged = {task: [InputError("damaged", path=f"chunk {task}", hint="copy it again")] for task in (2, 5)}
    answers = []
    with pytest.raises(InputError) as raised:
        answers.extend(outcome(ScriptedCrew(damaged), range(9), keep_going=True))
    assert [task for task, _ in answers] == [0, 1, 3, 4, 6, 7, 8]
    assert str(raised.value) == "chunk 2: damaged; and 1 more part fails (hint: copy it again)"


def test_a_task_without_an_answer_is_given_to_another_worker():
    crew = ScriptedCrew({1: ["silent", "silent"]})
    assert dict(outcome(crew, range(4))) == {0: 0, 1: 2, 2: 4, 3: 6}
    assert crew.submitted.count(1) == 3
    twins = [other for other in crew.elsewhere if other is not None]
    assert [crew.open[twin] for twin in twins] == [1, 1]
    assert crew.forgotten == [1, 1]


def test_a_task_that_never_answers_is_named():
    with pytest.raises(InputError, match=r"^1: no answer within 80 s, the last of 3 attempts"):
        list(outcome(ScriptedCrew({1: ["silent"] * 3}), range(2), least_seconds=20.0))
    with pytest.raises(InputError, match=r"^0: no answer within 20 s, the last of 3 attempts"):
        list(outcome(ScriptedCrew({0: ["silent"] * 3}), range(1)))


def test_a_call_that_computes_is_no_silent_one():
    crew = ScriptedCrew({1: [[1.0, 2.0, 2.1, 99.0]]})
    assert dict(outcome(crew, range(3))) == {0: 0, 1: 2, 2: 4}
    assert crew.submitted == [0, 1, 2]


def test_a_call_that_computes_no_more_is_given_to_another_worker():
    crew = ScriptedCrew({1: [[1.0, 2.0, 2.0, 2.0, 2.0]]})
    assert dict(outcome(crew, range(3))) == {0: 0, 1: 2, 2: 4}
    assert crew.submitted == [0, 1, 2, 1]


@pytest.mark.parametrize(("seconds", "submitted"), [(1e9, [0, 1, 2]), (7.0, [0, 1, 2, 1])])
def test_a_call_may_wait_for_its_worker_but_not_for_ever(seconds, submitted):
    crew = ScriptedCrew({1: [[None] * 4]})
    assert dict(outcome(crew, range(3), queue_seconds=seconds)) == {0: 0, 1: 2, 2: 4}
    assert crew.submitted == submitted


def test_a_thread_that_computes_may_take_long():
    def call(task):
        begun.append(task)
        compute(2.0 if task == 1 else 0.0)
        return 2 * task

    begun = []
    runner = InThisProcess(1, RunLimits(least_seconds=0.3, factor=0.0, delays=0))
    assert dict(runner.run(call, range(4), threading.Event())) == {0: 0, 1: 2, 2: 4, 3: 6}
    assert begun == [0, 1, 2, 3]


def test_the_clock_stands_still_while_no_worker_is_there():
    crew = ScriptedCrew({}, [1, *[0] * 30, *[1] * 100])
    assert dict(outcome(crew, range(4), no_worker=100.0, least_seconds=4.0)) == {0: 0, 1: 2, 2: 4, 3: 6}
    assert crew.submitted == [0, 1, 2, 3]


@pytest.mark.parametrize("done", [0, 3])
def test_no_worker_is_needed_where_nothing_is_left(done):
    crew = ScriptedCrew({}, workers=[1] * done + [0] * 1000)
    answers = outcome(crew, range(3), is_done=(lambda task: True) if not done else None, no_worker=5.0)
    assert len(list(answers)) == done


def test_without_a_worker_it_ends():
    with pytest.raises(MachineError, match=r"^no worker came within 10 s"):
        list(outcome(ScriptedCrew({}, 0), range(4), no_worker=10.0))


def test_stop_ends_it():
    stop, begun = threading.Event(), []

    def call(task):
        begun.append(task)
        stop.set()

    with pytest.raises(Stopped):
        list(InThisProcess(1).run(call, itertools.count(), stop))
    assert len(begun) <= 2


def test_a_hanging_call_ends_neither_the_run_nor_python(monkeypatch):
    monkeypatch.setattr("biounet.large_images.task_runner._LAST_CALLS", 0.0)
    hang, first = threading.Event(), iter([True])

    def call(task):
        if task == 1 and next(first, False):
            hang.wait(60)
        return 2 * task

    runner = InThisProcess(1, RunLimits(least_seconds=0.2, factor=0.0))
    start = time.monotonic()
    assert dict(runner.run(call, range(4), threading.Event())) == {0: 0, 1: 2, 2: 4, 3: 6}
    assert time.monotonic() - start < 30
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "biounet-task")
    hang.set()
