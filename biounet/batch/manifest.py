"""``manifest.jsonl``: the record of each finished image, appended after all its outputs are on the disk.

In memory is only where the records of an image begin: a record is decoded when it is asked for, and not kept.

Anybody can write such a file: what is of another form, or names outputs that the image cannot have, is ignored.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any, BinaryIO, overload

from biounet.batch.names import unescape
from biounet.batch.record_lines import BEGIN, END, decode_lines, decode_record, parse_lines, read_head, record_lines
from biounet.batch.recorded_files import has_hash, has_state, is_there, resolve_recorded_path
from biounet.batch.records import Record, Row
from biounet.core import MachineError
from biounet.files import Locks, append_line, stem_of
from biounet.measurement import table_kind
from biounet.reporting import is_view_file, possible_outputs

MANIFEST_NAME = "manifest.jsonl"
_CHUNK = 2**20  # bytes
_log = logging.getLogger(__name__)


class Manifest:
    """The last record of each image in an output folder, including those of other processes.

    Parameters
    ----------
    folder
        Of the results.
    size
        Bytes of the file that are read: the records that there were when it was so long. None: all that come.
    """

    def __init__(self, folder: Path, size: int | None = None) -> None:
        self.end = 0  # size of the file when it was last read, in bytes
        self._size = size
        # By the name of the image: where its record begins in the file, in bytes; of several, where each does.
        self._places: dict[str, int | tuple[int, ...]] = {}
        self._scene_files: set[str] = set()  # that were read as several images
        self._inside: dict[str, bool] = {}  # by folders of the images and their outputs
        self._folder, self._root, self._path = folder, folder.resolve(), folder / MANIFEST_NAME
        self._reader, self._parts = threading.Lock(), ("", 0, 0, 0)
        self.refresh()
        self._begin = self.end  # of what is recorded since this object was made

    def refresh(self) -> None:
        """Read the lines appended since the last call; an unfinished line is left for the next."""
        with self._reader:
            try:
                with self._path.open("rb") as file:
                    file.seek(self.end)
                    for line in file:
                        at, self.end = self.end, self.end + len(line)
                        if not line.endswith(b"\n") or (self._size is not None and self.end > self._size):
                            self.end = at
                            break
                        self._index(line[:-1].decode("utf-8", "replace"), at)
            except FileNotFoundError:
                return
            except OSError as error:
                raise self._unreadable(error) from error

    def append(self, record: Record, locks: Locks) -> None:
        """Append a record; it is on the disk afterwards."""
        with locks.exclusive(MANIFEST_NAME):
            append_line(self._path, "\n".join(record_lines(record)))

    def hash(self, size: int) -> str:
        """Return the SHA-256 of the first bytes of the file."""
        digest = hashlib.sha256()
        with self._open() if size else io.BytesIO() as file:
            while size > 0 and (data := file.read(min(size, _CHUNK))):
                digest.update(data)
                size -= len(data)
        return digest.hexdigest()

    def names(self) -> list[str]:
        """Return the names of the images that there are records of."""
        return list(self._places)

    def get(self, name: str) -> Record | None:
        """Return the last record of an image; None if there is none."""
        places = self._places_of(name)
        if not places:
            return None
        with self._open() as file:
            return next((record for at in reversed(places) if (record := self._read(file, at))), None)

    def records(self, names: Iterable[str] | None = None) -> Iterator[Record]:
        """Yield the last records of images, in the order given; by default of all, in the order of their first ones."""
        names = self.names() if names is None else list(names)
        if not names or not self._places:
            return
        with self._open() as file:
            for name in names:
                for at in reversed(self._places_of(name)):
                    if (record := self._read(file, at)) is not None:
                        yield record
                        break

    def unchecked(self, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Yield images with the JSON of their last records, whatever that is: for what needs only to be likely."""
        with self._open() if self._places else io.BytesIO() as file:
            for name in names:
                if (at := self.begins_at(name)) >= 0:
                    yield name, parse_lines(self._read_lines(file, at))

    def rows(self, names: Iterable[str]) -> RecordedRows:
        """Return the rows of images as a sequence that reads each when it is asked for."""
        places = array("q", (self._places_of(name)[-1] for name in names))
        return RecordedRows(self, places)

    def rows_at(self, places: Sequence[int]) -> Iterator[Row]:
        """Yield the rows of the records that begin at these places."""
        with self._open() if places else io.BytesIO() as file:
            for at in places:
                record = decode_lines(self._read_lines(file, at))
                if record is None:
                    raise MachineError("was changed while it was read", path=self._path)
                yield record.row

    def is_new(self, name: str) -> bool:
        """Whether an image was recorded since this object was made."""
        return self.begins_at(name) >= self._begin

    def begins_at(self, name: str) -> int:
        """Return where the last record of an image begins in the file, in bytes; -1 if there is none."""
        places = self._places_of(name)
        return places[-1] if places else -1

    def output_hashes(self, name: str) -> dict[str, str]:
        """Return the last SHA-256 in any record of an image, by the output's path."""
        hashes: dict[str, str] = {}
        if places := self._places_of(name):
            with self._open() as file:
                for record in (self._read(file, at) for at in places):
                    hashes |= record.outputs if record is not None else {}
        return hashes

    def is_obsolete(self, record: Record) -> bool:
        """Whether an image failed and no results of it are left, and its files are not there or several images."""
        if record.row.status != "failed":
            return False
        files = [resolve_recorded_path(file.path, self._folder) for file in record.inputs]
        paths = self.output_hashes(record.row.image)
        outputs = (self._folder / path for path in paths if not is_view_file(path))
        if any(map(is_there, outputs)):
            return False
        found = any(map(os.path.exists, files)) or any(map(os.path.islink, files))
        return not found or self.is_split(record)

    def is_split(self, record: Record) -> bool:
        """Whether it is about a file as one image that failed, and was several when these could be listed."""
        is_whole = record.row.status == "failed" and not record.row.details.get("scene")
        return is_whole and any(file.path in self._scene_files for file in record.inputs)

    def _places_of(self, name: str) -> tuple[int, ...]:
        places = self._places.get(name, ())
        return (places,) if isinstance(places, int) else places

    def _index(self, line: str, at: int) -> None:
        """Note where a record is; whether it is one is seen when it is decoded."""
        head = read_head(line)
        if head is None:
            record = decode_record(line)
            if record is None:
                if line.endswith(END) or not line.startswith(BEGIN):
                    self._remark(at)
                return
            head = record.row.image, 0, 1
        name, part, count = head
        if part == 0:
            self._parts = name, 0, count, at
        elif self._parts[:3] != (name, part - 1, count):  # a kill came between
            return
        else:
            self._parts = name, part, count, self._parts[3]
        if part < count - 1:
            return
        first = self._parts[3]
        places = self._places_of(name)
        self._places[name] = (*places, first) if places else first
        if '"scene": "' in line or count > 1:
            self._note_scene(name)

    def _note_scene(self, name: str) -> None:
        record = self.get(name)
        if record is None or record.row.status == "failed":
            return
        if str(record.row.details.get("scene", "")).isdecimal():  # and no series of a folder
            self._scene_files |= {file.path for file in record.inputs}

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> MachineError:
        return MachineError(f"cannot be read: {error.strerror}", path=self._path)

    def _read(self, file: BinaryIO, at: int) -> Record | None:
        """Return the record that begins at a place; None, and a remark the first time, where it is none."""
        lines = self._read_lines(file, at)
        record = decode_lines(lines)
        if record is not None and self._names_only_own_outputs(record):
            return record
        self._forget(lines[0], at)
        return None

    def _read_lines(self, file: BinaryIO, at: int) -> list[str]:
        try:
            file.seek(at)
            lines = [_read_line(file)]
            _, _, count = read_head(lines[0]) or ("", 0, 1)
            return lines + [_read_line(file) for _ in range(count - 1)]
        except OSError as error:
            raise self._unreadable(error) from error

    def _forget(self, line: str, at: int) -> None:
        name = (read_head(line) or ("", 0, 0))[0]
        left = tuple(place for place in self._places_of(name) if place != at)
        if left != self._places_of(name):
            self._remark(at)
            self._places[name] = left
        if not left:
            self._places.pop(name, None)

    def _remark(self, at: int) -> None:
        with self._path.open("rb") as file:
            number = 1 + file.read(at).count(b"\n")
        _log.warning("%s: line %d is no record of biounet and is ignored", self._path, number)

    def _names_only_own_outputs(self, record: Record) -> bool:
        folder, _, name = unescape(record.row.image).rpartition("/")
        stems = (stem_of(Path(name)), name)  # of a file, or of a case or scene
        is_own = any(record.outputs.keys() <= set(possible_outputs(folder or ".", stem)) for stem in stems)
        return is_own and all(map(self._is_inside, (record.row.image, *record.outputs)))

    def _is_inside(self, path: str) -> bool:
        """Whether `is_inside` is true of a path in the folder; each folder below is looked at once."""
        folder, _, name = path.rpartition("/")
        if os.sep != "/" or name in ("", ".", "..") or "\0" in name or _is_link(f"{self._root}/{path}"):
            return is_inside(self._root, path)
        if folder not in self._inside:
            self._inside[folder] = not path.startswith("/") and (not folder or is_inside(self._root, folder))
        return self._inside[folder]


class RecordedRows(Sequence[Row]):
    """Rows that stand in a manifest; each is read when it is asked for."""

    def __init__(self, manifest: Manifest, places: array[int]) -> None:
        self._manifest, self._places = manifest, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, which: int) -> Row: ...
    @overload
    def __getitem__(self, which: slice) -> RecordedRows: ...
    def __getitem__(self, which: int | slice) -> Row | RecordedRows:
        """Return a row by its number, or several by a slice."""
        if isinstance(which, slice):
            return RecordedRows(self._manifest, self._places[which])
        return next(self._manifest.rows_at([self._places[which]]))

    def __iter__(self) -> Iterator[Row]:
        return self._manifest.rows_at(self._places)

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same as those of another sequence."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(one == another for one, another in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {self._manifest}>"


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
    return all(is_there(f"{folder}/{path}") for path in record.outputs)


def outputs_intact(record: Record, folder: Path, *, is_genuine: bool = False) -> bool:
    """Whether every output of a record is in a folder as it was written, with as many objects as the count says.

    Those that have another size or time than on record are hashed. The count of a record that `is_genuine` is taken as
    that of a table that nobody has changed.
    """
    states = [has_state(f"{folder}/{path}", state) for path, state in zip(record.outputs, record.states, strict=False)]
    if is_genuine and states and all(states):
        return True
    changed = [path for path, same in zip_longest(record.outputs, states) if not same]
    try:
        same = all(has_hash(folder / path, record.outputs[path]) for path in changed)
        return same and _count_matches_table(record, folder)
    except OSError:
        return False


def _is_link(path: str) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - Path takes several times as long, and this is asked of every output


def _read_line(file: BinaryIO) -> str:
    return file.readline().removesuffix(b"\n").decode("utf-8", "replace")


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
