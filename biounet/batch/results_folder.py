"""A folder belongs to one model with one set of settings; no file that biounet did not write is replaced or removed.

Before the outputs of an image are written, that is noted: what a killed process leaves is known as biounet's own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biounet.batch.export_records import ExportRecord
from biounet.batch.manifest import MANIFEST_NAME, Manifest
from biounet.batch.names import SHOWN_NAMES, image_name
from biounet.batch.recorded_files import (
    HashOf,
    has_hash,
    is_unchanged,
    recorded_image,
    recorded_path,
    resolve_recorded_path,
)
from biounet.batch.records import BatchOptions, Record, hash_settings
from biounet.core import SettingsError, list_some
from biounet.files import FoundImage, Locks, hash_image, temporary_prefix
from biounet.network import Model
from biounet.reporting import LABEL_SUFFIXES, output_paths, page_count, page_path

_OTHER_FOLDER = "choose another folder for the results"
_OVERWRITE = f"{_OTHER_FOLDER}, or replace them with --overwrite"
_REPORT, _PAGE = "report.html", re.compile(r"report_\d+\.html")
_HEAD = 4096  # bytes in which the marks of a table are looked for
# How files of a whole batch begin, or what stands near their begin.
_MARKS: dict[str, tuple[bytes, ...]] = {
    "counts.csv": (b"image,status,count,", b",seconds,message\n"),
    "groups.csv": (b"unit,units,images,failed,count,mean,sd,sem",),
    "run.json": (b'"biounet":', b'"torch":'),
    _REPORT: (b"Content-Security-Policy", b"form-action", b'<meta name="color-scheme" content="light dark">'),
    MANIFEST_NAME: (b'{"biounet": 1, ',),
}


@dataclass(frozen=True)
class _Start:
    """The note that outputs of an image are about to be written."""

    manifest_end: int  # size of the manifest then; a record after that says that the outputs are complete
    protected: frozenset[str]  # paths of files that were there and are not biounet's


@dataclass
class Notes:
    """The notes of all processes that work or worked in a folder, from the file of the locks."""

    owner: dict[str, Any] = field(default_factory=dict)
    starts: dict[str, _Start] = field(default_factory=dict)
    shards: dict[tuple[int, int], bool] = field(default_factory=dict)

    def refresh(self, locks: Locks) -> None:
        """Read what was noted since the last call; lines of another form are ignored."""
        for line in locks.new_notes():
            try:
                note = json.loads(line)
                if "owner" in note:
                    self.owner = dict(note["owner"])
                elif "begun" in note:
                    self.starts[str(note["begun"])] = _Start(int(note["at"]), frozenset(map(str, note["kept"])))
                elif "shard" in note:
                    number, count = map(int, note["shard"])
                    self.shards[number, count] = bool(note["ended"])
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
                continue


@dataclass(frozen=True)
class ResultsFolder:
    """A folder of results: its locks and records, and which of its files are biounet's."""

    out: Path
    locks: Locks
    manifest: Manifest
    overwrite: bool = False  # also results of others, and a label image that somebody changed
    hash_input: HashOf = hash_image
    notes: Notes = field(default_factory=Notes)
    temporary_files: dict[Path, list[Path]] = field(default_factory=dict)  # that killed processes left
    exports: dict[str, ExportRecord] = field(default_factory=dict)  # by their paths
    genuine: int = 0  # bytes of the manifest that are as they were when the tables of an earlier run were written

    def acquire(self, model: Model, settings: Mapping[str, Any]) -> None:
        """Make the folder that of a model and settings, unless it holds or gets results of others."""
        owner = {"model": model.sha256, "settings": json.loads(json.dumps(settings))}
        with self.locks.exclusive("owner"):
            self.notes.refresh(self.locks)
            self.manifest.refresh()
            if self._has_other_owner(owner):
                if not self.overwrite and self._has_results():
                    raise SettingsError(f"holds results of {self._difference(owner)}", path=self.out, hint=_OVERWRITE)
                if not self.locks.enter_folder(exclusive=True):
                    cause = f"another process is at work here with {self._difference(owner)}"
                    raise SettingsError(cause, path=self.out, hint=_OTHER_FOLDER)
            if self.notes.owner != owner:
                self.locks.append_note(json.dumps({"owner": owner}))
                self.notes.owner = owner
            self.locks.enter_folder(exclusive=False)

    def _has_other_owner(self, owner: Mapping[str, Any]) -> bool:
        if self.notes.owner:
            return self.notes.owner != owner
        identity = (owner["model"], hash_settings(owner["settings"]))
        records = self.manifest.records()
        return any(record.outputs and (record.model, record.settings) != identity for record in records)

    def _has_results(self) -> bool:
        paths = (path for record in self.manifest.records() for path in record.outputs)
        return any(os.path.lexists(self.out / path) for path in paths)

    def _difference(self, owner: Mapping[str, Any]) -> str:
        """Describe how the model and settings that the folder belongs to differ from a new owner's."""
        former = self.notes.owner or {"model": "", "settings": None}
        models = {record.model for record in self.manifest.records()} | {former["model"]}
        models -= {"", owner["model"]}
        if models:
            return f"another model ({', '.join(sorted(str(model)[:12] for model in models))})"
        before, now = _flatten(former.get("settings")), _flatten(owner["settings"])
        names = [name for name in now if before and before.get(name) != now[name]]
        changes = [f"{name} {_format(before.get(name))}, now {_format(now[name])}" for name in names[:SHOWN_NAMES]]
        return f"other settings ({'; '.join(changes)})" if changes else "other settings"

    def check_inputs(self, images: Iterable[FoundImage]) -> None:
        """Check that no image has the name of another one, which is still there and has results here."""
        if self.overwrite:
            return
        named = {image_name(image): image for image in images}
        records = self.manifest.records(named)
        others = [str(path) for record in records if (path := self._other_input(named[record.row.image], record))]
        if others:
            cause = f"holds results of other images of these names: {list_some(others, SHOWN_NAMES)}"
            raise SettingsError(cause, path=self.out, hint=_OVERWRITE)

    def _other_input(self, image: FoundImage, record: Record) -> Path | None:
        """Return the path of another image, which is still there, whose results here have the name of this one's."""
        if not record.outputs or image.problem or record.inputs[0].path == recorded_path(image.path, self.out):
            return None
        recorded = record.inputs[0]
        path = resolve_recorded_path(recorded.path, self.out)
        if path.resolve() == image.path.resolve():
            return None
        other = recorded_image(record.row.image, [path] * len(record.inputs), record.row.details)
        (_, scene), (_, own_scene) = other.parts[0], image.parts[0]
        is_there = is_unchanged(path, recorded, self.hash_input, scene)
        return path if is_there and not is_unchanged(image.path, recorded, self.hash_input, own_scene) else None

    def is_genuine(self, name: str) -> bool:
        """Whether the last record of an image is one that nobody can have changed since an earlier run."""
        return 0 <= self.manifest.begins_at(name) < self.genuine

    def has_temporary_files(self, image: FoundImage) -> bool:
        """Whether a killed process left a part of an output of an image."""
        if not self.temporary_files:
            return False
        paths = output_paths(image, self.out)
        return any(path.with_name(temporary_prefix(path)) in self.temporary_files for path in paths)

    def note_start(self, image: FoundImage) -> frozenset[Path]:
        """Note that the outputs of an image are about to be written; return the files that must not be replaced."""
        name = image_name(image)
        self.notes.refresh(self.locks)
        protected = frozenset(path for path in output_paths(image, self.out) if self._is_foreign(path, name))
        end = self.manifest.end
        paths = sorted(path.relative_to(self.out).as_posix() for path in protected)
        self.locks.append_note(json.dumps({"begun": name, "at": end, "kept": paths}))
        self.notes.starts[name] = _Start(end, frozenset(paths))
        return protected

    def _is_foreign(self, path: Path, name: str) -> bool:
        """Whether a file is there that biounet did not write, or a label image that somebody has changed."""
        if not os.path.lexists(path):  # False also for a name that is too long
            return False
        relative, start = path.relative_to(self.out).as_posix(), self.notes.starts.get(name)
        if start is not None and start.manifest_end > self.manifest.begins_at(name):  # then it was killed
            return relative in start.protected
        sha256 = self.manifest.output_hashes(name).get(relative)
        if sha256 is None:
            return True
        return path.name.endswith(LABEL_SUFFIXES) and not self.overwrite and not has_hash(path, sha256)

    def outdated_outputs(self, outputs: Container[str], before: Mapping[str, str]) -> list[Path]:
        """Return the unchanged files of an earlier result of an image that the new outputs do not replace."""
        old = ((self.out / path, sha256) for path, sha256 in before.items() if path not in outputs)
        return [path for path, sha256 in old if has_hash(path, sha256)]

    def note_shard_start(self, shard: tuple[int, int] | None) -> None:
        """Note that work on a shard begins."""
        if shard is not None:
            self.locks.append_note(json.dumps({"shard": shard, "ended": False}))

    def note_shard_end(self, shard: tuple[int, int]) -> bool:
        """Note that a shard is done, and return whether all others are."""
        with self.locks.exclusive("shards"):
            self.locks.append_note(json.dumps({"shard": shard, "ended": True}))
            self.notes.refresh(self.locks)
        return all(self.notes.shards.get((number + 1, shard[1])) for number in range(shard[1]))


def check_tables(out: Path, options: BatchOptions, images: int) -> None:
    """Check that no file of a folder has the name of a table on so many images, and is not biounet's."""
    for name in (*_MARKS, *page_names(images)):
        path = out / name
        wanted = {"groups.csv": options.group is not None}.get(name, options.overlay or not _is_report(name))
        if wanted and os.path.lexists(path) and not is_own_table(path):
            cause = f"{name} is there and was not written by biounet"
            raise SettingsError(cause, path=out, hint=f"move it elsewhere, or {_OTHER_FOLDER}")


def page_names(images: int) -> list[str]:
    """Return the names of the further pages of a report on so many images."""
    return [page_path(Path(_REPORT), number).name for number in range(1, page_count(images))]


def unwanted_tables(out: Path, options: BatchOptions, images: int) -> list[Path]:
    """Return the files that an earlier run wrote about the whole batch, and this one, on so many images, does not."""
    wanted = {_REPORT, *page_names(images)} if options.overlay else set()
    wanted |= {"groups.csv"} if options.group is not None else set()
    written = [path for path in out.iterdir() if path.name == "groups.csv" or _is_report(path.name)]
    return [path for path in written if path.name not in wanted and is_own_table(path)]


def _is_report(name: str) -> bool:
    return name == _REPORT or _PAGE.fullmatch(name) is not None


def is_own_table(path: Path) -> bool:
    """Whether there is a file of a whole batch that begins as biounet's do, or is empty."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # not there, a folder, no permission
        return False
    marks = _MARKS[_REPORT if _is_report(path.name) else path.name]
    return not head or all(mark in head or mark.startswith(head) for mark in marks)


def _flatten(settings: Any, name: str = "") -> dict[str, Any]:  # noqa: ANN401 - JSON
    if not isinstance(settings, dict):
        return {name: settings} if name else {}
    return {key: value for part, inner in settings.items() for key, value in _flatten(inner, part).items()}


def _format(value: Any) -> str:  # noqa: ANN401
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
