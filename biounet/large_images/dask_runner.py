"""Tasks on the workers of Dask, which carries the calls and decides nothing else."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from biounet.large_images.attempts import ClusterError, RunLimits, RunOrder, carry_out
from biounet.large_images.call_clock import NotedCall, seconds_computed
from biounet.large_images.dask_cluster import Connection, connected, parse_cluster
from biounet.large_images.task_runner import TaskRunner
from biounet.large_images.worker_check import CheckedCall, WorkerNeeds

if TYPE_CHECKING:
    from distributed import Future as RemoteFuture

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_REFRESH = 1.0  # seconds for which the number of workers is believed
_ASK = 20  # seconds that the scheduler may take to answer
_CONTINUE = "start the same command again, which goes on from what is done"


@contextmanager
def connect(
    text: str, folder: Path | None = None, memory: int | None = None, limits: RunLimits | None = None
) -> Iterator[TaskRunner]:
    """Provide a runner whose workers are those of Dask; workers that were started for it end with it.

    Parameters
    ----------
    text
        ``local`` or ``local:4`` for processes of this machine, ``tcp://host:8786`` for a scheduler of Dask that runs
        already, or the path of a ``.toml`` file with `SlurmSettings`.
    folder
        On a disk that all workers see, which is checked on each.
    memory
        Bytes for all workers of this machine together: one that takes more than its part is ended, and its task tried
        again. None: most of what is free.

    Raises
    ------
    SettingsError
        If `text` or the file is wrong, or the extra ``cluster`` is not installed.
    ClusterError
        If the scheduler cannot be reached, or has other versions.
    """
    cluster = parse_cluster(text)
    limits = limits or RunLimits()
    if cluster.slurm:
        limits = replace(limits, no_worker=60 * cluster.slurm.wait_minutes)
    with connected(cluster, folder, memory) as connection:
        yield DaskRunner(connection, limits, folder)


class DaskRunner:
    """Workers of Dask; `TaskRunner` says what `run` does."""

    def __init__(self, connection: Connection, limits: RunLimits, folder: Path | None = None) -> None:
        self._connection = connection
        self._limits = limits
        self._folder = folder

    @property
    def workers(self) -> int:
        """Number of calls that are carried at the same time: that of the threads of all workers."""
        return _Crew(self._connection).count()

    def run(  # noqa: D102 - of the protocol
        self,
        function: Callable[[Task], Answer],
        tasks: Iterable[Task],
        stop: Event,
        is_done: Callable[[Task], bool] | None = None,
        keep_going: bool = False,
    ) -> Iterator[tuple[Task, Answer]]:
        with _file_to_see(self._folder) as file:
            checked = CheckedCall(function, WorkerNeeds.of_this_process(file))
            order = RunOrder(checked, stop, is_done, keep_going)
            yield from carry_out(_Crew(self._connection), order, tasks, self._limits)


@contextmanager
def _file_to_see(folder: Path | None) -> Iterator[Path | None]:
    """Provide an empty file by which workers tell whether they see the folder, and not another one of its name."""
    if folder is None:
        yield None
        return
    file = folder.resolve() / f".seen-{uuid.uuid4().hex}"
    file.touch()
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


class _Crew:
    """The workers that a client has."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.client
        self._remote: WeakKeyDictionary[Future[Any], RemoteFuture] = WeakKeyDictionary()
        self._slow: dict[Future[Any], str] = {}  # workers of calls that were given to others as well
        self._threads: dict[str, int] = {}
        self._asked = -_REFRESH

    def count(self) -> int:
        if time.monotonic() - self._asked > _REFRESH:
            self._threads = self._ask(self._client.scheduler.ncores)
            self._asked = time.monotonic()
            if sum(self._threads.values()) < self._connection.expected:
                self._connection.revive()
        return sum(self._threads.values())

    def submit(self, function: Callable[[Any], Any], task: object, elsewhere: Future[Any] | None) -> Future[Any]:
        # pure=False: otherwise two calls of one function with one task are the same call, and done once.
        options: dict[str, Any] = {"pure": False, "key": f"biounet-{uuid.uuid4().hex}"}
        if elsewhere is not None and (busy := self._worker_of(elsewhere)):
            self._slow[elsewhere] = busy
            if others := [address for address in self._threads if address not in self._slow.values()]:
                options["workers"] = others
        try:
            remote = self._client.submit(NotedCall(function, options["key"]), task, **options)
        except (OSError, RuntimeError) as error:  # the client is closed
            raise _lost() from error
        call: Future[Any] = Future()
        self._remote[call] = remote
        self._client.loop.add_callback(_pass_on, remote, call)
        return call

    def count_deaths(self, error: BaseException) -> int:
        from distributed import KilledWorker
        from distributed.scheduler import NoValidWorkerError

        if isinstance(error, KilledWorker):
            return int(error.allowed_failures) + 1
        return int(isinstance(error, NoValidWorkerError))

    def seconds_computed(self, call: Future[Any]) -> float | None:
        address = self._worker_of(call)
        if address is None:
            return None
        ask, key = self._client.run, self._remote[call].key
        try:
            answers = self._client.sync(
                ask, seconds_computed, key, workers=[address], on_error="return", callback_timeout=_ASK
            )
        except (OSError, TimeoutError, RuntimeError, ValueError):  # it is dead, or does not answer
            return 0.0
        seconds = answers.get(address, 0.0)
        return 0.0 if isinstance(seconds, BaseException) else seconds

    def forget(self, call: Future[Any]) -> None:
        call.cancel()
        with suppress(OSError, TimeoutError, RuntimeError, CancelledError):  # no scheduler: nothing to cancel
            self._remote.pop(call).cancel()
        if address := self._slow.pop(call, None):
            # Its thread may hang for ever, and all tasks that are given to that worker behind it.
            with suppress(OSError, TimeoutError, KeyError, ValueError):
                self._client.restart_workers([address], timeout=_ASK, raise_for_error=False)

    def _worker_of(self, call: Future[Any]) -> str | None:
        """Return the address of the worker that has a call."""
        key = self._remote[call].key
        processing = self._ask(self._client.scheduler.processing)
        return next((address for address, keys in processing.items() if key in keys), None)

    def _ask(self, question: Callable[..., Any]) -> dict[str, Any]:
        """Return the scheduler's answer; raise if there is none."""
        if self._client.status != "running":
            raise _lost()
        try:
            answer: dict[str, Any] = self._client.sync(question, callback_timeout=_ASK)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise _lost() from error
        return answer


async def _pass_on(remote: RemoteFuture, call: Future[Any]) -> None:
    """Give the outcome of a call of Dask to a future that can be waited for by any thread.

    `Client.get_executor` has such futures, too. When a worker dies while its answer is fetched, these raise an error of
    their own, or never end. Here, the answer is computed again, or the death of the worker is what is raised.
    """
    answer, failure = None, None
    try:
        answer = await remote
    except BaseException as error:  # noqa: BLE001 - raised where the answer is taken
        failure = error
    if not call.set_running_or_notify_cancel():
        return
    if failure is None:
        call.set_result(answer)
    else:
        call.set_exception(failure)


def _lost() -> ClusterError:
    return ClusterError("the scheduler of Dask has ended or is not reached any more", hint=_CONTINUE)
