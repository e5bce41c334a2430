"""Which files are images: those of files, folders and patterns that a user names."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from biounet.core import InputError, as_path, list_some
from biounet.files.axes import join_scenes
from biounet.files.dataset_index.cases import FoundImage, group_cases, parse_case
from biounet.files.dataset_index.channel_files import parse_channel_files
from biounet.files.dataset_index.dicom_index import dicom_files, find_dicom
from biounet.files.dataset_index.names import (
    ANNOTATION_NAMES,
    MASK_ENDINGS,
    OUTPUT_ENDINGS,
    STORES,
    SUFFIXES,
    is_image,
    is_whole,
    natural_key,
    split_annotation,
    stem_of,
)
from biounet.files.dataset_index.scan import (
    FileKind,
    NameRules,
    ScannedFile,
    SkippedFile,
    list_skipped,
    scan,
)
from biounet.files.formats.dicom.headers import DIRECTORY_NAME, looks_like_dicom
from biounet.files.formats.dicom.series import only_scene
from biounet.files.formats.ome_zarr import is_zarr
from biounet.files.formats.unsupported import check_supported

_HINT = f"looked for {', '.join(SUFFIXES)}, without names that end in {', '.join((*MASK_ENDINGS, *OUTPUT_ENDINGS))}"
_SHOWN, _SHOWN_SERIES = 3, 8  # inputs and series in a message


@dataclass(frozen=True)
class Search:
    """The images that a search finds, each once in natural order, and the files that could be images and are not."""

    images: list[FoundImage]
    skipped: list[SkippedFile]


def find_images(
    inputs: Sequence[str | Path], channels: Sequence[str] = (), annotation: Sequence[str] = (), series: str = ""
) -> list[FoundImage]:
    """Find images as `search_images` does, without the skipped files."""
    return search_images(inputs, channels, annotation, series).images


def search_images(
    inputs: Sequence[str | Path], channels: Sequence[str] = (), annotation: Sequence[str] = (), series: str = ""
) -> Search:
    """Find images in files, folders (with all folders below) and patterns, in natural order, each once.

    Hidden files, annotations (``x_masks.tif``) and biounet's own outputs in folders and patterns are skipped; a file
    that is named itself is an image whatever its name. What has the name of an image and is none (a broken link, a
    pipe), and a folder below that cannot be listed, are among the images: each fails on its own. Images of one name
    are distinguished by their folders. Of DICOM files, each series is an image, or the channels of a case are.

    Parameters
    ----------
    inputs
        Files, folders, patterns; or ``<channel>=<file>`` for each channel of one case. For a model of one channel,
        these may be any names, of which one is chosen when the image is read.
    channels
        Names of the channels of the model: files that are one channel each are joined, as `group_cases` says.
    annotation
        Names or patterns of annotations, beside the usual ones.
    series
        Which series of DICOM files are images, as in `biounet.files.ReadOptions`.

    Raises
    ------
    InputError
        If an input does not exist, or nothing is found.
    """
    texts = [str(one) for one in inputs]
    case = [text for text in texts if channels and "=" in str(*Path(text).parts[:1]) and not exists(Path(text))]
    texts = [text for text in texts if text not in case]
    prefixes = _folder_prefixes(texts)
    rules = NameRules(tuple(channels), tuple(annotation), series)
    real = cache(os.path.realpath)
    by_file: dict[tuple[str, str], FoundImage] = {}
    skipped: dict[Path, SkippedFile] = {}
    slices, texts = _named_slices(texts)
    searches = [(text, _search_input(text, rules)) for text in texts]
    if slices:
        searches.append(("", _search_dicom(slices, Path(os.path.commonpath([file.parent for file in slices])), rules)))
    for text, search in searches:
        skipped.update({file.path: file for file in search.skipped})
        for image in search.images:
            key = os.path.join(real(image.path.parent), image.path.name), image.scene  # noqa: PTH118 - faster for many
            by_file.setdefault(key, replace(image, relative=prefixes.get(text, Path()) / image.relative))
    if not by_file and not case:
        raise _nothing_found([*texts, *map(str, slices)], skipped.values())
    single = _distinguish(list(by_file.values()))
    images = group_cases([image for image in single if not (image.problem or image.scene)], channels)
    images += [image for image in single if image.scene and not image.problem]
    skipped.update({file.path: file for image in images for file in _skipped_of_case(image, annotation)})
    skipped.update({file.path: file for file in _case_annotations(skipped.values(), images, annotation)})
    images += [image for image in single if image.problem]
    images = [_parse_files(case, channels), *images] if case else images
    used = {file for image in images for file in (image.path, *image.others)}
    return Search(images, [file for path, file in skipped.items() if path not in used])


def _named_slices(texts: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return DICOM files that are named one by one, as a shell does for a pattern, and the other inputs.

    They are the slices of their series. A single file is an image, and a directory of files stands for its folder.
    """
    paths = {text: Path(text) for text in texts}
    folders = {text: str(path.parent) for text, path in paths.items() if path.name.upper() == DIRECTORY_NAME}
    files = [path for text, path in paths.items() if text not in folders and not is_image(path)]
    slices = list(filter(looks_like_dicom, files))
    if len(slices) < 2:
        slices = []
    return slices, [folders.get(text, text) for text in texts if paths[text] not in slices]


def _nothing_found(texts: Sequence[str], skipped: Iterable[SkippedFile]) -> InputError:
    """Return the error of inputs in which no image is; files of a format that is not read raise their own."""
    for text in texts:
        check_supported(Path(text))
    where = list_some(list(texts), _SHOWN)
    if dicom := [file for file in skipped if looks_like_dicom(file.path)]:
        hint = "choose series with --series, by patterns of whole descriptions, such as '*FLAIR*', by numbers or UIDs"
        reasons = list_some(list(dict.fromkeys(file.reason for file in dicom)), _SHOWN_SERIES, "; ")
        return InputError(f"no series to segment: {reasons}", path=where, hint=hint)
    return InputError("no image found", path=where, hint=_HINT)


def _parse_files(case: Sequence[str], channels: Sequence[str]) -> FoundImage:
    """Return the image that ``<channel>=<file>`` name: the inputs of the model, or channels to choose from."""
    names = {text.partition("=")[0].casefold() for text in case}
    is_choice = len(channels) == 1 and names != {channels[0].casefold()}
    image = parse_channel_files(case) if is_choice else parse_case(case, channels)
    is_folder = [path.is_dir() and not is_zarr(path) for path in (image.path, *image.others)]
    scenes = [
        only_scene(path) if of_files else ""
        for path, of_files in zip((image.path, *image.others), is_folder, strict=True)
    ]
    return replace(image, scene=join_scenes(scenes), is_folder=is_folder[0])


def _skipped_of_case(image: FoundImage, annotation: Sequence[str]) -> Iterator[SkippedFile]:
    """Yield the files of a case that are none of its channels."""
    annotations = {*image.annotations(annotation)}
    for file in (*image.companions, *image.unused):
        is_annotation = file in annotations
        yield SkippedFile(file, "annotation of a case" if is_annotation else "no channel of the model", is_annotation)


def _case_annotations(
    skipped: Iterable[SkippedFile], images: Sequence[FoundImage], annotation: Sequence[str]
) -> Iterator[SkippedFile]:
    """Yield those of the skipped files that are annotations of cases, in the folders of their channels."""
    cases = {(image.path.parent, name) for image in images if image.is_case for name in ("", *image.names)}
    for file in skipped:
        before = split_annotation(stem_of(file.path), annotation or ANNOTATION_NAMES)
        if before is not None and (file.path.parent, before.casefold()) in cases:
            yield SkippedFile(file.path, "annotation of a case", expected=True)


def _folder_prefixes(texts: Sequence[str]) -> dict[str, Path]:
    """Return the path that precedes the names of images below each of several folders; empty for one folder."""
    # Those of `os` follow no links, and take names that no file can have.
    folders = {text: Path(os.path.abspath(text)) for text in texts if os.path.isdir(text)}  # noqa: PTH100, PTH112
    folders = {text: folder for text, folder in folders.items() if not is_zarr(folder)}
    unique = set(folders.values())
    tails = _distinct_tails(unique) if len(unique) > 1 else {}
    return {text: tails[folder] for text, folder in folders.items() if folder in tails}


def _distinguish(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Prefix images of one name, such as ``p1/f.tif`` and ``p2/f.tif``, with their folders."""
    folders: dict[str, set[Path]] = defaultdict(set)
    for image in images:
        folders[image.relative.as_posix().casefold()].add(image.path.parent.absolute())
    tails = {key: _distinct_tails(group) for key, group in folders.items() if len(group) > 1}
    return [
        replace(image, relative=tails[key][image.path.parent.absolute()] / image.relative.name)
        if key in tails
        else image
        for image in images
        for key in [image.relative.as_posix().casefold()]
    ]


def _distinct_tails(folders: Collection[Path]) -> dict[Path, Path]:
    """Return the end of the path of each folder, just long enough that all of them differ."""
    longest = max(len(folder.parts) for folder in folders)
    for length in range(1, max(2, longest)):
        tails = {folder: Path(*folder.relative_to(folder.anchor).parts[-length:]) for folder in folders}
        if len(set(tails.values())) == len(folders):
            break
    return tails


def _search_input(text: str, rules: NameRules) -> Search:
    path = as_path(text, "an image, folder or pattern")
    if exists(path) or path.is_symlink():
        is_folder = path.is_dir() and not is_zarr(path)
        return _search_folder(path, rules) if is_folder else Search([FoundImage(path, Path(path.name))], [])
    if not glob.has_magic(text):
        raise InputError("no such file, folder or pattern", path=text)
    root = path
    while glob.has_magic(str(root)):
        root = root.parent
    # Path.glob takes no absolute pattern, and people type them.
    matches = sorted((Path(match) for match in glob.glob(text, recursive=True)), key=natural_key)  # noqa: PTH207
    files = (match for match in matches if is_whole(match) or not match.is_dir())
    files = (match for match in files if not any(parent.suffix.lower() in STORES for parent in match.parents))
    search = _split(rules.classify(files, root), root, rules)
    if not search.images:
        for match in matches:
            check_supported(match)
        raise InputError("no image matches this pattern", path=text, hint=_HINT)
    return search


def _search_folder(folder: Path, rules: NameRules) -> Search:
    """Search a folder; the folders below that cannot be listed are among the images, with the problem."""
    errors: list[InputError] = []
    search = _split(scan(folder, rules, errors), folder, rules)
    for error in errors:
        path = Path(str(error.path))
        search.images.append(FoundImage(path, path.relative_to(folder), problem=error.cause))
    return search


def _split(files: Sequence[ScannedFile], root: Path, rules: NameRules) -> Search:
    read = dicom_files(files)
    dicom = _search_dicom(read, root, rules)
    taken = {*read}
    images = [file.image for file in files if file.kind is FileKind.IMAGE]
    skipped = list_skipped(file for file in files if file.path not in taken)
    return Search([*images, *dicom.images], [*skipped, *dicom.skipped])


def _search_dicom(paths: Sequence[Path], root: Path, rules: NameRules) -> Search:
    found = find_dicom(paths, root, rules.channels, rules.series)
    return Search(found.images, found.skipped)


def exists(path: Path) -> bool:
    """Whether a path exists; an `InputError` if it cannot be looked up: no permission, or a name that is too long."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"cannot be looked up: {error.strerror}", path=path) from error
