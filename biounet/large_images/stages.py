"""What is done to each super-block, stage by stage: calls that any machine can carry, and that leave files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from biounet.core import canonical_transform, stored_region
from biounet.files import atomic_path, open_label_store, write_level, write_shard
from biounet.labelling import (
    Gaps,
    JoinedParts,
    NumberedObjects,
    find_gaps,
    find_parts,
    load_gaps,
    paint,
)
from biounet.large_images.array_files import load_arrays, save_arrays
from biounet.large_images.work import FIND, GAPS, MEASURE, PAINT, Work, WorkerSettings, open_work

_LEVEL = "level"
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


@dataclass(frozen=True)
class Answer:
    """What a call says: the seconds that it took."""

    seconds: float


def work_on(task: Task) -> Answer:
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
    else:
        _write_level(work, task)
    return Answer(time.monotonic() - start)


def level_stage(level: int) -> str:
    """Return the stage in which the shards of a level are written."""
    return f"{_LEVEL}{level}"


def _find(work: Work, task: Task) -> None:
    """Predict a super-block, and find its parts."""
    block, path = work.lattice.block(task.index), work.folder.make(FIND, task.index)
    basins = () if work.labeller.is_background(block.core) else work.labeller.label(block.core)
    labels, parts = find_parts(basins, block, work.settings, work.smallest)
    if labels is not None:
        save_arrays(path.with_suffix(_LABELS), {"labels": labels})
    with atomic_path(path) as temporary:  # last: it says that the super-block is done
        parts.save(temporary)


def _find_gaps(work: Work, task: Task) -> None:
    """Find the background in a super-block that may be a hole of an object."""
    path = work.folder.make(GAPS, task.index)
    objects = JoinedParts.open(work.folder.joined("parts")).objects_of_parts.load(task.index)
    gaps = find_gaps(_labels(work, task.index), objects, work.lattice.block(task.index))
    with atomic_path(path) as temporary:
        gaps.save(temporary)


def _paint(work: Work, task: Task) -> None:
    """Write the final labels of a super-block: one shard of the label store."""
    path, block = work.folder.make(PAINT, task.index), work.lattice.block(task.index)
    numbered = NumberedObjects.open(work.folder.joined("objects"))
    labels = _paint_labels(work, numbered, task.index)
    if labels is not None:
        store = open_label_store(task.store)
        transform = canonical_transform(work.stored.grid)
        write_shard(store, stored_region(block.core, work.stored.grid), np.ascontiguousarray(transform.undo(labels)))
    with atomic_path(path) as temporary:
        temporary.touch()


def _paint_labels(work: Work, numbered: NumberedObjects, index: int) -> NDArray[np.int32] | None:
    """Return the final labels of the core of a super-block; None without any."""
    gaps: Gaps | None = None
    labels_of_gaps = np.zeros(0, np.int32)
    if work.settings.fill_holes:
        gaps, labels_of_gaps = load_gaps(work.folder.file(GAPS, index)), numbered.labels_of_gaps.load(index)
    parts, labels_of_parts = _labels(work, index), numbered.labels_of_parts.load(index)
    if parts is None and not labels_of_gaps.any():
        return None
    shape = tuple(part.stop - part.start for part in work.lattice.block(index).core)
    return paint(parts, labels_of_parts, gaps, labels_of_gaps, shape)


def _labels(work: Work, index: int) -> NDArray[Any] | None:
    """Return the parts that `find_parts` found in a super-block; None without any."""
    path = work.folder.file(FIND, index, _LABELS)
    return load_arrays(path)["labels"] if path.is_file() else None


def _write_level(work: Work, task: Task) -> None:
    """Write one shard of a level of lower resolution."""
    store, level = open_label_store(task.store), int(task.stage.removeprefix(_LEVEL))
    path = work.folder.make(task.stage, task.index)
    region = store.levels[level].region(task.index)
    write_level(store, level, region)
    with atomic_path(path) as temporary:
        temporary.touch()
