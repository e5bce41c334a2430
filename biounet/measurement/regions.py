"""Objects of an image that is never in memory as a whole: the rows of those that begin in a part of it.

A super-block measures the objects whose first voxel in scan order lies in it, whatever other super-blocks they reach
into, so that each object has one row. The rows are those of `measure_objects` on the whole image, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, LazyImage, Region, find_label_runs
from biounet.measurement import surface_area
from biounet.measurement.borders import Boxes
from biounet.measurement.intensities import summable
from biounet.measurement.object_sums import Part, sum_part, sum_strips
from biounet.measurement.objects import object_table
from biounet.measurement.rings import Ring, ring_reach
from biounet.measurement.table import Table

Ints = NDArray[np.int64]
LabelReader = Callable[[Region], NDArray[np.int32]]
"""Returns the final labels ``([z,] y, x)`` of a region of an image."""

_VOLUME = 3  # dimensions
_MOST = 2  # times the voxels of a super-block: one object in a larger box is measured strip by strip
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

    def types(self, image: LazyImage) -> dict[str, np.dtype[Any]]:
        """Return the types of the channels by their names."""
        return dict.fromkeys(self.names, image.dtype) | (dict(image.measured) if self.further else {})

    def constant(self, image: LazyImage, region: Region) -> dict[str, Any]:
        """Return the values of those channels of which the image stores nothing in a region."""
        values = image.constant_value(region) if self.names else None
        own = {} if values is None else dict(zip(self.names, values, strict=True))
        return own | (image.constant_measured(region) if self.further else {})

    def read(self, image: LazyImage, region: Region) -> dict[str, NDArray[Any]]:
        """Return the channels of a region by their names, ``([z,] y, x)`` each."""
        channels = dict(zip(self.names, image.read(region), strict=True)) if self.names else {}
        return channels | (image.read_measured(region) if self.further else {})


def measure_region(
    objects: OwnedObjects, core: Region, read_labels: LabelReader, image: LazyImage, channels: MeasuredChannels
) -> Table:
    """Return the rows of the objects that begin in a super-block, as `measure_objects` of the whole image has them.

    Objects that reach little beyond the super-block are measured together, in a region that is hardly larger than it;
    each of the others in its own bounding box, strip by strip if that is much larger than the super-block. With a ring,
    regions grow by twice its reach.

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
    job = _RegionJob(read_labels, image, channels, math.prod(part.stop - part.start for part in core))
    parts = [job.measure(part, region) for part, region in _groups(objects, core, job)]
    return parts[0] if len(parts) == 1 else _join_rows(parts)


@dataclass(frozen=True)
class _RegionJob:
    """What is read, and the voxels of a super-block, of which a few are held in memory at most."""

    read_labels: LabelReader
    image: LazyImage
    channels: MeasuredChannels
    voxels: int

    @property
    def grid(self) -> Grid:
        return self.image.grid

    @property
    def ring_reach(self) -> tuple[int, ...]:
        ring = self.channels.ring
        return (0,) * self.grid.dims if ring is None else ring_reach(self.grid, ring)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far around an object labels decide on its row, in voxels along each axis of the grid."""
        return tuple(max(1 if self.grid.dims == _VOLUME else 0, 2 * reach) for reach in self.ring_reach)

    def measure(self, objects: OwnedObjects, region: Region) -> Table:
        """Measure objects in a region that holds all of them and what is near them."""
        grid, ring = self.grid, self.channels.ring
        if math.prod(part.stop - part.start for part in region) <= _MOST * self.voxels or len(objects.labels) != 1:
            sums = sum_part(self.part(objects, region), grid, ring)
        else:
            low, high = objects.boxes.low[0], objects.boxes.high[0]
            rows = (int(low[-2]), int(high[-2]))
            sums = sum_strips(partial(self.strips, objects, region), rows, grid, ring)
        if not np.array_equal(sums.coordinates.size, objects.size):
            wrong = int(np.flatnonzero(sums.coordinates.size != objects.size)[0])
            label, found = int(objects.labels[wrong]), int(sums.coordinates.size[wrong])
            cause = f"object {label} has {found} voxels, not {int(objects.size[wrong])}"
            raise InputError(cause, path=self.image.source)
        table = object_table(sums, grid, objects.labels.astype(np.int64), self.channels.background)
        return table if objects.confidence is None else table.with_columns({"confidence": objects.confidence})

    def part(self, objects: OwnedObjects, region: Region, core: tuple[slice, ...] = ()) -> Part:
        """Read a region, of which the planes and rows `core` are summed."""
        shape = (1, *(part.stop - part.start for part in region))[-3:]
        start = (0, *(part.start for part in region))[-3:]
        labels, runs, ids = number_anew(self.read_labels(region).reshape(shape), objects.labels)
        wide = self.channels.wide
        channels = {
            name: summable(channel, is_wide=name in wide).reshape(shape)
            for name, channel in self.channels.read(self.image, region).items()
        }
        return Part(labels, runs, len(objects.labels), channels, start, core, ids)

    def strips(self, objects: OwnedObjects, region: Region) -> Iterator[Part]:
        """Yield a region in strips of rows, or of planes where these are small, in scan order."""
        shape = (1, *self.grid.shape)[-3:]
        outline = surface_area.exit_reach(np.array(self.grid.steps))[:2] if self.grid.dims == _VOLUME else (0, 2)
        margin = [max(pair) for pair in zip(outline, (0, *self.ring_reach)[-3:-1], strict=True)]
        planes, rows, columns = (slice(0, 1), *region)[-3:]
        width = columns.stop - columns.start
        height = rows.stop - rows.start
        depth = max(1, self.voxels // (width * height))
        length = height if depth > 1 else max(1, self.voxels // width)
        for z, y in product(_cut(planes, depth), _cut(rows, length)):
            grown = [
                slice(max(part.start - far, 0), min(part.stop + far, end))
                for part, far, end in zip((z, y), margin, shape, strict=False)
            ]
            core = tuple(
                slice(part.start - whole.start, part.stop - whole.start)
                for part, whole in zip((z, y), grown, strict=True)
            )
            yield self.part(objects, (*grown, columns)[-self.grid.dims :], core)


def _cut(part: slice, length: int) -> list[slice]:
    return [slice(i, min(i + length, part.stop)) for i in range(part.start, part.stop, length)]


def _groups(objects: OwnedObjects, core: Region, job: _RegionJob) -> Iterator[tuple[OwnedObjects, Region]]:
    """Yield objects that are measured together, and their region; at least one group, even if it is empty."""
    low, high = objects.boxes.low, objects.boxes.high + 1
    start, stop = np.array([[part.start, part.stop] for part in core]).T
    room = (stop - start) // _ROOM
    is_near = ((low >= start - room) & (high <= stop + room)).all(axis=1)
    if is_near.any() or not len(is_near):
        yield objects.select(is_near), _around(low[is_near], high[is_near], job)
    for k in np.flatnonzero(~is_near):
        yield objects.select(np.array([k])), _around(low[[k]], high[[k]], job)


def _around(low: NDArray[np.integer], high: NDArray[np.integer], job: _RegionJob) -> Region:
    """Return the region of boxes and what is near on all sides; one voxel where there is no box."""
    grid = job.grid
    if not len(low):
        return (slice(0, 1),) * grid.dims
    start = np.maximum(low.min(axis=0) - job.reach, 0)
    stop = np.minimum(high.max(axis=0) + job.reach, grid.shape)
    return tuple(slice(int(one), int(end)) for one, end in zip(start, stop, strict=True))


def number_anew(
    labels: NDArray[np.integer[Any]], first: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int32], Ints, Ints]:
    """Return labels ``(z, y, x)`` in which `first` (n,) are 1..n and the others follow, their runs, and what they were.

    `first` ascend.
    """
    runs = find_label_runs(labels)
    others = np.setdiff1d(runs[:, 2], first)
    numbers = np.concatenate([first, others])
    order = np.argsort(numbers)
    runs[:, 2] = order[np.searchsorted(numbers, runs[:, 2], sorter=order)] + 1
    result = np.zeros(labels.shape, np.int32)
    result[labels != 0] = np.repeat(runs[:, 2].astype(np.int32), runs[:, 1] - runs[:, 0])
    return result, runs, numbers.astype(np.int64)


def _join_rows(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables of objects in the order of their labels."""
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    order = np.argsort(columns["label"], kind="stable")
    boxes = [table.boxes for table in tables if table.boxes is not None]
    low, high = np.concatenate([box.low for box in boxes]), np.concatenate([box.high for box in boxes])
    return Table("objects", {name: column[order] for name, column in columns.items()}, Boxes(low[order], high[order]))
