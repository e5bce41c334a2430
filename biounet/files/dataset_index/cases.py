"""Images of several files: which files are the channels of one case."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path

from biounet.core import InputError
from biounet.files.axes import ReadOptions, split_scenes
from biounet.files.dataset_index.names import (
    ANNOTATION_NAMES,
    image_key,
    is_nifti,
    split_annotation,
    stem_of,
    telling_folder,
)

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")  # as nnU-Net names channels
_DATASET = "dataset.json"
_UNUSED, _SURPLUS = -1, -2  # instead of the index of a channel


@dataclass(frozen=True)
class FoundImage:
    """An image or case, and its path below the folder that was searched, which the results mirror.

    Of a case, `path` is the file of the first channel, and `relative` has the name of the case, without a suffix.
    """

    path: Path
    relative: Path
    others: tuple[Path, ...] = ()  # of the further channels, in their order
    companions: tuple[Path, ...] = ()  # no channels; its annotation may be among them
    unused: tuple[Path, ...] = ()  # of channels that were not asked for
    problem: str = ""  # with the case; empty if none
    channels: tuple[str, ...] = ()  # names of the files, where these are channels and no inputs of the model
    scene: str = ""  # which image of a path that holds several, as in `ReadOptions`
    is_folder: bool = False  # whether the files of the image are in the folder that `path` is
    folder: Path | None = None  # of DICOM: where its files lie, whose name its annotation may have

    @property
    def is_case(self) -> bool:
        """Whether it is named after its case and not after its file."""
        return self.relative.name != self.path.name

    @property
    def stem(self) -> str:
        """How the names of the results begin."""
        return self.relative.name if self.is_case else stem_of(self.relative)

    @property
    def key(self) -> str:
        """What its annotation has in common with it."""
        return image_key(self.relative.parent, self.stem)

    @property
    def names(self) -> tuple[str, ...]:
        """Names that may precede that of its annotation, casefolded: its own, its folder's, and those of its files."""
        names = (self.stem, self.path.parent.name, *(stem_of(file) for file in (self.path, *self.others)))
        return tuple(name.casefold() for name in names)

    @property
    def parts(self) -> list[tuple[Path, str]]:
        """Its files, each with its scene."""
        paths = (self.path, *self.others)
        return [*zip(paths, split_scenes(self.scene, len(paths)), strict=True)]

    def files(self) -> tuple[Path, ...]:
        """Return one file for each channel, or the one file that holds all; raise an `InputError` for a `problem`."""
        if self.problem:
            raise InputError(self.problem, path=self.path)
        return (self.path, *self.others)

    def read_options(self, options: ReadOptions) -> ReadOptions:
        """Return the options by which its files are read, which then have the names of its channels, and its scene."""
        options = replace(options, channels=self.channels) if self.channels else options
        return replace(options, scene=self.scene)  # what a user says names the scenes of all files

    def annotations(self, patterns: Sequence[str] = ()) -> list[Path]:
        """Return the companions whose names match ``data.annotation`` of a recipe; empty: the usual ones."""
        usual = {True: ANNOTATION_NAMES, False: (*ANNOTATION_NAMES, "mask")}
        return [file for file in self.companions if self._is_annotation(file, patterns or usual[is_nifti(file)])]

    def _is_annotation(self, file: Path, patterns: Sequence[str]) -> bool:
        """Whether a name matches, alone or after that of the case, its folder or one of its files."""
        stem = stem_of(file).casefold()
        if any(fnmatch(stem.removeprefix(f"{self.stem.casefold()}_"), pattern.casefold()) for pattern in patterns):
            return True
        return split_annotation(stem, patterns) in ("", *self.names)


@dataclass
class _Case:
    """The files of a case by the index of their channel, while they are collected."""

    relative: Path
    files: dict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))
    companions: list[Path] = field(default_factory=list)

    def as_image(self, channels: Sequence[str]) -> FoundImage:
        """Return the case as an image of these channels, with its problem where files are missing or too many."""
        problems = []
        for index, channel in enumerate(channels):
            if (number := len(self.files[index])) != 1:
                several = f"{number} files for channel '{channel}': {_names(self.files[index])}"
                problems.append(several if number else f"no file of '{channel}'")
        if surplus := self.files[_SURPLUS]:
            problems.append(f"{_names(surplus)}: one too many, the channels are {', '.join(channels)}")
        files = [file for index in range(len(channels)) for file in self.files[index]]
        files = files or [file for group in self.files.values() for file in group]
        problem = f"case '{self.relative.as_posix()}': {'; '.join(problems)}" if problems else ""
        unused = tuple(self.files[_UNUSED])
        return FoundImage(files[0], self.relative, tuple(files[1:]), tuple(self.companions), unused, problem)


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)


def group_cases(images: Sequence[FoundImage], channels: Sequence[str]) -> list[FoundImage]:
    """Join the files that are channels of one case; other images stay as they are.

    Cases are folders with a file for each channel, ``<case>/<channel>.nii.gz``; files whose names begin the same,
    ``<case>_<channel>.nii.gz``; or nnU-Net's ``<case>_0000.nii.gz``, whose numbers mean what ``dataset.json`` says
    or, where its names are others, the channels in their order. For one channel, only the last are cases.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        folders[image.path.parent].append(image.path)
    numbers = {folder: _channel_numbers(folder, files, channels) for folder, files in folders.items()}
    cases: dict[tuple[Path, str], _Case] = {}
    single: list[FoundImage] = []
    for image in images:
        folder, parent = image.path.parent, image.relative.parent
        split = split_channel(image.path, channels, numbers[folder])
        if split is None:
            single.append(image)
            continue
        name, index = split
        relative = parent / name if name else parent if parent.name else Path(folder.absolute().name)
        cases.setdefault((folder, name.casefold()), _Case(relative)).files[index].append(image.path)
    images = []
    for image in single:
        if (case := _find_case(image.path, cases)) is not None:
            cases[case].companions.append(image.path)
        else:
            images.append(image)
    return [*(case.as_image(channels) for case in cases.values()), *images]


def split_channel(path: Path, channels: Sequence[str], numbers: dict[str, int]) -> tuple[str, int] | None:
    """Return the name of the case in a file name and the index of the channel; None if it names no channel."""
    stem = stem_of(path)
    if numbers and (match := _NUMBERED.fullmatch(stem)) is not None:
        return match["case"], numbers.get(match["number"], _SURPLUS)
    # The longest first: "p1_t1_ce" ends in both "ce" and "t1_ce".
    for channel in sorted(channels if len(channels) > 1 else (), key=len, reverse=True):
        if stem.casefold() == channel.casefold():
            return "", channels.index(channel)
        if stem.casefold().endswith(f"_{channel}".casefold()):
            return stem[: -len(channel) - 1], channels.index(channel)
    return None


def _channel_numbers(folder: Path, files: Sequence[Path], channels: Sequence[str]) -> dict[str, int]:
    """Return the index of the channel of each of nnU-Net's numbers; empty if the files are not numbered."""
    matches = [_NUMBERED.fullmatch(stem_of(file)) for file in files]
    numbers = {match["number"] for match in matches if match is not None}
    dataset = next((file for file in (folder / _DATASET, folder.parent / _DATASET) if file.is_file()), None)
    in_order = {f"{index:04d}": index for index in range(len(channels))}
    if dataset is None or not numbers:
        all_numbered = None not in matches and all(is_nifti(file) for file in files)
        return in_order if all_numbered and "0000" in numbers and (len(channels) > 1 or len(numbers) == 1) else {}
    declared = {name.casefold(): number for number, name in _declared_channels(dataset).items()}
    if not {channel.casefold() for channel in channels} <= declared.keys():
        return in_order
    unused = dict.fromkeys(declared.values(), _UNUSED)
    return unused | {declared[channel.casefold()]: index for index, channel in enumerate(channels)}


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


def _find_case(path: Path, cases: Collection[tuple[Path, str]]) -> tuple[Path, str] | None:
    """Return the case of a file that is no channel: the one whose name is the longest beginning of the file's."""
    name = stem_of(path).casefold()
    while name:
        name = name.rpartition("_")[0]
        if (path.parent, name) in cases:
            return path.parent, name
    return None


def parse_case(inputs: Sequence[str], channels: Sequence[str]) -> FoundImage:
    """Return the case that inputs such as ``t1c=a.nii.gz`` name; raise an `InputError` unless each channel has one."""
    files: dict[str, Path] = {}
    by_name = {channel.casefold(): channel for channel in channels}
    for text in inputs:
        name, _, path = text.partition("=")
        channel = by_name.get(name.casefold())
        if channel is None:
            hint = f"the channels are {', '.join(channels)}"
            raise InputError(f"no channel is called '{name}'", path=path, hint=hint)
        if channel in files:
            raise InputError(f"a second file for channel '{name}'", path=path, hint="one case at a time, or a folder")
        if not (Path(path).is_file() or Path(path).is_dir()):
            raise InputError("no such file", path=path)
        files[channel] = Path(path)
    ordered = [files[channel] for channel in channels if channel in files]
    if len(files) < len(channels):
        missing = ", ".join(f"'{channel}'" for channel in channels if channel not in files)
        raise InputError(f"no file of {missing}", path=ordered[0], hint="name one file for each channel")
    splits = [split_channel(path, channels, {}) for path in ordered]
    names = {split[0] if split else "" for split in splits}
    name = names.pop() if len(names) == 1 else ""
    name = name or _shared_entities(ordered)
    folder = ordered[0].absolute().parent
    folder = telling_folder(folder) if ordered[0].is_dir() else folder  # of a DICOM series
    return FoundImage(ordered[0], Path(name or folder.name), tuple(ordered[1:]))


def _shared_entities(files: Sequence[Path]) -> str:
    """Return the entities that names of BIDS begin with alike: ``sub-1`` of ``sub-1_FLAIR`` and ``sub-1_ce-gd_T1w``."""
    names = [stem_of(file).split("_") for file in files]
    shared = takewhile(lambda parts: len({*parts}) == 1, zip(*names, strict=False))
    entities = [parts[0] for parts in shared if "-" in parts[0]]
    return "_".join(entities) if entities and entities[0].startswith("sub-") else ""
