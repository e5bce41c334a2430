"""``manifest.jsonl``: one line for each input that is done, appended after everything that it names is on the disk.

What it says is believed only as far as it can be checked, since anybody can write such a file: lines of another form,
and outputs that an image does not have or that lie outside of the output folder, are ignored.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import threading
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any, get_args

import numpy as np

from biounet.batch.locks import Locks
from biounet.batch.records import InputFile, Record, Row, Status, path_of_record, unescaped
from biounet.core import MachineError
from biounet.files import append_line, hash_file, stem_of
from biounet.measurement import table_kind
from biounet.reporting import OUTPUT_SUFFIXES, SIZE_COLUMNS, Sizes

NAME = "manifest.jsonl"
_BEGIN, _END = '{"biounet": 1, ', "}"  # a line with this begin and not this end was torn by a kill
_FORM: dict[str, tuple[type, ...]] = {
    "biounet": (int,),
    "image": (str,),
    "status": (str,),
    "count": (int, type(None)),
    "seconds": (float, int),
    "message": (str,),
    "details": (dict,),
    "sizes": (list, type(None)),
    "inputs": (list,),
    "model": (str,),
    "settings": (str,),
    "outputs": (dict,),
}
_log = logging.getLogger(__name__)


class Manifest:
    """The records in an output folder, those of other processes included.

    Parameters
    ----------
    folder
        The output folder.

    Attributes
    ----------
    records
        The last record of each image, by its name.
    fresh
        Names of the images whose record was made since this object was.
    written
        The last SHA-256 of each output that any record names, by the name of the image and the path of the output.
    places
        Where in the file the last record of each image begins, in bytes.
    end
        Where the file ended when it was last looked at, in bytes.
    """

    def __init__(self, folder: Path) -> None:
        self.records: dict[str, Record] = {}
        self.fresh: set[str] = set()
        self.written: dict[str, dict[str, str]] = {}
        self.places: dict[str, int] = {}
        self.end = 0
        self._folder, self._root = folder, folder.resolve()
        self._one_reader = threading.Lock()
        self._lines = 0
        self.refresh()
        self.fresh.clear()

    def refresh(self) -> None:
        """Read what was appended since the last look; a line without an end is left for the next."""
        path = self._folder / NAME
        with self._one_reader:
            try:
                with path.open("rb") as file:
                    file.seek(self.end)
                    whole, end, _ = file.read().rpartition(b"\n")
            except FileNotFoundError:
                return
            except OSError as error:
                raise MachineError(f"cannot be read: {error.strerror}", path=path) from error
            for line in whole.split(b"\n") if end else ():
                self._lines += 1
                self._take(line.decode("utf-8", "replace"))
                self.end += len(line) + 1

    def append(self, record: Record, claims: Locks) -> None:
        """Write a record, which is on the disk afterwards."""
        with claims.hold(NAME):
            append_line(self._folder / NAME, record_to_line(record))

    def is_gone(self, record: Record) -> bool:
        """Whether an image failed, nobody can try it again because it is no longer there, and nothing is left of it."""
        files = [path_of_record(file.path, self._folder) for file in record.inputs]
        left = (self._folder / path for path in self.written.get(record.row.image, ()))
        there = any(map(is_file, (*files, *left))) or any(map(os.path.islink, files))
        return record.row.status == "failed" and not there

    def _take(self, line: str) -> None:
        record = record_of_line(line)
        if record is not None and self._is_own(record):
            name = record.row.image
            self.records[name] = record
            self.fresh.add(name)
            self.written.setdefault(name, {}).update(record.outputs)
            self.places[name] = self.end
        elif line.endswith(_END) or not line.startswith(_BEGIN):
            _log.warning("%s: line %d is no record of biounet and is ignored", self._folder / NAME, self._lines)

    def _is_own(self, record: Record) -> bool:
        """Whether a record names nothing but outputs of its image, below this folder."""
        name = PurePath(unescaped(record.row.image))
        own = {
            (name.parent / f"{stem}{end}").as_posix()
            for stem in (name.name, stem_of(Path(name)))
            for end in OUTPUT_SUFFIXES
        }
        return record.outputs.keys() <= own and all(
            is_inside(self._root, path) for path in (record.row.image, *record.outputs)
        )


def is_inside(folder: Path, path: str) -> bool:
    """Whether a relative path stays below a folder (without symbolic links itself), those on its way followed."""
    plain = PurePath(path)
    if not plain.parts or plain.anchor or ".." in plain.parts:
        return False
    try:
        return (folder / plain).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, a ring of links
        return False


def exist(record: Record, folder: Path) -> bool:
    """Whether every output of a record is in a folder, whatever it holds."""
    return all(is_file(folder / path) for path in record.outputs)


def is_file(path: Path) -> bool:
    """Whether there is a file; of one in a folder that is closed to us, or of a name that is too long, nobody knows."""
    return os.path.isfile(path)  # noqa: PTH113 - that of Path raises an error there


def are_there(record: Record, folder: Path) -> bool:
    """Whether every output of a record is in a folder, as it was written, and holds as many objects as it says."""
    try:
        same = all(hash_file(folder / path) == digest for path, digest in record.outputs.items())
        return same and has_its_count(record, folder)
    except OSError:
        return False


def has_its_count(record: Record, folder: Path) -> bool:
    """Whether the count of a record is the number of objects, or of lesions of the first class, in its table."""
    table = next((folder / path for path in record.outputs if path.endswith("_objects.csv")), None)
    if table is None or record.row.count is None:
        return True
    with table.open(encoding="utf-8", newline="") as file:
        names = next(csv.reader([file.readline()]), [])
        if table_kind(names) != "lesions":
            return sum(1 for _ in file) == record.row.count
        rows = list(csv.DictReader(file, names))
    lesions = [int(row["lesion"]) for row in rows if row["class"] == rows[0]["class"]]
    return max(lesions, default=0) == record.row.count


def record_to_line(record: Record) -> str:
    """Return the line of a record."""
    row = record.row
    # As many digits as it takes to read the same float32 again
    sizes = row.sizes and [row.sizes.column, [float(str(value)) for value in row.sizes.values]]
    line = {
        "biounet": 1,
        **{name: getattr(row, name) for name in ("image", "status", "count", "seconds", "message", "details")},
        "sizes": sizes,
        "inputs": [asdict(file) for file in record.inputs],
        **{name: getattr(record, name) for name in ("model", "settings", "outputs")},
    }
    return json.dumps(line)


def record_of_line(line: str) -> Record | None:
    """Return the record of a line; None where it is none."""
    try:
        raw = json.loads(line)
        if not isinstance(raw, dict) or raw.keys() != _FORM.keys() or raw["biounet"] != 1:
            return None
        if not all(type(raw[name]) in kinds for name, kinds in _FORM.items()):
            return None
        if not all(type(text) is str for item in raw["outputs"].items() for text in item):
            return None
        inputs = tuple(InputFile(**file) for file in raw["inputs"])
        row = _row_of(raw, _sizes_of(raw["sizes"]))
    except (ValueError, TypeError, OverflowError, RecursionError):  # what JSON can hold that is no record
        return None
    good = all(type(file.path) is type(file.sha256) is str and "\0" not in file.path for file in inputs)
    good &= all(type(file.size) is type(file.mtime_ns) is int for file in inputs)
    good &= row.count is None or 0 <= row.count < 2**63
    good &= row.sizes is None or row.count == len(row.sizes.values)
    good &= row.status in get_args(Status) and (row.status == "failed" or bool(inputs and row.outputs))
    return Record(row, inputs, raw["model"], raw["settings"], raw["outputs"]) if good else None


def _row_of(raw: dict[str, Any], sizes: Sizes | None) -> Row:
    plain = {name: raw[name] for name in ("image", "status", "count", "message", "details")}
    return Row(**plain, seconds=float(raw["seconds"]), outputs=tuple(raw["outputs"]), sizes=sizes)


def _sizes_of(raw: list[Any] | None) -> Sizes | None:
    if raw is None:
        return None
    column, values = raw
    sizes = np.array(values, np.float32).reshape(len(values))
    if column not in SIZE_COLUMNS or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError("no sizes")
    return Sizes(column, sizes)
