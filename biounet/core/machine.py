"""Resources of this process: cores, memory and their limits."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from biounet.core.errors import MachineError, SettingsError

PROGRAM_RAM = 590 * 2**20
"""Bytes of memory that a process takes with the libraries that segment and measure, without any image."""

_PROGRAM = 800 * 2**20  # bytes of address space of torch and the other libraries
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)
_USABLE_SHARE = 0.8  # of free memory
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_SMALL_ARRAY = 2**24  # bytes; with 2**22, 60 MiB less are kept, and each array is new pages: 8 % more time
_NO_THREAD = "can't start new thread"
_OUT_OF_MEMORY = (  # messages of libraries that raise no exception class of their own
    "DefaultCPUAllocator:",  # torch
    "could not create a ",  # oneDNN, for a primitive or memory
    "std::bad_alloc",
    "Cannot allocate memory",
    "cannot allocate memory",
    "failed to map segment",  # the loader of shared libraries
    _NO_THREAD,
    "Could not find/load shared object file",  # llvmlite, for any reason
)
_DEVICE_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
    "unable to find an engine to execute",  # cuDNN, mostly for want of a work space
)
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, MemoryError) or is_device_out_of_memory(error):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError | ImportError | OSError) and any(
        text in str(error) for text in _OUT_OF_MEMORY
    )


def is_device_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU ran out."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _DEVICE_OUT_OF_MEMORY)


def describe_shortage(error: BaseException) -> str:
    """Return what ran out, for an error of which `is_out_of_memory` is true."""
    if _NO_THREAD in str(error):  # which of the two limits is not in the error
        return "no further thread can be started: the limit of processes (ulimit -u) or of memory is reached"
    return "not enough memory"


def available_cores() -> int:
    """Return the number of cores by the CPU affinity and the quota of the container or job."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cpu_quota())))


def keep_little_memory() -> None:
    """Let the C library (glibc) give arrays back to the system when they are freed: it keeps those of less than 32 MiB.

    What the layers of a network left was as much again as the largest of them. Predicting takes as long.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_MMAP_THRESHOLD, _SMALL_ARRAY)
        library.mallopt(_TRIM_THRESHOLD, _SMALL_ARRAY)  # Dask sets 64 KiB for its workers


def give_back_memory() -> None:
    """Give memory that was freed back to the system, where the C library is asked to (glibc); it takes milliseconds."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory() -> int | None:
    """Return the bytes that this process can still allocate; None where this is unknown.

    The minimum over the machine, the container or job, and the limit of address space (``ulimit -v``).
    """
    available_kb = _read_number(Path("/proc/meminfo"), "MemAvailable:")
    available = None if available_kb is None else 1024 * available_kb
    limits = [limit for limit in (*_cgroup_memory(), free_address_space(), available) if limit is not None]
    return max(0, min(limits)) if limits else None


def usable_memory() -> int | None:
    """Return the bytes of memory that a command takes unless it is told otherwise; None where free memory is unknown.

    The rest of what is free is for other programs, and for errors of estimates.
    """
    free = free_memory()
    return None if free is None else int(_USABLE_SHARE * free)


def free_address_space() -> int | None:
    """Return the bytes of address space left by ``ulimit -v``; None without a limit."""
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource  # not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            return max(0, limit - used * os.sysconf("SC_PAGE_SIZE"))
    return None


def as_bytes(value: int | str, name: str = "ram") -> int:
    """Return ``8G``, ``8 GiB``, ``500M`` or a number of bytes as one; K, M, G and T are powers of 1024.

    `name` is for the message of the `SettingsError`, which is raised for anything else.
    """
    match = _BYTES.fullmatch(str(value).strip())
    if match is None or not float(match[1]):
        raise SettingsError(f"{name} {value!r} is not an amount of memory", hint="such as 8G or 1500M")
    return int(float(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper()))


def least_ram(need: int) -> str:
    """Return the hint that is given where memory is too little: the least of ``--ram`` that would do."""
    return f"give it --ram {math.ceil(need / 2**20)}M or more, or work where there is more memory"


def format_seconds(seconds: float) -> str:
    """Return a time as people say it: ``5.1 s``, ``42 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def check_address_space() -> None:
    """Raise `MachineError` if ``ulimit -v`` leaves too little for the libraries, which would crash otherwise."""
    left = free_address_space()
    if left is not None and left < _PROGRAM:
        cause = f"not enough memory: the program takes {_PROGRAM / 2**30:.2g} GiB of addresses"
        raise MachineError(f"{cause}, and {left / 2**30:.2g} GiB are left (ulimit -v)", hint="raise the limit")


def home_folder() -> Path | None:
    """Return the home folder of the user; None without one, as in containers with an unknown user."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def check_working_folder() -> None:
    """Raise `MachineError` if the working folder was removed, before libraries fail with messages of their own."""
    try:
        Path.cwd()
    except OSError as error:
        hint = "change to another folder"
        raise MachineError(f"the folder that this command runs in is not there: {error.strerror}", hint=hint) from error


def _cgroup_memory() -> Iterator[int]:
    """Yield the bytes left by the limits of this process's control group and of its parents."""
    for folder in _cgroup_folders("memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, used = _read_number(folder / limit), _read_number(folder / usage)
            if most is not None and used is not None and most < 2**60:  # larger numbers in version 1 mean no limit
                yield most - used + (_read_number(folder / "memory.stat", cache) or 0)


def _cpu_quota() -> float:
    """Return the smallest CPU quota of this process's control groups, in cores; infinite without one."""
    cores = math.inf
    for folder in _cgroup_folders("cpu"):
        with suppress(OSError, ValueError):  # version 2: quota and period in one file
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            if quota != "max":
                cores = min(cores, int(quota) / int(period))
        quota_us, period_us = _read_number(folder / "cpu.cfs_quota_us"), _read_number(folder / "cpu.cfs_period_us")
        if quota_us is not None and period_us and quota_us > 0:
            cores = min(cores, quota_us / period_us)
    return cores


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of its parents."""
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = (line + "::").split(":")[:3]
            if controllers and controller not in controllers.split(","):
                continue
            path = Path(group.lstrip("/"))
            # Inside a container, its own group is mounted at the root.
            yield from (_CGROUPS / controllers / parent for parent in (path, *path.parents))


def _read_number(path: Path, name: str = "") -> int | None:
    """Return the number of a file, or the one after a name at the beginning of a line."""
    with suppress(OSError, ValueError):
        match = re.search(rf"^{name}\s*(-?\d+)\b", path.read_text(encoding="ascii"), re.MULTILINE)
        return int(match[1]) if match else None
    return None
