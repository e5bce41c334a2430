"""``exports.jsonl``: a line for each exported file, with what it was made from and its hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from biounet.batch.manifest import is_inside
from biounet.batch.records import Record, Row
from biounet.core import MachineError
from biounet.files import append_line, hash_tree
from biounet.measurement import Grouping
from biounet.reporting import is_picture, remove_files

EXPORTS_NAME = "exports.jsonl"


@dataclass(frozen=True)
class ExportRecord:
    """A file that was exported.

    Attributes
    ----------
    path
        Relative to the folder of results.
    image
        The image it is about, as in ``counts.csv``; empty for a file about all images.
    origin
        SHA-256 of the label image and the table that it was made from, by their paths.
    sha256
        Of the file, or of all files of a folder, as `biounet.files.hash_tree` gives it.
    """

    path: str
    format: str
    image: str
    origin: dict[str, str]
    sha256: str


def export_origin(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return those of the outputs of an image, with their hashes, that exports are made from."""
    return {path: sha256 for path, sha256 in outputs.items() if not is_picture(path)}


def merged_origin(records: Iterable[Record], rows: Sequence[Row], group: Grouping | None) -> dict[str, str]:
    """Return what files about a whole run are made from: outputs of all images, rows of ``counts.csv``, and groups."""
    origin = {path: sha256 for record in records for path, sha256 in export_origin(record.outputs).items()}
    shown = [
        (row.image, row.status, row.count, [frame.t for frame in row.frames], group and group.values(row.image))
        for row in rows
    ]
    text = json.dumps([shown, group and group.names])
    return origin | {"counts.csv": hashlib.sha256(text.encode()).hexdigest()}


def record_export(out: Path, record: ExportRecord) -> None:
    """Append the line of a file that was exported."""
    append_line(out / EXPORTS_NAME, json.dumps(asdict(record)))


def read_exports(out: Path) -> dict[str, ExportRecord]:
    """Return the last record of each exported file by its path; lines of another form are ignored.

    Anybody can write such a file: paths that lead out of the folder are ignored as well.
    """
    path, found = out / EXPORTS_NAME, {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise MachineError(f"cannot be read: {error.strerror}", path=path) from error
    for line in lines:
        try:
            entry = json.loads(line)
            origin = {str(source): str(sha256) for source, sha256 in entry["origin"].items()}
            texts = {name: str(entry[name]) for name in ("path", "format", "image", "sha256")}
            record = ExportRecord(**texts, origin=origin)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
        if not os.path.isabs(record.path) and ".." not in Path(record.path).parts:  # noqa: PTH117 - no path object yet
            found[record.path] = record
    return found


def is_intact(out: Path, record: ExportRecord) -> bool:
    """Whether an exported file is there as it was written."""
    try:
        return hash_tree(out / record.path) == record.sha256
    except OSError:
        return False


def remove_outdated_exports(out: Path, record: Record, known: Mapping[str, ExportRecord]) -> None:
    """Remove the exports that were made from an earlier result of an image, and that nobody changed."""
    origin, root = export_origin(record.outputs), out.resolve()
    for entry in known.values():
        outdated = entry.image == record.row.image and entry.origin != origin
        outdated |= not entry.image and not origin.items() <= entry.origin.items()
        if outdated and is_inside(root, entry.path) and is_intact(out, entry):
            path = out / entry.path
            shutil.rmtree(path) if path.is_dir() else remove_files([path])
