"""Many images: one row each, whatever happens to one of them, to this process or to the disk.

Outputs of an image appear whole or not at all; its record in the manifest comes last. Whoever starts again, or works
beside, believes the manifest alone: what it names and can be checked is done, everything else is to be done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event, Lock

import torch

from biounet.blocks import end_if
from biounet.claims import Claims
from biounet.errors import InputError, Stopped
from biounet.files import FoundImage, Readers, find_parts
from biounet.job import BatchOptions, Record, Row, is_same, name_of
from biounet.machine import cores_given
from biounet.manifest import Manifest, are_there
from biounet.model import Model
from biounet.one_file import Run, segment_file
from biounet.outputs import make_folder, output_paths, remove_files, remove_parts
from biounet.predict import Predictor, predictor_of
from biounet.summary import NAMES, write_summary


@dataclass(frozen=True)
class _Folder:
    """The output folder as this process sees it: what it claims, what is done, what killed processes left."""

    claims: Claims
    manifest: Manifest
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
    One row per image of the shard, in the order of `images`; after `fail_fast` only those that there are.

    Raises
    ------
    MachineError
        If the output folder cannot be written to, or the disk is full. Nothing is half-written then, and the same call
        goes on from there.
    Stopped
        If `stop` was set; the same call goes on from there.
    """
    options = options or BatchOptions()
    refuse_collisions(images)
    make_folder(out)
    predictor = predictor_of(model, options.device)
    first, step = options.shard or (1, 1)
    mine = images[first - 1 :: step]
    jobs, threads, started = _jobs(options.jobs, len(mine), predictor), torch.get_num_threads(), time.time()
    options = replace(options, device=str(predictor.device), jobs=jobs)
    each = max(1, threads // jobs) if predictor.device.type == "cpu" else threads
    with Claims(out) as claims, nullcontext(options.readers) if options.readers else Readers(jobs) as readers:
        run = Run(model, predictor, out, options, each, stop or Event(), readers)
        folder = _Folder(claims, Manifest(out), find_parts(out))
        try:
            done = _work_through(mine, run, folder, report)
        finally:
            torch.set_num_threads(threads)
        _summarise(images, done, run, folder, started)
    return [done[name].row for name in map(name_of, mine) if name in done]


def _work_through(
    images: Sequence[FoundImage], run: Run, folder: _Folder, report: Callable[[Row], None]
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


def _run_all(tasks: Sequence[Callable[[], None]], run: Run) -> None:
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


def _record_of(image: FoundImage, run: Run, folder: _Folder, patient: bool) -> Record | None:
    """Return the record of an image, from the manifest or made now; None where another process is at it."""
    name = name_of(image)
    end_if(run.stop)
    if patient:
        folder.claims.wait(name, run.stop)
    elif not folder.claims.take(name):
        return None
    try:
        folder.manifest.refresh()
        remove_parts(output_paths(image, run.out), folder.parts)
        # What failed in an earlier run is tried again; what failed in another process a moment ago is not.
        record = _known(image, run, folder, failed=name in folder.manifest.fresh)
        if record is None:
            _remove_stale(name, run.out, folder)
            record = segment_file(image, run)
            folder.manifest.append(record, folder.claims)
    finally:
        folder.claims.release(name)
    return record


def _known(image: FoundImage, run: Run, folder: _Folder, *, failed: bool) -> Record | None:
    """Return the record of an image if it says what would come out now; that of one that failed only on request."""
    name = name_of(image)
    record = folder.manifest.records.get(name)
    if record is None or (record.model, record.settings) != (run.model.sha256, run.settings):
        return None
    if record.row.status == "failed":
        return record if failed and (not record.inputs or _same_inputs(image, record)) else None
    # What another process wrote a moment ago is not read again by each of those that work beside it.
    there = name in folder.manifest.fresh or are_there(record, run.out)
    return record if there and _same_inputs(image, record) else None


def _same_inputs(image: FoundImage, record: Record) -> bool:
    files = (image.path, *image.others)
    return len(files) == len(record.inputs) and all(map(is_same, files, record.inputs))


def _remove_stale(name: str, out: Path, folder: _Folder) -> None:
    """Remove what an old record of an image names, and the tables of the batch, in which it stands."""
    old = folder.manifest.records.get(name)
    if old is not None:
        remove_files([out / path for path in (*old.outputs, *NAMES)])


def _summarise(
    images: Sequence[FoundImage], done: dict[str, Record], run: Run, folder: _Folder, started: float
) -> None:
    """Write the tables of all images that have a record, those of other shards included."""
    with folder.claims.hold("summary"):
        folder.manifest.refresh()
        records = [done.get(name_of(image)) or _known(image, run, folder, failed=True) for image in images]
        remove_parts([run.out / name for name in NAMES], folder.parts)
        write_summary([record for record in records if record], run.model, run.out, run.options, started)


def refuse_collisions(images: Sequence[FoundImage]) -> None:
    """Refuse two inputs that would write to the same names; a file system may not tell case apart."""
    seen: dict[str, FoundImage] = {}
    for image in images:
        key = (image.relative.parent / image.stem).as_posix().casefold()
        if key in seen:
            cause = f"its results would have the names of those of {seen[key].path}"
            raise InputError(cause, path=image.path, hint="rename one, or segment them into different folders")
        seen[key] = image


def _jobs(wanted: int | None, images: int, predictor: Predictor) -> int:
    if wanted is None:
        wanted = cores_given() if predictor.device.type == "cpu" else 2
    return max(1, min(wanted, images, 32))
