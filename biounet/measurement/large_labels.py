"""Labels of any program that do not fit into memory, measured super-block by super-block.

What `measure_labels` gives of the whole image: the ids are kept, pixels of one id are one object wherever they lie, and
the rows are the same to the last bit. A first pass finds where each id lies, and in which larger object; what it finds
is on disk. Then each super-block measures the objects that begin in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, LazyImage, Region, find_label_runs
from biounet.measurement.borders import Boxes
from biounet.measurement.channel_search import ChannelSearch, Labels, count_channels
from biounet.measurement.id_rows import Ints, join_rows, save_rows
from biounet.measurement.moments import sum_coordinates
from biounet.measurement.parents import Parents, choose_parents
from biounet.measurement.regions import MeasuredChannels, OwnedObjects, measure_region, number_anew
from biounet.measurement.table import Table
from biounet.tiling import block_lattice

_ID, _COUNT, _FIRST, _BOX = 0, 1, 2, 3  # columns of rows about objects: the box has its low and then its high ends
_NUMBER, _PARENT, _SHARED, _CROSSES = 0, 1, 2, 3  # columns that go before them


@dataclass(frozen=True)
class PlainGrid(LazyImage):
    """A grid without any channel, as an image."""

    def read(self, region: Region) -> NDArray[Any]:  # noqa: D102 - inherited
        return np.zeros((0, *(part.stop - part.start for part in region)), self.dtype)

    def read_measured(self, region: Region) -> dict[str, NDArray[Any]]:  # noqa: D102 - inherited
        return {}

    @classmethod
    def of(cls, grid: Grid, source: Path | None) -> PlainGrid:
        """Return an image on a grid."""
        return cls(source, grid, np.dtype(np.uint8), 0, (), grid.shape, {})


@dataclass(frozen=True)
class LargeLabels:
    """Labels that are measured, and how.

    Attributes
    ----------
    labels
        Read region by region; ids of 32 bits.
    image
        On the grid of the labels.
    channels
        Which of its channels are measured, with the ring around each object.
    folder
        Where what is found is kept meanwhile; it is there, and empty.
    edge
        Of a super-block, in voxels.
    """

    labels: Labels
    image: LazyImage
    channels: MeasuredChannels
    folder: Path
    edge: int

    @property
    def cores(self) -> list[Region]:
        """The super-blocks."""
        return [block.core for block in block_lattice(self.image.grid.shape, self.edge)]


@dataclass(frozen=True)
class FoundIds:
    """The ids of a label image, and the super-blocks in which they begin.

    Attributes
    ----------
    count
        Number of ids.
    only
        The id, if there is one only; else 0.
    crossing, without_parent
        Objects that lie in more than one larger object, and in none.
    inside
        Ids of larger objects (p,), and how many objects each of them has (p,); None without a search for them.
    """

    count: int
    only: int = 0
    crossing: int = 0
    without_parent: int = 0
    inside: tuple[Ints, Ints] | None = field(default=None, repr=False)


def find_ids(job: LargeLabels, larger: Labels | None = None) -> FoundIds:
    """Find where each id lies and, with labels of larger objects, in which of them."""
    pieces, pairs = [], []
    for number, core in enumerate(job.cores):
        if not job.labels.has_labels(core):
            continue
        values = job.labels.read(core)
        rows = _object_rows(values, core, job.image.grid.shape)
        if len(rows):
            pieces.append(job.folder / f"ids-{number}.npy")
            save_rows(pieces[-1], rows)
        if larger is not None and len(rows) and larger.has_labels(core):
            pairs.append(job.folder / f"pairs-{number}.npy")
            save_rows(pairs[-1], _count_pairs(values, larger.read(core)))
    return _join_ids(job, pieces, None if larger is None else pairs)


def measure_owned(job: LargeLabels, larger: bool = False) -> Iterator[tuple[int, Table]]:
    """Yield, for each super-block, its number and the rows of the objects that begin in it.

    After `find_ids` in the same folder. The column ``label`` numbers the ids 1..n in their order; ``id`` is what they
    are. With `larger`, there are the columns of `MeasuredLabels.objects` about parents, 0 for none.
    """
    channels = _search_channels(job)
    dims = job.image.grid.dims
    for number, core in enumerate(job.cores):
        rows = _load_owned(job, number, 4 + _BOX + 2 * dims)
        own, about = rows[:, 4:], rows[:, :4]
        boxes = Boxes(own[:, _BOX : _BOX + dims], own[:, _BOX + dims :])
        objects = OwnedObjects(own[:, _ID], own[:, _COUNT], boxes)
        table = measure_region(objects, core, job.labels.read, job.image, channels)
        columns = {**table.columns, "label": about[:, _NUMBER], "id": own[:, _ID]}
        if larger:
            columns |= {"parent": about[:, _PARENT], "inside_fraction": about[:, _SHARED] / own[:, _COUNT]}
            columns["crosses"] = about[:, _CROSSES] > 0
        yield number, replace(table, columns=columns)


def _object_rows(values: NDArray[np.int32], core: Region, shape: tuple[int, ...]) -> Ints:
    """Return the objects in a super-block as rows: id, voxels, index of the first one in the image, box."""
    volume = np.ascontiguousarray(values).reshape((1, *values.shape)[-3:])
    runs = find_label_runs(volume)
    ids, first = np.unique(runs[:, 2], return_index=True)
    _, runs_of_numbers, _ = number_anew(volume, ids)
    sums = sum_coordinates(runs_of_numbers, volume.shape, len(ids))
    start = np.array([part.start for part in core])
    places = np.array(np.unravel_index(runs[first, 0], values.shape)).T.reshape(-1, values.ndim) + start
    flat = np.ravel_multi_index(tuple(places.T), shape)
    low, high = sums.low[:, 3 - values.ndim :] + start, sums.high[:, 3 - values.ndim :] + start
    return np.column_stack([ids, sums.size, flat, low, high]).astype(np.int64)


def _count_pairs(values: NDArray[np.int32], larger: NDArray[np.int32]) -> Ints:
    """Return rows of an id, that of a larger object, and how many voxels both have."""
    both = (values > 0) & (larger > 0)
    pairs, count = np.unique(values[both].astype(np.int64) << 32 | larger[both], return_counts=True)
    return np.column_stack([pairs >> 32, pairs & (2**32 - 1), count])


def _join_ids(job: LargeLabels, pieces: list[Path], pairs: list[Path] | None) -> FoundIds:
    """Join the pieces of all objects, and write each of them to the file of the super-block in which it begins."""
    count, without, crossing, last = 0, 0, 0, 0
    pairs_left = iter(()) if pairs is None else join_rows(pairs)
    held = np.zeros((0, 3), np.int64)
    parents: list[NDArray[np.int64]] = []
    for rows in join_rows(pieces):
        objects = _add_up(rows, job.image.grid.dims)
        while pairs is not None and (not len(held) or held[-1, 0] <= objects[-1, _ID]):
            more = next(pairs_left, None)
            if more is None:
                break
            held = np.concatenate([held, more])
        end = int(np.searchsorted(held[:, 0], objects[-1, _ID], side="right"))
        found = _parents_of(objects, held[:end])
        held, last = held[end:], int(objects[-1, _ID])
        numbers = np.arange(count + 1, count + 1 + len(objects))
        count, crossing = count + len(objects), crossing + int(found.crosses.sum())
        without += int((found.parent == 0).sum())
        parents.append(found.parent[found.parent > 0])
        _write_owned(job, np.column_stack([numbers, found.parent, found.shared, found.crosses, objects]))
    inside = None if pairs is None else np.unique(np.concatenate([*parents, held[:0, 1]]), return_counts=True)
    return FoundIds(count, last if count == 1 else 0, crossing, without, inside)


def _add_up(rows: Ints, dims: int) -> Ints:
    """Return one row for each id, of rows of its pieces, which follow each other."""
    begins = np.flatnonzero(np.append(True, rows[1:, _ID] != rows[:-1, _ID]))
    ends = _BOX + dims
    return np.column_stack(
        [
            rows[begins, _ID],
            np.add.reduceat(rows[:, _COUNT], begins),
            np.minimum.reduceat(rows[:, _FIRST:ends], begins),
            np.maximum.reduceat(rows[:, ends:], begins),
        ]
    )


def _parents_of(objects: Ints, pairs: Ints) -> Parents:
    """Return in which larger object each of some objects lies, of rows of pieces of their pairs."""
    ids, larger, shared = pairs.T
    key, place = np.unique(np.stack([ids, larger]), axis=1, return_inverse=True)
    voxels = np.bincount(place.reshape(-1), shared, minlength=key.shape[1]).astype(np.int64)
    return choose_parents(np.searchsorted(objects[:, _ID], key[0]), key[1], voxels, objects[:, _COUNT])


def _write_owned(job: LargeLabels, rows: Ints) -> None:
    """Add rows to the files of the super-blocks in which their objects begin."""
    shape, edge = job.image.grid.shape, job.edge
    counts = tuple(-(-length // edge) for length in shape)
    places = np.unravel_index(rows[:, 4 + _FIRST], shape)
    blocks = np.ravel_multi_index(tuple(place // edge for place in places), counts)
    order = np.argsort(blocks, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
        with _owned_file(job, int(blocks[part[0]])).open("ab") as file:
            file.write(np.ascontiguousarray(rows[part], np.int64).tobytes())


def _load_owned(job: LargeLabels, number: int, columns: int) -> Ints:
    path = _owned_file(job, number)
    return (np.fromfile(path, np.int64) if path.is_file() else np.zeros(0, np.int64)).reshape(-1, columns)


def _owned_file(job: LargeLabels, number: int) -> Path:
    return job.folder / f"begin-{number}.bin"


def _search_channels(job: LargeLabels) -> MeasuredChannels:
    """Return the channels with their backgrounds."""
    channels = job.channels
    search = ChannelSearch(channels.types(job.image), background=channels.ring is not None)
    while search.unfinished:
        for core in job.cores:
            count_channels(search, core, job.labels, job.image, channels)
        search.finish_pass()
    wide = search.wide(math.prod(job.image.grid.shape))
    return replace(channels, background=search.backgrounds, wide=wide)
