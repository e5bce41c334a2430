"""To whom a folder of results belongs, and which of its files biounet wrote: nothing else is replaced or removed.

A folder belongs to one model with one set of settings. What a process is about to write is noted before it does, so
that files which a kill leaves without a record are known as biounet's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biounet.batch.locks import Locks
from biounet.batch.manifest import NAME, Manifest
from biounet.batch.records import BatchOptions, hash_settings, is_same, name_of, path_of_record, path_on_record
from biounet.core import SettingsError
from biounet.files import FoundImage, hash_file
from biounet.network import Model
from biounet.reporting import LABEL_SUFFIXES, output_paths

_ELSEWHERE = "choose another folder for the results"
_SHOWN = 3  # names that a message lists
_HEAD = 4096  # bytes by which a file is told
# How files of a whole batch begin, or what stands near their begin.
_FORMS: dict[str, tuple[bytes, ...]] = {
    "counts.csv": (b"image,status,count,seconds,message\n",),
    "run.json": (b'"biounet":', b'"torch":'),
    "report.html": (b"Content-Security-Policy", b"form-action", b'<meta name="color-scheme" content="light dark">'),
    NAME: (b'{"biounet": 1, ',),
}


@dataclass(frozen=True)
class _Begun:
    """What was noted before the outputs of an image were written.

    Attributes
    ----------
    at
        Where the manifest ended then; a record after that says that they are complete.
    kept
        Paths of the files that were there and are not biounet's.
    """

    at: int
    kept: frozenset[str]


@dataclass
class Notes:
    """What processes that work or worked in a folder noted in the file of the claims."""

    owner: dict[str, Any] = field(default_factory=dict)
    begun: dict[str, _Begun] = field(default_factory=dict)
    shards: dict[tuple[int, int], bool] = field(default_factory=dict)

    def refresh(self, claims: Locks) -> None:
        """Read what was noted since the last look; what has another form is no note."""
        for line in claims.notes():
            try:
                note = json.loads(line)
                if "owner" in note:
                    self.owner = dict(note["owner"])
                elif "begun" in note:
                    self.begun[str(note["begun"])] = _Begun(int(note["at"]), frozenset(map(str, note["kept"])))
                elif "shard" in note:
                    first, count = map(int, note["shard"])
                    self.shards[first, count] = bool(note["ended"])
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
                continue


@dataclass(frozen=True)
class Ownership:
    """What is biounet's own in a folder of results.

    Attributes
    ----------
    out
        The folder.
    claims, manifest
        Of this folder.
    overwrite
        Whether a label image that somebody changed may be replaced.
    hash_input
        Gives the SHA-256 of an image.
    """

    out: Path
    claims: Locks
    manifest: Manifest
    overwrite: bool = False
    hash_input: Callable[[Path], str] = hash_file
    notes: Notes = field(default_factory=Notes)

    def occupy(self, model: Model, settings: Mapping[str, Any]) -> None:
        """Make the folder that of a model and settings, until the end of the process.

        Raises
        ------
        SettingsError
            If it belongs to others: there are results of theirs, or they are at work.
        """
        mine = {"model": model.sha256, "settings": json.loads(json.dumps(settings))}
        with self.claims.hold("owner"):
            self.notes.refresh(self.claims)
            self.manifest.refresh()
            if self._belongs_to_others(mine):
                if not self.overwrite and self._has_results():
                    hint = f"{_ELSEWHERE}, or replace them with --overwrite"
                    raise SettingsError(f"holds results of {self._other(mine)}", path=self.out, hint=hint)
                if not self.claims.join(alone=True):
                    cause = f"another process is at work here with {self._other(mine)}"
                    raise SettingsError(cause, path=self.out, hint=_ELSEWHERE)
            if self.notes.owner != mine:
                self.claims.note(json.dumps({"owner": mine}))
                self.notes.owner = mine
            self.claims.join(alone=False)

    def _belongs_to_others(self, mine: Mapping[str, Any]) -> bool:
        if self.notes.owner:
            return self.notes.owner != mine
        identity = (mine["model"], hash_settings(mine["settings"]))
        return any(
            record.outputs and (record.model, record.settings) != identity for record in self.manifest.records.values()
        )

    def _has_results(self) -> bool:
        paths = (path for record in self.manifest.records.values() for path in record.outputs)
        return any(os.path.lexists(self.out / path) for path in paths)

    def _other(self, mine: Mapping[str, Any]) -> str:
        """Say what is other about the model and settings that the folder belongs to."""
        owner = self.notes.owner or {"model": "", "settings": None}
        models = {record.model for record in self.manifest.records.values()} | {owner["model"]}
        if models - {"", mine["model"]}:
            return f"another model ({', '.join(sorted(str(one)[:12] for one in models - {'', mine['model']}))})"
        there, here = _flat(owner.get("settings")), _flat(mine["settings"])
        names = [name for name in here if there and there.get(name) != here[name]]
        said = [f"{name} {_shown(there.get(name))}, now {_shown(here[name])}" for name in names[:_SHOWN]]
        return f"other settings ({'; '.join(said)})" if said else "other settings"

    def refuse_other_inputs(self, images: Iterable[FoundImage]) -> None:
        """Refuse images whose names are those of other images, which are still there and have results here.

        Raises
        ------
        SettingsError
            Naming them.
        """
        if self.overwrite:
            return
        other = [image for image in images if self._is_of_another(image)]
        if other:
            more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
            shown = ", ".join(str(self._input_of(image)) for image in other[:_SHOWN])
            hint = f"{_ELSEWHERE}, or replace them with --overwrite"
            raise SettingsError(
                f"holds results of other images of these names: {shown}{more}", path=self.out, hint=hint
            )

    def _input_of(self, image: FoundImage) -> Path | None:
        record = self.manifest.records.get(name_of(image))
        if record is None or not record.outputs:
            return None
        return path_of_record(record.inputs[0].path, self.out)

    def _is_of_another(self, image: FoundImage) -> bool:
        before = self._input_of(image)
        if before is None or image.problem:
            return False
        known = self.manifest.records[name_of(image)].inputs[0]
        if known.path == path_on_record(image.path, self.out) or before.resolve() == image.path.resolve():
            return False
        return is_same(before, known, self.hash_input) and not is_same(image.path, known, self.hash_input)

    def begin(self, image: FoundImage) -> frozenset[Path]:
        """Note that the outputs of an image are about to be written; return the files that must not be replaced."""
        name = name_of(image)
        self.notes.refresh(self.claims)
        kept = frozenset(path for path in output_paths(image, self.out) if self._is_foreign(path, name))
        at = self.manifest.end
        names = sorted(self._relative(path) for path in kept)
        self.claims.note(json.dumps({"begun": name, "at": at, "kept": names}))
        self.notes.begun[name] = _Begun(at, frozenset(names))
        return kept

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def _is_foreign(self, path: Path, name: str) -> bool:
        """Whether a file is there that biounet did not write, or a label image that somebody has changed."""
        if not os.path.lexists(path):  # which says so of a name that is too long, too
            return False
        relative, begun = self._relative(path), self.notes.begun.get(name)
        if begun is not None and begun.at > self.manifest.places.get(name, -1):  # a kill came between
            return relative in begun.kept
        digest = self.manifest.written.get(name, {}).get(relative)
        if digest is None:
            return True
        return path.name.endswith(LABEL_SUFFIXES) and not self.overwrite and not _has_hash(path, digest)

    def left_over(self, outputs: Iterable[str], before: Mapping[str, str]) -> list[Path]:
        """Return the files of an earlier result of an image in whose place nothing came, if they are as they were."""
        old = {path: digest for path, digest in before.items() if path not in set(outputs)}
        return [self.out / path for path, digest in old.items() if _has_hash(self.out / path, digest)]

    def begin_shard(self, shard: tuple[int, int] | None) -> None:
        """Note that work on a shard begins."""
        if shard is not None:
            self.claims.note(json.dumps({"shard": shard, "ended": False}))

    def end_shard(self, shard: tuple[int, int]) -> bool:
        """Note that a shard is done, and return whether all others are."""
        with self.claims.hold("shards"):
            self.claims.note(json.dumps({"shard": shard, "ended": True}))
            self.notes.refresh(self.claims)
        return all(self.notes.shards.get((number + 1, shard[1])) for number in range(shard[1]))


def refuse_foreign_tables(out: Path, options: BatchOptions, names: Sequence[str]) -> None:
    """Refuse a folder in which a file that is none of biounet's has the name of one that would be written.

    Raises
    ------
    SettingsError
        Naming it.
    """
    for name in (*names, NAME):
        path = out / name
        if (options.overlay or name != "report.html") and os.path.lexists(path) and not is_own_table(path):
            cause = f"{name} is there and was not written by biounet"
            raise SettingsError(cause, path=out, hint=f"move it elsewhere, or {_ELSEWHERE}")


def is_own_table(path: Path) -> bool:
    """Whether there is a file of a whole batch that begins as biounet's do, or is empty."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:  # not there, a folder, closed to us
        return False
    return not head or all(part in head or part.startswith(head) for part in _FORMS[path.name])


def _has_hash(path: Path, digest: str) -> bool:
    try:
        return hash_file(path) == digest
    except OSError:
        return False


def _flat(settings: Any, name: str = "") -> dict[str, Any]:  # noqa: ANN401 - JSON
    if not isinstance(settings, dict):
        return {name: settings} if name else {}
    return {key: value for part, inner in settings.items() for key, value in _flat(inner, part).items()}


def _shown(value: Any) -> str:  # noqa: ANN401
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
