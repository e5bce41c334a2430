"""What the machine and its container offer, and which errors mean that memory ran out."""

import os

import pytest

from biounet.batch import runner
from biounet.batch.process_image import error_text
from biounet.cli.options import count_readers
from biounet.core import available_cores, free_memory, is_out_of_memory, machine

MIB = 2**20


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        ImportError("x.so: failed to map segment from shared object"),
    ],
    ids=str,
)
def test_out_of_memory_errors_of_libraries_are_recognised(error):
    assert is_out_of_memory(error)


def test_a_limit_of_processes_is_not_reported_as_one_of_memory():
    assert "ulimit -u" in error_text(RuntimeError("can't start new thread"))
    assert error_text(RuntimeError("std::bad_alloc")) == "not enough memory"


@pytest.mark.parametrize("error", [RuntimeError("shape"), OSError(2, "no"), ImportError("no module"), ValueError("x")])
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert not is_out_of_memory(error)


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return the folder of control groups of a machine with 64 cores and much memory."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    return tmp_path


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)])
def test_available_cores_are_limited_by_the_container(groups, quota, cores):
    write(groups, own="0::/job/step\n", cgroup__job__cpu_dot_max=quota, cgroup__job__step__cpu_dot_max="max 100000")
    assert available_cores() == cores
    (groups / "cgroup" / "job" / "cpu.max").unlink()
    write(groups, own="3:cpu,cpuacct:/job\n")
    first, _, period = quota.partition(" ")
    write(groups, **{"cgroup__cpu,cpuacct__job__cpu_dot_cfs_quota_us": first.replace("max", "-1")})
    write(groups, **{"cgroup__cpu,cpuacct__job__cpu_dot_cfs_period_us": period})
    assert available_cores() == cores


def test_available_cores_are_limited_by_the_affinity(groups, monkeypatch):
    write(groups, own="")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    assert available_cores() == 1
    assert count_readers(["."], None) == 1
    assert runner._job_count(None, 100) == 1


def test_free_memory_is_limited_by_the_container(groups):
    group = "cgroup__job__memory_dot_"
    write(groups, own="0::/job\n", **{f"{group}max": str(500 * MIB), f"{group}current": str(450 * MIB)})
    write(groups, **{f"{group}stat": f"anon 5\ninactive_file {100 * MIB}\n"})
    assert free_memory() == 150 * MIB
    write(groups, **{f"{group}max": "max"})
    assert free_memory() > 150 * MIB
