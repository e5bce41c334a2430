"""The order of work on one large image: a stage after the other, each by whoever carries calls, from what is there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from biounet.core import InputError, available_cores, raise_if_stopped
from biounet.files import LabelStore, Locks, StoreOptions, create_label_store, write_text
from biounet.labelling import NumberedObjects
from biounet.large_images.find_parts import pinned_arithmetic
from biounet.large_images.joining import finish_channel_pass, join_holes, join_parts, number_found
from biounet.large_images.lost_shards import LostShards, find_lost
from biounet.large_images.plan import CHANGED, LargePlan, load_plan
from biounet.large_images.result import LargeResult, describe_result
from biounet.large_images.stages import Task, channel_stage, level_stage, work_on
from biounet.large_images.task_runner import TaskRunner
from biounet.large_images.work import FIND, GAPS, MEASURE, PAINT, Work, WorkerSettings
from biounet.large_images.work_folder import WorkFolder, is_empty
from biounet.measurement import TableSummary, join_summaries
from biounet.network import Model, save_model
from biounet.preprocessing import find_scale
from biounet.reporting import make_folder

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a stage, and how many of its parts are done, of how many."""


@dataclass(frozen=True)
class LargeRun:
    """How one large image is worked on: nothing of it changes the result.

    Attributes
    ----------
    folder
        The work folder.
    store
        Where the label store is made.
    workers
        How each worker works.
    stop
        When it is set, the work ends after the parts that have begun.
    """

    folder: Path
    store: Path
    runner: TaskRunner
    workers: WorkerSettings
    stop: Event
    progress: Progress = lambda stage, done, total: None


def begin(folder: Path, plan: LargePlan, model: Model, *, overwrite: bool = False, is_shard: bool = False) -> LargePlan:
    """Make the work folder of an image, or continue in one; return the plan that holds.

    That of the folder is the one by which it was begun: super-blocks stay as they are, whatever memory there is now.
    What was found in an image that changed since, such as one that was damaged and copied again, is of no use.

    Parameters
    ----------
    overwrite
        Begin anew, whatever is in the folder.
    is_shard
        Others work on shards of the image, whose results are not to be lost: those of the same plan stay.

    Raises
    ------
    InputError
        If it was begun of another image, or with another model or settings.
    """
    work = WorkFolder(folder)
    earlier = _same_plan(folder, plan, is_shard) if overwrite else load_plan(folder)
    difference = "" if earlier is None else plan.difference(earlier)
    if difference == CHANGED:
        _log.warning("%s changed since the work on it began, which begins anew", plan.files[0].name)
        earlier = None
    elif difference:
        hint = "--overwrite begins anew, or write into another folder"
        raise InputError(f"begun {difference}", path=folder, hint=hint)
    if earlier is not None:
        if not work.model.is_file():
            save_model(model, work.model)
        return earlier
    work.remove()  # what is there without a plan, or is not wanted
    make_folder(folder)
    save_model(model, work.model)
    plan.save(folder)  # last: it says that the folder can be worked in
    return plan


def _same_plan(folder: Path, plan: LargePlan, is_shard: bool) -> LargePlan | None:
    """Return the plan by which another shard began the same work; None for what is to begin anew."""
    try:
        earlier = load_plan(folder) if is_shard else None
    except InputError:  # damaged, or of another version
        return None
    return None if earlier is None or plan.difference(earlier) else earlier


def find_scale_of_image(work: Work, locks: Locks, stop: Event) -> None:
    """Find what scales the intensities of the image, unless that is done; another process may do it meanwhile."""
    with locks.exclusive("scale"):
        if not work.folder.scale.is_file():
            recipe = work.model.card.recipe
            with ThreadPoolExecutor(available_cores()) as readers:
                scale = find_scale(work.image, recipe.normalise, recipe.data, stop, readers)
            write_text(work.folder.scale, json.dumps(scale.as_dict()) + "\n")


def find_objects(work: Work, run: LargeRun, shard: tuple[int, int] | None = None) -> int:
    """Predict all super-blocks, or those of the i-th of n shards; return how many others have no result yet."""
    indices = range(len(work.lattice))
    own = indices if shard is None else indices[shard[0] - 1 :: shard[1]]
    _run_stage(work, run, FIND, own)
    return 0 if shard is None else sum(1 for _ in work.folder.left(FIND, indices))


def write_labels(work: Work, run: LargeRun) -> NumberedObjects:
    """Join what was found, and write the label store; all super-blocks have been predicted."""
    indices = range(len(work.lattice))
    if work.folder.complete.is_file() and not run.store.is_dir():  # it was moved to the results since
        return NumberedObjects.open(work.folder.joined("objects"))
    joined = join_parts(work, run.stop)
    if work.settings.fill_holes:
        _run_stage(work, run, GAPS, indices)
    numbered = number_found(work, joined, join_holes(work, run.stop), run.stop)
    _fill_store(work, run, _make_store(work, run))
    write_text(work.folder.complete, "")
    return numbered


def _fill_store(work: Work, run: LargeRun, store: LabelStore) -> None:
    """Write the labels and all that is read from them; once more if shards are lost meanwhile."""
    if (lost := find_lost(work, store)) is not None:  # since an earlier run
        lost.forget(work)
    if (lost := _fill_once(work, run, store)) is None:
        return
    lost.forget(work)
    if (lost := _fill_once(work, run, store)) is not None:
        raise lost.error


def _fill_once(work: Work, run: LargeRun, store: LabelStore) -> LostShards | None:
    """Write the labels and all that is read from them, as far as it is not done; return what was lost meanwhile."""
    indices = range(len(work.lattice))
    try:
        _run_stage(work, run, PAINT, indices)
        search_channels(work, run)
        _run_stage(work, run, MEASURE, indices)
        for level in range(1, len(store.levels)):
            _run_stage(work, run, level_stage(level), range(store.levels[level].shards))
    except InputError:  # as of objects without some of their voxels
        if (lost := find_lost(work, store)) is None:
            raise
        return lost
    return find_lost(work, store)


def search_channels(work: Work, run: LargeRun) -> None:
    """Find the backgrounds of the channels to measure, if there are any; all super-blocks have been painted."""
    while (search := work.channel_search()).unfinished:
        stage = channel_stage(search.passes)
        _run_stage(work, run, stage, range(len(work.lattice)))
        finish_channel_pass(work, stage, run.stop)


def summarise(work: Work) -> TableSummary:
    """Return what figures and notes need of the table; all super-blocks have been measured."""
    files = (work.folder.file(MEASURE, index) for index in range(len(work.lattice)))
    texts = (file.read_text(encoding="utf-8") for file in files if not is_empty(file))
    return join_summaries(TableSummary.decode(json.loads(text)) for text in texts)


def _make_store(work: Work, run: LargeRun) -> LabelStore:
    title = run.store.name.removesuffix(".ome.zarr")
    pinned = {"model": work.plan.model, "arithmetic": pinned_arithmetic(work.folder) or ""}
    options = StoreOptions(work.plan.edges, title=title, pinned=pinned)
    return create_label_store(run.store, work.stored.grid, options)


def _run_stage(work: Work, run: LargeRun, stage: str, indices: range) -> None:
    """Carry out a stage of some parts of the image, those that are not done."""
    left = list(work.folder.left(stage, indices))
    done = len(indices) - len(left)
    run.progress(stage, done, len(indices))
    tasks = (Task(run.folder, run.store, stage, index, run.workers) for index in left)
    # The others are done all the same: once the image is whole, only what was damaged is left.
    is_done = partial(_is_done, work)
    answers = run.runner.run(work_on, tasks, run.stop, is_done, keep_going=True)
    for number_done, _ in enumerate(answers, start=done + 1):
        run.progress(stage, number_done, len(indices))
    raise_if_stopped(run.stop)


def _is_done(work: Work, task: Task) -> bool:
    return work.folder.is_done(task.stage, task.index)


def segment_large(work: Work, run: LargeRun, locks: Locks) -> LargeResult:
    """Do what is left of an image; its labels are then in the label store, and its table in parts.

    Raises
    ------
    InputError
        If a part of the image is damaged, which is named; the others are done.
    MachineError
        If the disk is full; the same call continues.
    Stopped
        If `run.stop` was set; the same call continues.
    """
    find_scale_of_image(work, locks, run.stop)
    find_objects(work, run)
    numbered = write_labels(work, run)
    return describe_result(work, numbered, summarise(work))
