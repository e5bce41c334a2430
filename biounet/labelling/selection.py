"""Which of the objects that were found are kept, by what users choose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biounet.labelling.label import Ints
from biounet.labelling.stitching import Objects


@dataclass(frozen=True)
class ObjectFilter:
    """Objects that are kept; None: all.

    Attributes
    ----------
    max_voxels
        The number of voxels of the largest.
    min_confidence
        The lowest confidence.
    exclude_border
        Whether those with a voxel at the edge of the image are dropped.
    """

    max_voxels: int | None = None
    min_confidence: float | None = None
    exclude_border: bool = False


def select_objects(objects: Objects, keep: ObjectFilter) -> tuple[Objects, dict[str, int]]:
    """Drop objects, and renumber the others in the same order.

    Returns
    -------
    The objects that are kept, and how many were dropped by ``max_size``, ``min_confidence`` and ``exclude_border``, for
    each of them that `keep` limits. An object counts for the first of these that drops it.
    """
    border = touches_border(objects.labels, len(objects.count)) if keep.exclude_border else None
    kept, dropped = choose_objects(objects.count, objects.confidence, border, keep)
    if kept.all():
        return objects, dropped
    new_label = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
    labels = new_label[objects.labels]
    return Objects(labels, objects.count[kept], objects.confidence[kept], objects.too_small), dropped


def choose_objects(
    count: Ints, confidence: NDArray[np.float64], at_border: NDArray[np.bool_] | None, keep: ObjectFilter
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Return which objects are kept, of their voxels, confidence, and whether they have a voxel at the edge.

    The other value is as `select_objects` returns it. `at_border` is needed only if `keep` excludes such objects.
    """
    reasons: dict[str, NDArray[np.bool_]] = {}
    if keep.max_voxels is not None:
        reasons["max_size"] = count > keep.max_voxels
    if keep.min_confidence is not None:
        reasons["min_confidence"] = confidence < keep.min_confidence
    if keep.exclude_border and at_border is not None:
        reasons["exclude_border"] = at_border
    kept = np.ones(len(count), np.bool_)
    dropped = {}
    for name, drops in reasons.items():
        dropped[name] = int((kept & drops).sum())
        kept &= ~drops
    return kept, dropped


def touches_border(labels: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Return which of the objects 1..`count` of a label image ``([z,] y, x)`` have a voxel at its edge."""
    touches = np.zeros(count + 1, np.bool_)
    for axis in range(labels.ndim):
        for side in (0, -1):
            touches[labels.take(side, axis)] = True
    return touches[1:]
