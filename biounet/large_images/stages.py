"""What is done to each super-block, stage by stage: calls that any machine can carry, and that leave files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biounet.core import Grid, Region, canonical_transform, give_back_memory, stored_region
from biounet.files import LabelStore, atomic_path, open_label_store, write_level, write_shard, write_text
from biounet.labelling import (
    JoinedParts,
    NumberedObjects,
    Parts,
    find_gaps,
    paint,
)
from biounet.large_images.array_files import load_arrays, save_arrays
from biounet.large_images.find_parts import find_within_memory
from biounet.large_images.joining import load_found_gaps
from biounet.large_images.work import EXTENT, FIND, GAPS, MEASURE, PAINT, Work, WorkerSettings, open_work
from biounet.large_images.work_folder import is_empty, mark_as_empty
from biounet.measurement import (
    AcquiredExtent,
    Boxes,
    OwnedObjects,
    TableSummary,
    count_channels,
    measure_region,
)
from biounet.preprocessing import scale_region
from biounet.reporting import make_folder, write_table_part
from biounet.segmentation import weigh_borders
from biounet.tiling import relative_region

CHANNELS = "channels"
"""How the names of the stages begin in which pixels of channels to measure are counted."""

_LEVEL = "level"
_BRIEF = 0.2  # seconds of a task that has allocated little
_LABELS = ".labels"  # suffix of the file of the parts of a super-block, which is not there without any


@dataclass(frozen=True)
class Task:
    """A stage of a super-block, or of a shard of a level of lower resolution.

    Attributes
    ----------
    folder
        The work folder.
    store
        The label store.
    """

    folder: Path
    store: Path
    stage: str
    index: int
    settings: WorkerSettings

    def __str__(self) -> str:
        return f"part {self.index} ({self.stage})"


def work_on(task: Task) -> None:
    """Carry out a task in this process, and leave its files.

    Raises
    ------
    InputError
        If a part of the image is damaged.
    MachineError
        If the disk is full.
    """
    start = time.monotonic()
    work = open_work(task.folder, task.settings)
    if task.settings.threads is not None and work.predictor.device.type == "cpu":
        torch.set_num_threads(task.settings.threads)
    stages = {FIND: _find, GAPS: _find_gaps, PAINT: _paint, MEASURE: _measure}
    if task.stage in stages:
        stages[task.stage](work, task)
    elif task.stage.startswith(CHANNELS):
        _count_channels(work, task)
    else:
        _write_level(work, task)
    if time.monotonic() - start > _BRIEF:
        give_back_memory()


def level_stage(level: int) -> str:
    """Return the stage in which the shards of a level are written."""
    return f"{_LEVEL}{level}"


def channel_stage(number: int) -> str:
    """Return the stage in which the pixels of channels to measure are counted for the `number`-th time."""
    return f"{CHANNELS}{number}"


def _find(work: Work, task: Task) -> None:
    """Predict a super-block, and find its parts; the file of one without any is empty."""
    block, path = work.lattice.block(task.index), work.folder.make(FIND, task.index)
    labels, parts = find_within_memory(work, block)
    if (box := work.labeller.acquired_box(block.core)) is not None:
        extent = json.dumps(asdict(_acquired_extent(work, box)))
        write_text(path.with_suffix(EXTENT), extent)
    if labels is None:
        mark_as_empty(path)
        return
    _save_labels(path.with_suffix(_LABELS), labels, parts, block.core)
    with atomic_path(path) as temporary:  # last: it says that the super-block is done
        parts.save(temporary)


def _acquired_extent(work: Work, region: Region) -> AcquiredExtent:
    """Return where the voxels of a region lie that were acquired, on the grid of the image."""
    acquired = scale_region(work.image, work.scale, region, fill=False).acquired
    if acquired is None:
        return AcquiredExtent()
    stored = stored_region(region, work.stored.grid)
    array = canonical_transform(work.stored.grid).undo(acquired)
    return AcquiredExtent.of(array, [part.start for part in stored])


def _find_gaps(work: Work, task: Task) -> None:
    """Find the background in a super-block that may be a hole of an object."""
    path = work.folder.make(GAPS, task.index)
    labels = _labels(work, task.index)
    if labels is None:
        mark_as_empty(path)
        return
    objects = JoinedParts.open(work.folder.joined("parts")).objects_of_parts.load(task.index)
    gaps = find_gaps(labels, objects, work.lattice.block(task.index))
    with atomic_path(path) as temporary:
        gaps.save(temporary)


def _paint(work: Work, task: Task) -> None:
    """Write the final labels of a super-block: one shard of the label store."""
    path, block = work.folder.make(PAINT, task.index), work.lattice.block(task.index)
    numbered = NumberedObjects.open(work.folder.joined("objects"))
    labels = _paint_labels(work, numbered, task.index)
    if labels is None:
        mark_as_empty(path)
        return
    store, region = _open_store(task.store), stored_region(block.core, work.stored.grid)
    transform = canonical_transform(work.stored.grid)
    write_shard(store, region, np.ascontiguousarray(transform.undo(labels)))
    _mark_shard(path, store, region)


def _paint_labels(work: Work, numbered: NumberedObjects, index: int) -> NDArray[np.int32] | None:
    """Return the final labels of the core of a super-block; None without any."""
    shape = tuple(part.stop - part.start for part in work.lattice.block(index).core)
    parts, labels_of_parts = _labels(work, index), numbered.labels_of_parts.load(index)
    if not work.settings.fill_holes:
        return None if parts is None else paint(parts, shape, labels_of_parts)
    gaps, labels_of_gaps = load_found_gaps(work, index), numbered.labels_of_gaps.load(index)
    if parts is None and not labels_of_gaps.any():
        return None
    return paint(parts, shape, labels_of_parts, gaps, labels_of_gaps)


def _count_channels(work: Work, task: Task) -> None:
    """Count the pixels of channels to measure in a super-block, of which the backgrounds follow."""
    path, store, search = work.folder.make(task.stage, task.index), _open_store(task.store), work.channel_search()
    region = stored_region(work.lattice.block(task.index).core, work.stored.grid)
    count_channels(search, region, store, work.stored, work.channels)
    save_arrays(path, search.counted())


def _measure(work: Work, task: Task) -> None:
    """Measure the objects that begin in a super-block."""
    path, core = work.folder.make(MEASURE, task.index), work.lattice.block(task.index).core
    rows = NumberedObjects.open(work.folder.joined("objects")).objects(task.index)
    if task.index and not len(rows.label):  # the first one says which columns there are
        mark_as_empty(path)
        return
    store, grid = _open_store(task.store), work.stored.grid
    owned = OwnedObjects(rows.label, rows.count, stored_boxes(rows.low, rows.high, grid), rows.confidence)
    table = measure_region(owned, stored_region(core, grid), store.read, work.stored, work.known_channels)
    table, counts = weigh_borders(table, grid, work.acquired_part)
    make_folder(work.folder.tables)
    write_table_part(work.folder.tables, task.index, table.columns)
    summary = TableSummary.of(table, work.training.low_confidence, counts)
    write_text(path, json.dumps(summary.encode()) + "\n")


def stored_boxes(low: NDArray[np.int64], high: NDArray[np.int64], grid: Grid) -> Boxes:
    """Return boxes, whose lowest voxels and ends are in the canonical orientation, on the grid of the image."""
    transform = canonical_transform(grid)
    first, last = np.empty_like(low), np.empty_like(high)
    for number, (axis, flipped) in enumerate(zip(transform.axes, transform.flipped, strict=True)):
        length = grid.shape[axis]
        first[:, axis] = length - high[:, number] if flipped else low[:, number]
        last[:, axis] = (length - low[:, number] if flipped else high[:, number]) - 1
    return Boxes(first, last)


def _save_labels(path: Path, labels: NDArray[np.int32], parts: Parts, core: Region) -> None:
    """Write the label image of a super-block, cropped to the box that holds its parts."""
    box = relative_region(parts.box, core)
    save_arrays(path, {"labels": labels[box], "start": np.array([part.start for part in box])})


def _labels(work: Work, index: int) -> NDArray[Any] | None:
    """Return the parts that `find_parts` found in a super-block; None without any."""
    if is_empty(work.folder.file(FIND, index)):
        return None
    path = work.folder.file(FIND, index, _LABELS)
    arrays, shape = load_arrays(path), tuple(part.stop - part.start for part in work.lattice.block(index).core)
    cropped: NDArray[np.int32] = arrays["labels"]
    if cropped.shape == shape:
        return cropped
    labels = np.zeros(shape, np.int32)
    labels[tuple(slice(at, at + n) for at, n in zip(arrays["start"], cropped.shape, strict=True))] = cropped
    return labels


def _write_level(work: Work, task: Task) -> None:
    """Write one shard of a level of lower resolution."""
    store, level = _open_store(task.store), int(task.stage.removeprefix(_LEVEL))
    path = work.folder.make(task.stage, task.index)
    region = store.levels[level].region(task.index)
    write_level(store, level, region)
    _mark_shard(path, store, region, level)


def _mark_shard(path: Path, store: LabelStore, region: Region, level: int = 0) -> None:
    """Say that a shard is done, and whether there is one: where no label is, none was written."""
    if store.has_labels(region, level):
        write_text(path, "written\n")
    else:
        mark_as_empty(path)


def _open_store(path: Path) -> LabelStore:
    """Return a label store, opened once in each process: to read its metadata takes longer than to do nothing."""
    return _opened_store(path, (path / "zarr.json").stat().st_mtime_ns)


@lru_cache(1)
def _opened_store(path: Path, mtime_ns: int) -> LabelStore:
    return open_label_store(path)
