"""Which images of a batch an earlier run has done, and another process in the folder: by records, sizes and times.

A million of them are looked at in minutes: no file is read whose size and time are on record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from biounet.batch.manifest import Manifest, outputs_exist, outputs_intact
from biounet.batch.names import image_name
from biounet.batch.process_image import BatchContext
from biounet.batch.recorded_files import is_unchanged, record_channels
from biounet.batch.records import Record
from biounet.batch.results_folder import ResultsFolder
from biounet.batch.run_file import read_run
from biounet.core import BiounetError, raise_if_stopped
from biounet.files import FoundImage
from biounet.reporting import possible_outputs


def find_finished(images: Sequence[FoundImage], context: BatchContext, folder: ResultsFolder) -> Iterator[Record]:
    """Yield the records of those images that there is nothing to do for, without their locks."""
    named = {image_name(image): image for image in images if not folder.has_temporary_files(image)}
    for record in folder.manifest.records(named):
        raise_if_stopped(context.stop)
        is_done = record.row.status != "failed" and _is_of(record, context)
        if is_done and _is_valid(named[record.row.image], record, context, folder):
            yield record


def valid_record(image: FoundImage, context: BatchContext, folder: ResultsFolder) -> Record | None:
    """Return the record of an image if segmenting it now would give the same."""
    record = current_record(image_name(image), context, folder)
    return record if record is not None and _is_valid(image, record, context, folder) else None


def _is_valid(image: FoundImage, record: Record, context: BatchContext, folder: ResultsFolder) -> bool:
    name = record.row.image
    is_new = folder.manifest.is_new(name)
    if record.row.status == "failed":  # tried again, unless it failed in another process a moment ago
        unread = not all(file.sha256 for file in record.inputs)
        return is_new and (unread or _has_same_inputs(image, record, context))
    own = record.outputs.keys() <= set(possible_outputs(image.relative.parent.as_posix(), image.stem))
    if not own or not _has_same_inputs(image, record, context):
        return False
    if is_new:  # what another process wrote a moment ago is not read again by each process in the folder
        return outputs_exist(record, context.out)
    return outputs_intact(record, context.out, is_genuine=folder.is_genuine(name))


def current_record(name: str, context: BatchContext, folder: ResultsFolder) -> Record | None:
    """Return the record of an image with this model and these settings, if its outputs exist; they are not read."""
    record = folder.manifest.get(name)
    return record if record is not None and is_current(record, context) else None


def is_current(record: Record, context: BatchContext) -> bool:
    """Whether a record is of this model and these settings, and its outputs exist."""
    return _is_of(record, context) and outputs_exist(record, context.out)


def _is_of(record: Record, context: BatchContext) -> bool:
    return (record.model, record.settings) == (context.model.sha256, context.settings)


def _has_same_inputs(image: FoundImage, record: Record, context: BatchContext) -> bool:
    parts, recorded = image.parts, record.inputs
    now, before = record_channels(image), record.row.details
    same = all(now.get(name) == before.get(name) for name in ("channels", "scene"))
    return (
        same
        and len(parts) == len(recorded)
        and all(
            is_unchanged(file, entry, context.hash_input, scene)
            for (file, scene), entry in zip(parts, recorded, strict=True)
        )
    )


def genuine_bytes(out: Path, manifest: Manifest) -> int:
    """Return how many bytes of a manifest are as they were when the tables of an earlier run were written."""
    try:
        state = read_run(out).manifest
    except BiounetError:  # the batch did not come to its end, or is of an earlier version
        return 0
    return state.size if state is not None and manifest.hash(state.size) == state.sha256 else 0
