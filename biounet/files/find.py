"""Which files are images, and which annotation belongs to which image."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from biounet.errors import InputError

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".nii", ".nii.gz", ".png", ".jpg", ".jpeg")
_OUTPUTS = ("_overlay", ".curve")
_MASKS = ("_masks", "_mask", "_labels", "_label")
_LOOKED_FOR = f"looked for {', '.join(SUFFIXES)}, without names that end in {', '.join((*_MASKS, *_OUTPUTS))}"
_IMAGE_FOLDERS = {"images", "image", "img", "imgs"}
_MASK_FOLDERS = {"masks", "mask", "labels", "label", "annotations"}


@dataclass(frozen=True)
class FoundImage:
    """An image, and its place below the folder that was searched, which the results mirror."""

    path: Path
    relative: Path


@dataclass(frozen=True)
class Pair:
    """An image and its annotation."""

    image: Path
    label: Path


@dataclass(frozen=True)
class Unpaired:
    """What `match_pairs` could not pair: one sentence each, naming the file."""

    problems: tuple[str, ...]


def find_images(inputs: Sequence[str | Path]) -> list[FoundImage]:
    """Find images in files, folders (with all folders below) and patterns, in natural order, each once.

    Hidden files, annotations (``x_masks.tif``) and biounet's own outputs are left out of folders and patterns; a file
    that is named is taken whatever its name.

    Raises
    ------
    InputError
        If an input does not exist, or nothing is found.
    """
    found: dict[Path, FoundImage] = {}
    for given in inputs:
        for image in _of_one(str(given)):
            found.setdefault(image.path.absolute(), image)
    if not found:
        raise InputError("no image found", path=", ".join(map(str, inputs)), hint=_LOOKED_FOR)
    return list(found.values())


def _of_one(given: str) -> list[FoundImage]:
    path = Path(given)
    if _exists(path):
        if not path.is_dir():
            return [FoundImage(path, Path(path.name))]
        return [FoundImage(file, file.relative_to(path)) for file in list_images(path)]
    if not glob.has_magic(given):
        raise InputError("no such file, folder or pattern", path=given)
    root = _fixed_part(path)
    # Path.glob takes no absolute pattern, and people type them.
    matches = sorted((Path(match) for match in glob.glob(given, recursive=True)), key=natural)  # noqa: PTH207
    images = [match for match in matches if match.is_file() and is_image(match) and not is_result(match)]
    if not images:
        raise InputError("no image matches this pattern", path=given, hint=_LOOKED_FOR)
    return [FoundImage(image, image.relative_to(root)) for image in images]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # no permission, a name that is too long
        raise InputError(f"cannot be looked up: {error.strerror}", path=path) from error


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a pattern above its first wildcard."""
    folder = pattern
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder and below, without results, annotations and hidden files, in natural order."""
    return sorted((file for file in _walk(folder) if not is_result(file)), key=natural)


def _walk(folder: Path) -> Iterator[Path]:
    """Give the visible files with the suffix of an image, through links to folders, each folder once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above would lead round for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(root, name) for name in names if not name.startswith("."))
        yield from (file for file in files if is_image(file) and file.is_file())


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"cannot look into this folder: {error.strerror}", path=error.filename) from error


def is_image(path: Path) -> bool:
    """Whether the suffix is one that images have."""
    return path.name.lower().endswith(SUFFIXES)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Key for sorting as people do: ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]


def find_pairs(images: str | Path, labels: str | Path | None = None) -> list[Pair]:
    """Pair images with annotations.

    Parameters
    ----------
    images
        A folder; or, without `labels`, a folder in which ``x.tif`` has a sibling such as ``x_masks.tif`` or
        ``images/x.tif`` a partner such as ``masks/x.png``, or a CSV with the columns ``image`` and ``label``, whose
        paths are relative to the CSV.
    labels
        A folder whose files have the names of the images, with any suffix, and ``_masks`` or the like if they want; or
        one file, when `images` is one.

    Raises
    ------
    InputError
        Naming every image without annotation and every annotation without image.
    """
    pairs, alone = match_pairs(images, labels)
    if alone.problems:
        shown = "; ".join(alone.problems[:5])
        more = f"; and {len(alone.problems) - 5} more" if len(alone.problems) > 5 else ""
        raise InputError(f"{shown}{more}", path=images, hint="'biounet check' lists all")
    if not pairs:
        raise InputError("no image with an annotation found", path=images)
    return pairs


def match_pairs(images: str | Path, labels: str | Path | None = None) -> tuple[list[Pair], Unpaired]:
    """Pair as `find_pairs` does, and return what has no partner instead of raising."""
    images = Path(images)
    for folder in (images, Path(labels) if labels is not None else images):
        if not _exists(folder):
            raise InputError("no such folder", path=folder)
    if images.is_file():
        both = labels is not None and Path(labels).is_file()
        return ([Pair(images, Path(str(labels)))], Unpaired(())) if both else _from_csv(images)
    if labels is None or images.samefile(labels):
        every = _annotations(images)
        masks = [file for file in every if _is_mask(file, images)]
        return _match(sorted(set(every) - set(masks), key=natural), images, masks, images)
    labels = Path(labels)
    annotated = _annotations(labels)
    inside = labels.resolve().is_relative_to(images.resolve())  # such as img/ and img/masks/
    apart = {file.resolve() for file in annotated} if inside else set()
    return _match([f for f in list_images(images) if f.resolve() not in apart], images, annotated, labels)


def _annotations(folder: Path) -> list[Path]:
    """Return all that can be annotations; biounet's own label images can: people correct them and train again."""
    return [file for file in _walk(folder) if not _ends(file, _OUTPUTS)]


def _match(
    images: Iterable[Path], image_root: Path, labels: Iterable[Path], label_root: Path
) -> tuple[list[Pair], Unpaired]:
    problems: list[str] = []
    by_key: dict[str, Path] = {}
    for label in sorted(labels, key=natural):
        key = _key(label, label_root, drop=_MASKS)
        if key in by_key:
            problems.append(f"{label} and {by_key[key]} are both annotations of one image")
        by_key.setdefault(key, label)
    pairs: dict[str, Pair] = {}
    for image in images:
        key = _key(image, image_root)
        if key in pairs:
            problems.append(f"{image} and {pairs[key].image} have one name")
        elif key in by_key:
            pairs[key] = Pair(image, by_key[key])
        else:
            problems.append(f"{image} has no annotation")
    problems += [f"{label} has no image" for key, label in by_key.items() if key not in pairs]
    return list(pairs.values()), Unpaired(tuple(problems))


def _key(path: Path, root: Path, drop: tuple[str, ...] = ()) -> str:
    stem, ending = stem_of(path), _ends(path, drop)
    place = path.relative_to(root).parent.parts
    parts = [part for part in place if part.lower() not in _IMAGE_FOLDERS | _MASK_FOLDERS]
    return "/".join([*parts, stem[: len(stem) - len(ending)]])


def is_result(path: Path) -> bool:
    """Whether the name is one of biounet's own outputs or of an annotation."""
    return bool(_ends(path, (*_OUTPUTS, *_MASKS)))


def _ends(path: Path, endings: tuple[str, ...]) -> str:
    """Return the ending that a name has, however it is capitalised; empty where it has none of them."""
    stem = stem_of(path).lower()
    return next((end for end in endings if stem.endswith(end)), "")


def _is_mask(path: Path, root: Path) -> bool:
    folders = {part.lower() for part in path.relative_to(root).parent.parts}
    return bool(_ends(path, _MASKS)) or bool(folders & _MASK_FOLDERS)


def stem_of(path: Path) -> str:
    """Return the name of an image without its suffix, ``a.ome.tif`` and ``a.nii.gz`` being ``a``."""
    stem = path.name.removesuffix(path.suffix)
    return stem[: -len(".ome")] if stem.lower().endswith((".ome", ".nii")) else stem


def _from_csv(path: Path) -> tuple[list[Pair], Unpaired]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("not a CSV table of UTF-8 text", path=path, hint="or name the annotation too") from error
    if not rows or not {"image", "label"} <= rows[0].keys():
        raise InputError("expected a CSV with the columns image and label", path=path)
    incomplete = next((n for n, row in enumerate(rows, 2) if not (row["image"] and row["label"])), None)
    if incomplete is not None:
        raise InputError(f"line {incomplete} lacks an image or a label", path=path)
    pairs = [Pair(path.parent / row["image"], path.parent / row["label"]) for row in rows]
    problems = [f"{file} does not exist" for p in pairs for file in (p.image, p.label) if not file.is_file()]
    return [p for p in pairs if p.image.is_file() and p.label.is_file()], Unpaired(tuple(problems))
