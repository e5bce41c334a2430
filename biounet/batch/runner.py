"""Many images: one row each. A later run, or another process in the folder, relies on the manifest alone.

Outputs of an image appear whole or not at all, and its record comes last: images with a valid record are done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Literal

import torch

from biounet.batch.export_records import read_exports, remove_outdated_exports
from biounet.batch.finished import current_record, find_finished, genuine_bytes, is_current, valid_record
from biounet.batch.large_image import LargeImage, find_large, remove_work, segment_share
from biounet.batch.manifest import Manifest
from biounet.batch.names import SHOWN_NAMES, image_name, is_in_shard, mark_collisions, natural_name_key
from biounet.batch.own_process import segment_in_own_process, segment_share_in_own_process
from biounet.batch.process_image import BatchContext, block_threads, segment_file
from biounet.batch.recorded_files import is_there
from biounet.batch.records import BatchOptions, Record, Row, error_text, output_settings
from biounet.batch.results_folder import ResultsFolder, check_tables, page_names, unwanted_tables
from biounet.batch.summary import TABLE_NAMES, Summary, has_summary, write_summary
from biounet.core import BiounetError, InputError, MachineError, Stopped, available_cores, list_some, raise_if_stopped
from biounet.files import FoundImage, Locks, ReaderPool, find_temporary_files
from biounet.network import Model, Predictor, model_predictor
from biounet.reporting import check_output_folder, make_folder, output_paths, remove_files, remove_temporary_files
from biounet.segmentation import MemoryBudget, resolve_diameter

_MOST_JOBS = 32
_AHEAD = 2  # tasks for each thread that are made before they can begin
_LOOKED_UP = 100  # images of which one task looks whether they are done
_Process = Callable[[Sequence[FoundImage], BatchContext, ResultsFolder], Iterable[Record]]
_log = logging.getLogger(__name__)
EARLIER_RESULT_REMAINS = "; what an earlier run gave is still there"


def segment_batch(
    images: Sequence[FoundImage],
    model: Model,
    out: Path,
    options: BatchOptions | None = None,
    report: Callable[[Row], None] = lambda row: None,
    stop: Event | None = None,
) -> Sequence[Row]:
    """Segment images into a folder, except those that an earlier run or another process has done.

    Parameters
    ----------
    images
        From `biounet.files.find_images`.
    out
        Folder of the results; the input tree is mirrored below it.
    report
        Called with each row as its image is done, in the order of completion, by one thread at a time.
    stop
        Work ends at the next block when it is set. The main thread must not wait for it.

    Returns
    -------
    One row per image of the shard, in the order of `images`; after `fail_fast` only those that were done. The last
    shard to end also does what is left of the others. Rows are read from the folder when they are asked for.

    Raises
    ------
    SettingsError
        If the folder is that of the images, or holds results of another model, other settings or other images; or if
        an image belongs to no group.
    MachineError
        If the output folder cannot be written to or is removed, or the disk is full. No file is half-written then, and
        the same call continues.
    Stopped
        If `stop` was set; the same call continues.
    """
    options, stop = options or BatchOptions(), stop or Event()
    images = mark_collisions(images)
    _check_before_writing(images, out, options)
    diameter = resolve_diameter(options.segment.diameter, model.card)
    make_folder(out)
    check_tables(out, options, len(images))
    predictor = model_predictor(model, options.device)
    large = _find_large_of_shards(images, model, options)
    chosen = [image for image in images if is_in_shard(image_name(image), options.shard) and image not in large]
    jobs, threads, start = _job_count(options.jobs, len(chosen)), torch.get_num_threads(), time.time()
    options = _as_it_runs(options, predictor, jobs, diameter)
    share = max(1, threads // jobs) if predictor.pipeline is None else threads
    with Locks(out, stop) as locks, _readers(options, jobs) as readers, block_threads(predictor) as pool:
        memory, own_process = MemoryBudget(limit=options.image_ram), segment_in_own_process
        context = BatchContext(model, predictor, out, options, share, stop, readers, pool, own_process, memory)
        folder = _open_folder(context, locks)
        try:
            done = _process_all(chosen, context, folder, report)
            done |= _process_all(_after_own_shard(images, large, done, context, folder), context, folder, report)
        finally:
            torch.set_num_threads(threads)
        _write_summary(done, context, folder, start)
    return folder.manifest.rows(name for name in map(image_name, images) if name in done)


def _as_it_runs(
    options: BatchOptions, predictor: Predictor, jobs: int, diameter: float | Literal["auto", "native"]
) -> BatchOptions:
    """Return the options with what was chosen for this machine and model."""
    segment = replace(options.segment, diameter=diameter)
    return replace(options, device=str(predictor.device), jobs=jobs, segment=segment)


def _readers(options: BatchOptions, jobs: int) -> AbstractContextManager[ReaderPool]:
    return nullcontext(options.readers) if options.readers else ReaderPool(jobs)


def _check_before_writing(images: Sequence[FoundImage], out: Path, options: BatchOptions) -> None:
    check_output_folder(images, out)
    if options.group is not None:
        options.group.check(map(image_name, images))


def _open_folder(context: BatchContext, locks: Locks) -> ResultsFolder:
    """Make the output folder that of this batch, or raise."""
    out, options = context.out, context.options
    manifest = Manifest(out)
    folder = ResultsFolder(out, locks, manifest, options.overwrite, context.hash_input)
    folder.acquire(context.model, output_settings(context.model, options))
    folder.note_shard_start(options.shard)
    genuine = genuine_bytes(out, manifest)
    return replace(folder, temporary_files=find_temporary_files(out), exports=read_exports(out), genuine=genuine)


def _find_large_of_shards(
    images: Sequence[FoundImage], model: Model, options: BatchOptions
) -> dict[FoundImage, LargeImage]:
    """Return the images of which each shard does a part: those that are worked on in super-blocks."""
    large = {}
    for image in images if options.shard is not None else ():
        with suppress(BiounetError):  # which is told when the image is processed
            if (found := find_large(image, model, options)) is not None:
                large[image] = found
    return large


def _after_own_shard(
    images: Sequence[FoundImage],
    large: Mapping[FoundImage, LargeImage],
    done: Collection[str],
    context: BatchContext,
    folder: ResultsFolder,
) -> list[FoundImage]:
    """Do this shard's part of large images, and return what the last shard to end has to do."""
    for image in large:
        _segment_share(image, large[image], context, folder)
    return _left_by_other_shards(images, large, done, context, folder)


def _segment_share(image: FoundImage, large: LargeImage, context: BatchContext, folder: ResultsFolder) -> None:
    """Predict this shard's part of a large image that has no result, beside the processes of other shards."""
    name = image_name(image)
    folder.manifest.refresh()
    if current_record(name, context, folder) is not None or not folder.locks.try_lock(name, shared=True):
        return
    try:
        if large.has_own_process(context.options):
            left = segment_share_in_own_process(image, context)
        else:
            left = segment_share(large, context.model, context.out, context.options, context.stop)
        if left:
            _log.warning("%s: %d part%s left to other shards", name, left, " is" if left == 1 else "s are")
    except InputError as error:  # the run that finishes says it in the row of the image
        _log.warning("%s: %s", name, error_text(error))
    finally:
        folder.locks.unlock(name)


def _left_by_other_shards(
    images: Sequence[FoundImage],
    large: Collection[FoundImage],
    done: Collection[str],
    context: BatchContext,
    folder: ResultsFolder,
) -> list[FoundImage]:
    """Return the images that have no result when this is the last shard to end, such as some that came in later."""
    shard = context.options.shard
    others = [image for image in images if image_name(image) not in done]
    if shard is None or any(is_in_shard(image_name(image), shard) for image in others if image not in large):
        return []
    is_last = folder.note_shard_end(shard)
    folder.manifest.refresh()
    missing = [image for image in others if current_record(image_name(image), context, folder) is None]
    if missing and not is_last:
        _log.warning("%d of %d images have no result yet: they belong to other shards", len(missing), len(images))
    return missing if is_last else []


def _process_all(
    images: Sequence[FoundImage], context: BatchContext, folder: ResultsFolder, report: Callable[[Row], None]
) -> set[str]:
    """Return the names of all images, or of those up to the first failure; what other processes do comes last.

    Those that an earlier run has done come first, many in each task, and take no lock: there may be a million.
    """
    done: set[str] = set()
    errors: list[BaseException] = []
    reporting = Lock()

    def work(find_records: Callable[[], Iterable[Record]]) -> None:
        """Report records as they come; errors are collected, as the pool raises them in the order of the images."""
        try:
            for record in find_records():
                with reporting:
                    done.add(record.row.image)
                    report(record.row)
                if context.options.fail_fast and record.row.status == "failed":
                    raise _FirstFailure("the first image that failed is the last")
        except BaseException as error:  # raised again
            errors.append(error)
            context.stop.set()  # before this thread takes the next image from the queue
            raise

    def run_all(process: _Process, each: int) -> None:
        left = [image for image in images if image_name(image) not in done]
        parts = (left[start : start + each] for start in range(0, len(left), each))
        _run_all((partial(work, partial(process, part, context, folder)) for part in parts), context)

    try:
        run_all(find_finished, _LOOKED_UP)
        folder.check_inputs(image for image in images if image_name(image) not in done)
        run_all(partial(_process, wait=False), 1)
        run_all(_process, 1)
    except Stopped:
        if not isinstance(errors[0], Stopped):
            raise errors[0] from None
        if not isinstance(errors[0], _FirstFailure):
            raise Stopped(f"{len(done)} of {len(images)} images done") from None
    return done


def _run_all(tasks: Iterable[Callable[[], None]], context: BatchContext) -> None:
    """Run tasks in parallel, of which few are made ahead; after the first error no further one starts."""
    running: set[Future[None]] = set()
    jobs = context.options.jobs or 1
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for task in tasks:
                running.add(pool.submit(task))
                if len(running) >= _AHEAD * jobs:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
            for future in as_completed(running):
                future.result()
        except BaseException:  # such as Ctrl-C in a program that passes no stop event
            context.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _FirstFailure(Stopped):
    pass


def _process(
    images: Sequence[FoundImage], context: BatchContext, folder: ResultsFolder, wait: bool = True
) -> Iterator[Record]:
    """Yield the records of images, from the manifest or new ones; none where another process works on it."""
    records = (_process_one(image, context, folder, wait) for image in images)
    return (record for record in records if record is not None)


def _process_one(image: FoundImage, context: BatchContext, folder: ResultsFolder, wait: bool) -> Record | None:
    name = image_name(image)
    raise_if_stopped(context.stop)
    if wait:
        folder.locks.lock(name)
    elif not folder.locks.try_lock(name):
        return None
    try:
        folder.manifest.refresh()
        if folder.temporary_files:
            remove_temporary_files(output_paths(image, context.out), folder.temporary_files)
        return valid_record(image, context, folder) or _segment_and_record(image, context, folder)
    finally:
        folder.locks.unlock(name)


def _segment_and_record(image: FoundImage, context: BatchContext, folder: ResultsFolder) -> Record:
    """Segment an image and append its record; earlier outputs stay when it fails, and go when it does not."""
    name, out = image_name(image), context.out
    if not folder.locks.folder_exists():
        raise _removed(out)
    before = folder.manifest.output_hashes(name)
    record = segment_file(image, context, folder.note_start(image))
    failed = record.row.status == "failed"
    if failed and any(is_there(out / path) for path in before):
        record = replace(record, row=replace(record.row, message=f"{record.row.message}{EARLIER_RESULT_REMAINS}"))
    folder.manifest.append(record, folder.locks)
    if not failed:
        remove_files(folder.outdated_outputs(record.outputs, before))
        remove_outdated_exports(out, record, folder.exports)
        remove_work(image, out)
    return record


def _removed(out: Path) -> MachineError:
    return MachineError("was removed while the batch ran", path=out, hint="the same command makes again what is lost")


def _write_summary(done: Collection[str], context: BatchContext, folder: ResultsFolder, start: float) -> None:
    """Write the tables of all images that have a record, including those of other shards and earlier runs."""
    out, options, manifest = context.out, context.options, folder.manifest
    if not folder.locks.folder_exists():
        raise _removed(out)
    with folder.locks.exclusive("summary"):
        manifest.refresh()
        names, left_out = _names_in_tables(done, context, manifest)
        check_tables(out, options, len(names))
        tables = [out / name for name in (*TABLE_NAMES, *page_names(len(names)))]
        remove_temporary_files(tables, folder.temporary_files)
        state = {"bytes": manifest.end, "sha256": manifest.hash(manifest.end), "not_in_tables": left_out}
        if not has_summary(Summary(manifest.rows(names), state, start), context.model, out, options):
            rows = manifest.rows(sorted(names, key=natural_name_key))
            write_summary(Summary(rows, state, start), context.model, out, options)
        remove_files(unwanted_tables(out, options, len(names)))


def _names_in_tables(done: Collection[str], context: BatchContext, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Return the images that tables are about, and those of this model and settings that they are not about."""
    identity = (context.model.sha256, context.settings)
    # What this run found done, and nobody recorded since, is not decoded again: there may be a million.
    names = [name for name in manifest.names() if name in done and not manifest.is_new(name)]
    found, missing, left_out = set(names), [], []
    for record in manifest.records(name for name in manifest.names() if name not in found):
        name = record.row.image
        if is_current(record, context) and (name in done or not manifest.is_obsolete(record)):
            names.append(name)
            continue
        if name in done:
            raise _removed(context.out)
        missing += [] if manifest.is_obsolete(record) else [name]
        left_out += [name] if (record.model, record.settings) == identity else []
    if missing:
        reason = "since their results are of other settings or not all there"
        _log.warning("not in the tables, %s: %s", reason, list_some(missing, SHOWN_NAMES))
    return names, left_out


def _job_count(jobs: int | None, images: int) -> int:
    return max(1, min(jobs or available_cores(), images, _MOST_JOBS))
