"""Label images larger than memory: OME-Zarr 0.5 of labels alone, of which each shard is one file.

A shard has one writer at a time, appears whole or not at all, and holds the same bytes whoever writes it, in whatever
order. Its pixels are integers of 32 bits with a sign, though labels have none: how many objects there will be is not
known when the store is made, runs of equal pixels are packed as well at any width, and QuPath shows no unsigned ones.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, Region
from biounet.files.atomic import atomic_folder, atomic_path, temporary_prefix, translate_write_errors
from biounet.files.exports.pyramid import halve_labels
from biounet.files.formats.raw import translate_errors
from biounet.files.label_store.layout import StoreLevel, store_levels
from biounet.files.label_store.metadata import (
    StoreContent,
    StoreOptions,
    create_array,
    metadata_difference,
    read_content,
    write_metadata,
)

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class LabelStore(StoreContent):
    """A label image of which only regions are in memory; it can be pickled and used by several threads."""

    path: Path = field(kw_only=True)
    """Its folder."""

    @property
    def chunk(self) -> tuple[int, ...]:
        """Voxels that are packed together along each axis."""
        return self.levels[0].chunk

    def read(self, region: Region, level: int = 0) -> NDArray[Any]:
        """Return the labels of a region ``([z,] y, x)`` of a level; shards that are not there are background.

        Raises
        ------
        InputError
            If a shard is damaged, naming it.
        """
        if not self.has_labels(region, level):
            return np.zeros([part.stop - part.start for part in region], self.dtype)
        try:
            return np.asarray(_read_region(self.path, self._arrays[level], region))
        except InputError as error:
            for shard in self.levels[level].regions_in(region):
                self._check_shard(level, shard, error)
            raise

    def has_labels(self, region: Region, level: int = 0) -> bool:
        """Whether any shard of a region is there; this reads no pixel."""
        return any(self.shard_path(level, shard).exists() for shard in self.levels[level].regions_in(region))

    def shard_path(self, level: int, region: Region) -> Path:
        """Return the file of a shard; it is not there where the shard holds no label, or is not yet written."""
        return self.path / self.levels[level].key(region)

    @cached_property
    def _arrays(self) -> list[zarr.Array[Any]]:
        import zarr  # slow to import
        from zarr.storage import LocalStore

        files = LocalStore(self.path, read_only=True)
        return [zarr.open_array(files, path=level.name, mode="r") for level in self.levels]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_arrays"}

    def _check_shard(self, level: int, region: Region, error: InputError) -> None:
        """Raise an `InputError` that names a shard, if it is what cannot be read."""
        try:
            _read_region(self.path, self._arrays[level], region)
        except InputError:
            cause = f"shard {self.levels[level].key(region)} is damaged: {error.cause.removeprefix('cannot be read: ')}"
            hint = "'biounet segment' with --overwrite makes it again"
            raise InputError(cause, path=self.path, hint=hint) from error


@translate_errors
def _read_region(path: Path, array: zarr.Array[Any], region: Region) -> Any:  # noqa: ANN401 - of zarr; the path is for errors
    return array[region]


def create_label_store(path: Path, grid: Grid, options: StoreOptions) -> LabelStore:
    """Create a label store without labels, or open the one that is there, if it is the same; never replace any.

    Several processes may do so at the same time. Equal input gives equal bytes.

    Raises
    ------
    InputError
        If there is something else at `path`, or a store of another grid, type, shards or contents of `pinned`.
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    dtype = np.dtype(options.dtype)
    store = LabelStore(grid, store_levels(grid, options.shard), dtype, options.kind, options.pinned, path=path)
    temporary = path.with_name(f"{temporary_prefix(path)}{os.getpid()}-{threading.get_ident()}.part")
    try:
        with translate_write_errors(path):
            write_metadata(temporary, store, options)
            if _rename_new(temporary, path):
                return store
        difference = metadata_difference(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if difference:
        hint = "remove it, or choose another folder for the results"
        raise InputError(f"the label store that is there {difference}", path=path, hint=hint)
    return store


def _rename_new(temporary: Path, path: Path) -> bool:
    """Rename a folder; False, and nothing is changed, if there is something at its new name."""
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def open_label_store(path: Path) -> LabelStore:
    """Open an OME-Zarr 0.5 of labels alone, of biounet or another program.

    Raises
    ------
    InputError
        If it is none, or a level is missing.
    """
    found = read_content(path)
    return LabelStore(found.grid, found.levels, found.dtype, found.kind, found.pinned, path=path)


def write_shard(store: LabelStore, region: Region, labels: NDArray[Any], level: int = 0) -> None:
    """Write one whole shard, atomically; one without labels is not stored, and an earlier one is removed.

    Parameters
    ----------
    region
        As `StoreLevel.regions` has it; the last ones end where the image does.
    labels
        Integers from 0, of the shape of the region.

    Raises
    ------
    InputError
        If a label is negative or does not fit in the type of the store.
    MachineError
        If the disk is full or the folder cannot be written to.
    """
    path = store.shard_path(level, region)
    if labels.shape != tuple(part.stop - part.start for part in region):
        raise ValueError(f"labels of shape {labels.shape} for the shard {region}")
    lowest, largest = int(labels.min()), int(labels.max())
    if lowest < 0 or largest > np.iinfo(store.dtype).max:
        raise InputError(f"label {lowest if lowest < 0 else largest} does not fit in {store.dtype}", path=store.path)
    if largest == 0:
        _remove_shard(path)
        return
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_pack_shard(store.levels[level], labels, store.dtype))


def _remove_shard(path: Path) -> None:
    with translate_write_errors(path):
        path.unlink(missing_ok=True)


def write_level(store: LabelStore, level: int, region: Region) -> None:
    """Write one whole shard of a level of lower resolution from the labels of the level before, by their mode.

    These must be written before, as far as the region reaches. Takes the memory of the shard and of a row of chunks.
    """
    coarse, fine = store.levels[level], store.levels[level - 1]
    steps = [now // then for now, then in zip(coarse.factors, fine.factors, strict=True)]
    source = tuple(
        slice(part.start * step, min(part.stop * step, length))
        for part, step, length in zip(region, steps, fine.shape, strict=True)
    )
    if not store.has_labels(source, level - 1):
        _remove_shard(store.shard_path(level, region))
        return
    shape = [part.stop - part.start for part in region]
    labels = np.zeros(shape, store.dtype)
    parts = [range(0, length, chunk) for length, chunk in zip(shape, coarse.chunk, strict=True)]
    for corner in product(*parts):
        target = tuple(
            slice(at, min(at + chunk, length)) for at, chunk, length in zip(corner, coarse.chunk, shape, strict=True)
        )
        piece = tuple(
            slice(whole.start + part.start * step, min(whole.start + part.stop * step, whole.stop))
            for whole, part, step in zip(source, target, steps, strict=True)
        )
        values = store.read(piece, level - 1)
        if values.any():
            labels[target] = halve_labels(values, steps)
    write_shard(store, region, labels, level)


def _pack_shard(level: StoreLevel, labels: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    """Return the content of a shard as Zarr packs it, which does not depend on its place.

    `zarr` would write it itself, but the content of its file need not be on the disk when the name is.
    """
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    packed: dict[str, Buffer] = {}
    array = create_array(MemoryStore(packed), level, dtype, level.shard)
    array[tuple(slice(0, length) for length in labels.shape)] = labels
    return packed["/".join(["c", *("0" for _ in level.shard)])].to_bytes()


def write_label_store(path: Path, labels: NDArray[Any], grid: Grid, options: StoreOptions) -> None:
    """Write a label image that is in memory as a store, which appears whole or not at all."""
    with atomic_folder(path) as temporary:
        store = create_label_store(temporary, grid, options)
        for number, level in enumerate(store.levels):
            for region in level.regions():
                if number:
                    write_level(store, number, region)
                else:
                    write_shard(store, region, np.ascontiguousarray(labels[region], store.dtype))
