"""Regions of a Zarr array on disk, of version 2 or 3, and which of its chunks are absent."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files.lazy.stored_array import Index, StoredArray, chunks_of, grid_shape

if TYPE_CHECKING:
    import zarr

_EMPTY = 2**64 - 1  # in the index of a shard, instead of the offset of a chunk
_CHECKSUM = 4  # bytes behind the index of a shard
_NUMBERS = re.compile(r"\d+")
_SHOWN = 3  # absent chunks that a message names


@dataclass(frozen=True)
class AbsentChunks:
    """How many chunks of an array are not stored, of how many, and the places of the first ones in their grid."""

    count: int
    total: int
    first: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ZarrChunks(StoredArray):
    """A Zarr array in a folder; chunks that are absent have its fill value."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> ZarrChunks:
        """Open an array by its metadata."""
        array = open_array(path)
        return cls(path, array.shape, np.dtype(array.dtype).newbyteorder("="), array.chunks)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        return open_array(self.path)

    def read(self, index: Index) -> NDArray[Any]:  # noqa: D102 - inherited
        try:
            return np.asarray(self._array[index], self.dtype)
        except OSError:  # which may pass; it names the file
            raise
        except Exception:  # codecs raise more than ten kinds, and name no chunk
            for place in chunks_of(index, self.chunks):
                self._check_chunk(place)
            raise

    def _check_chunk(self, place: tuple[int, ...]) -> None:
        """Raise an `InputError` that names a chunk if it cannot be decoded."""
        spans = zip(place, self.chunks, self.shape, strict=True)
        one = tuple(slice(at * size, min((at + 1) * size, length)) for at, size, length in spans)
        try:
            self._array[one]
        except Exception as error:  # as above
            text = str(error).strip().partition("\n")[0] or type(error).__name__
            file = self._file_of_shard(self._shard_of(place))
            name = "/".join(map(str, place)) + (f" in {self._name(file)}" if self._array.shards else "")
            cause = f"damaged: chunk {name} cannot be decoded ({text})"
            hint = f"copy this file again from where it came from; without it, its pixels are {self.fill}"
            raise InputError(cause, path=file, hint=hint) from error

    @property
    def fill(self) -> Any:  # noqa: ANN401 - a number of any type
        """The value of absent chunks."""
        return self.dtype.type(self._array.fill_value or 0)

    @property
    def _shards(self) -> tuple[int, ...]:
        """The shape of what one file holds."""
        return self._array.shards or self.chunks

    def _shard_of(self, place: tuple[int, ...]) -> tuple[int, ...]:
        sizes = zip(place, self.chunks, self._shards, strict=True)
        return tuple(at * chunk // shard for at, chunk, shard in sizes)

    def _file_of_shard(self, place: tuple[int, ...]) -> Path:
        return self.path / self._array.metadata.encode_chunk_key(place)

    def _name(self, file: Path) -> str:
        """Return the name of a shard for messages, which in a batch stand beside the name of the image."""
        return f"shard {file.relative_to(self.path).as_posix()}"

    def constant_value(self, index: Index) -> Any | None:  # noqa: ANN401, D102 - inherited
        spans = zip(index, self._shards, strict=True)
        there = self._stored_shards[tuple(slice(part.start // size, -(-part.stop // size)) for part, size in spans)]
        if not there.any():
            return self.fill
        for shard, is_stored in zip(chunks_of(index, self._shards), there.flat, strict=True):
            if not is_stored:
                continue
            stored = self._chunks_in_shard(self._file_of_shard(shard))
            if stored is None or stored[self._chunks_of_part(index, shard)].any():
                return None
        return self.fill

    def _chunks_of_part(self, index: Index, shard: tuple[int, ...]) -> Index:
        """Return which chunks of a shard a part of the array reaches into."""
        parts = []
        for part, place, size, chunk in zip(index, shard, self._shards, self.chunks, strict=True):
            begin, end = max(part.start - place * size, 0), min(part.stop - place * size, size)
            parts.append(slice(begin // chunk, -(-end // chunk)))
        return tuple(parts)

    def _chunks_in_shard(self, file: Path) -> NDArray[np.bool_] | None:
        """Return which chunks a shard holds; None for a file that is one chunk, or an index of an unknown form."""
        if self._array.shards is None or not self._has_plain_index:
            return None
        grid = grid_shape(self._shards, self.chunks)
        size = 16 * math.prod(grid) + _CHECKSUM
        with file.open("rb") as opened:
            if self._codec["index_location"] == "end":
                opened.seek(max(0, os.fstat(opened.fileno()).st_size - size))
            data = opened.read(size)
        if len(data) < size:
            hint = "copy this file again from where it came from"
            raise InputError(f"truncated: the index of {self._name(file)} is not there", path=file, hint=hint)
        return np.asarray(np.frombuffer(data, "<u8", 2 * math.prod(grid)).reshape(*grid, 2)[..., 0] != _EMPTY)

    @cached_property
    def _codec(self) -> dict[str, Any]:
        """The configuration of the codec of shards."""
        first: Any = self._array.metadata.to_dict()["codecs"]
        return dict(first[0]["configuration"])

    @property
    def _has_plain_index(self) -> bool:
        names = [codec["name"] for codec in self._codec["index_codecs"]]
        return names == ["bytes", "crc32c"]

    def find_absent(self) -> AbsentChunks:
        """Count the chunks that are not stored, by a list of the files and the indices of shards.

        Takes time for each file that is there, and none for those that are not.
        """
        total, stored = math.prod(grid_shape(self.shape, self.chunks)), 0
        is_whole = np.zeros_like(self._stored_shards)
        for place in np.argwhere(self._stored_shards):
            shard = tuple(int(at) for at in place)
            chunks = self._stored_chunks(shard, is_there=True)
            stored += int(chunks.sum())
            is_whole[shard] = chunks.all()
        first = islice(self._absent(is_whole), _SHOWN if stored < total else 0)
        return AbsentChunks(total - stored, total, tuple(first))

    @cached_property
    def _stored_shards(self) -> NDArray[np.bool_]:
        """Which shards have a file, by a list of the files: to ask for each takes as long as if all were there."""
        there = np.zeros(grid_shape(self.shape, self._shards), np.bool_)
        for file in _files(self.path):
            shard = self._place_of(file.relative_to(self.path).as_posix())
            if shard is not None:
                there[shard] = True
        return there

    def _place_of(self, key: str) -> tuple[int, ...] | None:
        """Return the place of the shard whose file has this path; None of other files."""
        shard = tuple(int(number) for number in _NUMBERS.findall(key))
        grid = grid_shape(self.shape, self._shards)
        is_one = len(shard) == len(grid) and all(map(operator.lt, shard, grid))
        return shard if is_one and self._array.metadata.encode_chunk_key(shard) == key else None

    def _stored_chunks(self, shard: tuple[int, ...], *, is_there: bool) -> NDArray[np.bool_]:
        """Return which chunks of a shard are stored, as far as the array reaches."""
        parts = self._chunks_of_part(tuple(slice(0, length) for length in self.shape), shard)
        grid = np.full([part.stop for part in parts], is_there)
        stored = self._chunks_in_shard(self._file_of_shard(shard)) if is_there else None
        return grid if stored is None else np.asarray(stored[parts])

    def _absent(self, is_whole: NDArray[np.bool_]) -> Iterator[tuple[int, ...]]:
        """Yield the places of chunks that are not stored, one shard after another, by which shards lack none."""
        counts = grid_shape(self._shards, self.chunks)
        for number in np.flatnonzero(~is_whole)[:_SHOWN]:  # each lacks one at least
            shard = tuple(int(at) for at in np.unravel_index(number, is_whole.shape))
            stored = self._stored_chunks(shard, is_there=bool(self._stored_shards[shard]))
            for inside in np.argwhere(~stored):
                yield tuple(int(a * count + b) for a, count, b in zip(shard, counts, inside, strict=True))


def open_array(path: Path) -> zarr.Array[Any]:
    """Open a Zarr array for reading."""
    import zarr  # slow to import
    from zarr.storage import LocalStore

    return zarr.open_array(LocalStore(path, read_only=True), mode="r")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and below: a list of them takes less time than to ask for each."""
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)
