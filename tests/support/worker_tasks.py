"""Functions of tasks that go wrong on purpose, which workers of other processes can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from biounet.core import InputError


@dataclass(frozen=True)
class Part:
    """A task that leaves a line in a folder each time it begins."""

    folder: Path
    number: int
    deaths: int = 0
    """How often it kills its worker."""
    hangs: int = 0
    """How often it does not answer."""
    computes: float = 0.0
    """Seconds for which it computes."""
    damaged: bool = False

    def __str__(self):
        return f"part {self.number}"

    def begins(self):
        return len(list(self.folder.glob(f"{self.number}-*")))


def work_on(part):
    earlier = part.begins()
    (part.folder / f"{part.number}-{os.getpid()}-{time.time_ns()}").touch()
    if earlier < part.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if earlier < part.hangs:
        time.sleep(600)
    compute(part.computes)
    if part.damaged:
        raise InputError("a chunk is damaged", path=f"image-{part.number}.zarr")
    return 2 * part.number


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def process_of_worker(part):
    return os.getpid(), os.environ.get("OMP_NUM_THREADS"), os.environ.get("NUMBA_NUM_THREADS")


def answer_with(answer, part):
    return answer


def fail_to_iterate(part):
    return tuple(part.number)
