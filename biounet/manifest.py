"""``manifest.jsonl``: one line for each input that is done, appended after everything that it names is on the disk.

What it says is believed only as far as it can be checked, since anybody can write such a file: paths that leave the
output folder, and lines of another form, are ignored.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any, get_args

import numpy as np

from biounet.claims import Claims
from biounet.errors import MachineError
from biounet.files import append_line, hash_file
from biounet.job import InputFile, Record, Row, Status
from biounet.report import SIZE_COLUMNS, Sizes

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
    """

    def __init__(self, folder: Path) -> None:
        self.records: dict[str, Record] = {}
        self.fresh: set[str] = set()
        self._folder, self._root = folder, folder.resolve()
        self._one_reader = threading.Lock()
        self._read_to = self._lines = 0
        self.refresh()
        self.fresh.clear()

    def refresh(self) -> None:
        """Read what was appended since the last look; a line without an end is left for the next."""
        path = self._folder / NAME
        with self._one_reader:
            try:
                with path.open("rb") as file:
                    file.seek(self._read_to)
                    whole, end, _ = file.read().rpartition(b"\n")
            except FileNotFoundError:
                return
            except OSError as error:
                raise MachineError(f"cannot be read: {error.strerror}", path=path) from error
            self._read_to += len(whole) + len(end)
            for line in whole.split(b"\n") if end else ():
                self._lines += 1
                self._take(line.decode("utf-8", "replace"))

    def append(self, record: Record, claims: Claims) -> None:
        """Write a record, which is on the disk afterwards."""
        with claims.hold(NAME):
            append_line(self._folder / NAME, _to_line(record))

    def _take(self, line: str) -> None:
        record = _from_line(line)
        paths = () if record is None else (record.row.image, *record.outputs)
        if record is not None and all(is_inside(self._root, path) for path in paths):
            self.records[record.row.image] = record
            self.fresh.add(record.row.image)
        elif line.endswith(_END) or not line.startswith(_BEGIN):
            _log.warning("%s: line %d is no record of biounet and is ignored", self._folder / NAME, self._lines)


def is_inside(folder: Path, path: str) -> bool:
    """Whether a relative path stays below a folder (without symbolic links itself), those on its way followed."""
    plain = PurePath(path)
    if not plain.parts or plain.anchor or ".." in plain.parts:
        return False
    try:
        return (folder / plain).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, a ring of links
        return False


def are_there(record: Record, folder: Path) -> bool:
    """Whether every output of a record is in a folder, as it was written."""
    try:
        return all(hash_file(folder / path) == digest for path, digest in record.outputs.items())
    except OSError:
        return False


def _to_line(record: Record) -> str:
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


def _from_line(line: str) -> Record | None:
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
