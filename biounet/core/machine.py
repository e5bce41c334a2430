"""What the machine gives to this process: cores, memory, and how it says that there is no more."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from biounet.core.errors import MachineError

_PROGRAM = 800 * 2**20  # bytes of addresses of torch and what else is loaded with it
_NO_THREAD = "can't start new thread"
_NO_ROOM = (  # libraries have no class of their own for these
    "DefaultCPUAllocator:",  # torch
    "could not create a ",  # oneDNN, which says so of a primitive or of memory, and not why
    "std::bad_alloc",
    "Cannot allocate memory",
    "cannot allocate memory",
    "failed to map segment",  # the loader of shared libraries
    _NO_THREAD,
    "Could not find/load shared object file",  # llvmlite, of any reason
)
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, and nothing else."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError | OSError) and any(words in str(error) for words in _NO_ROOM)


def describe_shortage(error: BaseException) -> str:
    """Return what there is too little of when `is_out_of_memory` holds for an error, in words for the user."""
    if _NO_THREAD in str(error):  # the system does not say which of the two it is
        return "no further thread can be started: the limit of processes (ulimit -u) or of memory is reached"
    return "not enough memory"


def available_cores() -> int:
    """Return how many cores this process may use: by its affinity, and by the quota of its container or job."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        cores = os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_quota())))


def free_memory() -> int | None:
    """Return how many bytes this process can still take; None where the machine does not say it.

    The least of what the machine has, what the container or job may take, and what a limit of addresses (``ulimit -v``)
    leaves.
    """
    known = [*_machine(), *_group(), *_addresses()]
    return max(0, min(known)) if known else None


def free_address_space() -> int | None:
    """Return how many bytes of addresses a limit (``ulimit -v``) leaves to this process; None where there is none."""
    return next(iter(_addresses()), None)


def check_address_space() -> None:
    """Refuse to begin where a limit of addresses ends the program before it could say what is wrong.

    Raises
    ------
    MachineError
        If ``ulimit -v`` leaves less than the libraries take.
    """
    left = free_address_space()
    if left is not None and left < _PROGRAM:
        cause = f"not enough memory: the program takes {_PROGRAM / 2**30:.2g} GiB of addresses"
        raise MachineError(f"{cause}, and {left / 2**30:.2g} GiB are left (ulimit -v)", hint="raise the limit")


def _machine() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def home_folder() -> Path | None:
    """Return the user's home; None where there is none, as in a container that runs as a user it does not know."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def check_working_folder() -> None:
    """Refuse to work in a folder that was removed: libraries would end the process with words of their own.

    Raises
    ------
    MachineError
        If it was.
    """
    try:
        Path.cwd()
    except OSError as error:
        hint = "change to another folder"
        raise MachineError(f"the folder that this command runs in is not there: {error.strerror}", hint=hint) from error


def _addresses() -> Iterator[int]:
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource  # not on Windows

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            yield max(0, most - taken * os.sysconf("SC_PAGE_SIZE"))


def _group() -> Iterator[int]:
    """Give what the memory limits of this process's control group, and of those above it, leave."""
    for folder in _folders("memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, taken = _number(folder / limit), _number(folder / usage)
            if most is not None and taken is not None and most < 2**60:  # the latter is how version 1 says "none"
                yield most - taken + _statistic(folder / "memory.stat", cache)


def _quota() -> float:
    """Return the share of time that the control group gives, in cores."""
    least = math.inf
    for folder in _folders("cpu"):
        with suppress(OSError, ValueError):  # version 2: quota and period in one file
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            if quota != "max":
                least = min(least, int(quota) / int(period))
        most, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if most is not None and period_us and most > 0:
            least = min(least, most / period_us)
    return least if least < math.inf else float(os.cpu_count() or 1)


def _folders(kind: str) -> Iterator[Path]:
    """Give the folders of this process's control groups of a kind, from its own to the topmost."""
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, kinds, own = (line + "::").split(":")[:3]
            if kinds and kind not in kinds.split(","):
                continue
            top = _GROUPS / kinds if kinds else _GROUPS
            path = Path(own.lstrip("/"))
            # Inside of a container, its own group is mounted at the top.
            yield from (top / part for part in (path, *path.parents))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _statistic(path: Path, name: str) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text(encoding="ascii").splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
    return 0
