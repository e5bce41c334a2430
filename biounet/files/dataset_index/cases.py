"""Images of several files: which files are the channels of one case."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from biounet.core import InputError
from biounet.files.dataset_index.names import ANNOTATIONS, before_annotation, is_nifti, stem_of

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")  # as nnU-Net names channels
_DATASET = "dataset.json"
_UNUSED, _SURPLUS = -1, -2  # in place of the number of a channel


@dataclass(frozen=True)
class FoundImage:
    """An image, and its place below the folder that was searched, which the results mirror.

    Attributes
    ----------
    path
        The file, of several the one of the first channel.
    relative
        The file below the folder that was searched; of a case of several files its name there, without a suffix.
    others
        The files of the further channels, in their order.
    beside
        Files of the case that are no channel, among which its annotation may be.
    unused
        Files of channels that are not asked for.
    problem
        What is wrong with the case; empty where nothing is.
    """

    path: Path
    relative: Path
    others: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()
    problem: str = ""

    @property
    def is_case(self) -> bool:
        """Whether it is named after its case, and not after its file."""
        return self.relative.name != self.path.name

    @property
    def stem(self) -> str:
        """Begin of the names of the results."""
        return self.relative.name if self.is_case else stem_of(self.relative)

    @property
    def names(self) -> tuple[str, ...]:
        """What an annotation of it can be called after, in small letters: itself, its folder, and its files."""
        own = (self.stem, self.path.parent.name, *(stem_of(file) for file in (self.path, *self.others)))
        return tuple(name.casefold() for name in own)

    def files(self) -> tuple[Path, ...]:
        """Return one file for each channel, or the one file that holds all.

        Raises
        ------
        InputError
            If a channel is missing, or there are two files for one.
        """
        if self.problem:
            raise InputError(self.problem, path=self.path)
        return (self.path, *self.others)

    def annotations(self, names: Sequence[str] = ()) -> list[Path]:
        """Return the files beside the channels that are called like an annotation; never what is merely left over.

        Parameters
        ----------
        names
            Names or patterns, as ``data.annotation`` of a recipe has them; none: `ANNOTATIONS`.
        """
        usual = {True: ANNOTATIONS, False: (*ANNOTATIONS, "mask")}
        return [file for file in self.beside if self._is_annotation(file, names or usual[is_nifti(file)])]

    def _is_annotation(self, file: Path, names: Sequence[str]) -> bool:
        """Whether a name is one of those, after nothing, or after that of the case, its folder or one of its files."""
        stem = stem_of(file).casefold()
        if any(fnmatch(stem.removeprefix(f"{self.stem.casefold()}_"), name.casefold()) for name in names):
            return True
        before = before_annotation(stem, names)
        return before is not None and before in ("", *self.names)


@dataclass
class _Case:
    """A case while its files are collected, by the number of the channel."""

    relative: Path
    files: dict[int, list[Path]] = field(default_factory=dict)


def group_cases(images: Sequence[FoundImage], channels: Sequence[str]) -> list[FoundImage]:
    """Join the files that are channels of one case; images that are none stay as they are.

    Cases are folders with a file for each channel, ``<case>/<channel>.nii.gz``; files with a common begin,
    ``<case>_<channel>.nii.gz``; or nnU-Net's ``<case>_0000.nii.gz``, whose numbers mean what ``dataset.json`` says
    and, where it has other names, the channels in their order. For one channel, only the last are cases.

    Parameters
    ----------
    images
        Files, in the order that the cases shall have.
    channels
        Names, in the order of the model.
    """
    folders: dict[Path, list[Path]] = {}
    for image in images:
        folders.setdefault(image.path.parent, []).append(image.path)
    numbers = {folder: _numbers(folder, files, channels) for folder, files in folders.items()}
    cases: dict[tuple[Path, str], _Case] = {}
    loose: list[FoundImage] = []
    for image in images:
        folder, place = image.path.parent, image.relative.parent
        found = _split(image.path, channels, numbers[folder])
        if found is None:
            loose.append(image)
            continue
        begin, number = found
        own_folder = place if place.name else Path(folder.absolute().name)
        case = cases.setdefault((folder, begin.casefold()), _Case(place / begin if begin else own_folder))
        case.files.setdefault(number, []).append(image.path)
    beside: dict[tuple[Path, str], list[Path]] = {}
    alone: list[FoundImage] = []
    for image in loose:
        if (owner := _owner(image.path, cases)) is not None:
            beside.setdefault(owner, []).append(image.path)
        else:
            alone.append(image)
    return [*(_joined(case, channels, beside.get(key, [])) for key, case in cases.items()), *alone]


def _split(path: Path, channels: Sequence[str], numbers: dict[str, int]) -> tuple[str, int] | None:
    """Return the begin of the names of a case and the number of the channel; None where the name has none."""
    stem = stem_of(path)
    if numbers and (found := _NUMBERED.fullmatch(stem)) is not None:
        return found["case"], numbers.get(found["number"], _SURPLUS)
    # The longest first: of "ce" and "t1_ce" both end "p1_t1_ce".
    for channel in sorted(channels if len(channels) > 1 else (), key=len, reverse=True):
        if stem.casefold() == channel.casefold():
            return "", channels.index(channel)
        if stem.casefold().endswith(f"_{channel}".casefold()):
            return stem[: -len(channel) - 1], channels.index(channel)
    return None


def _numbers(folder: Path, files: Sequence[Path], channels: Sequence[str]) -> dict[str, int]:
    """Return which channel each of nnU-Net's numbers is; empty where files are not named so."""
    found = [_NUMBERED.fullmatch(stem_of(file)) for file in files]
    used = {match["number"] for match in found if match is not None}
    declared = next((file for file in (folder / _DATASET, folder.parent / _DATASET) if file.is_file()), None)
    plain = {f"{number:04d}": number for number in range(len(channels))}
    if declared is None or not used:
        numbered = None not in found and all(is_nifti(file) for file in files)
        return plain if numbered and "0000" in used and (len(channels) > 1 or len(used) == 1) else {}
    named = {name.casefold(): number for number, name in _declared_channels(declared).items()}
    if not {channel.casefold() for channel in channels} <= named.keys():
        return plain
    unused = dict.fromkeys(named.values(), _UNUSED)
    return unused | {named[channel.casefold()]: number for number, channel in enumerate(channels)}


def _declared_channels(path: Path) -> dict[str, str]:
    """Return the names of the channels in a ``dataset.json``, by their number of four digits."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = content.get("channel_names") or content.get("modality") or {}
        return {f"{int(number):04d}": str(name) for number, name in names.items()}
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError("not the description of an nnU-Net data set", path=path) from error


def _owner(path: Path, cases: Collection[tuple[Path, str]]) -> tuple[Path, str] | None:
    """Return the case that a file which is no channel belongs to: the one with the longest common begin."""
    begin = stem_of(path).casefold()
    while begin:
        begin = begin.rpartition("_")[0]
        if (path.parent, begin) in cases:
            return path.parent, begin
    return None


def _joined(case: _Case, channels: Sequence[str], beside: Sequence[Path]) -> FoundImage:
    """Return a case as an image, with what is wrong with it."""
    problems = []
    for number, channel in enumerate(channels):
        files = case.files.get(number, [])
        if len(files) != 1:
            shown = ", ".join(file.name for file in files)
            problems.append(
                f"{len(files)} files for channel '{channel}': {shown}" if files else f"no file of '{channel}'"
            )
    if surplus := case.files.get(_SURPLUS):
        shown = ", ".join(file.name for file in surplus)
        problems.append(f"{shown}: one too many, the channels are {', '.join(channels)}")
    files = [file for number in range(len(channels)) for file in case.files.get(number, [])]
    files = files or [file for some in case.files.values() for file in some]
    problem = f"case '{case.relative.as_posix()}': {'; '.join(problems)}" if problems else ""
    unused = tuple(case.files.get(_UNUSED, []))
    return FoundImage(files[0], case.relative, tuple(files[1:]), tuple(beside), unused, problem)


def named_case(inputs: Sequence[str], channels: Sequence[str]) -> FoundImage:
    """Return the case of inputs such as ``t1c=a.nii.gz``.

    Raises
    ------
    InputError
        If one has no channel of the model, or a channel has none or two.
    """
    files: dict[str, Path] = {}
    known = {channel.casefold(): channel for channel in channels}
    for given in inputs:
        name, _, path = given.partition("=")
        channel = known.get(name.casefold())
        if channel is None:
            raise InputError(
                f"no channel is called '{name}'", path=path, hint=f"the channels are {', '.join(channels)}"
            )
        if channel in files:
            raise InputError(f"a second file for channel '{name}'", path=path, hint="one case at a time, or a folder")
        if not Path(path).is_file():
            raise InputError("no such file", path=path)
        files[channel] = Path(path)
    ordered = [files[channel] for channel in channels if channel in files]
    if len(files) < len(channels):
        missing = ", ".join(f"'{channel}'" for channel in channels if channel not in files)
        raise InputError(f"no file of {missing}", path=ordered[0], hint="name one file for each channel")
    split = [_split(path, channels, {}) for path in ordered]
    begins = {place[0] if place else "" for place in split}
    name = begins.pop() if len(begins) == 1 else ""
    return FoundImage(ordered[0], Path(name or ordered[0].absolute().parent.name), tuple(ordered[1:]))
