"""Rows about ids that come in pieces, and are joined id by id without holding all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_BUFFERED = 2**18  # rows of all pieces that are joined at a time
_FEWEST = 64  # of one piece


def save_rows(path: Path, rows: Ints) -> None:
    """Write rows (n, columns) of which the first column is an id, in the order of the ids."""
    order = np.argsort(rows[:, 0], kind="stable")
    np.save(path, np.ascontiguousarray(rows[order], np.int64))


def join_rows(paths: Sequence[Path]) -> Iterator[Ints]:
    """Yield the rows of all pieces by ascending id, some thousand at a time, those of one id together."""
    step = max(_FEWEST, _BUFFERED // max(1, len(paths)))
    pieces = [piece for piece in (_Piece(path, step) for path in paths) if len(piece.held)]
    while pieces:
        last = min(int(piece.held[-1, 0]) for piece in pieces)
        rows = np.concatenate([piece.take(last) for piece in pieces])
        pieces = [piece for piece in pieces if len(piece.held)]
        yield rows[np.argsort(rows[:, 0], kind="stable")]


class _Piece:
    """The rows of a file, of which the next ones are held.

    It is open only while it is read: there may be more pieces than files that a process may have open.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path, self._step, self._read = path, step, 0
        self.held = self._next()

    def take(self, last: int) -> Ints:
        """Return the next rows, up to an id."""
        while self.held[-1, 0] <= last and len(rows := self._next()):
            self.held = np.concatenate([self.held, rows])
        end = int(np.searchsorted(self.held[:, 0], last, side="right"))
        taken, self.held = self.held[:end], self.held[end:]
        return taken

    def _next(self) -> Ints:
        rows = np.array(np.load(self._path, mmap_mode="r")[self._read : self._read + self._step])
        self._read += len(rows)
        return rows
