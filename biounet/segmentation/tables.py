"""The tables of an image: of its objects, or of its classes, regions and lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import DataSettings, Figure, Grid, Volume, canonical_transform
from biounet.measurement import (
    AcquiredPart,
    Boxes,
    FrameCounts,
    Table,
    TableSummary,
    acquired_part,
    as_ring,
    frame_figures,
    image_figures,
    measure_classes,
    measure_lesions,
    measure_objects,
    min_lesion_voxels,
    weights_in_part,
)
from biounet.network import Card
from biounet.segmentation.options import SegmentOptions


def measure_image_objects(
    labels: NDArray[Any], confidence: NDArray[np.floating[Any]], volume: Volume, card: Card, ring: str | None
) -> Table:
    """Return the table of objects, with the ring around each and the background where there are channels to measure."""
    if not volume.measured:
        return measure_objects(labels, volume.array, volume.grid, confidence, card.inputs)
    channels = _channels_to_measure(volume, card)
    return measure_objects(labels, [*channels.values()], volume.grid, confidence, [*channels], as_ring(ring))


def measure_borders(table: Table, acquired: NDArray[np.bool_] | None, grid: Grid) -> tuple[Table, FrameCounts]:
    """Return the table of objects with border weights in the part that was acquired, and what the frame of it counts.

    `acquired` is on the canonical grid.
    """
    part = acquired_part(grid, None if acquired is None else canonical_transform(grid).undo(acquired))
    return weigh_borders(table, grid, part)


def weigh_borders(table: Table, grid: Grid, part: AcquiredPart | None) -> tuple[Table, FrameCounts]:
    """Do the same for all objects of an image or some of them, once its acquired part is known."""
    boxes = table.boxes or Boxes(np.empty((0, grid.dims), np.int64), np.empty((0, grid.dims), np.int64))
    table = table.with_columns({"border_weight": weights_in_part(boxes, part)})
    return table, FrameCounts.of(boxes, grid, part)


def table_figures(summary: TableSummary, grid: Grid, options: SegmentOptions) -> dict[str, Figure]:
    """Return the figures of an image that follow from its table: those of the counting frame, medians and means."""
    frame = summary.frame
    in_frame = {} if frame is None else frame_figures(frame, grid, complete=not options.exclude_border)
    return in_frame | image_figures(summary)


def _channels_to_measure(volume: Volume, card: Card) -> dict[str, NDArray[Any]]:
    """Return all channels by their names if there are further ones to measure."""
    if not volume.measured:
        return {}
    return dict(zip(volume.channel_names or card.inputs, volume.array, strict=True)) | {**volume.measured}


def measure_regions(
    labels: NDArray[np.uint8], data: DataSettings, volume: Volume, card: Card
) -> tuple[Table, int | None]:
    """Return the table of classes of an image, or of regions and lesions of a volume, and the count.

    Lesions are counted where it is clear which ones are meant: those of the outermost region, or of the only class.
    """
    grid, channels = volume.grid, _channels_to_measure(volume, card)
    if grid.dims == 2:
        return measure_classes(labels, data.foreground, grid, channels), None
    smallest = min_lesion_voxels(data.min_lesion_mm3, grid)
    table = measure_lesions(labels, data.label_values, grid, smallest, channels)
    return table, int(table.counted.sum()) if data.regions or len(data.label_values) == 1 else None
