"""Objects of a time series linked from frame to frame by overlap, and numbered as tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.measurement.table import Columns, Table

Ints = NDArray[np.int64]

_MIN_IOU = 0.1  # of a link; less is what neighbours have that move into each other's place
# Parts of a division: the share that lies where the whole was, and the size relative to it. On synthetic nuclei that
# move by a tenth of their diameter, 8 of 10 divisions are found, and 1 of 50 that are found is none.
_PART_INSIDE, _PART_SIZES = 0.2, (0.25, 0.8)
_DENSE = 0.8  # share of objects with a link, from which 19 of 20 links between synthetic nuclei are right
_JUMP, _MIN_OBJECTS = 0.5, 5  # share of objects with a link, of so many, below which the field has moved


class Links(NamedTuple):
    """How the objects of two frames belong together.

    Attributes
    ----------
    same
        (n, 2) objects of the first and the second frame that are one.
    divided
        (m, 2) objects of the first frame and the parts that they divided into, at least two each.
    possible
        Number of objects in the frame with fewer.
    """

    same: Ints
    divided: Ints
    possible: int

    @property
    def linked(self) -> int:
        """Number of objects of the first frame that are one with an object of the second, or divide."""
        return len(self.same) + len(np.unique(self.divided[:, 0]))

    @property
    def is_jump(self) -> bool:
        """Whether so few objects are linked that the field must have moved."""
        return self.possible >= _MIN_OBJECTS and self.linked < _JUMP * self.possible


@dataclass(frozen=True)
class Tracks:
    """The track of each object of a time series.

    Attributes
    ----------
    track
        (N,) numbers from 1, in the order of the objects; tracks are numbered by their first object.
    parent
        (N,) the track that the object's track divided from; 0: none is known.
    count
        Number of tracks.
    """

    track: Ints
    parent: Ints
    count: int


def link_objects(before: NDArray[np.integer[Any]], after: NDArray[np.integer[Any]]) -> Links:
    """Link the objects of two frames by overlap.

    Two objects are one if each is the one that the other overlaps most, by the intersection over union, which is at
    least 0.1. An object divides if two or more objects of the second frame, each of a quarter to four fifths of its
    size, overlap it more than any other, with more than a fifth of their area. The numbers of objects do not matter:
    among equal overlaps, none is the largest.

    Parameters
    ----------
    before, after
        Label images of one shape; 0 is background, objects are 1..N.
    """
    sizes = np.bincount(before.ravel()), np.bincount(after.ravel())
    counts = [int(np.count_nonzero(size[1:])) for size in sizes]
    if 0 in counts:
        return Links(np.empty((0, 2), np.int64), np.empty((0, 2), np.int64), 0)
    first, second, common = _overlaps(before, after, len(sizes[1]))
    iou = common / (sizes[0][first] + sizes[1][second] - common)
    ratio, (smallest, largest) = sizes[1][second] / sizes[0][first], _PART_SIZES
    parts = (common > _PART_INSIDE * sizes[1][second]) & (smallest <= ratio) & (ratio <= largest)
    parts &= _is_largest(common, second)
    parts &= np.bincount(first[parts], minlength=len(sizes[0]))[first] > 1
    mothers, daughters = first[parts], second[parts]
    best = (iou >= _MIN_IOU) & _is_largest(iou, first) & _is_largest(iou, second)
    best &= ~np.isin(first, mothers) & ~np.isin(second, daughters)
    same, divided = np.stack([first[best], second[best]], 1), np.stack([mothers, daughters], 1)
    return Links(same, divided, min(counts))


def _overlaps(before: NDArray[Any], after: NDArray[Any], width: int) -> tuple[Ints, Ints, Ints]:
    """Return all pairs of objects that overlap, and the number of pixels that they have in common."""
    both = (before > 0) & (after > 0)
    pairs, common = np.unique(before[both].astype(np.int64) * width + after[both], return_counts=True)
    return pairs // width, pairs % width, common


def _is_largest(values: NDArray[Any], groups: Ints) -> NDArray[np.bool_]:
    """Return which values are the largest of their group, and the only ones."""
    largest = np.zeros(int(groups.max(initial=0)) + 1)
    np.maximum.at(largest, groups, values)
    is_largest = values == largest[groups]
    return np.asarray(is_largest & (np.bincount(groups[is_largest], minlength=len(largest))[groups] == 1))


def are_dense(links: Sequence[Links]) -> bool:
    """Return whether frames follow each other so closely that overlap tells which objects are one.

    That is where at least four fifths of the objects have a link, over all frames.
    """
    return sum(link.linked for link in links) >= _DENSE * sum(link.possible for link in links)


def number_tracks(counts: Sequence[int], links: Sequence[Links]) -> Tracks:
    """Give the objects of a time series the numbers of their tracks.

    Parameters
    ----------
    counts
        Number of objects in each frame.
    links
        Between each frame and the next, from `link_objects`. Tracks end where the field jumps.
    """
    first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])  # number of the objects in earlier frames
    track, parent, count = np.zeros(first[-1], np.int64), np.zeros(first[-1], np.int64), 0
    for frame in range(len(counts)):
        here = slice(int(first[frame]), int(first[frame + 1]))
        if frame and not links[frame - 1].is_jump:
            earlier = slice(int(first[frame - 1]), int(first[frame]))
            same, divided = links[frame - 1][:2]
            track[here][same[:, 1] - 1] = track[earlier][same[:, 0] - 1]
            parent[here][same[:, 1] - 1] = parent[earlier][same[:, 0] - 1]
            parent[here][divided[:, 1] - 1] = track[earlier][divided[:, 0] - 1]
        new = np.flatnonzero(track[here] == 0)
        track[here][new] = count + 1 + np.arange(len(new))
        count += len(new)
    return Tracks(track, parent, count)


def join_tables(times: Sequence[int], tables: Sequence[Table], links: Sequence[Links]) -> tuple[Table, int | None]:
    """Return the tables of all frames of a time series as one, and the number of tracks.

    Parameters
    ----------
    times
        Numbers of the frames, for the column ``t``.
    tables
        Of each frame. Objects are numbered anew: those of a frame after those of the frame before.
    links
        Between each frame and the next; none for tables of classes and lesions.

    Returns
    -------
    Tables of objects have the columns ``track`` and ``parent_track`` (0: none is known). Where frames do not follow
    each other closely enough to link objects, these are NaN, and the number of tracks is None.
    """
    rows, kind = [len(next(iter(table.columns.values()))) for table in tables], tables[0].kind
    columns: Columns = {"t": np.repeat(np.array(times, np.int64), rows)}
    tracks = number_tracks(rows, links) if kind == "objects" and are_dense(links) else None
    if kind == "objects":
        columns["label"] = np.arange(1, sum(rows) + 1)
        unknown = np.full(sum(rows), np.nan)
        columns["track"] = unknown if tracks is None else tracks.track
        columns["parent_track"] = unknown if tracks is None else tracks.parent
    others = [name for name in tables[0].columns if name not in columns]
    columns |= {name: np.concatenate([table.columns[name] for table in tables]) for name in others}
    return Table(kind, columns), None if tracks is None else tracks.count
