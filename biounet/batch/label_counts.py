"""Whether label stores of a folder of results hold the objects that were counted, and their tables a row for each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from biounet.batch.recorded_files import is_there
from biounet.batch.records import Record
from biounet.core import InputError
from biounet.files import STORE_SUFFIX, damaged_shards, numbering_fault, open_label_store
from biounet.reporting import TABLE_SUFFIXES, row_fault


def is_store(path: str) -> bool:
    """Whether an output is a label store."""
    return path.endswith(STORE_SUFFIX)


def count_faults(record: Record, out: Path, changed: Collection[str]) -> Iterator[str]:
    """Yield which objects have no voxel in a label store, or no row in its table, where these are not `changed`.

    Label images of one file are written from memory at once, and have no parts that could be lacking.
    """
    for path in filter(is_store, record.outputs):
        for name in (path, *(name for name in record.outputs if name.endswith(TABLE_SUFFIXES))):
            if name not in changed and is_there(out / name) and (fault := _count_fault(name, record, out)):
                yield f"{name}: {fault}"


def changed_file(path: str, record: Record, out: Path) -> str:
    """Return that an output was changed, and what is wrong in a label store or in its table."""
    fault = ""
    if is_there(out / path) and any(map(is_store, record.outputs)):
        fault = (damaged_shards(out / path) if is_store(path) else "") or _count_fault(path, record, out)
    return f"{path} was changed" + (f": {fault}" if fault else "")


def _count_fault(path: str, record: Record, out: Path) -> str:
    count = record.row.count or 0
    if path.endswith(TABLE_SUFFIXES):
        return row_fault(out / path, count)
    if not is_store(path):
        return ""
    try:
        return numbering_fault(open_label_store(out / path), count)
    except InputError as error:
        return error.cause
