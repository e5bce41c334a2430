"""Which files are images, and which annotation belongs to which image."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from biounet.errors import InputError

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_OUTPUTS = ("_labels", "_overlay")
_MASKS = ("_masks", "_mask", "_labels", "_label")


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
        raise InputError("no image found", path=", ".join(map(str, inputs)), hint=f"looked for {', '.join(SUFFIXES)}")
    return list(found.values())


def _of_one(given: str) -> list[FoundImage]:
    path = Path(given)
    if path.is_dir():
        return [FoundImage(file, file.relative_to(path)) for file in list_images(path)]
    if path.exists():
        return [FoundImage(path, Path(path.name))]
    matches = sorted((Path(m) for m in glob.glob(given, recursive=True)), key=natural) if glob.has_magic(given) else []
    images = [m for m in matches if m.is_file() and is_image(m) and not _is_result(m)]
    if not images:
        raise InputError("no such file, folder or pattern", path=given)
    return [FoundImage(image, Path(image.name)) for image in images]


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder and below, without results, annotations and hidden files, in natural order."""
    inside = (file for file in folder.rglob("*") if file.is_file() and is_image(file))
    visible = (f for f in inside if not any(part.startswith(".") for part in f.relative_to(folder).parts))
    return sorted((f for f in visible if not _is_result(f)), key=natural)


def is_image(path: Path) -> bool:
    """Whether the suffix is one that images have."""
    return path.suffix.lower() in SUFFIXES


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Key for sorting as people do: ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]


def find_pairs(images: str | Path, labels: str | Path | None = None) -> list[Pair]:
    """Pair images with annotations.

    Parameters
    ----------
    images
        A folder; or, without `labels`, a folder in which ``x.tif`` has a sibling such as ``x_masks.tif``, or a CSV with
        the columns ``image`` and ``label``, whose paths are relative to the CSV.
    labels
        A folder whose files have the names of the images, with any suffix, and ``_masks`` or the like if they want.

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
        if not folder.exists():
            raise InputError("no such folder", path=folder)
    if images.is_file():
        return _from_csv(images)
    if labels is None:
        every = [f for f in images.rglob("*") if f.is_file() and is_image(f) and not f.name.startswith(".")]
        masks = [f for f in every if f.stem.endswith(_MASKS)]
        return _match(list_images(images), images, masks, images)
    annotated = [f for f in Path(labels).rglob("*") if f.is_file() and is_image(f) and not f.name.startswith(".")]
    return _match(list_images(images), images, annotated, Path(labels))


def _match(
    images: Iterable[Path], image_root: Path, labels: Iterable[Path], label_root: Path
) -> tuple[list[Pair], Unpaired]:
    problems: list[str] = []
    by_key: dict[str, Path] = {}
    for label in sorted(labels, key=natural):
        key = _key(label, label_root, drop=_MASKS)
        if key in by_key:
            problems.append(f"{label} and {by_key[key]} are both annotations of one image")
        by_key[key] = label
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
    stem = path.stem.removesuffix(".ome")
    ending = next((end for end in drop if stem.endswith(end)), "")
    return (path.relative_to(root).parent / stem.removesuffix(ending)).as_posix()


def _is_result(path: Path) -> bool:
    return path.stem.removesuffix(".ome").endswith((*_OUTPUTS, *_MASKS))


def _from_csv(path: Path) -> tuple[list[Pair], Unpaired]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a CSV table: {error}", path=path) from error
    if not rows or not {"image", "label"} <= rows[0].keys():
        raise InputError("expected a CSV with the columns image and label", path=path)
    pairs = [Pair(path.parent / row["image"], path.parent / row["label"]) for row in rows]
    problems = [f"{file} does not exist" for p in pairs for file in (p.image, p.label) if not file.is_file()]
    return [p for p in pairs if p.image.is_file() and p.label.is_file()], Unpaired(tuple(problems))
