"""What happened to a changing list of slots, on disk, to be followed backwards.

A join in one pass knows what became of an item only when it is over. Followed backwards, its history gives each item's
end with no more memory than the list itself took.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass
class History:
    """A list of slots that grows by those of one super-block after the other, and is compacted now and then."""

    folder: Path
    _events: list[int] = field(default_factory=list)  # slots of a super-block, or -1: compacted
    _compactions: int = 0

    def grow(self, slots: int) -> None:
        """Note that the slots of the next super-block were appended."""
        self._events.append(slots)

    def compact(self, became: Ints) -> None:
        """Note what slots became: a slot of the new list, or -1 - the end that an item has come to."""
        np.save(self._path(self._compactions), became)
        self._events.append(-1)
        self._compactions += 1

    def ends(self) -> Iterator[tuple[int, Ints]]:
        """Yield each super-block and the ends of its slots, from the last one to the first; all must have ended."""
        ends = np.zeros(0, np.int64)
        index = sum(event >= 0 for event in self._events)
        compaction = self._compactions
        for event in reversed(self._events):
            if event < 0:
                compaction -= 1
                became = np.load(self._path(compaction))
                self._path(compaction).unlink()
                ends = np.concatenate([ends, [0]])  # something to index where no slot is left
                ends = np.where(became >= 0, ends[np.maximum(became, 0)], -1 - became)
            else:
                index -= 1
                kept = len(ends) - event
                yield index, ends[kept:]
                ends = ends[:kept]

    def _path(self, compaction: int) -> Path:
        return self.folder / f"history-{compaction}.npy"
