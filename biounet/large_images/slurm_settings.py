"""Settings of a SLURM cluster of which Dask takes its workers, and the job that each of them is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from biounet.core import Settings, SettingsError, settings_error

_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT])i?B?", re.IGNORECASE)
_WALLTIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})")
_LAST_MINUTES = 300  # seconds before the end of a job at which its workers leave, so that none is killed in a task
_STAGGER = 240  # seconds over which workers that began together leave


class SlurmSettings(Settings):
    """What a job of SLURM asks for; a worker carries one call at a time.

    Attributes
    ----------
    workers
        How many there are at most.
    workers_per_job
        How many share a job. Jobs of one worker begin sooner on a full cluster.
    memory
        Of a job, such as ``16GB``.
    walltime
        Of a job, ``hours:minutes:seconds``. Jobs that end by it are replaced.
    gpu
        Whether each worker gets a GPU of its own, and so a job.
    queue, account
        Partition and account, where the cluster asks for them.
    directives, skip_directives
        Further lines ``#SBATCH``, such as ``--constraint=avx512``; and texts of lines that this cluster does not take.
    prologue
        Lines of the shell before the worker begins, such as ``module load python``.
    python
        Interpreter on the machines of the cluster; empty: the path of the present one.
    interface
        Network interface over which machines reach each other, such as ``ib0``.
    log_folder
        For what workers write; empty: where this command runs.
    wait_minutes
        How long to wait while no worker is there, as in a long queue.
    """

    workers: int = Field(gt=0, le=10_000)
    workers_per_job: int = Field(1, gt=0, le=1000)
    memory: str
    walltime: str
    gpu: bool = False
    queue: str = ""
    account: str = ""
    directives: tuple[str, ...] = ()
    skip_directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str = ""
    interface: str = ""
    log_folder: str = ""
    wait_minutes: float = Field(60.0, gt=0)

    @field_validator("memory")
    @classmethod
    def _is_memory(cls, value: str) -> str:
        if not _MEMORY.fullmatch(value):
            raise ValueError("expected a size such as '16GB'")
        return value

    @field_validator("walltime")
    @classmethod
    def _is_walltime(cls, value: str) -> str:
        if not _WALLTIME.fullmatch(value) or _seconds(value) < 60:
            raise ValueError("expected hours:minutes:seconds such as '02:00:00', a minute or more")
        return value

    @model_validator(mode="after")
    def _one_gpu_for_a_worker(self) -> SlurmSettings:
        if self.gpu and self.workers_per_job > 1:
            raise ValueError("gpu: each worker has a job of its own, so workers_per_job is 1")
        return self

    @property
    def jobs(self) -> int:
        """How many jobs there are at most."""
        return -(-self.workers // self.workers_per_job)


def read_slurm_settings(path: Path) -> SlurmSettings:
    """Read the settings of a TOML file; raise `SettingsError` if there is none or a key or value is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError("no such file of a SLURM cluster", path=path) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"not a TOML file: {error}", path=path) from error
    try:
        return SlurmSettings.model_validate(data)
    except ValidationError as error:
        raise settings_error(error, SlurmSettings, path) from None


def job_arguments(settings: SlurmSettings) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue's job."""
    seconds = _seconds(settings.walltime)
    leave = max(seconds - _LAST_MINUTES, seconds // 2)
    threads = [f"export {name}_NUM_THREADS=1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")]
    return {
        "cores": settings.workers_per_job,
        "processes": settings.workers_per_job,
        "memory": settings.memory,
        "walltime": settings.walltime,
        "queue": settings.queue or None,
        "account": settings.account or None,
        "interface": settings.interface or None,
        "job_extra_directives": [*(["--gres=gpu:1"] if settings.gpu else []), *settings.directives],
        "job_directives_skip": list(settings.skip_directives),
        "job_script_prologue": [*threads, *settings.prologue],
        "worker_extra_args": ["--lifetime", f"{leave}s", "--lifetime-stagger", f"{min(_STAGGER, leave // 4)}s"],
        "python": settings.python or None,
        "log_directory": settings.log_folder or None,
        "job_name": "biounet",
    }


def job_script(settings: SlurmSettings) -> str:
    """Return the job that a worker is, as it would be given to ``sbatch``; nothing is started."""
    from dask_jobqueue.slurm import SLURMJob

    job = SLURMJob("tls://ADDRESS-OF-THIS-COMMAND", name="biounet", **job_arguments(settings))
    return str(job.job_script())


def _seconds(walltime: str) -> int:
    match = _WALLTIME.fullmatch(walltime)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
