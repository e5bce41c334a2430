"""Many images: one row each, whatever happens to one of them, to this process or to the disk.

Outputs of an image appear whole or not at all; its record in the manifest comes last. Whoever starts again, or works
beside, believes the manifest alone: what it names and can be checked is done, everything else is to be done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock

import torch

from biounet.batch.locks import Locks
from biounet.batch.manifest import Manifest, are_there, exist, is_file
from biounet.batch.own_process import segment_apart
from biounet.batch.ownership import Ownership, is_own_table, refuse_foreign_tables
from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.records import (
    BatchOptions,
    Record,
    Row,
    in_natural_order,
    is_in_shard,
    is_same,
    name_of,
    settings_of,
)
from biounet.batch.summary import NAMES, write_summary
from biounet.core import MachineError, Stopped, available_cores, raise_if_stopped
from biounet.files import FoundImage, ReaderPool, find_temporary_files
from biounet.network import Model, Predictor, model_predictor
from biounet.reporting import check_output_folder, make_folder, output_paths, remove_files, remove_temporary_files

_SHOWN = 3  # names that a message lists
_log = logging.getLogger(__name__)
KEPT = "; what an earlier run gave is still there"


@dataclass(frozen=True)
class _Folder:
    """The output folder as this process sees it: claims, what is done, what is whose, what killed processes left."""

    claims: Locks
    manifest: Manifest
    own: Ownership
    parts: dict[Path, list[Path]]


def segment_batch(
    images: Sequence[FoundImage],
    model: Model,
    out: Path,
    options: BatchOptions | None = None,
    report: Callable[[Row], None] = lambda row: None,
    stop: Event | None = None,
) -> list[Row]:
    """Segment images into a folder; what an earlier run did, or another process does, is not done again.

    Parameters
    ----------
    images
        From `biounet.files.find_images`.
    model
        The model.
    out
        Folder of the results; the input tree is mirrored below it.
    options
        How.
    report
        Called with each row as its image is done, in the order of completion, never twice at a time.
    stop
        Work ends at the next block when it is set. The main thread must not wait for it.

    Returns
    -------
    One row per image of the shard, in the order of `images`; after `fail_fast` only those that there are. The shard
    that ends last does what is left of the others, too.

    Raises
    ------
    SettingsError
        If the folder is that of the images, or holds results of another model, other settings or other images.
    MachineError
        If the output folder cannot be written to or is removed, or the disk is full. Nothing is half-written then, and
        the same call goes on from there.
    Stopped
        If `stop` was set; the same call goes on from there.
    """
    options, stop = options or BatchOptions(), stop or Event()
    images = mark_collisions(images)
    check_output_folder(images, out)
    make_folder(out)
    refuse_foreign_tables(out, options, NAMES)
    predictor = model_predictor(model, options.device)
    mine = [image for image in images if is_in_shard(name_of(image), options.shard)]
    jobs, threads, started = _jobs(options.jobs, len(mine), predictor), torch.get_num_threads(), time.time()
    options = replace(options, device=str(predictor.device), jobs=jobs)
    each = max(1, threads // jobs) if predictor.device.type == "cpu" else threads
    with Locks(out, stop) as claims, nullcontext(options.readers) if options.readers else ReaderPool(jobs) as readers:
        run = BatchContext(model, predictor, out, options, each, stop, readers, apart=segment_apart)
        folder = _open(run, claims, mine)
        try:
            done = _work_through(mine, run, folder, report)
            done |= _work_through(_left_by_others(images, done, run, folder), run, folder, report)
        finally:
            torch.set_num_threads(threads)
        _summarise(done, run, folder, started)
    return [done[name].row for name in map(name_of, images) if name in done]


def _open(run: BatchContext, claims: Locks, mine: Sequence[FoundImage]) -> _Folder:
    """Make the output folder that of a run, or refuse it."""
    manifest = Manifest(run.out)
    own = Ownership(run.out, claims, manifest, run.options.overwrite, run.hash_input)
    own.occupy(run.model, settings_of(run.model, run.options))
    own.refuse_other_inputs(mine)
    own.begin_shard(run.options.shard)
    return _Folder(claims, manifest, own, find_temporary_files(run.out))


def _left_by_others(
    images: Sequence[FoundImage], done: Mapping[str, Record], run: BatchContext, folder: _Folder
) -> list[FoundImage]:
    """Return what is left to do when this is the last of all shards, such as images that came in after the others."""
    shard = run.options.shard
    others = [image for image in images if name_of(image) not in done]
    if shard is None or any(is_in_shard(name_of(image), shard) for image in others):
        return []
    last = folder.own.end_shard(shard)
    folder.manifest.refresh()
    missing = [image for image in others if _on_record(name_of(image), run, folder) is None]
    if missing and not last:
        _log.warning("%d of %d images have no result yet: they belong to other shards", len(missing), len(images))
    return missing if last else []


def _work_through(
    images: Sequence[FoundImage], run: BatchContext, folder: _Folder, report: Callable[[Row], None]
) -> dict[str, Record]:
    """Return the records of all images, or up to the first failure; those that others work on come last."""
    done: dict[str, Record] = {}
    errors: list[BaseException] = []
    one_at_a_time = Lock()

    def work(image: FoundImage, patient: bool) -> None:
        """Do one image and keep its record; an error is kept too, since it ends in another thread."""
        try:
            record = _record_of(image, run, folder, patient)
            if record is not None:
                with one_at_a_time:
                    done[record.row.image] = record
                    report(record.row)
                if run.options.fail_fast and record.row.status == "failed":
                    raise _FirstFailure("the first image that failed is the last")
        except BaseException as error:  # raised again: nothing is swallowed
            errors.append(error)
            run.stop.set()  # before this thread takes the next image from the queue
            raise

    try:
        for patient in (False, True):
            left = [image for image in images if name_of(image) not in done]
            _run_all([partial(work, image, patient) for image in left], run)
    except Stopped:
        if not isinstance(errors[0], Stopped):
            raise errors[0] from None
        if not isinstance(errors[0], _FirstFailure):
            raise Stopped(f"{len(done)} of {len(images)} images done") from None
    return done


def _run_all(tasks: Sequence[Callable[[], None]], run: BatchContext) -> None:
    """Run tasks side by side; after the first error, none of those that wait begins."""
    with ThreadPoolExecutor(run.options.jobs) as pool:
        try:
            for future in as_completed([pool.submit(task) for task in tasks]):
                future.result()
        except BaseException:  # Ctrl-C in a program that gave no event is one
            run.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _FirstFailure(Stopped):
    pass


def _record_of(image: FoundImage, run: BatchContext, folder: _Folder, patient: bool) -> Record | None:
    """Return the record of an image, from the manifest or made now; None where another process is at it."""
    name = name_of(image)
    raise_if_stopped(run.stop)
    if patient:
        folder.claims.wait(name, run.stop)
    elif not folder.claims.take(name):
        return None
    try:
        folder.manifest.refresh()
        remove_temporary_files(output_paths(image, run.out), folder.parts)
        # What failed in an earlier run is tried again; what failed in another process a moment ago is not.
        record = _known(image, run, folder, failed=name in folder.manifest.fresh)
        return record or _make(image, run, folder)
    finally:
        folder.claims.release(name)


def _make(image: FoundImage, run: BatchContext, folder: _Folder) -> Record:
    """Segment an image and append its record; what it had before goes where something new came, and stays otherwise."""
    name = name_of(image)
    if not folder.claims.is_there():
        raise _removed(run.out)
    before = dict(folder.manifest.written.get(name, {}))
    record = segment_file(image, run, folder.own.begin(image))
    failed = record.row.status == "failed"
    if failed and any(is_file(run.out / path) for path in before):
        record = replace(record, row=replace(record.row, message=f"{record.row.message}{KEPT}"))
    folder.manifest.append(record, folder.claims)
    if not failed:
        remove_files(folder.own.left_over(record.outputs, before))
    return record


def _removed(out: Path) -> MachineError:
    return MachineError("was removed while the batch ran", path=out, hint="the same command makes again what is lost")


def _known(image: FoundImage, run: BatchContext, folder: _Folder, *, failed: bool) -> Record | None:
    """Return the record of an image if it says what would come out now; that of one that failed only on request."""
    name = name_of(image)
    record = _on_record(name, run, folder)
    if record is None or (record.row.status != "failed" and not _names_own(record, image, run.out)):
        return None
    if record.row.status == "failed":
        unknown = not all(file.sha256 for file in record.inputs)
        return record if failed and (unknown or _same_inputs(image, record, run)) else None
    # What another process wrote a moment ago is not read again by each of those that work beside it.
    there = name in folder.manifest.fresh or are_there(record, run.out)
    return record if there and _same_inputs(image, record, run) else None


def _on_record(name: str, run: BatchContext, folder: _Folder) -> Record | None:
    """Return the record of an image with this model and these settings, if its outputs exist; they are not read."""
    record = folder.manifest.records.get(name)
    known = record is not None and (record.model, record.settings) == (run.model.sha256, run.settings)
    return record if known and record is not None and exist(record, run.out) else None


def _names_own(record: Record, image: FoundImage, out: Path) -> bool:
    return {out / path for path in record.outputs} <= set(output_paths(image, out))


def _same_inputs(image: FoundImage, record: Record, run: BatchContext) -> bool:
    files = (image.path, *image.others)
    pairs = zip(files, record.inputs, strict=False)
    return len(files) == len(record.inputs) and all(is_same(file, known, run.hash_input) for file, known in pairs)


def _summarise(done: Mapping[str, Record], run: BatchContext, folder: _Folder, started: float) -> None:
    """Write the tables of all images that have a record: those of other shards and earlier runs are not lost."""
    if not folder.claims.is_there() or not all(exist(record, run.out) for record in done.values()):
        raise _removed(run.out)
    with folder.claims.hold("summary"):
        folder.manifest.refresh()
        on_record = (_on_record(name, run, folder) for name in folder.manifest.records)
        known = {record.row.image: record for record in on_record if record and not folder.manifest.is_gone(record)}
        records = known | dict(done)
        _say_what_is_dropped(folder.manifest, records)
        refuse_foreign_tables(run.out, run.options, NAMES)
        remove_temporary_files([run.out / name for name in NAMES], folder.parts)
        in_order = [records[name] for name in sorted(records, key=in_natural_order)]
        write_summary(in_order, run.model, run.out, run.options, started)
        if not run.options.overlay and is_own_table(run.out / "report.html"):  # of results with overlays
            remove_files([run.out / "report.html"])


def _say_what_is_dropped(manifest: Manifest, records: Mapping[str, Record]) -> None:
    names = [name for name, record in manifest.records.items() if name not in records and not manifest.is_gone(record)]
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        why = "since their results are of other settings or not all there"
        _log.warning("not in the tables, %s: %s%s", why, ", ".join(names[:_SHOWN]), more)


def mark_collisions(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Return the images; those whose results would have one name with a problem, so that each of them fails alone."""
    groups: dict[str, list[FoundImage]] = {}
    for image in images:
        groups.setdefault(_key(image), []).append(image)
    return [_collided(image, groups[_key(image)]) for image in images]


def _key(image: FoundImage) -> str:
    """Return what is equal where a disk that does not tell case apart takes two names for one: not ``ß`` and ``ss``."""
    name = (image.relative.parent / image.stem).as_posix()
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in name)


def _collided(image: FoundImage, group: Sequence[FoundImage]) -> FoundImage:
    others = [str(other.path) for other in group if other is not image]
    if not others or image.problem:
        return image
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    cause = f"its results would have the names of those of {', '.join(others[:_SHOWN])}{more}"
    return replace(image, problem=f"{cause} (hint: rename one, or segment them into different folders)")


def _jobs(wanted: int | None, images: int, predictor: Predictor) -> int:
    if wanted is None:
        wanted = available_cores() if predictor.device.type == "cpu" else 2
    return max(1, min(wanted, images, 32))
