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
    pieces = [piece for piece in (np.load(path, mmap_mode="r") for path in paths) if len(piece)]
    at = [0] * len(pieces)
    step = max(_FEWEST, _BUFFERED // max(1, len(pieces)))
    while pieces:
        # No piece gives more than `step` rows, unless one id has more.
        ends = [piece[min(start + step, len(piece)) - 1, 0] for piece, start in zip(pieces, at, strict=True)]
        last = min(ends)
        stops = [
            start + int(np.searchsorted(piece[start:, 0], last, side="right"))
            for piece, start in zip(pieces, at, strict=True)
        ]
        taken = [np.array(piece[a:b]) for piece, a, b in zip(pieces, at, stops, strict=True)]
        left = [number for number, piece in enumerate(pieces) if stops[number] < len(piece)]
        pieces, at = [pieces[number] for number in left], [stops[number] for number in left]
        rows = np.concatenate(taken)
        yield rows[np.argsort(rows[:, 0], kind="stable")]
