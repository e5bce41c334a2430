"""What every format of other programs is written from: labels, their table and their image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, ResultKind, Volume
from biounet.files.disk_arrays import forget

_BAND = 1 << 22  # pixels that are looked at at a time
_MEAN = "intensity_mean_"  # of a channel, in tables


def channel_types(columns: Iterable[str], image: Volume) -> dict[str, str]:
    """Return the types of the pixels of the channels that columns of intensities are of, by their names."""
    names = [name.removeprefix(_MEAN) for name in columns if name.startswith(_MEAN)]
    return {name: str(image.measured.get(name, image.array).dtype) for name in names}


def row_labels(columns: Mapping[str, NDArray[Any]], class_names: Mapping[int, str]) -> NDArray[np.int64]:
    """Return the label (n,) that each row of a table is about, which a column says, or the name of its class.

    Lesions and regions of several classes have no label of their own, and 0 here.
    """
    if "label" in columns:
        labels = np.asarray(columns["label"], np.int64)
    else:
        labels_of = {name: label for label, name in class_names.items()}
        names = columns["class"].tolist() if "class" in columns else []
        labels = np.array([labels_of.get(name, 0) for name in names], np.int64)
    return labels * (columns["lesion"] == 0) if "lesion" in columns else labels


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
    channel_types
        Types of the pixels of the channels that intensities in the table are of, such as ``uint16``, by their names.
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
    channel_types: Mapping[str, str] = field(default_factory=dict)
    file_name: str = ""

    def __post_init__(self) -> None:
        shape = (*((len(self.times),) if self.times else ()), *self.grid.shape)
        if self.labels.shape != shape or self.labels.dtype.kind not in "iu":
            cause = f"labels {self.labels.dtype} of shape {self.labels.shape} do not lie on grid {shape}"
            raise InputError(cause)

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """The labels that there are, ascending, without 0."""
        flat = self.labels.reshape(-1)
        is_there = np.zeros(int(flat.max(initial=0)) + 1, np.bool_)
        for first in range(0, flat.size, _BAND):  # as indices, they take more memory than the labels
            is_there[flat[first : first + _BAND]] = True
            forget(flat)
        return np.flatnonzero(is_there[1:]) + 1

    @property
    def title(self) -> str:
        """The name as a text for other programs: bytes of a file name that are none, and control signs, are escaped."""
        text = self.name.encode("utf-8", "backslashreplace").decode()
        return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)

    @property
    def element(self) -> str:
        """What the labels are called in stores that hold several images or label images of one scene."""
        return "cells" if self.kind == "objects" else "classes"

    @property
    def channels(self) -> dict[str, NDArray[Any]]:
        """All channels of the image ``([t,] [z,] y, x)`` by their names, those that were only measured as well."""
        if self.image is None:
            return {}
        given = self.image.channel_names or ("",) * self.image.channels
        taken: dict[str, NDArray[Any]] = {}
        for number, (name, pixels) in enumerate(zip(given, self.image.array, strict=True)):
            taken[name if name and name not in taken else f"{name or 'channel'}_{number}"] = pixels
        return taken | dict(self.image.measured)

    def planes(self) -> Iterator[tuple[int | None, int | None, NDArray[Any]]]:
        """Yield each plane: the numbers of its frame and slice from 0, None of an axis that is not there, and labels.

        The frame is that of the image, of which the labels may have some only.
        """
        slices = range(self.grid.shape[0]) if self.grid.dims == 3 else (None,)
        places = [(t, z) for t in self.times or (None,) for z in slices]
        for (t, z), labels in zip(places, self.labels.reshape(-1, *self.grid.shape[-2:]), strict=True):
            yield t, z, labels

    def class_of(self, label: int) -> str:
        """Return the name of the class of a label; of objects, all have the same."""
        return self.class_names.get(label, f"class {label}") if self.kind == "classes" else self.class_name

    def label_name(self, label: int) -> str:
        """Return what a label is called: the name of its class, or that of objects and its number."""
        name = self.class_of(label)
        return name if self.kind == "classes" else f"{name} {label}"

    def row(self, label: int) -> dict[str, Any]:
        """Return the row of the table about a label, without empty cells; without any if there is none.

        Lesions, which have no label of their own, have no such row, nor have regions of several classes.
        """
        number = self._rows.get(label)
        if number is None:
            return {}
        cells = {name: column[number] for name, column in self.columns.items() if name != "label"}
        row = {name: cell.item() if isinstance(cell, np.generic) else cell for name, cell in cells.items()}
        return {name: value for name, value in row.items() if value is not None and value == value}

    def rows_by_label(self) -> dict[int, dict[str, Any]]:
        """Return all of these rows; of very many objects, they take more memory than the labels."""
        return {label: self.row(label) for label in self._rows}

    @cached_property
    def row_labels(self) -> NDArray[np.int64]:
        """The label that each row of the table is about; 0 of lesions and of regions of several classes."""
        return row_labels(self.columns, self.class_names)

    @cached_property
    def _rows(self) -> dict[int, int]:
        """The numbers of rows by the label that they are about."""
        return {label: number for number, label in enumerate(self.row_labels.tolist()) if label}

    def object_id(self, label: int) -> UUID:
        """Return the identifier of an object; exported again, the same object has the same one."""
        return uuid5(NAMESPACE_OID, f"{self.identity}:{label}")


@dataclass(frozen=True)
class ExportedImage:
    """An image of a run, for files about the whole run.

    Attributes
    ----------
    name
        With its folders, as in ``counts.csv``.
    tables
        The tables that were exported of it, by the name of the objects; empty where that failed.
    counts
        Number of its objects, or of those of each frame, by their name; None where they were not counted.
    times
        Numbers of its frames, from 0; empty for an image.
    metadata
        What is known of it by name, such as its ``well``.
    source
        Where the image was.
    """

    name: str
    tables: Mapping[str, Path]
    counts: Mapping[str, tuple[int | None, ...]]
    times: tuple[int, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None

    @property
    def rows(self) -> int:
        """Number of its rows in ``counts.csv``, of which each is an image for CellProfiler."""
        return max(1, len(self.times))
