"""What the notes, figures and flags of an image need to know of its table, from parts of the table in any order.

A table of a hundred million objects is never in memory as a whole. Its parts are summarised one by one, and summaries
add up exactly: whatever the parts are, the figures are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.measurement.borders import FrameCounts
from biounet.measurement.exact_sums import ExactSum
from biounet.measurement.table import SIZE_COLUMNS, Table, TableKind

_IN_VOXELS = ("area_px", "volume_px", "voxels", "pixels")


@dataclass(frozen=True)
class SizeCounts:
    """How many objects have which size: exact, and short, since sizes are whole numbers of voxels.

    Attributes
    ----------
    column
        Of the table, in a unit of length where it has one.
    voxels
        (s,) the sizes that there are, ascending, in pixels or voxels.
    values
        (s,) the same as `column` has them.
    counts
        (s,) objects of each.
    """

    column: str
    voxels: NDArray[Any]
    values: NDArray[Any]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, table: Table) -> SizeCounts:
        """Return the sizes of the counted objects or lesions of a table."""
        counted, column = table.counted, table.size_column
        name = next(name for name in (*_IN_VOXELS, *SIZE_COLUMNS) if name in table.columns)
        voxels, first, counts = np.unique(table.columns[name][counted], return_index=True, return_counts=True)
        return cls(column, voxels, table.columns[column][counted][first], counts)

    def __add__(self, other: SizeCounts) -> SizeCounts:
        """Return the sizes of the objects of both."""
        both = np.concatenate([self.voxels, other.voxels])
        voxels, first, place = np.unique(both, return_index=True, return_inverse=True)
        counts = np.zeros(len(voxels), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return SizeCounts(self.column, voxels, np.concatenate([self.values, other.values])[first], counts)

    @property
    def total(self) -> int:
        """Number of objects."""
        return int(self.counts.sum())

    def middle(self) -> NDArray[np.intp]:
        """Return the places of the sizes whose mean is the median: two, or none without objects."""
        ends, total = np.cumsum(self.counts), self.total
        return np.searchsorted(ends, [(total - 1) // 2, total // 2][: 2 * total], side="right")

    def median(self) -> float:
        """Return the median; NaN without objects."""
        middle = self.values[self.middle()]
        return float(np.mean(middle)) if len(middle) else np.nan

    def encode(self) -> list[Any]:
        """Return the counts as JSON."""
        return [self.column, self.voxels.tolist(), self.values.tolist(), self.counts.tolist()]

    @classmethod
    def decode(cls, raw: list[Any]) -> SizeCounts:
        """Return the counts of `encode`."""
        column, voxels, values, counts = raw
        return cls(column, np.array(voxels), np.array(values), np.array(counts, np.int64))


@dataclass(frozen=True)
class TableSummary:
    """What is known of the rows of a table, or of a part of it.

    Attributes
    ----------
    kind
        Of the table.
    rows
        Their number.
    at_border
        How many touch the border of the image.
    unsure
        How many have a confidence below `low_confidence`.
    sizes
        Of the counted rows; None of classes.
    sums
        Of the columns that figures are means of: confidence, and intensities where the background is measured.
    frame
        What the counting frame counts; None where the boxes of objects are not known.
    low_confidence
        None: unsure objects are not counted.
    """

    kind: TableKind
    rows: int = 0
    at_border: int = 0
    unsure: int = 0
    sizes: SizeCounts | None = None
    sums: Mapping[str, ExactSum] = field(default_factory=dict)
    frame: FrameCounts | None = None
    low_confidence: float | None = None

    @classmethod
    def of(cls, table: Table, low_confidence: float | None = None, frame: FrameCounts | None = None) -> TableSummary:
        """Return the summary of a table or a part of it.

        Parameters
        ----------
        low_confidence
            From the model's card.
        frame
            Of the same objects.
        """
        columns, counted = table.columns, table.counted
        averaged = [name for name in columns if name in _averaged_columns(table)]
        unsure = 0
        if low_confidence is not None and "confidence" in columns:
            unsure = int(np.count_nonzero(columns["confidence"] < low_confidence))
        return cls(
            table.kind,
            len(counted),
            int(np.count_nonzero(columns.get("touches_border", ()))),
            unsure,
            None if table.kind == "classes" else SizeCounts.of(table),
            {name: ExactSum.of(columns[name][counted]) for name in averaged},
            frame,
            low_confidence,
        )

    def __add__(self, other: TableSummary) -> TableSummary:
        """Return the summary of the rows of both parts of a table."""
        frames = (self.frame, other.frame)
        return replace(
            self,
            rows=self.rows + other.rows,
            at_border=self.at_border + other.at_border,
            unsure=self.unsure + other.unsure,
            sizes=None if self.sizes is None or other.sizes is None else self.sizes + other.sizes,
            sums={name: total + other.sums[name] for name, total in self.sums.items()},
            frame=None if frames[0] is None or frames[1] is None else frames[0] + frames[1],
        )

    def encode(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        return {
            "kind": self.kind,
            "rows": self.rows,
            "at_border": self.at_border,
            "unsure": self.unsure,
            "sizes": None if self.sizes is None else self.sizes.encode(),
            "sums": {name: total.encode() for name, total in self.sums.items()},
            "frame": None if self.frame is None else self.frame.encode(),
            "low_confidence": self.low_confidence,
        }

    @classmethod
    def decode(cls, raw: Mapping[str, Any]) -> TableSummary:
        """Return the summary of `encode`."""
        sizes, frame = raw["sizes"], raw["frame"]
        return cls(
            raw["kind"],
            raw["rows"],
            raw["at_border"],
            raw["unsure"],
            None if sizes is None else SizeCounts.decode(sizes),
            {name: ExactSum.decode(total) for name, total in raw["sums"].items()},
            None if frame is None else FrameCounts.decode(frame),
            raw["low_confidence"],
        )


def join_summaries(summaries: Iterable[TableSummary]) -> TableSummary:
    """Return the summary of a table from those of its parts, at least one."""
    return reduce(add, summaries)


def _averaged_columns(table: Table) -> set[str]:
    """Return the columns whose means are figures of the image."""
    if table.kind == "classes":
        return set()
    channels = [name.removeprefix("background_") for name in table.columns if name.startswith("background_")]
    return {"confidence", *(f"{kind}_{name}" for name in channels for kind in ("intensity_mean", "background"))}
