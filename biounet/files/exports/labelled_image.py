"""What every format of other programs is written from: labels, their table and their image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, ResultKind, Volume


@dataclass(frozen=True)
class LabelledImage:
    """The labels of one image with all that other programs may want to know of them.

    Attributes
    ----------
    name
        Of the image, without suffix; the names of the files begin with it.
    labels
        Integers, shape ``([t,] [z,] y, x)``: 0 is background, others are objects or classes.
    grid
        Shape, voxel size and, for NIfTI, the position of the labels.
    kind
        Whether the labels are ``objects`` or ``classes``.
    columns
        The table, one array for each column, whose names have the unit; in the order of the CSV. ``label`` is the label
        that a row is about; lesions have rows of their own with ``lesion`` > 0.
    class_name
        What an object is called, such as ``nucleus``; of classes, they are in `class_names`.
    class_names
        By their values, where the labels are classes.
    times
        Numbers of the frames of a time series, from 0 in its file; empty for an image.
    interval
        Seconds between two frames; None where unknown.
    model
        Name and hash of the model.
    identity
        A text that no other image of any run has: identifiers of objects are derived from it.
    image
        The image itself, on the same grid; None where it is not there any more.
    file_name
        Of the image, or its first channel; empty where unknown.
    """

    name: str
    labels: NDArray[Any]
    grid: Grid
    kind: ResultKind
    columns: Mapping[str, NDArray[Any]]
    class_name: str = "object"
    class_names: Mapping[int, str] = field(default_factory=dict)
    times: tuple[int, ...] = ()
    interval: float | None = None
    model: str = ""
    identity: str = ""
    image: Volume | None = None
    file_name: str = ""

    def __post_init__(self) -> None:
        shape = (*((len(self.times),) if self.times else ()), *self.grid.shape)
        if self.labels.shape != shape or self.labels.dtype.kind not in "iu":
            cause = f"labels {self.labels.dtype} of shape {self.labels.shape} do not lie on grid {shape}"
            raise InputError(cause)

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """The labels that there are, ascending, without 0."""
        counts = np.bincount(self.labels.reshape(-1).astype(np.int64, copy=False))
        return np.flatnonzero(counts[1:]) + 1 if counts.size > 1 else np.zeros(0, np.int64)

    def object_id(self, label: int) -> UUID:
        """Return the identifier of an object; exported again, the same object has the same one."""
        return uuid5(NAMESPACE_OID, f"{self.identity}:{label}")
