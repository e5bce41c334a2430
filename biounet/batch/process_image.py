"""One image of a batch: read, segment, write its outputs, return its record; an error becomes a failed row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Event, Lock
from typing import Any

import torch

from biounet.batch.input_hashes import work_while_hashed
from biounet.batch.large_image import (
    LargeImage,
    describe_excess,
    find_large,
    picture_options,
    work_folder,
    write_as_zarr,
    write_large,
)
from biounet.batch.long_series import find_long
from biounet.batch.names import escape, image_name
from biounet.batch.parts_done import ShowParts, log_parts
from biounet.batch.recorded_files import record_channels, record_inputs
from biounet.batch.records import (
    BatchOptions,
    FrameRow,
    Record,
    Row,
    error_text,
    hash_settings,
    is_about_name,
    output_settings,
)
from biounet.core import (
    BiounetError,
    MachineError,
    NoteCode,
    Stopped,
    Volume,
    WorkerDiedError,
    available_cores,
    describe_flags,
    drop_notes,
    free_memory,
    is_out_of_memory,
    note_code,
    note_record,
    raise_if_stopped,
    result_status,
    usable_memory,
    working_time,
)
from biounet.files import FileState, FoundImage, ReaderPool, channel_types, hash_tree, tree_state
from biounet.large_images import WorkFolder
from biounet.network import Model, Predictor
from biounet.reporting import SizeHistogram, object_sizes, write_outputs
from biounet.segmentation import (
    MemoryBudget,
    MemoryNeed,
    Segmentation,
    SegmentOptions,
    memory_needs,
    segment_within_memory,
)

_ATTEMPTS = 3  # of an image whose process is ended from outside
_POLL = 0.5  # seconds between looks whether work is to stop
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchContext:
    """What all images of a batch share."""

    model: Model
    predictor: Predictor
    out: Path
    options: BatchOptions
    threads: int  # of torch, for each image
    stop: Event
    readers: ReaderPool
    executor: Executor | None = None  # from `block_threads`
    # In a process of its own; None: large images are segmented here, too.
    segment_large: Callable[[FoundImage, BatchContext, Collection[Path]], Record] | None = None
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    one_large: Lock = field(default_factory=Lock)  # an image in super-blocks takes all cores and most of the memory

    @cached_property
    def show_parts(self) -> ShowParts:
        """Shows how far the work on a large image is."""
        return self.options.on_parts or log_parts()

    @cached_property
    def settings(self) -> str:
        """SHA-256 of the settings that outputs depend on."""
        return hash_settings(output_settings(self.model, self.options))

    def hash_input(self, path: Path, scene: str = "", stop: Event | None = None) -> str:
        """Return the SHA-256 of an image, which a process of its own reads: a disk may not answer.

        `stop` gives it up; None: that of the batch.
        """
        return self.readers.hash_file(path, stop or self.stop, scene)


def block_threads(predictor: Predictor) -> AbstractContextManager[Executor | None]:
    """Return threads for the blocks of images, where a GPU computes them meanwhile; None where this CPU does."""
    if predictor.pipeline is None:
        return nullcontext()
    return ThreadPoolExecutor(available_cores(), "biounet-block", initializer=torch.set_num_threads, initargs=(1,))


def segment_file(image: FoundImage, context: BatchContext, protected: Collection[Path] = ()) -> Record:
    """Segment one image and write its outputs, except in place of protected files; an error becomes a failed row.

    Not so a `MachineError`, such as a full disk, after which later images would fail as well, and `Stopped`.
    """
    start = working_time()
    name, out = image_name(image), context.out
    states: tuple[FileState, ...] = ()
    needs: list[tuple[SegmentOptions, MemoryNeed]] = []
    try:
        options = context.options
        if (large := find_large(image, context.model, options)) is not None:
            return _when_alone(large, context, protected, start)
        long = find_long(image, context.model, options)
        needs = _needs_in_memory(image, context) if long is None else long.needs
        if long is None and (large := find_large(image, context.model, options, needs)) is not None:
            return _when_alone(large, context, protected, start)
        if excess := describe_excess(needs, context.model, options):
            _log.warning("%s: %s", name, excess)
        with context.memory.reserve([need for _, need in needs], image.path, context.stop) as number:
            if context.segment_large is not None and needs[number][1].is_large:
                return _in_own_process(image, context, protected)
            volume, states = _read(image, context) if long is None else long.read(out, context.stop, context.hash_input)
            result = _segment(volume, context, needs[number][0])
            parent = image.relative.parent
            written = picture_options(context.model, out, options, out / parent)
            paths = write_outputs(result, out / parent, image.stem, written, protected=protected)
            if options.label_format == "zarr" and result.kind == "objects" and not result.frames:
                computed = _computed_with(context.predictor, result.notes)["arithmetic"]
                paths = write_as_zarr(image, result, {"model": context.model.sha256, "arithmetic": computed}, paths)
        outputs, output_states = _hash_outputs(paths, out)
    except Exception as error:  # so that one image fails and not the batch
        if isinstance(error, Stopped) or (isinstance(error, MachineError) and not is_about_name(error)):
            raise
        _log.debug("%s", image.path, exc_info=True)
        message = error_text(error)
        if image.others and isinstance(error, BiounetError) and error.path is not None:
            message = f"{Path(error.path).name}: {message}"  # the row has a name of all its files
        if needs and (is_out_of_memory(error) or isinstance(error, WorkerDiedError)):
            message += f": it needs {needs[-1][1]}, and {(free_memory() or 0) / 2**30:.2g} GiB are free"
        row = Row(name, "failed", None, working_time() - start, escape(message), record_channels(image))
        inputs = record_inputs(image, states, out)
        return Record(row, inputs, context.model.sha256, context.settings)
    inputs = record_inputs(image, states, out)
    row = _done_row(name, result, tuple(outputs), context, working_time() - start)
    row = replace(row, details=row.details | _record_classes(context.model) | record_channels(image))
    return Record(row, inputs, context.model.sha256, context.settings, outputs, output_states)


def _needs_in_memory(image: FoundImage, context: BatchContext) -> list[tuple[SegmentOptions, MemoryNeed]]:
    options, model = context.options, context.model
    with context.readers.borrow() as reader:
        header, _ = reader.read_header(image.files(), image.read_options(options.read), context.stop)
    return memory_needs(header, model, options.segment, options.device)


def _read(image: FoundImage, context: BatchContext) -> tuple[Volume, tuple[FileState, ...]]:
    with context.readers.borrow() as reader:
        return reader.read_hashed(image.files(), image.read_options(context.options.read), context.stop)


def _in_own_process(image: FoundImage, context: BatchContext, protected: Collection[Path]) -> Record:
    """Have a process of its own segment an image; one that is killed, or gives no sign of life, is replaced twice.

    In a record that took several, ``attempts`` says how many.
    """
    segment_large, attempt, overwrites = context.segment_large or segment_file, 0, context.options.overwrite
    if overwrites and context.options.shard is None:  # once: further attempts go on from what the first has done
        WorkFolder(work_folder(image, context.out)).remove()
        context = replace(context, options=replace(context.options, overwrite=False))
    while True:
        attempt += 1
        try:
            record = segment_large(image, context, protected)
        except WorkerDiedError as error:
            raise_if_stopped(context.stop)  # it may have been ended before it could answer
            if attempt == _ATTEMPTS:
                hint = "the same command without --overwrite continues" if overwrites and error.hint else error.hint
                raise WorkerDiedError(f"{error.cause}; it was tried {attempt} times", hint=hint) from error
            _log.warning("%s: %s; it is tried again", image_name(image), error.cause)
        else:
            tried = {"attempts": attempt} if attempt > 1 else {}
            return replace(record, row=replace(record.row, details=record.row.details | tried))


def _when_alone(large: LargeImage, context: BatchContext, protected: Collection[Path], start: float) -> Record:
    """Segment an image in super-blocks when no other one is worked on so and its memory is there."""
    need = min(large.size.memory, usable_memory() or large.size.memory)
    while not context.one_large.acquire(timeout=_POLL):
        raise_if_stopped(context.stop)
    try:
        with context.memory.reserve([MemoryNeed(need, 0)], large.found.path, context.stop):
            if context.segment_large is not None and large.has_own_process(context.options):
                return _in_own_process(large.found, context, protected)
            return _segment_large(large, context, protected, start)
    finally:
        context.one_large.release()


def _segment_large(large: LargeImage, context: BatchContext, protected: Collection[Path], start: float) -> Record:
    """Segment an image in super-blocks, while its files are hashed."""
    found, out = large.found, context.out
    write = partial(write_large, large, context.model, out, context.options, context.stop, protected)
    (result, paths), states = work_while_hashed(found, context.hash_input, context.stop, write)
    outputs, output_states = _hash_outputs(paths, out)
    inputs = record_inputs(found, states, out)
    grid, seconds = large.image.grid, working_time() - start
    details = {
        "shape": [large.image.channels, *grid.shape],
        "spacing": None if grid.spacing is None else list(grid.spacing),
        "unit": grid.unit,
        "channel_types": {escape(name): kind for name, kind in result.channel_types.items()},
        "notes": [note_record(note) | {"text": escape(note)} for note in dict.fromkeys(result.notes)],
        "seconds": {"predict_and_label": seconds},
        **_computed_with(context.predictor, result.notes),
        "threads": context.threads,
        "super_blocks": large.size.edge,
    }
    details |= _record_classes(context.model) | record_channels(found)
    if result.arithmetic is not None:
        details["arithmetic"] = result.arithmetic
    sizes = result.summary.sizes
    of_result = drop_notes(result.notes, {NoteCode.VOXEL_SIZE_UNKNOWN})  # as `Volume.remarks`
    row = Row(
        image_name(found),
        result_status(of_result, result.count),
        result.count,
        seconds,
        escape("; ".join(of_result)),
        details,
        tuple(outputs),
        None if sizes is None else SizeHistogram.of(sizes.column, sizes.values, sizes.counts),
        {"flags": describe_flags(of_result), **result.figures},
    )
    return Record(row, inputs, context.model.sha256, context.settings, outputs, output_states)


def _segment(volume: Volume, context: BatchContext, options: SegmentOptions) -> Segmentation:
    if context.predictor.device.type == "cpu":
        torch.set_num_threads(context.threads)  # of this thread of the pool
    return segment_within_memory(
        volume, context.predictor, context.model.card, options, executor=context.executor, stop=context.stop
    )


def _done_row(name: str, result: Segmentation, outputs: tuple[str, ...], context: BatchContext, seconds: float) -> Row:
    grid, notes = result.volume.grid, dict.fromkeys((*result.volume.notes, *result.notes))
    details: dict[str, Any] = {
        "shape": list(result.volume.array.shape),
        "spacing": None if grid.spacing is None else list(grid.spacing),
        "unit": grid.unit,
        "channel_types": {
            escape(name): kind for name, kind in channel_types(result.measurements.columns, result.volume).items()
        },
        "notes": [note_record(note) | {"text": escape(note)} for note in notes],
        "seconds": result.seconds,
        **_computed_with(context.predictor, result.notes),
        "threads": context.threads,
    }
    figures = {"flags": describe_flags(result.notes)} | {
        name: escape(value) if isinstance(value, str) else value for name, value in result.figures.items()
    }
    sizes = None if result.count is None else object_sizes(result.measurements)
    message, frames = escape("; ".join(result.notes)), _frame_rows(result)
    return Row(
        name,
        result_status(result.notes, result.count),
        result.count,
        seconds,
        message,
        details,
        outputs,
        sizes,
        figures,
        frames,
    )


def _computed_with(predictor: Predictor, notes: Collection[str]) -> dict[str, str]:
    """Return the device that computed an image, and in which numbers."""
    is_on_cpu = any(note_code(note) == NoteCode.ON_CPU for note in notes)
    used = predictor.make_substitute() if is_on_cpu and predictor.make_substitute else predictor
    return {"device": str(used.device), "arithmetic": used.arithmetic}


def _record_classes(model: Model) -> dict[str, Any]:
    """Return the names of the values of label images; tables of regions do not have those of all classes."""
    data = model.card.recipe.data
    return {} if data.kind == "instances" else {"classes": [escape(name) for name in data.foreground]}


def _frame_rows(result: Segmentation) -> tuple[FrameRow, ...]:
    """Return the rows of frames; what is said about the links between them stands in the first."""
    about_all = [note for note in result.notes if note_code(note) == NoteCode.NOT_LINKED]
    rows = []
    for number, frame in enumerate(result.frames):
        message = escape("; ".join([*(about_all if number == 0 else ()), *frame.notes]))
        figures = {"flags": describe_flags(frame.notes)} | frame.figures
        rows.append(
            FrameRow(frame.t, result_status(frame.notes, frame.count), frame.count, frame.seconds, message, figures)
        )
    return tuple(rows)


def _hash_outputs(paths: Sequence[Path], out: Path) -> tuple[dict[str, str], tuple[tuple[int, int], ...]]:
    """Return the SHA-256 of outputs, by their paths in the folder of results, and their states."""
    hashes, states = {}, []
    for path in paths:
        try:
            states.append(tree_state(path))  # first: what changes after that is seen by its time
            hashes[path.relative_to(out).as_posix()] = hash_tree(path)
        except OSError as error:
            raise MachineError(f"cannot be read back: {error.strerror}", path=path) from error
    return hashes, tuple(states)
