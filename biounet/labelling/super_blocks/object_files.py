"""What the passes over super-blocks leave in a folder: which object each part is of, and rows about objects by band.

An object is known by an id until all of them are numbered: the band of its first voxel, and its place among those of
the band that are final in their super-block, or among those that lay on faces.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.files import write_text

Ints = NDArray[np.int64]

_BAND, _JOINED = 1 << 40, 1 << 39


def settled_ids(band: int, first: int, objects: int) -> Ints:
    """Return the ids of objects that are final in their super-block, from place `first` of the band on."""
    return np.arange(first, first + objects, dtype=np.int64) + (band + 1) * _BAND


def joined_ids(bands: Ints, places: Ints) -> Ints:
    """Return the ids of objects that lay on faces."""
    return np.asarray((bands + 1) * _BAND + _JOINED + places)


def split_ids(ids: Ints) -> tuple[Ints, NDArray[np.bool_], Ints]:
    """Return band, whether an object lay on faces, and place of each id."""
    return ids // _BAND - 1, ids % _BAND >= _JOINED, ids % _JOINED


@dataclass(frozen=True)
class BandFiles:
    """Rows of integers in files, one for each band, that are appended to."""

    folder: Path
    name: str
    columns: int

    def append(self, bands: Ints, rows: Ints) -> None:
        """Append rows (n, columns) to the files of their bands."""
        order = np.argsort(bands, kind="stable")
        present, starts = np.unique(bands[order], return_index=True)
        for band, begin, end in zip(present.tolist(), starts, [*starts[1:], len(order)], strict=False):
            with self._path(band).open("ab") as file:
                file.write(rows[order[begin:end]].astype(np.int64).tobytes())

    def read(self, band: int) -> Ints:
        """Return the rows of a band, in the order in which they were appended."""
        path = self._path(band)
        rows = np.fromfile(path, np.int64) if path.exists() else np.zeros(0, np.int64)
        return rows.reshape(-1, self.columns)

    def _path(self, band: int) -> Path:
        return self.folder / f"{self.name}-{band}"


@dataclass(frozen=True)
class ArrayFiles:
    """An array for each super-block or band, each in a file."""

    folder: Path
    name: str

    def save(self, index: int, array: NDArray[np.generic]) -> None:
        """Write an array."""
        np.save(self._path(index), array)

    def load(self, index: int) -> Ints:
        """Return an array."""
        return np.asarray(np.load(self._path(index)))

    def look_up(self, index: int, places: Ints) -> Ints:
        """Return single values of an array, which is not read as a whole."""
        return np.asarray(np.load(self._path(index), mmap_mode="r")[places])

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.name}-{index}.npy"


def empty_folder(folder: Path) -> Path:
    """Return a folder without anything in it: what an interrupted pass left is made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def save_summary(folder: Path, summary: dict[str, object]) -> None:
    """Write what a pass found to a file that says that it came to its end; all files are on the disk then."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    write_text(folder / _SUMMARY, json.dumps(summary))


def load_summary(folder: Path) -> dict[str, Any]:
    """Read what `save_summary` wrote.

    Raises
    ------
    FileNotFoundError
        If the pass did not come to its end.
    """
    return dict(json.loads((folder / _SUMMARY).read_text(encoding="utf-8")))


_SUMMARY = "summary.json"
