"""Whether a label store holds what it should: the labels of another store, and every number from 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from biounet.core import InputError, Region, list_some
from biounet.files.label_store.layout import StoreLevel
from biounet.files.label_store.metadata import grid_difference
from biounet.files.label_store.store import LabelStore, open_label_store

_VOXELS = 1 << 24  # that are read at a time
_BAND = 1 << 22  # that are used as indices at a time, which take eight bytes each
_SHOWN = 5  # shards or labels, in a message


def store_difference(path: Path, expected: Path) -> str:
    """Return in what the labels of a store, or of a level of it, differ from another's; empty if they do not.

    Shards that differ are named. How a store is divided into shards is no difference. Memory is that of some shards.
    """
    try:
        found = open_label_store(path)
    except InputError as error:
        return error.cause
    wanted = open_label_store(expected)
    different = grid_difference(found, wanted)
    if not different and [level.factors for level in found.levels] != [level.factors for level in wanted.levels]:
        different = f"has {len(found.levels)} levels, not {len(wanted.levels)}"
    if not different and found.kind != wanted.kind:
        different = f"holds {found.kind}, not {wanted.kind}"
    return different or list_some(list(dict.fromkeys(_different_shards(found, wanted))), _SHOWN)


def damaged_shards(path: Path) -> str:
    """Return which shards of a store cannot be read, or why it cannot be opened; empty where all can."""
    try:
        store = open_label_store(path)
    except InputError as error:
        return error.cause
    faults = (
        _read_fault(store, number, region) for number, level in enumerate(store.levels) for region in _pieces(level)
    )
    return list_some(list(dict.fromkeys(filter(None, faults))), _SHOWN)


def numbering_fault(store: LabelStore, count: int) -> str:
    """Return which of the labels 1 to `count` no voxel has, or which voxels have another; empty where all is well.

    Raises
    ------
    InputError
        If a shard is damaged, naming it.
    """
    is_there = np.zeros(count + 1, np.bool_)
    for region in _pieces(store.levels[0]):
        if not store.has_labels(region):
            continue
        labels = store.read(region).reshape(-1)
        lowest, largest = int(labels.min()), int(labels.max())
        if lowest < 0 or largest > count:
            return f"label {lowest if lowest < 0 else largest} of {count} objects"
        for first in range(0, labels.size, _BAND):
            is_there[labels[first : first + _BAND]] = True
    missing = np.flatnonzero(~is_there[1:]) + 1
    more = f" and {missing.size - _SHOWN} more" if missing.size > _SHOWN else ""
    return f"no voxel of object {', '.join(map(str, missing[:_SHOWN]))}{more}" if missing.size else ""


def _different_shards(found: LabelStore, wanted: LabelStore) -> Iterator[str]:
    for number, level in enumerate(found.levels):
        for region in _pieces(level):
            is_there, is_wanted = found.has_labels(region, number), wanted.has_labels(region, number)
            if not (is_there or is_wanted):
                continue
            if is_there and (fault := _read_fault(found, number, region)):
                yield fault
            elif not np.array_equal(found.read(region, number), wanted.read(region, number)):
                yield f"{_shard(level, region)} {'changed' if is_there else 'missing'}"


def _read_fault(store: LabelStore, number: int, region: Region) -> str:
    try:
        store.read(region, number)
    except InputError:
        return f"{_shard(store.levels[number], region)} damaged"
    return ""


def _shard(level: StoreLevel, region: Region) -> str:
    """Return the path of the shard that a region lies in."""
    return level.key(next(level.regions_in(region)))


def _pieces(level: StoreLevel) -> Iterator[Region]:
    """Yield the regions of all shards; large ones of volumes in slabs of whole chunks."""
    size = math.prod(level.shard)
    depth = max(1, _VOXELS * level.shard[0] // size // level.chunk[0]) * level.chunk[0]
    for region in level.regions():
        first, *others = region
        for at in range(first.start, first.stop, depth):
            yield (slice(at, min(at + depth, first.stop)), *others)
