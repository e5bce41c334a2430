"""Who carries the calls of a pass: this process, its threads, or many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")


class TaskRunner(Protocol):
    """Carries the calls of a function; state lives on disk, where the tasks write.

    Tasks are small frozen objects that can be pickled and say where things are, such as a folder and a number; answers
    are small too, such as counts. A task may be carried out twice, even at the same time, so that what it writes has to
    be the same and to be renamed into place whole.
    """

    @property
    def workers(self) -> int:
        """Number of calls that are carried at the same time."""

    def run(
        self,
        function: Callable[[Task], Answer],
        tasks: Iterable[Task],
        stop: Event,
        is_done: Callable[[Task], bool] | None = None,
    ) -> Iterator[tuple[Task, Answer]]:
        """Yield each task with ``function(task)``, in the order in which they are completed."""
