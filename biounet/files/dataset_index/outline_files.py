"""Which files hold outlines that other programs drew, by name and content, and of which images."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from biounet.files.dataset_index.names import (
    annotated_stems,
    image_key,
    mask_ending,
    may_be_outlines,
    stem_of,
    unique_values,
)
from biounet.files.outlines.coco_reading import load_coco
from biounet.files.retry import read_first_bytes

OutlineFormat = Literal["ImageJ ROI", "GeoJSON", "COCO", "LabelMe"]

_HEAD = 1 << 16  # bytes of a JSON file that show what it is
_TOKEN = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*:)?|[\[\]{}]')


def outline_format(path: Path) -> OutlineFormat | None:
    """Return in which format a file holds outlines; None if it is something else, as most JSON files are.

    ``.roi`` and ``.geojson`` say it by their names; of a zip the names of what it holds are read, and of JSON a part.
    """
    name = path.name.lower()
    if name.endswith(".roi"):
        return "ImageJ ROI"
    if name.endswith((".geojson", ".geojson.gz")):
        return "GeoJSON"
    if name.endswith(".zip"):
        return _zip_format(path)
    return _json_format(path) if name.endswith(".json") else None


def _zip_format(path: Path) -> OutlineFormat | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):  # as damaged ones raise
        names = []
    if len(names) == 1 and names[0].endswith(".geojson"):
        return "GeoJSON"
    # One that is damaged or empty has its name: reading says what is wrong.
    has_name = mask_ending(path) or stem_of(path).lower() == "roiset"
    return "ImageJ ROI" if has_name or any(name.endswith(".roi") for name in names) else None


def _json_format(path: Path) -> OutlineFormat | None:
    """Return the format of JSON by the names in the beginning of its text, so that large files are not read whole."""
    try:
        text = read_first_bytes(path, _HEAD).decode("utf-8-sig", "replace").lstrip()
    except OSError:
        return None
    if text.startswith("["):
        return "GeoJSON" if '"Feature"' in text and '"geometry"' in text else None
    names: dict[int, set[str]] = {1: set(), 3: set()}  # by how deep they stand: of the whole, and of items of its lists
    depth = 0
    for token in _TOKEN.finditer(text):
        if token[1] is None:
            depth += 1 if token[0] in "[{" else -1
        elif token[2] and depth in names:
            names[depth].add(token[1])
            if found := _named_format(names[1], names[3]):
                return found
    return None


def _named_format(whole: Collection[str], items: Collection[str]) -> OutlineFormat | None:
    """Return the format of JSON with these names in the whole and in the items of its lists."""
    if "features" in whole or {"type", "geometry"} <= {*whole}:
        return "GeoJSON"
    if "shapes" in whole or {"imageData", "version"} <= {*whole}:
        return "LabelMe"
    has_images = "images" in whole and "file_name" in items
    has_annotations = "annotations" in whole and "image_id" in items
    return "COCO" if has_images or has_annotations else None


def is_outline_file(path: Path) -> bool:
    """Whether a file holds outlines."""
    return path.is_file() and outline_format(path) is not None


def annotated_keys(path: Path, relative: Path, patterns: Sequence[str], image_keys: Collection[str]) -> list[str]:
    """Return the key of the image of an annotation, or those of all whose outlines are in a COCO file.

    Of the keys that its name allows, it is the first that an image has. `relative` is its path below the folder that
    was searched, and `image_keys` are those of the images.
    """
    keys = [image_key(relative.parent, stem) for stem in annotated_stems(path, patterns)]
    own = next((key for key in keys if key in image_keys), None)
    names = coco_names(path)
    if len(names) > 1 or own is None:
        return _keys_of_names(names, relative.parent, image_keys) or keys[:1]
    return [own]


def coco_names(path: Path) -> tuple[PurePosixPath, ...]:
    """Return the names of the images in a COCO file, each once; empty of another file."""
    return (*load_coco(path).planes,) if may_be_outlines(path) and outline_format(path) == "COCO" else ()


def _keys_of_names(names: Iterable[PurePosixPath], folder: Path, image_keys: Collection[str]) -> list[str]:
    """Return the keys of those images that a file in a folder names: relative to it, to all, or by a unique name."""
    by_name = unique_values((key.rpartition("/")[2], key) for key in image_keys)
    found: dict[str, None] = {}
    for name in names:
        stem, parent = stem_of(Path(name.name)), Path(name.parent)
        keys = (image_key(folder / parent, stem), image_key(parent, stem), image_key(folder, stem))
        key = next((key for key in keys if key in image_keys), by_name.get(image_key(Path(), stem)))
        if key is not None:
            found[key] = None
    return [*found]
