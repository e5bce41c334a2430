"""Batches of small images, and what they wrote."""

import atexit
import functools
from dataclasses import replace
from pathlib import Path

from biounet.batch import BatchOptions, segment_batch
from biounet.files import ReaderPool, find_images

ONE_JOB = BatchOptions(jobs=1)
TABLES = {"counts.csv", "run.json", "report.html"}  # these state times
OUR_OWN = TABLES | {"manifest.jsonl", ".claims"}


@functools.cache
def shared_readers() -> ReaderPool:
    """Processes that read the images of all batches: starting some for each takes longer than segmenting."""
    readers = ReaderPool(1)
    atexit.register(readers.__exit__, None, None, None)
    return readers


def segment_folder(folder, model, out, options=ONE_JOB):
    return segment_batch(find_images([folder]), model, out, replace(options, readers=shared_readers()))


def result_files(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in OUR_OWN]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def count_rows(out: Path) -> list[tuple[str, ...]]:
    """Image, status, count and message of the rows of counts.csv: without the seconds and further figures."""
    rows = [line.split(",") for line in (out / "counts.csv").read_text().splitlines()]
    place = rows[0].index("message")
    return [(*row[:3], *row[place:]) for row in rows]


def all_files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
