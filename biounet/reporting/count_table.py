"""``counts.csv``: a row for each image, of a batch or of measured labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from biounet.core import Figure, Status
from biounet.measurement import Columns


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


def count_table(rows: Sequence[CountRow]) -> Columns:
    """Return the columns of ``counts.csv``; what was not measured in a row is an empty cell."""
    figures = dict.fromkeys(name for row in rows for name in row.figures)  # in the order of their first appearance
    return {
        "image": np.array([row.image for row in rows], object),
        "status": np.array([row.status for row in rows], object),
        "count": np.array(["" if row.count is None else str(row.count) for row in rows], object),
        **{name: np.array([row.figures.get(name) for row in rows], object) for name in figures},
        "seconds": np.array([round(row.seconds, 4) for row in rows]),
        "message": np.array([row.message for row in rows], object),
    }
