"""The objects of the image get their numbers, and each super-block its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import PROBABILITY_MAX, InputError, compiled
from biounet.labelling.selection import ObjectFilter, choose_objects
from biounet.labelling.super_blocks.fronts import JoinedParts
from biounet.labelling.super_blocks.gap_fronts import JoinedGaps
from biounet.labelling.super_blocks.gaps import Gaps, replace_labels
from biounet.labelling.super_blocks.lattice import SuperBlockLattice
from biounet.labelling.super_blocks.object_files import (
    ArrayFiles,
    empty_folder,
    load_summary,
    save_summary,
    split_ids,
)
from biounet.labelling.super_blocks.parts import BOX, CERTAINTY, COUNT, FIRST, Parts

Ints = NDArray[np.int64]
Labels = NDArray[np.int32]

_MOST_OBJECTS = np.iinfo(np.int32).max  # of which labels have a number of their own


@dataclass(frozen=True)
class NumberedObjects:
    """What `number_objects` leaves in a folder.

    Attributes
    ----------
    count
        Number of objects.
    dropped
        As `select_objects` returns it.
    too_small
        Number of objects that were dropped as too small.
    """

    folder: Path
    count: int
    dropped: dict[str, int]
    too_small: int

    @classmethod
    def open(cls, folder: Path) -> NumberedObjects:
        """Open what another process left; `FileNotFoundError` if it did not come to its end."""
        return cls(folder, **load_summary(folder))

    @property
    def labels_of_parts(self) -> ArrayFiles:
        """For each super-block, the label (n,) of each part; 0: background."""
        return ArrayFiles(self.folder, "labels-of-parts")

    @property
    def labels_of_gaps(self) -> ArrayFiles:
        """For each super-block, the label (n,) of each gap; 0: background. None if holes are not filled."""
        return ArrayFiles(self.folder, "labels-of-gaps")

    def objects(self, index: int) -> NumberedRows:
        """Return the objects that begin in a super-block, in order."""
        label, count, *columns = _rows(self.folder).load(index).T
        low, high = np.split(np.stack(columns[BOX:], axis=1), 2, axis=1)
        return NumberedRows(label, count, confidence(np.stack(columns, axis=1)), columns[FIRST], low, high)


@dataclass(frozen=True)
class NumberedRows:
    """Some objects of an image.

    Attributes
    ----------
    label
        (n,) rising.
    count
        (n,) voxels, holes included.
    confidence
        (n,) as in `Objects`.
    first
        (n,) the first voxel, as a flat index in the image.
    low, high
        (n, axes) lowest voxel along each axis, and the one after the highest.
    """

    label: Ints
    count: Ints
    confidence: NDArray[np.float64]
    first: Ints
    low: Ints
    high: Ints


def _rows(folder: Path) -> ArrayFiles:
    return ArrayFiles(folder, "rows")


def number_objects(
    lattice: SuperBlockLattice,
    load: Callable[[int], Parts],
    joined: JoinedParts,
    gaps: JoinedGaps | None,
    folder: Path,
    keep: ObjectFilter,
) -> NumberedObjects:
    """Give the objects of the image their numbers, in scan order of their first voxels, band after band.

    Parameters
    ----------
    load
        Returns what `find_parts` found in a super-block.
    gaps
        None if holes are not filled.
    folder
        Where results go; what is in it is removed.
    keep
        Which objects are kept.

    Raises
    ------
    InputError
        If there are more objects than labels.
    """
    empty_folder(folder)
    count, too_small, dropped = 0, joined.too_small, Counter[str]()
    for band in range(lattice.bands):
        found = [_settled(load(index)) for index in lattice.of_band(band)]
        too_small += sum(small for _, small in found)
        settled = sum(len(rows) for rows, _ in found)
        rows = np.concatenate([*(rows for rows, _ in found), joined.rows.read(band)])
        voxels = _with_holes(rows, settled, gaps, band)
        kept, drops = choose_objects(voxels, confidence(rows), _at_border(rows, lattice.shape), keep)
        dropped.update(drops)
        chosen = np.flatnonzero(kept)
        chosen = chosen[np.argsort(rows[chosen, FIRST])]
        if count + len(chosen) > _MOST_OBJECTS:
            cause = f"more than {_MOST_OBJECTS} objects, which labels of 32 bits cannot tell apart"
            raise InputError(cause, hint="--min-size leaves out what is too small to be one")
        labels = np.zeros(len(rows), np.int32)
        labels[chosen] = np.arange(count + 1, count + 1 + len(chosen))
        count += len(chosen)
        _labels_of_settled(folder).save(band, labels[:settled])
        _labels_of_joined(folder).save(band, labels[settled:])
        begins_in = lattice.blocks_of(rows[chosen, FIRST])
        for index in lattice.of_band(band):
            own = chosen[begins_in == index]
            _rows(folder).save(index, np.column_stack([labels[own], voxels[own], rows[own]]))
    numbered = NumberedObjects(folder, count, dict(dropped), too_small)
    for index in range(len(lattice)):
        numbered.labels_of_parts.save(index, _look_up(joined.objects_of_parts.load(index), folder))
        if gaps is not None:
            numbered.labels_of_gaps.save(index, _look_up(gaps.objects_of_gaps.load(index), folder))
    save_summary(folder, {"count": count, "dropped": dropped, "too_small": too_small})
    return numbered


def _settled(parts: Parts) -> tuple[Ints, int]:
    """Return of parts what is final, and how many were too small; the front, which is large, is let go."""
    return parts.settled, parts.too_small


def _labels_of_settled(folder: Path) -> ArrayFiles:
    """Return the labels, by band, of the objects that are final in their super-block."""
    return ArrayFiles(folder, "labels-of-settled")


def _labels_of_joined(folder: Path) -> ArrayFiles:
    """Return the labels, by band, of the objects that lay on faces."""
    return ArrayFiles(folder, "labels-of-joined")


def _with_holes(rows: Ints, settled: int, gaps: JoinedGaps | None, band: int) -> Ints:
    """Return the voxels of the objects of a band, of which the first `settled` ones are final in their super-block."""
    voxels = rows[:, COUNT].copy()
    if gaps is not None:
        objects, added = gaps.added.read(band).T
        _, on_faces, place = split_ids(objects)
        np.add.at(voxels, place + settled * on_faces, added)
    return voxels


def _at_border(rows: Ints, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    low, high = np.split(rows[:, BOX:], 2, axis=1)
    return np.asarray(((low == 0) | (high == np.array(shape))).any(axis=1))


def confidence(rows: Ints) -> NDArray[np.float64]:
    """Return the confidence of objects, as `Objects` has it, of their rows with the columns of `Parts`."""
    return np.asarray(rows[:, CERTAINTY] / (PROBABILITY_MAX * rows[:, COUNT]))


def _look_up(objects: Ints, folder: Path) -> Labels:
    """Return the labels of objects; 0 for none."""
    labels = np.zeros(len(objects), np.int32)
    bands, on_faces, places = split_ids(objects)
    for band in np.unique(bands[objects > 0]).tolist():
        for files, which in ((_labels_of_settled(folder), ~on_faces), (_labels_of_joined(folder), on_faces)):
            wanted = np.flatnonzero((bands == band) & which & (objects > 0))
            if wanted.size:
                labels[wanted] = files.look_up(band, places[wanted])
    return labels


def paint(
    labels: Labels | None,
    shape: tuple[int, ...],
    labels_of_parts: NDArray[np.integer[Any]],
    gaps: Gaps | None = None,
    labels_of_gaps: NDArray[np.integer[Any]] | None = None,
) -> Labels:
    """Return the label image of the core of a super-block.

    Parameters
    ----------
    labels
        Of the parts, as `find_parts` returned them.
    shape
        Of the core.
    gaps, labels_of_gaps
        None if holes are not filled.
    """
    painted = np.zeros(shape, np.int32)
    flat = painted.reshape(-1)
    if labels is not None:
        replace_labels(labels.reshape(-1), np.append(0, labels_of_parts).astype(np.int32), flat)
    if gaps is not None and labels_of_gaps is not None:
        _fill(gaps.runs, labels_of_gaps.astype(np.int32), flat)
    return painted


@compiled
def _fill(runs, label, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write the labels of gaps, if they have one, to their runs."""
    for run in range(len(runs)):
        value = label[runs[run, 2]]
        if value:
            out[runs[run, 0] : runs[run, 1]] = value
