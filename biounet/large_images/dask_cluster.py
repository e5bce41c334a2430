"""Where the workers of Dask are: processes of this machine, a scheduler that runs already, or jobs of SLURM."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biounet.core import SettingsError, available_cores, free_memory, require_extra
from biounet.large_images.attempts import ClusterError
from biounet.large_images.slurm_settings import SlurmSettings, job_arguments, job_script, read_slurm_settings

if TYPE_CHECKING:
    from distributed import Client

_CONNECT = 20  # seconds to reach a scheduler
_CLOSE = 5  # seconds that workers may take to end
_LOCAL = re.compile(r"local(?::(\d+))?")
_ADDRESS = re.compile(r"(?:tcp|tls)://[^\s/]+:\d+")
_LOGS = ("distributed", "distributed.client", "tornado", "tornado.application", "asyncio", "dask_jobqueue")
_SHARE_OF_MEMORY = 0.8  # of what is free, for workers of this machine
_PRELOAD = "biounet.large_images.worker_start"  # of workers of this machine
_CONFIG = {
    # Each death of a worker is reported, and `attempts` decides what is tried again.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.comm.timeouts.connect": f"{_CONNECT}s",
    # The memory of a worker is that of its task: there are no answers of any size to move to disk, and a worker that
    # pauses would wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.deploy.lost-worker-timeout": "60s",  # on a busy machine, a worker takes long to start again
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@dataclass(frozen=True)
class Cluster:
    """Where workers are, as ``--cluster`` says it: one of `local`, `address` and `slurm`.

    Attributes
    ----------
    text
        What was asked for.
    local
        Number of processes of this machine.
    address
        Of a scheduler that runs already.
    slurm
        Jobs to ask for.
    """

    text: str
    local: int = 0
    address: str = ""
    slurm: SlurmSettings | None = None

    @property
    def workers(self) -> int | None:
        """Number of workers there will be at most; None where only the scheduler knows."""
        return self.slurm.workers if self.slurm else self.local or None

    def job_script(self) -> str:
        """Return the job of SLURM that a worker is, or an empty text."""
        return job_script(self.slurm) if self.slurm else ""


def parse_cluster(text: str) -> Cluster:
    """Return what ``local``, ``local:4``, ``tcp://host:8786`` or the path of a ``.toml`` file says; start nothing.

    Raises
    ------
    SettingsError
        If it says something else, the file is wrong, or the extra ``cluster`` is not installed.
    """
    local = _LOCAL.fullmatch(text)
    if not (local or _ADDRESS.fullmatch(text) or text.endswith(".toml")):
        hint = "local, local:4, tcp://host:8786, or a .toml file about a SLURM cluster"
        raise SettingsError(f"no such cluster: '{text}'", hint=hint)
    if local and local[1] and int(local[1]) < 1:
        raise SettingsError(f"cluster '{text}': at least one worker is needed", hint="such as local:4")
    require_extra("cluster", "distributed", "a cluster")
    if local:
        return Cluster(text, local=int(local[1] or available_cores()))
    if text.endswith(".toml"):
        require_extra("cluster", "dask_jobqueue", "a cluster with SLURM")
        return Cluster(text, slurm=read_slurm_settings(Path(text)))
    return Cluster(text, address=text)


@dataclass(frozen=True)
class Connection:
    """A client of Dask, and how workers are started again that Dask itself gives up."""

    client: Client
    revive: Callable[[], None] = lambda: None
    expected: int = 0
    """Threads of workers below which `revive` is called."""


@contextmanager
def connected(cluster: Cluster, folder: Path | None, memory: int | None) -> Iterator[Connection]:
    """Provide a connection to workers; what was started for it ends with it.

    Parameters
    ----------
    folder
        On a disk that all workers see.
    memory
        Bytes for all workers of this machine together; None: most of what is free.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached or has other versions, or jobs cannot be submitted.
    """
    from dask import config

    with ExitStack() as stack:
        stack.enter_context(_silence())
        stack.enter_context(config.set(_CONFIG))
        started: Any = cluster.address
        if cluster.slurm:
            started = stack.enter_context(_slurm_cluster(cluster.slurm, folder))
        elif cluster.local:
            started = stack.enter_context(_local_cluster(cluster.local, memory))
        client = stack.enter_context(_client(started, cluster.text))
        if cluster.address:
            _check_versions(client, cluster.address)
        if cluster.local:
            yield Connection(client, _Reviver(started), cluster.local)
        else:
            yield Connection(client)


@contextmanager
def _client(started: Any, text: str) -> Iterator[Client]:  # noqa: ANN401 - an address or a cluster of Dask
    from distributed import Client

    try:
        client = Client(started, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the latter ones of a scheduler of another version
        cause = f"no scheduler of Dask answers at {text}"
        hint = "look whether it runs, has the same versions, and no firewall is in between"
        raise ClusterError(cause, hint=hint) from error
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=_CLOSE)


def _check_versions(client: Client, address: str) -> None:
    """Raise if the scheduler or a worker cannot understand this process."""
    versions: Any = client.get_versions()
    mine = _relevant(versions["client"])
    others = {f"the scheduler at {address}": versions["scheduler"]}
    others |= {f"the worker at {worker}": there for worker, there in versions["workers"].items()}
    for where, there in others.items():
        for name, version in _relevant(there).items():
            if version != mine[name]:
                hint = "start both in the same environment"
                raise ClusterError(f"{where} has {name} {version}, and this process {mine[name]}", hint=hint)


def _relevant(versions: dict[str, Any]) -> dict[str, str]:
    packages = versions["packages"]
    names = {name: str(packages.get(name)) for name in ("dask", "distributed", "cloudpickle")}
    return {"Python": ".".join(str(packages["python"]).split(".")[:2]), **names}


@contextmanager
def _local_cluster(workers: int, memory: int | None) -> Iterator[Any]:
    """Start processes of this machine, which nobody else can reach: their certificates are made for this run."""
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.security import Security

    free = free_memory() if memory is None else None
    memory = int((free or 0) * _SHARE_OF_MEMORY) if memory is None else memory
    reached = {"host": "127.0.0.1", "protocol": "tls://", "security": Security.temporary(), "dashboard": False}
    with tempfile.TemporaryDirectory(prefix="biounet-", ignore_cleanup_errors=True) as folder, _same_environment():
        worker = {
            **reached,
            "nthreads": 1,
            "memory_limit": memory // workers,  # 0: no limit
            "silence_logs": logging.CRITICAL,
            "local_directory": folder,
            "preload": [_PRELOAD],
        }
        specs = {
            number: {"cls": Nanny, "options": {**worker, "env": environment}}
            for number, environment in enumerate(_environments(workers))
        }
        scheduler = {"cls": Scheduler, "options": {**reached, "dashboard_address": "127.0.0.1:0"}}
        cluster = SpecCluster(
            workers=specs, scheduler=scheduler, security=reached["security"], silence_logs=logging.CRITICAL
        )
        try:
            yield cluster
        finally:
            with suppress(OSError, TimeoutError):
                cluster.close(timeout=_CLOSE)


class _Reviver:
    """Starts workers again whose nannies do not, as when a worker dies just after its start."""

    def __init__(self, cluster: Any) -> None:  # noqa: ANN401 - a `SpecCluster`
        self._cluster = cluster
        self._dead: set[object] = set()
        self._closing: set[asyncio.Future[Any]] = set()

    def __call__(self) -> None:
        self._cluster.loop.add_callback(self._look)

    def _look(self) -> None:
        """Replace workers that are dead as they were at the last look; nannies start others within moments."""
        workers = self._cluster.workers
        dead = {name for name, nanny in workers.items() if not nanny.is_alive()}
        for name in dead & self._dead:
            self._closing.add(asyncio.ensure_future(workers.pop(name).close()))
        self._dead = dead
        self._cluster.scale(len(self._cluster.worker_spec))


def _environments(workers: int) -> list[dict[str, str]]:
    """Return the variables of each worker: one thread, and one GPU in turn where there are any."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if not devices or not torch.cuda.is_available():
        return [threads] * workers
    return [{**threads, "CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} for number in range(workers)]


@contextmanager
def _slurm_cluster(settings: SlurmSettings, folder: Path | None) -> Iterator[Any]:
    """Ask for jobs, and for new ones when their time is up."""
    from dask_jobqueue import SLURMCluster
    from distributed.security import Security

    try:
        cluster = SLURMCluster(
            security=Security.temporary(),
            shared_temp_directory=None if folder is None else str(folder),
            scheduler_options={"dashboard": False, "dashboard_address": ":0"},
            silence_logs=logging.CRITICAL,
            **job_arguments(settings),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no scheduler for jobs of SLURM: {error}") from error
    try:
        cluster.adapt(minimum_jobs=settings.jobs, maximum_jobs=settings.jobs)
        yield cluster
    finally:
        with suppress(OSError, TimeoutError, RuntimeError):
            cluster.close(timeout=_CLOSE)


@contextmanager
def _silence() -> Iterator[None]:
    """Let Dask write no log: what went wrong is told in one line, by an error."""
    import distributed  # noqa: F401 - sets the levels when it is imported

    loggers = [logging.getLogger(name) for name in _LOGS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _same_environment() -> Iterator[None]:
    """Restore the variables of this process, in which Dask sets some for workers that it starts."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in {*os.environ} - {*before}:
            del os.environ[name]
        os.environ.update(before)
