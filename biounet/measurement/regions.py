"""Objects of an image that is never in memory as a whole: the rows of those that begin in a part of it.

A super-block measures the objects whose first voxel in scan order lies in it, whatever other super-blocks they reach
into, so that each object has one row. The rows are those of `measure_objects` on the whole image, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, LazyImage, Region, find_label_runs
from biounet.measurement.borders import Boxes
from biounet.measurement.intensities import summable
from biounet.measurement.object_sums import Part, sum_part
from biounet.measurement.objects import object_table
from biounet.measurement.rings import Ring, ring_reach
from biounet.measurement.table import Table

Ints = NDArray[np.int64]
LabelReader = Callable[[Region], NDArray[np.int32]]
"""Returns the final labels ``([z,] y, x)`` of a region of an image."""

_ROOM = 8  # objects may reach beyond their super-block by this fraction of it, and are measured together


@dataclass(frozen=True)
class OwnedObjects:
    """Objects that begin in a super-block: their first voxel in scan order lies in it.

    Attributes
    ----------
    labels
        (n,) ascending.
    size
        (n,) number of voxels.
    boxes
        Of the objects in the image.
    confidence
        (n,) 0..1; None leaves the column out.
    """

    labels: NDArray[np.integer]
    size: NDArray[np.integer]
    boxes: Boxes
    confidence: NDArray[np.floating] | None = None

    def select(self, chosen: NDArray[Any]) -> OwnedObjects:
        """Return those that a mask or indices (n,) choose."""
        boxes = Boxes(self.boxes.low[chosen], self.boxes.high[chosen])
        confidence = None if self.confidence is None else self.confidence[chosen]
        return OwnedObjects(self.labels[chosen], self.size[chosen], boxes, confidence)


@dataclass(frozen=True)
class MeasuredChannels:
    """What of an image is measured in its objects.

    Attributes
    ----------
    names
        Of the channels to segment, in their order; empty: none of them is measured.
    further
        Whether the further channels of the image are measured too.
    ring
        The ring around each object; None leaves rings and background out.
    background
        Median of the voxels of no object, of each channel by its name. What is not known yet is NaN in the table.
    wide
        Channels of 64-bit integers whose sums may be larger, and are sums of floats.
    """

    names: tuple[str, ...] = ()
    further: bool = False
    ring: Ring | None = None
    background: Mapping[str, float] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()

    @classmethod
    def of(cls, image: LazyImage, inputs: Sequence[str], ring: Ring | None) -> MeasuredChannels:
        """Return what is measured of an image that is segmented.

        Parameters
        ----------
        inputs
            Names of the channels that the model takes.
        ring
            The ring where there are channels to measure; other images are measured without rings.
        """
        if not image.measured:
            return cls(tuple(inputs))
        return cls(image.channel_names or tuple(inputs), further=True, ring=ring)

    def read(self, image: LazyImage, region: Region) -> dict[str, NDArray[Any]]:
        """Return the channels of a region by their names, ``([z,] y, x)`` each."""
        channels = dict(zip(self.names, image.read(region), strict=True)) if self.names else {}
        return channels | (image.read_measured(region) if self.further else {})


def measure_region(
    objects: OwnedObjects, core: Region, read_labels: LabelReader, image: LazyImage, channels: MeasuredChannels
) -> Table:
    """Return the rows of the objects that begin in a super-block, as `measure_objects` of the whole image has them.

    Objects that reach little beyond the super-block are measured together, in a region that is hardly larger than it;
    each of the others in its own bounding box. With a ring, regions grow by twice its reach.

    Parameters
    ----------
    objects
        That begin in the super-block.
    core
        The super-block.
    read_labels
        Reads labels of any region of the image.
    image
        With the grid of the labels.
    channels
        What is measured of it.

    Raises
    ------
    InputError
        If an object has another number of voxels than `objects` says.
    """
    near = _reach(image.grid, channels.ring)
    parts = [
        _measure_in(part, region, read_labels, image, channels)
        for part, region in _groups(objects, core, image.grid, near)
    ]
    return parts[0] if len(parts) == 1 else _join_rows(parts)


def _reach(grid: Grid, ring: Ring | None) -> tuple[int, ...]:
    """Return how far around an object labels decide on its row, in voxels along each axis of the grid."""
    touching = 1 if grid.dims == 3 else 0
    return tuple(max(touching, 2 * reach) for reach in (ring_reach(grid, ring) if ring else (0,) * grid.dims))


def _groups(
    objects: OwnedObjects, core: Region, grid: Grid, near: tuple[int, ...]
) -> Iterator[tuple[OwnedObjects, Region]]:
    """Yield objects that are measured together, and their region; at least one group, even if it is empty."""
    low, high = objects.boxes.low, objects.boxes.high + 1
    start, stop = np.array([[part.start, part.stop] for part in core]).T
    room = (stop - start) // _ROOM
    is_near = ((low >= start - room) & (high <= stop + room)).all(axis=1)
    if is_near.any() or not len(is_near):
        yield objects.select(is_near), _around(low[is_near], high[is_near], grid, near)
    for k in np.flatnonzero(~is_near):
        yield objects.select(np.array([k])), _around(low[[k]], high[[k]], grid, near)


def _around(low: NDArray[np.integer], high: NDArray[np.integer], grid: Grid, near: tuple[int, ...]) -> Region:
    """Return the region of boxes and `near` voxels on all sides; one voxel where there is no box."""
    if not len(low):
        return (slice(0, 1),) * grid.dims
    start, stop = np.maximum(low.min(axis=0) - near, 0), np.minimum(high.max(axis=0) + near, grid.shape)
    return tuple(slice(int(one), int(end)) for one, end in zip(start, stop, strict=True))


def _measure_in(
    objects: OwnedObjects, region: Region, read_labels: LabelReader, image: LazyImage, channels: MeasuredChannels
) -> Table:
    """Measure objects in a region that holds all of them and what is near them."""
    grid = image.grid
    shape = (1, *(part.stop - part.start for part in region))[-3:]
    start = (0, *(part.start for part in region))[-3:]
    labels, runs = number_anew(read_labels(region).reshape(shape), objects.labels)
    values = {
        name: summable(channel, is_wide=name in channels.wide).reshape(shape)
        for name, channel in channels.read(image, region).items()
    }
    sums = sum_part(Part(labels, runs, len(objects.labels), values, start), grid, channels.ring)
    if not np.array_equal(sums.coordinates.size, objects.size):
        wrong = int(np.flatnonzero(sums.coordinates.size != objects.size)[0])
        label, found = int(objects.labels[wrong]), int(sums.coordinates.size[wrong])
        raise InputError(f"object {label} has {found} voxels, not {int(objects.size[wrong])}", path=image.source)
    table = object_table(sums, grid, objects.labels.astype(np.int64), channels.background)
    return table if objects.confidence is None else table.with_columns({"confidence": objects.confidence})


def number_anew(labels: NDArray[np.integer[Any]], first: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], Ints]:
    """Return labels ``(z, y, x)``, and their runs, in which `first` (n,) are 1..n and the others higher numbers.

    `first` ascend.
    """
    runs = find_label_runs(labels)
    others = np.setdiff1d(runs[:, 2], first)
    numbers = np.concatenate([first, others])
    order = np.argsort(numbers)
    runs[:, 2] = order[np.searchsorted(numbers, runs[:, 2], sorter=order)] + 1
    result = np.zeros(labels.shape, np.int32)
    result[labels != 0] = np.repeat(runs[:, 2].astype(np.int32), runs[:, 1] - runs[:, 0])
    return result, runs


def _join_rows(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables of objects in the order of their labels."""
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    order = np.argsort(columns["label"], kind="stable")
    boxes = [table.boxes for table in tables if table.boxes is not None]
    low, high = np.concatenate([box.low for box in boxes]), np.concatenate([box.high for box in boxes])
    return Table("objects", {name: column[order] for name, column in columns.items()}, Boxes(low[order], high[order]))
