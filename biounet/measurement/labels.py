"""Labels of any program to tables: their own ids are kept, and they may lie in larger objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, Note, NoteCode
from biounet.measurement.objects import measure_objects
from biounet.measurement.parents import find_parents
from biounet.measurement.rings import Ring
from biounet.measurement.table import Table

if TYPE_CHECKING:
    import pandas as pd

_DENSE = 4  # times the voxels, up to which ids are looked up in a table


@dataclass(frozen=True)
class MeasuredLabels:
    """The measurements of a label image.

    Attributes
    ----------
    objects
        One row per object. With parents, also ``parent``, the label of the one that holds most of the object, None if
        more than half of the object lies in none; ``inside_fraction``, the share of the object in it; and ``crosses``,
        whether a tenth of the object or more lies in another one.
    parents
        One row per object of the image that they lie in, with ``count_inside``, the number of objects whose parent it
        is; None without such an image.
    notes
        Warnings for the user.
    labels, parent_labels
        Numbers 1..n ``([z,] y, x)`` of the rows of these tables, on `grid`; None without parents.
    channel_types
        Types of the pixels of the channels by their names, such as ``uint16``.
    """

    objects: Table
    parents: Table | None = None
    notes: tuple[str, ...] = ()
    labels: NDArray[np.int32] | None = field(default=None, repr=False)
    parent_labels: NDArray[np.int32] | None = field(default=None, repr=False)
    grid: Grid | None = field(default=None, repr=False)
    channel_types: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """The objects as a pandas DataFrame; units are in the names of the columns."""
        return _as_frame(self.objects)

    @property
    def parent_table(self) -> pd.DataFrame:
        """The parents as a pandas DataFrame; without any rows if there is no image of parents."""
        return _as_frame(self.parents or Table("objects", {}))


def measure_labels(
    labels: NDArray[Any],
    channels: Mapping[str, NDArray[Any]],
    grid: Grid,
    *,
    inside: NDArray[Any] | None = None,
    ring: Ring | None = None,
) -> MeasuredLabels:
    """Measure the objects of a label image as `measure_objects` does, whatever their ids are.

    Parameters
    ----------
    labels
        ``([z,] y, x)`` integers: 0 is background. Pixels of one id are one object.
    channels
        Images by the names of their channels, of the shape of `labels`; with any, the ring around each object and the
        background are measured as well.
    inside
        Labels of larger objects, of the shape of `labels`.
    ring
        The ring around each object; None leaves rings and background out.

    Raises
    ------
    InputError
        If shapes differ, or labels are negative or no integers.
    """
    compact, ids = _without_gaps(labels, "the labels")
    table = _measure(compact, ids, channels, grid, ring)
    found = MeasuredLabels(
        table,
        notes=_describe_mask(compact, ids),
        labels=compact,
        grid=grid,
        channel_types={name: str(channel.dtype) for name, channel in channels.items()},
    )
    return found if inside is None else _with_parents(found, channels, inside, ring)


def _with_parents(
    measured: MeasuredLabels, channels: Mapping[str, NDArray[Any]], inside: NDArray[Any], ring: Ring | None
) -> MeasuredLabels:
    """Return measurements with those of the larger objects, and which object lies in which."""
    labels, grid, table = measured.labels, measured.grid, measured.objects
    if labels is None or grid is None:
        raise InputError("measurements without their labels")
    if inside.shape != labels.shape:
        raise InputError(f"the larger objects are {inside.shape}, those of the objects {labels.shape}")
    larger, parent_ids = _without_gaps(inside, "the larger objects")
    found = find_parents(labels, larger)
    names = np.array([None, *parent_ids.tolist()], object)
    lies_in = {"parent": names[found.parent], "inside_fraction": found.fraction, "crosses": found.crosses}
    parents = _measure(larger, parent_ids, channels, grid, ring)
    counts = {"count_inside": np.bincount(found.parent, minlength=len(names))[1:]}
    return replace(
        measured,
        objects=replace(table, columns=table.columns | lies_in),
        parents=replace(parents, columns=parents.columns | counts),
        notes=(*measured.notes, *describe_crossing(int(found.crosses.sum()), len(table.columns["label"]))),
        parent_labels=larger,
    )


def _measure(
    labels: NDArray[np.int32],
    ids: NDArray[np.integer[Any]],
    channels: Mapping[str, NDArray[Any]],
    grid: Grid,
    ring: Ring | None,
) -> Table:
    """Measure labels 1..n, whose ids in the table are others."""
    around = ring if channels else None
    table = measure_objects(labels, list(channels.values()), grid, None, list(channels), around)
    return replace(table, columns=table.columns | {"label": ids})


def _describe_mask(labels: NDArray[np.int32], ids: NDArray[np.integer[Any]]) -> tuple[Note, ...]:
    """Return a note if all pixels have one id and lie apart, as in a mask, which does not tell objects apart."""
    if len(ids) != 1:
        return ()
    from scipy import ndimage  # slow to import

    _, pieces = ndimage.label(labels, np.ones((3,) * labels.ndim))
    return describe_pieces(pieces, int(ids[0]))


def describe_pieces(pieces: int, value: int) -> tuple[Note, ...]:
    """Return a note on the only object of an image, if it lies in several pieces."""
    text = f"one object in {pieces} pieces, of the value {value}: a mask, which does not tell objects apart?"
    return (Note(text, NoteCode.MASK, figure=pieces),) if pieces > 1 else ()


def describe_crossing(crossing: int, total: int) -> tuple[Note, ...]:
    """Return a note on objects that lie in more than one of the larger ones."""
    if not crossing:
        return ()
    lie = "lies" if crossing == 1 else "lie"
    text = f"{crossing} of {total} objects {lie} in more than one of the larger objects (column crosses)"
    return (Note(text, NoteCode.CROSSING, figure=crossing),)


def _without_gaps(labels: NDArray[Any], what: str) -> tuple[NDArray[np.int32], NDArray[np.integer[Any]]]:
    """Return labels 1..n in the order of their ids, and these ids."""
    if labels.dtype.kind not in "iu":
        raise InputError(f"{what} must be integers, not {labels.dtype}")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise InputError(f"{what} hold the value {lowest}: 0 is background, and objects have positive ids")
    if highest > _DENSE * labels.size:
        # In the type of the labels: joined with signed integers, unsigned ones of 64 bits would become floats.
        values, compact = np.unique(np.append(labels.dtype.type(0), labels), return_inverse=True)
        return compact[1:].astype(np.int32).reshape(labels.shape), values[1:]
    present = np.zeros(highest + 1, np.bool_)
    present[labels.reshape(-1)] = True
    present[0] = True
    numbers = np.cumsum(present, dtype=np.int32) - 1
    return numbers[labels], np.flatnonzero(present)[1:]


def _as_frame(table: Table) -> pd.DataFrame:
    import pandas as pd  # slow to import

    frame = pd.DataFrame(table.columns)
    return frame.astype({"parent": "Int64"}) if "parent" in frame else frame
