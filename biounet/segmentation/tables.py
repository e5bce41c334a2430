"""The tables of an image: of its objects, or of its classes, regions and lesions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import DataSettings, Figure, Grid, Note, Volume, canonical_transform
from biounet.measurement import (
    Table,
    acquired_part,
    as_ring,
    border_weights,
    frame_figures,
    frame_notes,
    measure_classes,
    measure_lesions,
    measure_objects,
    min_lesion_voxels,
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


def measure_borders(
    table: Table, acquired: NDArray[np.bool_] | None, grid: Grid, options: SegmentOptions
) -> tuple[Table, dict[str, Figure], list[Note]]:
    """Return the table with border weights in the part that was acquired, figures of the counting frame, and notes."""
    boxes = table.boxes
    if boxes is None:
        return table, {}, []
    if acquired is not None:
        acquired = canonical_transform(grid).undo(acquired)
        part = acquired_part(boxes, grid, acquired)
        weights = np.full(len(boxes.low), np.nan) if part is None else border_weights(*part)
        table = replace(table, columns=table.columns | {"border_weight": weights})
    figures = frame_figures(boxes, grid, acquired, complete=not options.exclude_border)
    return table, figures, frame_notes(boxes, grid, acquired)


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
