"""A record as lines of ``manifest.jsonl``, of at most 4 kB each whatever the image, and back.

A line that would be longer, as that of a time series of many frames, is written as parts, which follow each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from biounet.batch.recorded_files import InputFile
from biounet.batch.records import FrameRow, Record, Row
from biounet.core import Figure, Status
from biounet.reporting import SizeHistogram

LONGEST_LINE = 4096  # bytes
BEGIN, END = '{"biounet": 1, ', "}"  # a line with this begin but not this end was cut short by a kill
_PART = 1900  # characters of a part, whose quotes and backslashes take two in its line
_MOST_PARTS = 2**16
_HEAD = re.compile(r'\{"biounet": 1, "image": ("(?:[^"\\]|\\.)*"), "(status|part)": (?:\[(\d+), (\d+)\])?')
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
    "states": (list,),
}
_LATER_FIELDS: dict[str, Any] = {"figures": {}, "frames": [], "states": []}  # which earlier versions do not write
_ROW_FIELDS = ("image", "status", "count", "seconds", "message", "details", "figures")


def encode_record(record: Record) -> str:
    """Return a record as JSON in one line, however long."""
    row = record.row
    line = {
        "biounet": 1,
        **{name: getattr(row, name) for name in _ROW_FIELDS},
        "frames": [asdict(frame) for frame in row.frames],
        "sizes": row.sizes and row.sizes.encode(),
        "inputs": [asdict(file) for file in record.inputs],
        **{name: getattr(record, name) for name in ("model", "settings", "outputs", "states")},
    }
    return json.dumps(line)


def record_lines(record: Record) -> list[str]:
    """Return the lines of a record: one, or parts of it."""
    line = encode_record(record)
    if len(line) < LONGEST_LINE:
        return [line]
    texts = [line[start : start + _PART] for start in range(0, len(line), _PART)]
    head = {"biounet": 1, "image": record.row.image}
    return [json.dumps(head | {"part": [n, len(texts)], "text": text}) for n, text in enumerate(texts)]


def read_head(line: str) -> tuple[str, int, int] | None:
    """Return the image that a line is about, which part it is, counted from 0, and of how many.

    None for a line that may be no record, or was cut short. Only the begin of the line is looked at.
    """
    match = _HEAD.match(line)
    if match is None or not line.endswith(END):
        return None
    try:
        name = json.loads(match[1]) if "\\" in match[1] else match[1][1:-1]
    except ValueError:
        return None
    if match[2] == "status":
        return name, 0, 1
    part, count = int(match[3] or 0), int(match[4] or 0)
    return (name, part, count) if 0 <= part < count <= _MOST_PARTS else None


def decode_lines(lines: Sequence[str]) -> Record | None:
    """Return the record of its lines, as `record_lines` gave them; None where they are none."""
    line = _join_lines(lines)
    return None if line is None else decode_record(line)


def parse_lines(lines: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON of the lines of a record, of which nothing is checked; None where it is none.

    That takes a third of the time of `decode_lines`.
    """
    line = _join_lines(lines)
    try:
        return None if line is None else json.loads(line)
    except (ValueError, RecursionError):
        return None


def _join_lines(lines: Sequence[str]) -> str | None:
    if len(lines) == 1:
        return lines[0]
    try:
        return "".join(str(json.loads(line)["text"]) for line in lines)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def decode_record(line: str) -> Record | None:
    """Return the record that `encode_record` encoded; None where it is none."""
    try:
        raw = json.loads(line)
        if isinstance(raw, dict):
            raw = _LATER_FIELDS | raw
        if not isinstance(raw, dict) or raw.keys() != _FIELD_TYPES.keys() or raw["biounet"] != 1:
            return None
        if not all(type(raw[name]) in types for name, types in _FIELD_TYPES.items()):
            return None
        raw["seconds"], sizes = float(raw["seconds"]), raw["sizes"] and SizeHistogram.decode(raw["sizes"])
        inputs = tuple(InputFile(**file) for file in raw["inputs"])
        frames = tuple(FrameRow(**frame) for frame in raw["frames"])
        fields: dict[str, Any] = {name: raw[name] for name in _ROW_FIELDS}
        row = Row(**fields, outputs=tuple(raw["outputs"]), sizes=sizes, frames=frames)
        states = tuple((size, stamp) for size, stamp in raw["states"])
        record = Record(row, inputs, raw["model"], raw["settings"], raw["outputs"], states)
    except (ValueError, TypeError, OverflowError, RecursionError):  # JSON, but no record
        return None
    return record if _is_consistent(record) else None


def _is_consistent(record: Record) -> bool:
    row = record.row
    good = all(type(text) is str for output in record.outputs.items() for text in output)
    good &= all(type(file.path) is type(file.sha256) is str and "\0" not in file.path for file in record.inputs)
    good &= all(type(file.size) is type(file.mtime_ns) is int for file in record.inputs)
    good &= all(type(size) is type(stamp) is int for size, stamp in record.states)
    good &= len(record.states) in (0, len(record.outputs))
    good &= all(isinstance(value, Figure) for value in row.figures.values())
    good &= row.count is None or 0 <= row.count < 2**63
    good &= all(map(_is_frame, row.frames))
    good &= not row.sizes or row.count == row.sizes.total
    return good and row.status in get_args(Status) and (row.status == "failed" or bool(record.inputs and row.outputs))


def _is_frame(frame: FrameRow) -> bool:
    good = type(frame.t) is int and isinstance(frame.seconds, float | int) and isinstance(frame.message, str)
    good &= frame.status in get_args(Status) and (frame.count is None or type(frame.count) is int)
    return good and type(frame.figures) is dict and all(isinstance(value, Figure) for value in frame.figures.values())
