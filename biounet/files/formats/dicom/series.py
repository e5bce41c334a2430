"""The series in a folder of DICOM files, and how users choose among them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from biounet.core import InputError, SettingsError, list_some
from biounet.files.formats.dicom.headers import (
    DIRECTORY,
    DicomFile,
    is_certainly_dicom,
    looks_like_dicom,
    read_header,
)

TRAITS = ("type", "echo", "inversion", "b", "direction", "time", "trigger", "acquisition", "acquired", "stack")
"""What distinguishes volumes of one series, in a choice such as ``DWI* b=1000``."""

_TRAIT = re.compile(rf"(?:^|\s)({'|'.join(TRAITS)})=(\S+)")
_UID = re.compile(r"[0-9.]+")
_SHOWN = 5
_TRIED = 200  # files of a folder that are opened


@dataclass(frozen=True)
class Series:
    """Files of one SeriesInstanceUID, in order of name."""

    uid: str
    files: tuple[DicomFile, ...]

    @property
    def first(self) -> DicomFile:
        """The first file."""
        return self.files[0]

    @property
    def label(self) -> str:
        """Number and description, for messages."""
        number = [] if self.first.number is None else [str(self.first.number)]
        return " ".join([*number, f"'{self.first.description}'"]) if self.first.description else " ".join(number)

    @property
    def refusal(self) -> str:
        """What the series is that is no image; empty if it is one."""
        return self.first.refusal


@dataclass(frozen=True)
class SeriesChoice:
    """A choice of series: a pattern of the description, a number or a UID, and traits of a volume in it.

    `channel` is the channel of the model that it is for, empty for any.
    """

    pattern: str = "*"
    traits: tuple[tuple[str, str], ...] = ()
    channel: str = ""

    def matches(self, series: Series) -> bool:
        """Whether a series is chosen."""
        name, pattern = series.first.description.casefold(), self.pattern.casefold()
        return fnmatch(name, pattern) or self.pattern in (series.uid, str(series.first.number))

    @property
    def is_explicit(self) -> bool:
        """Whether it names series, so that localisers and captures that it matches are meant."""
        return self.pattern != "*"


def parse_choices(text: str) -> tuple[SeriesChoice, ...]:
    """Return the choices in a text such as ``T1*``, ``DWI* b=1000`` or ``t1c=*MPRAGE*,flair=*FLAIR*``."""
    choices = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        traits = tuple(_TRAIT.findall(part))
        pattern = _TRAIT.sub("", part).strip()
        channel, equals, rest = pattern.partition("=")
        if equals and not (channel.strip() and rest.strip()):
            raise SettingsError(f"series '{part}': a channel and a pattern, such as flair=*FLAIR*")
        channel, pattern = (channel.strip(), rest.strip()) if equals else ("", pattern)
        choices.append(SeriesChoice(pattern or "*", traits, channel))
    return tuple(choices)


def make_scene(uid: str, traits: Iterable[tuple[str, str]] = ()) -> str:
    """Return how `ReadOptions.scene` names a volume: the UID of its series, and the traits that tell it from others."""
    return " ".join([uid, *(f"{name}={value}" for name, value in traits)])


def parse_scene(scene: str) -> tuple[str, dict[str, str]]:
    """Return the UID and the traits of a scene."""
    return _TRAIT.sub("", scene).strip(), dict(_TRAIT.findall(scene))


def is_scene(scene: str) -> bool:
    """Whether a scene is one of DICOM, and no number of a scene in a file of a microscope."""
    uid = parse_scene(scene)[0]
    return "." in uid and _UID.fullmatch(uid) is not None


def inspect_files(paths: Iterable[Path]) -> tuple[list[DicomFile], list[InputError]]:
    """Return the headers of those files that are DICOM, and an error for each that is damaged."""
    files, errors = [], []
    for path in paths:
        if not looks_like_dicom(path):
            continue
        try:
            files.append(read_header(path))
        except InputError as error:
            if is_certainly_dicom(path):
                errors.append(error)
    return files, errors


def group_series(files: Iterable[DicomFile]) -> list[Series]:
    """Return the series of files; what is not an image in a series that has images is one of its own.

    Files of one series in several folders are one, unless a slice is in two of them: then these are copies.
    """
    groups: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    for file in files:
        if file.sop_class != DIRECTORY:
            groups[file.series or f"folder {file.path.parent}", file.refusal].append(file)
    series = []
    for (uid, _), group in groups.items():
        uid = "" if uid.startswith("folder ") else uid
        series += [Series(uid, tuple(part)) for part in _separate_copies(group)]
    return series


def _separate_copies(files: Sequence[DicomFile]) -> Iterator[list[DicomFile]]:
    folders: dict[Path, list[DicomFile]] = defaultdict(list)
    for file in files:
        folders[file.path.parent].append(file)
    names = [{file.instance for file in group} for group in folders.values()]
    if sum(map(len, names)) > len(set().union(*names)):
        yield from folders.values()
    else:
        yield [*files]


def series_files(path: Path, scene: str) -> list[DicomFile]:
    """Return the files of a series in a folder and below, by its scene; or the one file that `path` is.

    Without a scene, the folder must hold one series of images.

    Raises
    ------
    InputError
        If it is not there, or there are several; if one of its files is damaged.
    """
    if not path.is_dir():
        return [read_header(path)]
    files, errors = inspect_files(walk(path))
    uid = parse_scene(scene)[0]
    found = [one for one in group_series(files) if one.uid == uid] if uid else group_series(files)
    usable = [one for one in found if not one.refusal] or ([one for one in found if one.first.frames] if uid else [])
    if len(usable) > 1:
        hint = "choose one with --series, by a pattern of its description, its number or its UID"
        raise InputError(f"{len(usable)} series: {describe_series(usable)}", path=path, hint=hint)
    if not usable:
        if errors:
            raise errors[0]
        there = describe_refused(found) if found else "no DICOM file" if not uid else "the series is not there"
        raise InputError(f"no series of images: {there}", path=path)
    _check_complete(usable[0], errors, path)
    return list(usable[0].files)


def _check_complete(series: Series, errors: Sequence[InputError], path: Path) -> None:
    """Raise `InputError` if a damaged or empty file lies among those of a series: it may be one of its slices."""
    folders = {file.path.parent for file in series.files}
    suffixes = {file.path.suffix.lower() for file in series.files}
    causes = {error.path: error.cause for error in errors}
    for file in walk(path) if len(series.files) > 1 else ():
        if file.parent not in folders:
            continue
        cause = causes.get(file)
        if cause is None and file.suffix.lower() in suffixes and not file.stat().st_size:
            cause = "empty file"
        if cause is not None:
            hint = "copy it again from where it came from, or remove it if it is none"
            raise InputError(f"{file.name}, which may be a slice of the series: {cause}", path=path, hint=hint)


def only_scene(folder: Path) -> str:
    """Return the scene of the one series of images in a folder; raise `InputError` if it holds another number."""
    if not holds_dicom(folder):
        raise InputError("a folder without DICOM files", path=folder, hint="name the file of each channel")
    return make_scene(series_files(folder, "")[0].series)


def holds_dicom(folder: Path) -> bool:
    """Whether the first files in a folder or below are DICOM."""
    return any(map(looks_like_dicom, islice(walk(folder), _TRIED)))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the visible files in a folder and below, in order of name, through links, each folder once."""
    visited: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:  # a link to a folder above would never end
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def describe_series(series: Sequence[Series]) -> str:
    """Return the labels of series."""
    return list_some([one.label or one.uid for one in series], _SHOWN)


def describe_refused(series: Sequence[Series]) -> str:
    """Return what series are that are no images, with the number of files."""
    return list_some([f"{one.refusal} {one.label}".strip() for one in series], _SHOWN, "; ")


def choose_parts(parts: Mapping[str, object], traits: Mapping[str, str]) -> list[str]:
    """Return the names of those parts of a series that have all of some traits."""
    return [name for name in parts if all(_has_trait(name, trait, value) for trait, value in traits.items())]


def _has_trait(name: str, trait: str, wanted: str) -> bool:
    value = dict(_TRAIT.findall(name)).get(trait)
    if value is None:
        return False
    try:
        return abs(float(value) - float(wanted)) <= 1e-6 * max(1.0, abs(float(value)))
    except ValueError:
        return fnmatch(value.casefold(), wanted.casefold())
