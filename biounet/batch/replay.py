"""Verify a folder of results: segment every image again and compare bit for bit."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Event, Lock

from biounet.batch.compared_tables import ReplayResult, compare_exports, compare_records, compare_tables
from biounet.batch.label_counts import changed_file, count_faults, is_store
from biounet.batch.manifest import Manifest
from biounet.batch.names import drawn_names, image_name, mark_collisions
from biounet.batch.process_image import BatchContext, segment_file
from biounet.batch.recorded_files import (
    are_unchanged,
    has_hash,
    is_there,
    recorded_image,
    resolve_recorded_path,
    tree_difference,
)
from biounet.batch.records import BatchOptions, FrameRow, Record, Row, hash_settings, output_settings
from biounet.batch.run_file import RunFile, read_run
from biounet.batch.runner import EARLIER_RESULT_REMAINS
from biounet.core import (
    Figure,
    MachineError,
    ModelError,
    SettingsError,
    available_cores,
    builtin_models,
    failure_exit_code,
    raise_if_stopped,
)
from biounet.files import FoundImage, ReaderPool, find_images, hash_file, resolve_images, store_difference
from biounet.network import Model, model_predictor
from biounet.reporting import is_picture
from biounet.segmentation import MemoryBudget

_MOST_THREADS = 1024
_MOST_JOBS = 32
_AHEAD = 4  # images for each job that are done before the one whose turn it is


@dataclass(frozen=True)
class ReplayOptions:
    """How a folder of results is verified.

    Attributes
    ----------
    images
        Where the images are now; None: where the manifest says that they were.
    device
        To compute on; None: that of the run.
    jobs
        Images at a time; None: one for each core, by the threads that each had.
    fraction
        Of the images that are segmented again, above 0; they are drawn by the hashes of their names, and so are the
        same each time. Of the others, files are compared with their hashes, and labels are counted.
    ram
        Bytes of memory that this may take: what does not fit is worked through in parts, with the same results. None:
        most of what is free.
    """

    images: str | Path | None = None
    device: str | None = None
    jobs: int | None = None
    fraction: float = 1.0
    ram: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise SettingsError(f"--fraction {self.fraction:g}: above 0 and up to 1", hint="such as 0.05")
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"--jobs {self.jobs}: 1 or more")


def find_model(run: RunFile) -> Path:
    """Return the path of the built-in model that a run was made with; raise `ModelError` if it was another one."""
    for path in builtin_models().values():
        if hash_file(path) == run.model:
            return path
    raise ModelError(f"the model of this run ({run.model[:12]}) is not built in", hint="name its file with --model")


def verify(
    out: Path,
    model: Model,
    options: ReplayOptions | None = None,
    report: Callable[[ReplayResult], None] = lambda result: None,
    stop: Event | None = None,
) -> list[ReplayResult]:
    """Segment the images of a folder of results again, and compare label images and tables bit for bit.

    Label stores are compared by what they hold, since memory decides about the size of their shards; and all numbers
    must be in them, and rows in their tables. The manifest, ``run.json``, ``counts.csv``, ``groups.csv`` and
    ``report.html`` are compared with each other, too.

    Parameters
    ----------
    report
        Called with each result as it is there.
    stop
        Work ends at the next block when it is set.

    Returns
    -------
    One result for each image of the manifest, in its order; then those for records and tables that differ.

    Raises
    ------
    ModelError
        If `model` is not the one that made the results.
    MachineError
        If there is no room for temporary files.
    Stopped
        If `stop` was set.
    """
    run, options = read_run(out), options or ReplayOptions()
    if model.sha256 != run.model:
        raise ModelError(f"the model is {model.sha256[:12]}, that of this run {run.model[:12]}")
    manifest, results = Manifest(out), []
    replayed = _replay_all(out, model, run.options, manifest, options, stop or Event())
    for result in chain(
        replayed, compare_records(run, manifest), compare_tables(out, run), compare_exports(out, manifest, run)
    ):
        results.append(result)
        report(result)
    return results


@dataclass(frozen=True)
class _Replay:
    """What all images of a folder that is verified share."""

    out: Path
    context: BatchContext  # whose folder of results is another for each image
    identity: tuple[str, str]  # of model and settings
    images: dict[str, FoundImage]
    is_drawn: Callable[[str], bool]
    large: Lock = field(default_factory=Lock)  # an image in super-blocks takes the memory that there is


def _replay_all(
    out: Path, model: Model, batch: BatchOptions, manifest: Manifest, options: ReplayOptions, stop: Event
) -> Iterator[ReplayResult]:
    """Segment the images of all records into temporary folders, and compare them."""
    identity = (model.sha256, hash_settings(output_settings(model, batch)))
    device = options.device or batch.device
    batch = replace(batch, device=device, overlay=False, single_file=False, ram=options.ram)
    predictor, names = model_predictor(model, batch.device), _replayed_names(manifest)
    jobs = _job_count(options.jobs, manifest, names)
    with ReaderPool(jobs) as readers:
        context = BatchContext(model, predictor, Path(), batch, 1, stop, readers, memory=MemoryBudget())
        images = _find_inputs(out, context, manifest, names, options.images)
        replay = _Replay(out, context, identity, images, drawn_names(names, options.fraction))
        yield from _in_order((partial(_check, record, replay) for record in manifest.records(names)), jobs, stop)


def _replayed_names(manifest: Manifest) -> list[str]:
    return [record.row.image for record in manifest.records() if not manifest.is_split(record)]


def _job_count(jobs: int | None, manifest: Manifest, names: list[str]) -> int:
    first = next(manifest.records(names[:1]), None)
    chosen = jobs or max(1, available_cores() // (1 if first is None else _recorded_threads(first)))
    return max(1, min(chosen, len(names), _MOST_JOBS))


def _find_inputs(
    out: Path, context: BatchContext, manifest: Manifest, names: list[str], images: str | Path | None
) -> dict[str, FoundImage]:
    """Return the images by their names, where they were or are now."""
    if images is None:
        inputs = [_recorded_image(record, out) for record in manifest.records(names) if record.inputs]
    else:
        data, read = context.model.card.recipe.data, context.options.read
        found = find_images([images], data.channels, data.annotation, read.series)
        inputs = resolve_images(found, read, context.readers)
    return {image_name(image): image for image in mark_collisions(inputs)}


def _in_order(tasks: Iterable[Callable[[], ReplayResult]], jobs: int, stop: Event) -> Iterator[ReplayResult]:
    """Run tasks in parallel, few of them ahead; yield what they return in their order."""
    waiting: deque[Future[ReplayResult]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) >= _AHEAD * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:  # such as Ctrl-C in a program that passes no stop event
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _recorded_image(record: Record, out: Path) -> FoundImage:
    paths = [resolve_recorded_path(file.path, out) for file in record.inputs]
    return recorded_image(record.row.image, paths, record.row.details)


def _recorded_threads(record: Record) -> int:
    threads = record.row.details.get("threads")
    return threads if isinstance(threads, int) and 1 <= threads <= _MOST_THREADS else 1


def _check(record: Record, replay: _Replay) -> ReplayResult:
    """Return how the results of an image compare with their record and, if it is drawn, with those made again."""
    context, name = replay.context, record.row.image
    raise_if_stopped(context.stop)
    if (record.model, record.settings) != replay.identity:
        return _differs(record, ["other settings"])
    if not replay.is_drawn(name):
        return _check_files(record, replay.out)
    image = replay.images.get(name)
    if image is None or not os.path.lexists(image.path):
        return ReplayResult(name, "missing", ", ".join(["its input", *_file_faults(record, replay.out)]))
    if record.inputs and not are_unchanged(image, record.inputs, context.hash_input):
        return _differs(record, ["its input", *_file_faults(record, replay.out)])
    alone: AbstractContextManager[object] = replay.large if "super_blocks" in record.row.details else nullcontext()
    with tempfile.TemporaryDirectory() as folder, alone:
        context = replace(context, out=Path(folder), threads=_recorded_threads(record))
        return _compare(record, _segment_again(image, context), replay.out, context.out)


def _segment_again(image: FoundImage, context: BatchContext) -> Record:
    try:
        return segment_file(image, context)
    except MachineError as error:
        if error.path is None or context.out not in (Path(error.path), *Path(error.path).parents):
            raise
        hint = "results are made again in a temporary folder: free some space, or let TMPDIR name another one"
        raise MachineError(error.cause, path=error.path, hint=hint) from error


def _check_files(record: Record, out: Path) -> ReplayResult:
    """Return whether the results of an image are as they were written."""
    missing = [path for path in record.outputs if not is_there(out / path)]
    if missing:
        return ReplayResult(record.row.image, "missing", ", ".join(missing))
    faults = list(_file_faults(record, out))
    return _differs(record, faults) if faults else ReplayResult(record.row.image, "intact")


def _file_faults(record: Record, out: Path) -> Iterator[str]:
    """Yield what of the results of an image is there and not as it was written."""
    there = ((path, sha256) for path, sha256 in record.outputs.items() if is_there(out / path))
    changed = [path for path, sha256 in there if not has_hash(out / path, sha256)]
    yield from (changed_file(path, record, out) for path in changed)
    yield from count_faults(record, out, changed)


def _compare(record: Record, again: Record, out: Path, now: Path) -> ReplayResult:
    name = record.row.image
    if "failed" in (again.row.status, record.row.status):
        message = record.row.message.removesuffix(EARLIER_RESULT_REMAINS)
        was_read = all(file.sha256 for file in record.inputs)
        if again.row.status == record.row.status and (again.row.message == message or not was_read):
            return ReplayResult(name, "same")
        return _differs(record, [f"now {again.row.status} {again.row.message}".strip()])
    missing = [path for path in record.outputs if not is_there(out / path)]
    if missing:
        return ReplayResult(name, "missing", ", ".join(missing))
    differences = list(_output_differences(record, again, out, now))
    return _differs(record, differences) if differences else ReplayResult(name, "same")


def _output_differences(record: Record, again: Record, out: Path, now: Path) -> Iterator[str]:
    changed = []
    for path, sha256 in record.outputs.items():
        is_equal = is_picture(path) or again.outputs.get(path) == sha256
        if not has_hash(out / path, sha256):
            changed.append(path)
            is_known = (out / path).is_dir() and again.outputs.get(path) == sha256
            details = _store_difference(path, out, now) or (tree_difference(out / path, now / path) if is_known else "")
            yield f"{path} was changed: {details}" if details else changed_file(path, record, out)
        elif not is_equal and not is_store(path):
            yield path
        elif not is_equal and (details := _store_difference(path, out, now)):
            yield f"{path}: {details}"
    yield from count_faults(record, out, changed)
    if (again.row.status, again.row.count) != (record.row.status, record.row.count):
        yield f"status and count: {again.row.status}, {again.row.count}"
    if _figures(again.row) != _figures(record.row):
        yield "figures"


def _store_difference(path: str, out: Path, now: Path) -> str:
    """Return in what a label store differs from the one that was made again; empty of other files."""
    return store_difference(out / path, now / path) if is_store(path) and (now / path).is_dir() else ""


def _figures(row: Row) -> tuple[dict[str, Figure], list[FrameRow]]:
    """Return what is measured of an image and of its frames; notes may tell of the memory that there was."""
    return row.figures, [replace(frame, seconds=0.0, message="") for frame in row.frames]


def _differs(record: Record, faults: Iterable[str]) -> ReplayResult:
    return ReplayResult(record.row.image, "differs", ", ".join(faults))


def replay_exit_code(results: list[ReplayResult]) -> int:
    """Return the exit code: 0 when all images are as recorded, 3 when some are not, 4 when none is."""
    wrong = sum(result.status not in ("same", "intact") for result in results)
    return failure_exit_code(wrong, len(results))
