"""What is found in a large image, as `biounet.segmentation.Segmentation` has it of others, without labels and table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from biounet.core import Figure
from biounet.labelling import NumberedObjects
from biounet.large_images.find_parts import found_shortages, pinned_arithmetic
from biounet.large_images.work import Work
from biounet.measurement import TableSummary, frame_notes, looks_like_training, quality_warnings, table_statistics
from biounet.segmentation import note_on_unsought_diameter, orientation_notes, sized_reference, table_figures


@dataclass(frozen=True)
class LargeResult:
    """Count, notes and figures of a large image.

    Attributes
    ----------
    summary
        Of the table.
    channel_types
        Types of the pixels of the channels that were measured, by their names.
    arithmetic
        The numbers that the network computed in; None if an earlier version predicted the image.
    """

    count: int
    notes: tuple[str, ...]
    figures: dict[str, Figure]
    summary: TableSummary
    channel_types: dict[str, str]
    arithmetic: str | None = None


def describe_result(work: Work, numbered: NumberedObjects, summary: TableSummary) -> LargeResult:
    """Return the result of an image all of whose super-blocks have been measured."""
    segment, counts = work.plan.segment, summary.frame
    zoom = math.prod(work.zoom) ** (1 / len(work.zoom))
    notes = [
        *work.stored.notes,
        *found_shortages(work.folder),
        *quality_warnings(work.statistics, summary, work.training, zoom),
        *(frame_notes(counts) if counts else ()),
        *orientation_notes(work.stored.grid, work.model.card),
    ]
    if segment.diameter == "auto":
        statistics = work.statistics | table_statistics(summary, work.training, zoom)
        if not looks_like_training(statistics, sized_reference(work.model.card)):
            notes.append(note_on_unsought_diameter())
    dropped = numbered.dropped if segment.smallest is None else {"min_size": numbered.too_small, **numbered.dropped}
    figures: dict[str, Figure] = {f"dropped_{name}": count for name, count in dropped.items()}
    return LargeResult(
        numbered.count,
        tuple(notes),
        figures | table_figures(summary, work.stored.grid, segment),
        summary,
        {name: str(dtype) for name, dtype in work.channels.types(work.stored).items()},
        pinned_arithmetic(work.folder),
    )
