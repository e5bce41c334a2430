"""One file of a batch: from its bytes to its outputs and its record; an error becomes a row."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import torch

from biounet.batch.records import (
    BatchOptions,
    InputFile,
    Record,
    Row,
    Status,
    escaped,
    hash_settings,
    inputs_of,
    name_of,
    settings_of,
    unread,
)
from biounet.core import (
    BiounetError,
    MachineError,
    Stopped,
    Volume,
    WorkerDiedError,
    describe_shortage,
    free_memory,
    is_out_of_memory,
)
from biounet.files import FoundImage, ReaderPool, hash_file
from biounet.network import Model, Predictor
from biounet.reporting import object_sizes, write_outputs
from biounet.segmentation import (
    MemoryBudget,
    MemoryNeed,
    Segmentation,
    SegmentOptions,
    memory_needs,
    segment_within_memory,
)

_NAME_ERRORS = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchContext:
    """What all files of a batch share.

    Attributes
    ----------
    model, predictor
        What segments them.
    out
        Folder of the results.
    options
        How.
    threads
        Of torch, for each file.
    stop
        Work ends at the next block when it is set.
    readers
        Read the files where they can do no harm.
    room
        The memory that files share which are worked on at the same time.
    apart
        Segments a large image where the machine can end it without harm to others; None: here.
    """

    model: Model
    predictor: Predictor
    out: Path
    options: BatchOptions
    threads: int
    stop: Event
    readers: ReaderPool
    room: MemoryBudget = field(default_factory=MemoryBudget)
    apart: Callable[[FoundImage, BatchContext, Collection[Path]], Record] | None = None

    @cached_property
    def settings(self) -> str:
        """Hash of the settings that outputs depend on."""
        return hash_settings(settings_of(self.model, self.options))

    def hash_input(self, path: Path) -> str:
        """Return the SHA-256 of a file, which is read where a disk that does not answer can do no harm."""
        return self.readers.hash_file(path, self.stop)


def segment_file(image: FoundImage, run: BatchContext, kept: Collection[Path] = ()) -> Record:
    """Segment one file and write its outputs, none in place of those to be kept; an error becomes a row.

    Raises
    ------
    MachineError
        If the outputs cannot be written: this is not about the file, and those after it would fail as well.
    Stopped
        If work is to end.
    """
    began = time.perf_counter()
    inputs: tuple[InputFile, ...] = ()
    needs: list[tuple[SegmentOptions, MemoryNeed]] = []
    try:
        files, options = image.files(), run.options
        with run.readers.borrow() as reader:
            seen = reader.read_header(files, options.read, run.stop)
        needs = memory_needs(seen, run.model.card, run.model.network, options.segment, options.device)
        with run.room.reserve([need for _, need in needs], image.path, run.stop) as number:
            if run.apart is not None and needs[number][1].is_large:
                return run.apart(image, run, kept)
            with run.readers.borrow() as reader:
                volume, states = reader.read_hashed(files, options.read, run.stop)
            inputs = inputs_of(files, states, run.out)
            found = _segment(volume, run, needs[number][0])
            folder = run.out / image.relative.parent
            paths = write_outputs(found, folder, image.stem, overlay=options.overlay, excel=options.excel, kept=kept)
        outputs = {path.relative_to(run.out).as_posix(): _hash(path) for path in paths}
    except Exception as error:  # the one that isolates a file
        if isinstance(error, Stopped) or (isinstance(error, MachineError) and not _is_of_its_name(error)):
            raise
        _log.debug("%s", image.path, exc_info=True)
        words = own_words(error)
        if needs and (is_out_of_memory(error) or isinstance(error, WorkerDiedError)):
            words += f": it needs {needs[-1][1]}, and {(free_memory() or 0) / 2**30:.2g} GiB are free"
        row = Row(name_of(image), "failed", None, time.perf_counter() - began, escaped(words))
        inputs = inputs or unread((image.path, *image.others), run.out)
        return Record(row, inputs, run.model.sha256, run.settings)
    row = _row(name_of(image), found, tuple(outputs), run, time.perf_counter() - began)
    return Record(row, inputs, run.model.sha256, run.settings, outputs)


def _segment(volume: Volume, run: BatchContext, chosen: SegmentOptions) -> Segmentation:
    if run.predictor.device.type == "cpu":
        torch.set_num_threads(run.threads)  # of this thread of the pool
    return segment_within_memory(volume, run.predictor, run.model.card, chosen, run.stop)


def _row(name: str, found: Segmentation, outputs: tuple[str, ...], run: BatchContext, seconds: float) -> Row:
    grid = found.volume.grid
    details: dict[str, Any] = {
        "shape": list(found.volume.array.shape),
        "spacing": None if grid.spacing is None else list(grid.spacing),
        "unit": grid.unit,
        "notes": [escaped(note) for note in found.volume.notes],
        "seconds": found.seconds,
        "device": str(run.predictor.device),
        "threads": run.threads,
    }
    sizes = None if found.count is None else object_sizes(found.measurements)
    status: Status = "flagged" if found.notes else "empty" if found.count == 0 else "ok"
    return Row(name, status, found.count, seconds, escaped("; ".join(found.notes)), details, outputs, sizes)


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise MachineError(f"cannot be read back: {error.strerror}", path=path) from error


def _is_of_its_name(error: MachineError) -> bool:
    """Whether it is the name of this one file that the disk does not take: too long, or with a ``:`` on some drives."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NAME_ERRORS


def own_words(error: Exception) -> str:
    """Return cause and hint; the row names the file already."""
    if isinstance(error, BiounetError):
        return f"{error.cause} (hint: {error.hint})" if error.hint else error.cause
    if is_out_of_memory(error):
        return describe_shortage(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (hint: a defect of biounet, please report it)"
