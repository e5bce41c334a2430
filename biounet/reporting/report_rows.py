"""The images of a report, and what its first page says of all of them, gathered in one pass."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from biounet.core import Figure, Status
from biounet.reporting.size_histogram import SizeHistogram, join_histograms
from biounet.reporting.view_files import DATA_SUFFIX

FIRST = ("failed", "flagged")
"""Statuses of the images that come first, in this order; the others follow as they come."""
MAX_BARS = 80
"""Images with a bar each; more are a histogram."""
_MAX_SERIES = 200  # time series with a line each
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?%?")


@dataclass(frozen=True)
class ReportRow:
    """One image in the report.

    Attributes
    ----------
    status
        ``ok``, ``empty`` (no objects), ``flagged`` (with warnings) or ``failed``.
    count
        Number of objects; None where nothing was counted.
    message
        Error or notes.
    overlay
        Path of the overlay relative to the page, with ``/``.
    sizes
        Of the objects; None where they were not measured.
    files
        Paths of all its files relative to the page; those of the viewer are among them.
    figures
        Further figures by their names, as in ``counts.csv``.
    warnings
        Why it is flagged; else, all of `message`.
    times
        Number and count of each frame of a time series.
    """

    image: str
    status: Status
    count: int | None
    seconds: float
    message: str = ""
    overlay: str | None = None
    sizes: SizeHistogram | None = None
    files: Sequence[str] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    times: Sequence[tuple[int, int | None]] = ()

    @property
    def view(self) -> str | None:
        """What the names of its files for the viewer begin with; None where they are not there."""
        return next((path.removesuffix(DATA_SUFFIX) for path in self.files if path.endswith(DATA_SUFFIX)), None)

    @property
    def reasons(self) -> dict[str, str]:
        """Why it failed or is flagged: texts, by the same without their figures, for counting equal ones."""
        cause = self.message.partition(" (hint: ")[0]
        parts = [cause] if self.status == "failed" else self.warnings or self.message.split("; ")
        return {_NUMBER.sub("…", part): part for part in parts if part}


class ImageBar(NamedTuple):
    """What the chart of few images says of one."""

    objects: int
    text: str
    status: Status


@dataclass
class Survey:
    """What is said of all images together.

    Attributes
    ----------
    order
        Places of the images in the order in which they are shown.
    counts
        Of those images in which objects were counted.
    figures
        Names of the figures that an image has.
    reasons
        How many images failed, and are flagged, for each reason.
    reason_texts
        The text of one image for each reason.
    first
        The images that have a bar each, where these are all.
    series
        Number and count of each frame, of the time series that have a line each; `series_count` is that of all.
    """

    order: array[int] = field(default_factory=lambda: array("q"))
    statuses: Counter[str] = field(default_factory=Counter)
    counts: array[int] = field(default_factory=lambda: array("q"))
    seconds: float = 0.0
    figures: dict[str, None] = field(default_factory=dict)
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: {status: Counter() for status in FIRST})
    reason_texts: dict[str, str] = field(default_factory=dict)
    first: list[ImageBar] = field(default_factory=list)
    sizes: list[SizeHistogram] = field(default_factory=list)
    series: dict[str, Sequence[tuple[int, int | None]]] = field(default_factory=dict)
    series_count: int = 0


def survey(rows: Iterable[ReportRow]) -> Survey:
    """Return what is said of all images together; none of the rows is kept."""
    found, places = Survey(), {status: array("q") for status in (*FIRST, "")}

    def sizes() -> Iterator[SizeHistogram]:
        for place, row in enumerate(rows):
            places[row.status if row.status in FIRST else ""].append(place)
            _add(row, found)
            if row.sizes is not None:
                yield row.sizes

    found.sizes = join_histograms(sizes())
    for part in places.values():
        found.order.extend(part)
    return found


def _add(row: ReportRow, found: Survey) -> None:
    found.statuses[row.status] += 1
    found.seconds += row.seconds
    found.figures |= {name: None for name, value in row.figures.items() if value is not None}
    if row.count is not None:
        found.counts.append(row.count)
    if row.status in FIRST:
        reasons = row.reasons
        found.reasons[row.status].update(reasons.keys())
        found.reason_texts |= reasons
    if found.statuses.total() <= MAX_BARS:
        outcome = row.status if row.count is None else f"{row.status}, {row.count}"
        found.first.append(ImageBar(row.count or 0, f"{row.image}: {outcome}", row.status))
    if len(row.times) > 1:
        found.series_count += 1
        if len(found.series) < _MAX_SERIES:
            found.series[row.image] = row.times
