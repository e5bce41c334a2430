"""``counts.csv``: a row for each image, of a batch or of measured labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from biounet.core import Figure, Status
from biounet.files import atomic_path
from biounet.measurement import Columns
from biounet.reporting.outputs import format_table

_CHUNK = 1000  # rows in memory at a time


class CountRow(Protocol):
    """What a row of ``counts.csv`` is made of."""

    @property
    def image(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> Status: ...  # noqa: D102
    @property
    def count(self) -> int | None: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def figures(self) -> Mapping[str, Figure]: ...  # noqa: D102


def figure_names(rows: Iterable[CountRow]) -> list[str]:
    """Return the names of the further figures of rows, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.figures))


def count_table(rows: Sequence[CountRow], figures: Sequence[str] | None = None) -> Columns:
    """Return the columns of ``counts.csv``; what was not measured in a row is an empty cell.

    `figures` are the names of the further columns; by default all that a row has.
    """
    figures = figure_names(rows) if figures is None else figures
    return {
        "image": np.array([row.image for row in rows], object),
        "status": np.array([row.status for row in rows], object),
        "count": np.array(["" if row.count is None else str(row.count) for row in rows], object),
        **{name: np.array([row.figures.get(name) for row in rows], object) for name in figures},
        "seconds": np.array([round(row.seconds, 4) for row in rows]),
        "message": np.array([row.message for row in rows], object),
    }


def write_count_table(path: Path, rows: Iterable[CountRow], figures: Sequence[str], *, excel: bool = False) -> None:
    """Write ``counts.csv``, atomically; of the rows, only some are in memory at a time."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for text in format_rows(rows, figures, excel=excel):
            file.write(text)


def format_rows(rows: Iterable[CountRow], figures: Sequence[str], *, excel: bool = False) -> Iterator[str]:
    """Yield the header of ``counts.csv``, then its rows, many at a time."""
    header = format_table(count_table((), figures), excel=excel)
    yield header
    left = iter(rows)
    while chunk := list(islice(left, _CHUNK)):
        yield format_table(count_table(chunk, figures), excel=excel)[len(header) :]
