"""The images in folders of DICOM files: each series by itself, or the series of a study as the channels of a case."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from biounet.core import InputError, require_extra
from biounet.files.axes import join_scenes
from biounet.files.dataset_index.cases import FoundImage, split_channel
from biounet.files.dataset_index.channel_names import match_channels
from biounet.files.dataset_index.names import image_key, name_part, says_nothing, telling_folder, unique_values
from biounet.files.dataset_index.scan import FileKind, ScannedFile, SkippedFile
from biounet.files.formats.dicom.headers import DICOM_SUFFIXES, EXTRA, DicomFile, looks_like_dicom, read_header
from biounet.files.formats.dicom.segmentation import is_segmentation
from biounet.files.formats.dicom.series import (
    Series,
    SeriesChoice,
    describe_series,
    group_series,
    inspect_files,
    is_scene,
    make_scene,
    parse_choices,
    parse_scene,
)

_HASH = 6  # digits that tell series of one name apart


@dataclass(frozen=True)
class DicomSearch:
    """What is in DICOM files: images, files that are none, and segmentations."""

    images: list[FoundImage]
    skipped: list[SkippedFile]
    segmentations: list[Path]


def dicom_files(files: Iterable[ScannedFile]) -> list[Path]:
    """Return those files that begin or are called like DICOM, and have no name of an image of another format."""
    return [file.path for file in files if file.kind is FileKind.OTHER and looks_like_dicom(file.path)]


def find_dicom(paths: Sequence[Path], root: Path, channels: Sequence[str] = (), series: str = "") -> DicomSearch:
    """Return the images in DICOM files below a folder.

    Parameters
    ----------
    channels
        Of the model. If there are several, a case is a study of which a series fits each: by the name of its folder, by
        its description, or as `series` says.
    series
        Which series are images, as `parse_choices` reads it; empty: all but localisers, captures and the like.
    """
    if not paths:
        return DicomSearch([], [], [])
    try:
        require_extra(EXTRA, "pydicom", "DICOM", root)
    except InputError as error:
        folders = dict.fromkeys(path.parent for path in paths)
        return DicomSearch([_problem_image(folder, root, error, is_folder=True) for folder in folders], [], [])
    files, errors = inspect_files(paths)
    choices = parse_choices(series)
    segmentations = [file.path for file in files if file.is_segmentation]
    groups, skipped = _select(group_series(files), choices)
    names = _Names(root)
    if len(channels) > 1:
        images, unused = _cases(groups, channels, choices, names)
        skipped += unused
    else:
        images = [image for one in groups for choice in _fitting(one, choices) for image in names.images(one, choice)]
    images = _with_unique_names(images)
    images += [_problem_image(Path(str(error.path)), root, error) for error in errors]
    return DicomSearch(images, skipped, segmentations)


def series_keys(images: Iterable[FoundImage]) -> dict[str, str]:
    """Return the keys of images of DICOM files by the UIDs of their series, where one image is of it."""
    return unique_values((parse_scene(scene)[0], image.key) for image in images for _, scene in _dicom_parts(image))


def folder_keys(images: Iterable[FoundImage]) -> dict[Path, list[str]]:
    """Return the keys of the folders of DICOM files, in which one image is, by the path of that image."""
    folders = [
        (image_key(folder.parent, folder.name), image.relative)
        for image in images
        if image.folder is not None
        for folder in (image.folder, *image.folder.parents)
        if folder.name
    ]
    keys: dict[Path, list[str]] = defaultdict(list)
    for key, relative in unique_values(folders).items():
        keys[relative].append(key)
    return keys


def referenced_series(path: Path) -> str:
    """Return the UID of the series that a DICOM SEG is of; empty for other files."""
    return read_header(path).referenced if is_segmentation(path) else ""


def _dicom_parts(image: FoundImage) -> list[tuple[Path, str]]:
    return [(path, scene) for path, scene in image.parts if is_scene(scene)]


def _select(series: Sequence[Series], choices: Sequence[SeriesChoice]) -> tuple[list[Series], list[SkippedFile]]:
    """Return the series that are images, and the first file of each of the others with the reason."""
    groups: list[Series] = []
    skipped: list[SkippedFile] = []
    for one in series:
        fitting = _fitting(one, choices)
        count = f", {len(one.files)} files" if len(one.files) > 1 else ""
        if one.refusal and not (one.first.frames and any(choice.is_explicit for choice in fitting)):
            reason = f"{one.refusal} {one.label}".strip()
            skipped.append(SkippedFile(one.first.path, f"{reason}{count}", expected=one.first.is_segmentation))
        elif not fitting:
            skipped.append(SkippedFile(one.first.path, f"series {one.label} was not chosen{count}", expected=True))
        else:
            groups.append(one)
    return groups, skipped


def _fitting(series: Series, choices: Sequence[SeriesChoice]) -> list[SeriesChoice]:
    """Return the choices that a series fits; without any, or where they are for some channels, all series are."""
    fitting = [choice for choice in choices if choice.matches(series)]
    return fitting or ([] if choices and not any(choice.channel for choice in choices) else [SeriesChoice()])


def _problem_image(path: Path, root: Path, error: InputError, *, is_folder: bool = False) -> FoundImage:
    relative = path.relative_to(root) if path != root and path.is_relative_to(root) else Path(path.absolute().name)
    problem = f"{error.cause} (hint: {error.hint})" if error.hint else error.cause
    return FoundImage(path, relative, problem=problem, is_folder=is_folder)


@dataclass(frozen=True)
class _Names:
    """How the images in a folder are called."""

    root: Path

    def images(self, series: Series, choice: SeriesChoice) -> list[FoundImage]:
        """Return a series as an image: a volume, or each of its files that do not say where they lie."""
        placed = any(frame.position for file in series.files for frame in file.frames)
        if not placed:
            return [FoundImage(file.path, self._of_file(file.path)) for file in series.files]
        path, folder = _place(series)
        name = self.name(folder, series.first, choice.traits)
        scene = make_scene(series.uid, choice.traits)
        return [FoundImage(path, name, scene=scene, is_folder=path == folder, folder=self.relative(folder))]

    def name(self, folder: Path, first: DicomFile, traits: Iterable[tuple[str, str]] = ()) -> Path:
        """Return the path of a folder below the root, with number and description of a series appended."""
        number = [] if first.number is None else [str(first.number)]
        description = name_part(first.description)
        chosen = [name_part(f"{trait}{value}") for trait, value in traits]
        relative = self.relative(folder)
        parts = [relative.name, *number, *filter(None, [description]), *chosen]
        return relative.with_name("_".join(parts if len(parts) > 1 else [*parts, "series"]))

    def relative(self, folder: Path) -> Path:
        """Return the path of a folder below the root, which has its own name; without one such as ``DICOM`` at its end.

        A point in the name would begin a suffix.
        """
        relative = Path(folder.absolute().name) if folder == self.root else folder.relative_to(self.root)
        while len(relative.parts) > 1 and says_nothing(relative):
            relative = relative.parent
        if says_nothing(relative):
            relative = Path(telling_folder(self.root).name)
        return relative.with_name(relative.name.replace(".", "-"))

    def _of_file(self, path: Path) -> Path:
        """Return the path of a picture; its name may be a UID, whose last part is no suffix."""
        relative = path.relative_to(self.root) if path.is_relative_to(self.root) else Path(path.name)
        return relative if path.suffix.lower() in DICOM_SUFFIXES else relative.with_name(path.name.replace(".", "-"))


def _place(series: Series) -> tuple[Path, Path]:
    """Return the path of a series, its folder or its only file, and its folder."""
    folder = Path(os.path.commonpath([file.path.parent for file in series.files]))
    return (folder if len(series.files) > 1 else series.first.path), folder


def _with_unique_names(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Append a few digits of the hash of the UID where series have one name."""
    counts = Counter(image.relative for image in images)

    def distinguish(image: FoundImage) -> FoundImage:
        if counts[image.relative] == 1 or not image.scene:
            return image
        digits = hashlib.sha256(f"{image.scene} {image.path}".encode()).hexdigest()[:_HASH]
        return replace(image, relative=image.relative.with_name(f"{image.relative.name}_{digits}"))

    return list(map(distinguish, images))


def _cases(
    series: Sequence[Series], channels: Sequence[str], choices: Sequence[SeriesChoice], names: _Names
) -> tuple[list[FoundImage], list[SkippedFile]]:
    """Return the cases: of each study, or folder with a folder for each channel, the series of the channels."""
    studies: dict[object, list[Series]] = defaultdict(list)
    for one in series:
        folder = _place(one)[1]
        is_channel = split_channel(folder, channels, {}) is not None
        studies[folder.parent if is_channel else one.first.study or folder].append(one)
    images, skipped = [], []
    for group in studies.values():
        folder = Path(os.path.commonpath([_place(one)[1] for one in group]))
        found, problem = _match(group, channels, choices)
        used = [one for one in found.values() if one is not None]
        skipped += [
            SkippedFile(one.first.path, f"no channel of the model: series {one.label}", expected=True)
            for one in group
            if one not in used
        ]
        ordered = used if not problem else group
        paths = [_place(one)[0] for one in ordered]
        traits = {choice.channel: choice.traits for choice in choices}
        scenes = [make_scene(one.uid, traits.get(name, ())) for name, one in found.items() if one is not None]
        scene = join_scenes(scenes if not problem else [one.uid for one in group])
        image = FoundImage(paths[0], names.relative(folder), tuple(paths[1:]), scene=scene, problem=problem)
        images.append(replace(image, is_folder=paths[0].is_dir(), folder=image.relative))
    return images, skipped


def _match(
    series: Sequence[Series], channels: Sequence[str], choices: Sequence[SeriesChoice]
) -> tuple[dict[str, Series | None], str]:
    """Return the series of each channel, and the problem where it is not one for each."""
    wanted = {choice.channel.casefold(): choice for choice in choices if choice.channel}
    candidates: dict[str, list[Series]] = {}
    by_text = match_channels([_texts(one) for one in series], channels)
    for channel in channels:
        by_folder = [one for one in series if _is_in_folder_of(one, channel, channels)]
        choice = wanted.get(channel.casefold())
        by_choice = [] if choice is None else [one for one in series if choice.matches(one)]
        candidates[channel] = by_choice if choice else by_folder or [series[n] for n in by_text[channel]]
    problems = []
    for channel, found in candidates.items():
        if len(found) != 1:
            several = f"{len(found)} series could be '{channel}': {describe_series(found)}"
            problems.append(several if found else f"no series of '{channel}'")
    if not problems:
        return {channel: found[0] for channel, found in candidates.items()}, ""
    there = "" if all(candidates.values()) else f"; there are {describe_series(series)}"
    example = ",".join(f"{channel}=PATTERN" for channel in channels)
    return {}, f"{'; '.join(problems)}{there} (hint: say which with --series '{example}')"


def _texts(series: Series) -> str:
    return f"{series.first.description} {'contrast' if series.first.is_contrast else ''}".strip()


def _is_in_folder_of(series: Series, channel: str, channels: Sequence[str]) -> bool:
    split = split_channel(_place(series)[1], channels, {})
    return split is not None and channels[split[1]] == channel
