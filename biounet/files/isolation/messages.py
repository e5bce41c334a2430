"""What an `IsolatedReader` and its process send each other: lines of JSON, and behind that of a volume its arrays.

Answers are not trusted: whoever takes control of the process gets no code into the one that started it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from biounet.core import BiounetError, Grid, InputError, SettingsError, Volume, note_from_record, note_record
from biounet.files.axes import ReadOptions, split_scenes
from biounet.files.channels import clean_name, is_clean_name
from biounet.files.formats.scenes import Scene

Task = Literal["read", "header", "hash", "scenes"]

_PALETTE_FACTOR = 3  # bytes that a palette makes of one
_DTYPES = {np.dtype(code).str: np.dtype(code) for code in "bBhHiIlLqQfd"}
_ERRORS: dict[str, type[BiounetError]] = {kind.__name__: kind for kind in (InputError, SettingsError)}
_SHA256 = re.compile("[0-9a-f]{64}")


def path_to_hex(path: Path) -> str:
    """Return a path as text of letters and digits; names of files may be no text."""
    return os.fsencode(path).hex()


def path_from_hex(text: str) -> Path:
    """Return the path that `path_to_hex` encoded."""
    return Path(os.fsdecode(bytes.fromhex(text)))


@dataclass(frozen=True)
class Request:
    """A task for the process; `folder` is where relative paths start, and empty if all paths are absolute."""

    task: Task
    paths: Sequence[Path]
    options: ReadOptions
    seconds: float
    folder: str

    def encode(self) -> bytes:
        """Return the line to send."""
        fields = {**asdict(self), "paths": [path_to_hex(path) for path in self.paths]}
        return json.dumps(fields, default=np.generic.item).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """Return the request that `encode` encoded."""
        fields = json.loads(line)
        paths = [path_from_hex(path) for path in fields["paths"]]
        return cls(**fields | {"paths": paths, "options": ReadOptions(**fields["options"])})


def encode_error(error: BiounetError, paths: Sequence[Path]) -> dict[str, Any]:
    """Return an error as fields of an answer; its path is the index in those of the request."""
    index = next((number for number, path in enumerate(paths) if str(path) == str(error.path)), None)
    return {"error": type(error).__name__, "cause": error.cause, "path": index, "hint": error.hint}


def decode_error(fields: dict[str, Any], paths: Sequence[Path]) -> BiounetError | None:
    """Return the error in an answer; None if it holds none. It raises what invalid fields raise."""
    if "error" not in fields:
        return None
    path = None if fields["path"] is None else paths[int(fields["path"])]
    hint = None if fields["hint"] is None else str(fields["hint"])
    return _ERRORS[fields["error"]](str(fields["cause"]), path=path, hint=hint)


def decode_hashes(fields: dict[str, Any], count: int) -> tuple[str, ...]:
    """Return so many SHA-256 hashes in an answer; `ValueError` if they are none."""
    hashes = tuple(map(str, fields["sha256"]))
    if len(hashes) != count or not all(map(_SHA256.fullmatch, hashes)):
        raise ValueError
    return hashes


def encode_scenes(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Return the images of a path as fields of an answer, their texts as short lines."""
    return {"scenes": [[clean_name(text) for text in (one.key, one.name, one.shape)] for one in scenes]}


def decode_scenes(fields: dict[str, Any]) -> tuple[Scene, ...]:
    """Return the images in an answer; raise what invalid fields raise."""
    scenes = tuple(Scene(*map(_decode_text, texts)) for texts in fields["scenes"])
    if not all(scene.key for scene in scenes) or len({scene.key for scene in scenes}) < len(scenes):
        raise ValueError
    return scenes


def _decode_text(text: object) -> str:
    return _decode_name(text) if text else ""


def encode_volume(volume: Volume) -> dict[str, Any]:
    """Return all of a volume but its pixels and its source as fields of an answer."""
    grid = asdict(volume.grid) | {"header": None if volume.grid.header is None else volume.grid.header.hex()}
    notes = list(map(note_record, volume.notes))
    measured = [(name, channel.dtype.str) for name, channel in volume.measured.items()]
    return {
        "dtype": volume.array.dtype.str,
        "shape": volume.array.shape,
        "grid": grid,
        "notes": notes,
        "channel_names": volume.channel_names,
        "measured": measured,
        "times": volume.times,
        "interval": volume.interval,
    }


def decode_volume(fields: dict[str, Any], request: Request) -> Volume:
    """Return the volume of an answer, with pixels that are all 0; raise what invalid fields raise."""
    dtype, shape, grid = _DTYPES[fields["dtype"]], tuple(fields["shape"]), _decode_grid(fields["grid"])
    times, interval = tuple(fields["times"]), fields["interval"]
    if not all(type(number) is int for number in (*shape, *times)) or shape[0] < 1:
        raise ValueError
    if shape[1:] != (*((len(times),) if times else ()), *grid.shape):
        raise ValueError
    if interval is not None and not 0 < float(interval) < math.inf:
        raise ValueError
    types = {_decode_name(name): _DTYPES[code] for name, code in fields["measured"]}
    size = math.prod(shape) * dtype.itemsize + math.prod(shape[1:]) * sum(kind.itemsize for kind in types.values())
    if size > _PALETTE_FACTOR * request.options.limit * len(request.paths) or len(types) < len(fields["measured"]):
        raise ValueError
    names = tuple(map(_decode_name, fields["channel_names"]))
    if len(names) not in (0, shape[0]):
        raise ValueError
    notes = tuple(map(note_from_record, fields["notes"]))
    array = np.broadcast_to(np.zeros((), dtype), shape)
    measured = {name: np.broadcast_to(np.zeros((), kind), shape[1:]) for name, kind in types.items()}
    scene = split_scenes(request.options.scene, len(request.paths))[0]
    return Volume(array, grid, request.paths[0], notes, names, measured, times, interval, scene)


def _decode_name(name: object) -> str:
    """Return the name of a channel; `ValueError` for one that reading does not give."""
    if not is_clean_name(name):
        raise ValueError
    return str(name)


def _decode_grid(fields: dict[str, Any]) -> Grid:
    spacing, affine, header = fields["spacing"], fields["affine"], fields["header"]
    if fields["unit"] not in (None, "um", "mm") or not all(isinstance(length, int) for length in fields["shape"]):
        raise ValueError
    if not isinstance(fields["frame"], str):
        raise TypeError
    return Grid(
        tuple(fields["shape"]),
        None if spacing is None else tuple(map(float, spacing)),
        fields["unit"],
        None if affine is None else tuple(tuple(map(float, row)) for row in affine),
        None if header is None else bytes.fromhex(header),
        None if fields["axcodes"] is None else str(fields["axcodes"]),
        fields["frame"],
    )
