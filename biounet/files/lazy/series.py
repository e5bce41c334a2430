"""Time series that are too long for memory: their frames are read one by one, and lie on the disk meanwhile."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from biounet.core import Note, NoteCode, Volume, as_paths, raise_if_stopped
from biounet.files.axes import Paths, ReadOptions
from biounet.files.disk_arrays import disk_zeros, forget
from biounet.files.lazy.opening import join_arrays, open_views, read_view
from biounet.files.lazy.stored_array import Index, LazyView
from biounet.files.read import read_files, supported_type


@dataclass(frozen=True)
class LazySeries:
    """A time series of which frames are read.

    Attributes
    ----------
    header
        The series, with pixels that are all 0 and take no memory.
    """

    header: Volume
    _views: Volume

    def read_to_disk(self, folder: Path, stop: Event | None = None) -> Volume:
        """Return the series with its pixels in files of a folder, which are gone when its arrays are.

        What `read_volume` gives, but for where the pixels are.

        Raises
        ------
        InputError
            If a frame is damaged.
        MachineError
            If the disk is full.
        Stopped
            If `stop` was set.
        """
        header = self.header
        array = disk_zeros(folder, header.array.shape, header.array.dtype)
        measured = {name: disk_zeros(folder, one.shape, one.dtype) for name, one in header.measured.items()}
        path, views, first = cast(Path, header.source), self._views, None
        is_constant = True
        for index in range(len(header.times)):
            raise_if_stopped(stop)
            array[:, index] = _frame(path, cast(LazyView, views.array), (slice(0, header.channels),), index)
            for name, channel in measured.items():
                channel[index] = _frame(path, cast(LazyView, views.measured[name]), (), index, name)
            first = array[:, 0].flat[0] if first is None else first
            is_constant = is_constant and bool((array[:, index] == first).all())
            for one in (array, *measured.values()):
                forget(one)
        notes = header.notes
        if is_constant:
            notes += (Note(f"constant image: every pixel is {first}", NoteCode.CONSTANT),)
        return replace(header, array=array, measured=measured, notes=notes)


def _frame(path: Path, view: LazyView, before: Index, index: int, name: str = "") -> NDArray[Any]:
    """Return one frame of a view ``([c,] t, [z,] y, x)``."""
    after = tuple(slice(0, length) for length in view.shape[len(before) + 1 :])
    found = read_view(path, view, (*before, slice(index, index + 1), *after), name)
    return found[:, 0] if before else found[0]


def open_series(path: Paths, options: ReadOptions) -> LazySeries:
    """Open a time series without reading its pixels.

    Raises
    ------
    InputError
        As of `read_volume`, or if it has to be read as a whole.
    """
    views = read_files(as_paths(path, "the image"), replace(options, limit=sys.maxsize), open_views, join_arrays)
    array = np.broadcast_to(np.zeros((), supported_type(views.array.dtype)), views.array.shape)
    measured = {
        name: np.broadcast_to(np.zeros((), supported_type(one.dtype)), one.shape)
        for name, one in views.measured.items()
    }
    return LazySeries(replace(views, array=array, measured=measured), views)
