"""``manifest.jsonl``: one line per finished image, appended after all its outputs are on the disk.

Anybody can write such a file: what is of another form, or names outputs that the image cannot have, is ignored.
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

from biounet.batch.names import unescape
from biounet.batch.recorded_files import InputFile, has_hash, is_there, resolve_recorded_path
from biounet.batch.records import FrameRow, Record, Row
from biounet.core import Figure, MachineError, Status
from biounet.files import Locks, append_line, stem_of
from biounet.measurement import SIZE_COLUMNS, table_kind
from biounet.reporting import Sizes, is_view_file, possible_outputs

MANIFEST_NAME = "manifest.jsonl"
_BEGIN, _END = '{"biounet": 1, ', "}"  # a line with this begin but not this end was cut short by a kill
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "biounet": (int,),
    "image": (str,),
    "status": (str,),
    "count": (int, type(None)),
    "seconds": (float, int),
    "message": (str,),
    "details": (dict,),
    "figures": (dict,),
    "frames": (list,),
    "sizes": (list, type(None)),
    "inputs": (list,),
    "model": (str,),
    "settings": (str,),
    "outputs": (dict,),
}
_ROW_FIELDS = ("image", "status", "count", "seconds", "message", "details", "figures")
_log = logging.getLogger(__name__)


class Manifest:
    """The last record of each image in an output folder, including those of other processes."""

    def __init__(self, folder: Path) -> None:
        # All by the name of the image
        self.records: dict[str, Record] = {}
        self.new_names: set[str] = set()  # recorded since this object was made
        self.output_hashes: dict[str, dict[str, str]] = {}  # the last SHA-256 in any record, by the output's path
        self.offsets: dict[str, int] = {}  # where the record begins in the file, in bytes
        self.end = 0  # size of the file when it was last read, in bytes
        self._scene_files: set[str] = set()  # that were read as several images
        self._folder, self._root = folder, folder.resolve()
        self._reader = threading.Lock()
        self._line_count = 0
        self.refresh()
        self.new_names.clear()

    def refresh(self) -> None:
        """Read the lines appended since the last call; an unfinished line is left for the next."""
        path = self._folder / MANIFEST_NAME
        with self._reader:
            try:
                with path.open("rb") as file:
                    file.seek(self.end)
                    text, end, _ = file.read().rpartition(b"\n")
            except FileNotFoundError:
                return
            except OSError as error:
                raise MachineError(f"cannot be read: {error.strerror}", path=path) from error
            for line in text.split(b"\n") if end else ():
                self._line_count += 1
                self._add(line.decode("utf-8", "replace"))
                self.end += len(line) + 1

    def append(self, record: Record, locks: Locks) -> None:
        """Append a record; it is on the disk afterwards."""
        with locks.exclusive(MANIFEST_NAME):
            append_line(self._folder / MANIFEST_NAME, encode_record(record))

    def is_obsolete(self, record: Record) -> bool:
        """Whether an image failed and no results of it are left, and its files are not there or several images."""
        if record.row.status != "failed":
            return False
        files = [resolve_recorded_path(file.path, self._folder) for file in record.inputs]
        paths = self.output_hashes.get(record.row.image, ())
        outputs = (self._folder / path for path in paths if not is_view_file(path))
        if any(map(is_there, outputs)):
            return False
        found = any(map(os.path.exists, files)) or any(map(os.path.islink, files))
        return not found or self.is_split(record)

    def is_split(self, record: Record) -> bool:
        """Whether it is about a file as one image that failed, and was several when these could be listed."""
        is_whole = record.row.status == "failed" and not record.row.details.get("scene")
        return is_whole and any(file.path in self._scene_files for file in record.inputs)

    def _add(self, line: str) -> None:
        record = decode_record(line)
        if record is not None and self._names_only_own_outputs(record):
            name = record.row.image
            self.records[name] = record
            self.new_names.add(name)
            self.output_hashes.setdefault(name, {}).update(record.outputs)
            self.offsets[name] = self.end
            is_scene = str(record.row.details.get("scene", "")).isdecimal()  # and no series of a folder
            if is_scene and record.row.status != "failed":
                self._scene_files |= {file.path for file in record.inputs}
        elif line.endswith(_END) or not line.startswith(_BEGIN):
            path = self._folder / MANIFEST_NAME
            _log.warning("%s: line %d is no record of biounet and is ignored", path, self._line_count)

    def _names_only_own_outputs(self, record: Record) -> bool:
        name = PurePath(unescape(record.row.image))
        stems = (name.name, stem_of(Path(name)))
        own = {path.as_posix() for stem in stems for path in possible_outputs(name.parent, stem)}
        paths = (record.row.image, *record.outputs)
        return record.outputs.keys() <= own and all(is_inside(self._root, path) for path in paths)


def is_inside(folder: Path, path: str) -> bool:
    """Whether a relative path, with its symbolic links followed, stays below a folder, which is resolved already."""
    plain = PurePath(path)
    if not plain.parts or plain.anchor or ".." in plain.parts:
        return False
    try:
        return (folder / plain).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, a ring of links
        return False


def outputs_exist(record: Record, folder: Path) -> bool:
    """Whether every output of a record is in a folder, whatever its content."""
    return all(is_there(folder / path) for path in record.outputs)


def outputs_intact(record: Record, folder: Path) -> bool:
    """Whether every output of a record is in a folder as it was written, with as many objects as the count says."""
    hashes = record.outputs.items()
    try:
        return all(has_hash(folder / path, sha256) for path, sha256 in hashes) and _count_matches_table(record, folder)
    except OSError:
        return False


def _count_matches_table(record: Record, folder: Path) -> bool:
    """Whether the count is the number of objects, or of lesions of the first class, in the table."""
    table = next((folder / path for path in record.outputs if path.endswith("_objects.csv")), None)
    if table is None or record.row.count is None:
        return True
    with table.open(encoding="utf-8", newline="") as file:
        header = next(csv.reader([file.readline()]), [])
        if table_kind(header) != "lesions":
            return sum(1 for _ in file) == record.row.count
        rows = list(csv.DictReader(file, header))
    lesions = (int(row["lesion"]) for row in rows if row["class"] == rows[0]["class"])
    return sum(number > 0 for number in lesions) == record.row.count


def encode_record(record: Record) -> str:
    """Return the line of a record."""
    row = record.row
    # The shortest digits that give the same float32 again
    sizes = row.sizes and [row.sizes.column, [float(str(value)) for value in row.sizes.values]]
    line = {
        "biounet": 1,
        **{name: getattr(row, name) for name in _ROW_FIELDS},
        "frames": [asdict(frame) for frame in row.frames],
        "sizes": sizes,
        "inputs": [asdict(file) for file in record.inputs],
        **{name: getattr(record, name) for name in ("model", "settings", "outputs")},
    }
    return json.dumps(line)


def decode_record(line: str) -> Record | None:
    """Return the record of a line; None where it is none."""
    try:
        raw = json.loads(line)
        if isinstance(raw, dict):
            raw = {"figures": {}, "frames": []} | raw  # which earlier versions do not have
        if not isinstance(raw, dict) or raw.keys() != _FIELD_TYPES.keys() or raw["biounet"] != 1:
            return None
        if not all(type(raw[name]) in types for name, types in _FIELD_TYPES.items()):
            return None
        raw["seconds"], sizes = float(raw["seconds"]), _decode_sizes(raw["sizes"])
        inputs = tuple(InputFile(**file) for file in raw["inputs"])
        frames = tuple(FrameRow(**frame) for frame in raw["frames"])
        fields = {name: raw[name] for name in _ROW_FIELDS}
        row = Row(**fields, outputs=tuple(raw["outputs"]), sizes=sizes, frames=frames)
        record = Record(row, inputs, raw["model"], raw["settings"], raw["outputs"])
    except (ValueError, TypeError, OverflowError, RecursionError):  # JSON, but no record
        return None
    return record if _is_consistent(record) else None


def _is_consistent(record: Record) -> bool:
    row = record.row
    good = all(type(text) is str for output in record.outputs.items() for text in output)
    good &= all(type(file.path) is type(file.sha256) is str and "\0" not in file.path for file in record.inputs)
    good &= all(type(file.size) is type(file.mtime_ns) is int for file in record.inputs)
    good &= all(isinstance(value, Figure) for value in row.figures.values())
    good &= row.count is None or 0 <= row.count < 2**63
    good &= all(map(_is_frame, row.frames))
    good &= row.sizes is None or row.count == len(row.sizes.values)
    return good and row.status in get_args(Status) and (row.status == "failed" or bool(record.inputs and row.outputs))


def _is_frame(frame: FrameRow) -> bool:
    good = type(frame.t) is int and isinstance(frame.seconds, float | int) and isinstance(frame.message, str)
    good &= frame.status in get_args(Status) and (frame.count is None or type(frame.count) is int)
    return good and type(frame.figures) is dict and all(isinstance(value, Figure) for value in frame.figures.values())


def _decode_sizes(raw: list[Any] | None) -> Sizes | None:
    if raw is None:
        return None
    column, values = raw
    sizes = np.array(values, np.float32).reshape(len(values))
    if column not in SIZE_COLUMNS or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError("no sizes")
    return Sizes(column, sizes)
