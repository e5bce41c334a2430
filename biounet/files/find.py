"""Which files are images, and which annotation belongs to which image."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from biounet.arguments import as_path
from biounet.errors import InputError
from biounet.files.cases import FoundImage, group_cases, named_case
from biounet.files.foreign import refuse_foreign
from biounet.files.names import MASKS, OUTPUTS, SUFFIXES, ending, is_image, is_result, natural, stem_of

__all__ = [
    "Pair",
    "Unpaired",
    "find_images",
    "find_pairs",
    "is_image",
    "list_images",
    "match_pairs",
    "natural",
    "stem_of",
]

_LOOKED_FOR = f"looked for {', '.join(SUFFIXES)}, without names that end in {', '.join((*MASKS, *OUTPUTS))}"
_IMAGE_FOLDERS = {"images", "image", "img", "imgs"}
_MASK_FOLDERS = {"masks", "mask", "labels", "label", "annotations"}


@dataclass(frozen=True)
class Pair:
    """An image and its annotation.

    Attributes
    ----------
    image
        The file, of several the one of the first channel.
    label
        The file of the annotation.
    others
        The files of the further channels, in their order.
    """

    image: Path
    label: Path
    others: tuple[Path, ...] = ()

    def files(self) -> tuple[Path, ...]:
        """Return one file for each channel, or the one file that holds all."""
        return (self.image, *self.others)


@dataclass(frozen=True)
class Unpaired:
    """What `match_pairs` could not pair: one sentence each, naming the file."""

    problems: tuple[str, ...]


def find_images(inputs: Sequence[str | Path], channels: Sequence[str] = ()) -> list[FoundImage]:
    """Find images in files, folders (with all folders below) and patterns, in natural order, each once.

    Hidden files, annotations (``x_masks.tif``) and biounet's own outputs are left out of folders and patterns; a file
    that is named is taken whatever its name. What has the name of an image and is none (a broken link, a pipe), and a
    folder below that cannot be looked into, are among the images: each fails on its own. Several folders keep apart by
    their names, files of one name by those of their folders.

    Parameters
    ----------
    inputs
        Files, folders, patterns; or ``<channel>=<file>`` for each channel of one case.
    channels
        Names of the channels that the model sees: files that are one channel each are joined, as `group_cases` says.

    Raises
    ------
    InputError
        If an input does not exist, or nothing is found.
    """
    given = [str(one) for one in inputs]
    named = [one for one in given if channels and "=" in str(*Path(one).parts[:1]) and not _exists(Path(one))]
    plain = [one for one in given if one not in named]
    place = _places(plain)
    found: dict[str, FoundImage] = {}
    real = cache(os.path.realpath)
    for one in plain:
        for image in _of_one(one):
            key = os.path.join(real(image.path.parent), image.path.name)  # noqa: PTH118 - faster for many
            found.setdefault(key, replace(image, relative=place.get(one, Path()) / image.relative))
    if not found and not named:
        for one in plain:
            refuse_foreign(Path(one))
        raise InputError("no image found", path=", ".join(given), hint=_LOOKED_FOR)
    images = group_cases([image for image in found.values() if not image.problem], channels)
    images += [image for image in found.values() if image.problem]
    return [named_case(named, channels), *images] if named else images


def _places(given: Sequence[str]) -> dict[str, Path]:
    """Return the folder of the results of those inputs that would not keep apart without one.

    These are folders, where there are several, and files of one name.
    """
    # Those of `os` follow no links, and take names that no file can have.
    folders = {one: Path(os.path.abspath(one)) for one in given if os.path.isdir(one)}  # noqa: PTH100, PTH112
    groups: dict[str, dict[str, Path]] = {"": folders}
    for one in given:
        if one not in folders and not glob.has_magic(one):
            path = Path(os.path.abspath(one))  # noqa: PTH100
            groups.setdefault(path.name.casefold(), {})[one] = path.parent
    places = {}
    for group in groups.values():
        tails = _tails(set(group.values())) if len(set(group.values())) > 1 else {}
        places.update({one: tails[folder] for one, folder in group.items() if folder in tails})
    return places


def _tails(folders: Collection[Path]) -> dict[Path, Path]:
    """Return for each folder the end of its path, just long enough that all of them differ."""
    longest = max(len(folder.parts) for folder in folders)
    for length in range(1, max(2, longest)):
        tails = {folder: Path(*folder.relative_to(folder.anchor).parts[-length:]) for folder in folders}
        if len(set(tails.values())) == len(folders):
            break
    return tails


def _of_one(given: str) -> list[FoundImage]:
    path = as_path(given, "an image, folder or pattern")
    if _exists(path) or path.is_symlink():
        return _search(path) if path.is_dir() else [FoundImage(path, Path(path.name))]
    if not glob.has_magic(given):
        raise InputError("no such file, folder or pattern", path=given)
    root = _fixed_part(path)
    # Path.glob takes no absolute pattern, and people type them.
    matches = sorted((Path(match) for match in glob.glob(given, recursive=True)), key=natural)  # noqa: PTH207
    images = [match for match in matches if not match.is_dir() and is_image(match) and not is_result(match)]
    if not images:
        for match in matches:
            refuse_foreign(match)
        raise InputError("no image matches this pattern", path=given, hint=_LOOKED_FOR)
    return [FoundImage(image, image.relative_to(root)) for image in images]


def _search(root: Path) -> list[FoundImage]:
    """Return what is called like an image in a folder and below, and those folders that cannot be looked into."""
    closed: list[FoundImage] = []

    def keep(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == root:
            _refuse_folder(error)
        closed.append(FoundImage(folder, folder.relative_to(root), problem=_not_listed(error)))

    files = sorted((file for file in _walk(root, keep) if not is_result(file)), key=natural)
    return [*(FoundImage(file, file.relative_to(root)) for file in files), *closed]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # no permission, a name that is too long
        raise InputError(f"cannot be looked up: {error.strerror}", path=path) from error


def _is_file(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that no file system takes."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a pattern above its first wildcard."""
    folder = pattern
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder and below, without results, annotations and hidden files, in natural order."""
    return sorted((file for file in _walk(folder) if file.is_file() and not is_result(file)), key=natural)


def _refuse_folder(error: OSError) -> None:
    raise InputError(_not_listed(error), path=error.filename) from error


def _not_listed(error: OSError) -> str:
    return f"cannot look into this folder: {error.strerror}"


def _walk(folder: Path, onerror: Callable[[OSError], None] = _refuse_folder) -> Iterator[Path]:
    """Give what is visible and has the suffix of an image, through links to folders, each folder once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=onerror):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above would lead round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(root, name) for name in names if not name.startswith("."))
        yield from (file for file in files if is_image(file))


def find_pairs(images: str | Path, labels: str | Path | None = None, channels: Sequence[str] = ()) -> list[Pair]:
    """Pair images with annotations.

    Parameters
    ----------
    images
        A folder; or, without `labels`, a folder in which ``x.tif`` has a sibling such as ``x_masks.tif`` or
        ``images/x.tif`` a partner such as ``masks/x.png``, or a case the one file in its folder that is no channel; or
        a folder with nnU-Net's ``dataset.json``; or a CSV with the columns ``image``, or one for each channel, and
        ``label``, whose paths are relative to the CSV.
    labels
        A folder whose files have the names of the images or cases, with any suffix, and ``_masks`` or the like if they
        want; or one file, when `images` is one.
    channels
        Names of the channels that the model sees: files that are one channel each are joined, as `group_cases` says.

    Raises
    ------
    InputError
        Naming every image without annotation and every annotation without image.
    """
    pairs, alone = match_pairs(images, labels, channels)
    if alone.problems:
        shown = "; ".join(alone.problems[:5])
        more = f"; and {len(alone.problems) - 5} more" if len(alone.problems) > 5 else ""
        raise InputError(f"{shown}{more}", path=images, hint="'biounet check' lists all")
    if not pairs:
        refuse_foreign(Path(images))
        raise InputError("no image with an annotation found", path=images)
    return pairs


def match_pairs(
    images: str | Path, labels: str | Path | None = None, channels: Sequence[str] = ()
) -> tuple[list[Pair], Unpaired]:
    """Pair as `find_pairs` does, and return what has no partner instead of raising."""
    images = as_path(images, "the folder of images")
    for folder in (images, as_path(labels, "the folder of annotations") if labels is not None else images):
        if not _exists(folder):
            raise InputError("no such folder", path=folder)
    if images.is_file():
        both = labels is not None and Path(labels).is_file()
        return ([Pair(images, Path(str(labels)))], Unpaired(())) if both else _from_csv(images, channels)
    if labels is None and (images / "dataset.json").is_file() and (images / "imagesTr").is_dir():
        images, labels = images / "imagesTr", images / "labelsTr"
        return match_pairs(images, labels, channels)
    if labels is None or images.samefile(labels):
        return _match_inside(images, channels)
    labels = Path(labels)
    annotated = _annotations(labels)
    inside = labels.resolve().is_relative_to(images.resolve())  # such as img/ and img/masks/
    apart = {file.resolve() for file in annotated} if inside else set()
    files = [file for file in list_images(images) if file.resolve() not in apart]
    if not files:
        refuse_foreign(images)
    return _match(_group(files, images, channels), annotated, labels)


def _match_inside(folder: Path, channels: Sequence[str]) -> tuple[list[Pair], Unpaired]:
    """Pair images with annotations in the same folder or in one of its folders."""
    every = sorted(_annotations(folder), key=natural)
    found = _group(every, folder, channels)
    masks = [image.path for image in found if not image.is_case and _is_mask(image.path, folder)]
    return _match([image for image in found if image.is_case or image.path not in masks], masks, folder)


def _group(files: Iterable[Path], root: Path, channels: Sequence[str]) -> list[FoundImage]:
    return group_cases([FoundImage(file, file.relative_to(root)) for file in files], channels)


def _annotations(folder: Path) -> list[Path]:
    """Return all that can be annotations; biounet's own label images can: people correct them and train again."""
    return [file for file in _walk(folder) if file.is_file() and not ending(file, OUTPUTS)]


def _match(images: Iterable[FoundImage], labels: Iterable[Path], label_root: Path) -> tuple[list[Pair], Unpaired]:
    problems: list[str] = []
    by_key: dict[str, Path] = {}
    for label in sorted(labels, key=natural):
        stem, end = stem_of(label), ending(label, MASKS)
        key = _key(label.relative_to(label_root).parent, stem[: len(stem) - len(end)])
        if key in by_key:
            problems.append(f"{label} and {by_key[key]} are both annotations of one image")
        by_key.setdefault(key, label)
    pairs: dict[str, Pair] = {}
    for image in images:
        key = _key(image.relative.parent, image.stem)
        own = _beside(image)
        if image.problem:
            problems.append(f"{image.path}: {image.problem}")
        elif key in pairs:
            problems.append(f"{image.path} and {pairs[key].image} have one name")
        elif key in by_key or len(own) == 1:
            pairs[key] = Pair(image.path, by_key[key] if key in by_key else own[0], image.others)
        elif own:
            shown = ", ".join(file.name for file in own)
            problems.append(f"{image.path} could have more than one annotation: {shown}")
        else:
            problems.append(f"{image.path} has no annotation")
    problems += [f"{label} has no image" for key, label in by_key.items() if key not in pairs]
    return list(pairs.values()), Unpaired(tuple(problems))


def _key(folder: Path, stem: str) -> str:
    parts = [part for part in folder.parts if part.lower() not in _IMAGE_FOLDERS | _MASK_FOLDERS]
    return "/".join([*parts, stem])


def _beside(image: FoundImage) -> list[Path]:
    """Return the files of a case that can be its annotation: those that are not called a mask, or else those."""
    named = [file for file in image.beside if not stem_of(file).casefold().endswith("mask")]
    return named or list(image.beside)


def _is_mask(path: Path, root: Path) -> bool:
    folders = {part.lower() for part in path.relative_to(root).parent.parts}
    return bool(ending(path, MASKS)) or bool(folders & _MASK_FOLDERS)


def _from_csv(path: Path, channels: Sequence[str]) -> tuple[list[Pair], Unpaired]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("not a CSV table of UTF-8 text", path=path, hint="or name the annotation too") from error
    there = rows[0].keys() if rows else set()
    images = list(channels) if len(channels) > 1 and set(channels) & there else ["image"]
    if not {*images, "label"} <= there:
        raise InputError(f"expected a CSV with the columns {', '.join(images)} and label", path=path)
    incomplete = next((n for n, row in enumerate(rows, 2) if not all(row[name] for name in (*images, "label"))), None)
    if incomplete is not None:
        raise InputError(f"line {incomplete} lacks an image or a label", path=path)
    files = [[path.parent / row[name] for name in (*images, "label")] for row in rows]
    problems = [f"{file} does not exist" for row in files for file in row if not _is_file(file)]
    pairs = [Pair(row[0], row[-1], tuple(row[1:-1])) for row in files if all(_is_file(file) for file in row)]
    return pairs, Unpaired(tuple(problems))
