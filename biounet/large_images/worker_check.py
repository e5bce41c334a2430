"""Whether a worker can do what this process asks: checked there, with its first call."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

from biounet.core import __version__
from biounet.large_images.attempts import ClusterError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

_SEEN_WITHIN = 5.0  # seconds after which a network disk shows a new file on other machines


@dataclass(frozen=True)
class WorkerNeeds:
    """What a worker has to have in common with this process.

    Attributes
    ----------
    versions
        Of what decides about results, by name.
    file
        On a disk that all machines see; None: nothing is read or written together.
    """

    versions: tuple[tuple[str, str], ...]
    file: Path | None = None

    @classmethod
    def of_this_process(cls, file: Path | None = None) -> WorkerNeeds:
        """Return the versions that this process has."""
        return cls(tuple(_versions().items()), file)


@dataclass(frozen=True)
class CheckedCall(Generic[Task, Answer]):
    """A function that is called only where the worker has what it needs."""

    function: Callable[[Task], Answer]
    needs: WorkerNeeds

    def __call__(self, task: Task) -> Answer:
        """Return the answer of the function; raise `ClusterError` on a worker that lacks something."""
        check_this_worker(self.needs)
        return self.function(task)


@functools.cache
def check_this_worker(needs: WorkerNeeds) -> None:
    """Raise `ClusterError` if this process lacks something; once for each process, since errors are not remembered."""
    here = _versions()
    for name, version in needs.versions:
        if here[name] != version:
            cause = f"the worker on {platform.node()} has {name} {here[name]}, and this process {version}"
            raise ClusterError(cause, hint="start workers in the same environment as this command")
    if needs.file is not None and not _is_seen(needs.file):
        cause = f"the worker on {platform.node()} does not see this folder"
        hint = "results, model and images of a cluster are on a disk that all its machines see"
        raise ClusterError(cause, path=needs.file.parent, hint=hint)


def _versions() -> dict[str, str]:
    return {
        "biounet": __version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "torch": metadata.version("torch"),
    }


def _is_seen(file: Path) -> bool:
    end = time.monotonic() + _SEEN_WITHIN
    while not os.access(file, os.R_OK):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
