"""What the name of a file says: whether it is an image, an output or an annotation, and of which image."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

NIFTI = (".nii", ".nii.gz")
MICROSCOPES = (".nd2", ".lif", ".lof", ".czi")
STORES = (".zarr",)
"""Of folders that are images."""

SUFFIXES = (
    *(".tif", ".tiff", ".btf", ".tf8", ".svs", ".ndpi", *STORES, *NIFTI, ".png", ".jpg", ".jpeg", ".npy"),
    *MICROSCOPES,
)
OUTPUT_ENDINGS = ("_overlay", ".curve")
REPORT_FOLDER = "report_files"
"""Folder of the pictures of a report, among its results."""

OUTLINE_SUFFIXES = (".roi", ".zip", ".geojson", ".geojson.gz", ".json")
"""Suffixes of outlines that other programs draw; of a zip or JSON file, the content decides."""

STORE_SUFFIX = "_labels.ome.zarr"
"""Of the names of label stores, which are folders, after the name of their image."""

PICKLE_ENDING = "_seg"
"""Of the stem of the file that Cellpose saves for itself."""

MASK_ENDINGS = ("_masks", "_mask", "_labels", "_label", "_seg", "_dseg", "_seg-manual", "_cp_masks")
_OUTLINE_ENDINGS = ("_rois", "_roi", "_RoiSet", "_outlines", "_annotations", "_coco", "_coco_polygons", "_geojson")
IMAGE_ENDINGS = ("_img", "_image", "_raw")
"""How the names of images end beside annotations that begin the same, as in the data of Cellpose."""

ANNOTATION_NAMES = (
    *("seg", "dseg", "seg-manual", "segmentation", "label", "labels", "annotation", "annotations", "drawn", "manual"),
    *("lesion", "lesions", "tumour", "tumours", "tumor", "tumors", "masks", "cp_masks"),
)
"""Names of the annotation of a case, where the recipe has none.

``mask`` is missing: in a NIfTI file it may be that of the brain.
"""

_OUTLINE_NAMES = ("RoiSet", "rois", "outlines", "coco")  # of outlines in the folder of one image
_ANNOTATION_FOLDERS = {"masks", "mask", "labels", "label", "annotations", "labelstr", "labelsts", "labelsval"}
_IMAGE_FOLDERS = {"images", "image", "img", "imgs", "imagestr"}
"""Folders in small letters; the last ones are those of nnU-Net."""

_NOT_IN_NAMES = re.compile(r"[^\w+-]+")
_LONGEST_PART = 60  # characters of a text in a name
_GENERIC_FOLDERS = {"dicom", "dicoms", "dcm", "images"}  # of DICOM files: names that do not say whose they are
SEPARATOR = re.compile("[_. -]")
"""What may stand before the ending of a name."""

Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


def is_image(path: Path) -> bool:
    """Whether the suffix is that of an image."""
    return path.name.lower().endswith(SUFFIXES) and not is_cellpose_pickle(path)


def is_whole(path: Path) -> bool:
    """Whether a path is a file, or a folder that stands for one as it is an image."""
    return path.is_file() or (path.name.lower().endswith(STORES) and path.is_dir())


def may_be_outlines(path: Path) -> bool:
    """Whether the suffix is one that outlines have; many other files are JSON."""
    return path.name.lower().endswith(OUTLINE_SUFFIXES)


def is_cellpose_pickle(path: Path) -> bool:
    """Whether it is what Cellpose saves for itself: a pickle, which may run any code and is never opened."""
    return path.name.endswith(f"{PICKLE_ENDING}.npy")


def is_label_store(path: Path) -> bool:
    """Whether the name is that of a label store of biounet, and it is there."""
    return path.name.endswith(STORE_SUFFIX) and (path / "zarr.json").is_file()


def is_nifti(path: Path) -> bool:
    """Whether the suffix is that of a NIfTI file."""
    return path.name.lower().endswith(NIFTI)


def normalise_unicode(text: str) -> str:
    """Return a name in composed Unicode: macOS may write an umlaut as two characters."""
    return unicodedata.normalize("NFC", text)


def in_annotation_folder(relative: Path) -> bool:
    """Whether a folder of a path is one of annotations."""
    return not _ANNOTATION_FOLDERS.isdisjoint(map(str.lower, relative.parent.parts))


def image_key(folder: Path, stem: str) -> str:
    """Return what an image and its annotation have in common: folders that are no mere images/ or masks/, and stem."""
    parts = [part for part in folder.parts if part.lower() not in _IMAGE_FOLDERS | _ANNOTATION_FOLDERS]
    return normalise_unicode("/".join([*parts, stem] if stem else parts))


def mask_ending(path: Path) -> str:
    """Return the longest ending of annotations that a name has, such as ``_masks`` or ``-mask``; empty if none."""
    stem = stem_of(path)
    lower = SEPARATOR.sub("_", stem.lower())
    endings = (*MASK_ENDINGS, *_OUTLINE_ENDINGS) if may_be_outlines(path) else MASK_ENDINGS
    length = max((len(end) for end in endings if lower.endswith(end.lower().replace("-", "_"))), default=0)
    return stem[len(stem) - length :]


def without_mask_ending(path: Path) -> str:
    """Return the stem of a name without the ending of annotations."""
    return stem_of(path).removesuffix(mask_ending(path))


def is_annotation(path: Path, patterns: Sequence[str] = ()) -> bool:
    """Whether the name is that of an annotation: ``x_masks.tif``, ``seg.nii.gz``, or one that matches a pattern.

    A NIfTI file whose name ends in ``mask``, such as ``brainmask.nii.gz``, is a label image too.
    """
    stem = stem_of(path).lower()
    if mask_ending(path) or f"_{stem}" in MASK_ENDINGS:
        return True
    if is_nifti(path) and (stem in ANNOTATION_NAMES or stem.endswith("mask")):
        return True
    return split_annotation(stem, patterns) is not None


def is_body_mask(path: Path) -> bool:
    """Whether the name is that of a mask of the brain or body, which may lie beside the annotation of a volume."""
    stem = stem_of(path).lower()
    one_word = stem.endswith("mask") and not stem.endswith("_mask")
    return is_nifti(path) and (one_word or stem.endswith(("brain_mask", "head_mask", "body_mask")))


def split_annotation(stem: str, patterns: Sequence[str]) -> str | None:
    """Return what precedes the name of an annotation in a stem; None if no pattern matches its end.

    ``p1`` for ``p1_lesions`` and a name such as ``lesions`` or a pattern such as ``les*``; empty if all of it matches.
    """
    patterns = [pattern.casefold().removeprefix("*_").removeprefix("_") for pattern in patterns]
    starts = [match.end() for match in SEPARATOR.finditer(stem)]
    for start in [*reversed(starts), 0]:
        rest = stem[start:].casefold()
        if any(fnmatch(rest, pattern) for pattern in patterns):
            return stem[: max(0, start - 1)]
    return None


def select_annotations(files: Collection[Path], patterns: Sequence[str]) -> Collection[Path]:
    """Return the files whose names match a pattern; all of them if none does: then they are named as their images."""
    return [file for file in files if split_annotation(stem_of(file), patterns) is not None] or files


def annotated_stems(path: Path, patterns: Sequence[str]) -> list[str]:
    """Return the stems that the image of an annotation may have, the likeliest first.

    They end with that of the annotation itself or, if it is no more than the name of one, an empty stem for its folder.
    """
    stem = stem_of(path)
    before = split_annotation(stem, patterns)
    stems = [*([] if before is None else [before]), without_mask_ending(path), stem]
    if may_be_outlines(path) and is_image(Path(stem)):  # x.tif.geojson
        stems.append(stem_of(Path(stem)))
    lower = stem.lower()
    is_name = f"_{lower}" in MASK_ENDINGS or lower in ANNOTATION_NAMES
    is_name |= may_be_outlines(path) and lower in map(str.lower, _OUTLINE_NAMES)
    return [*stems, ""] if is_name else stems


def stem_of(path: Path) -> str:
    """Return the name of a file without its suffixes: ``a`` for ``a.tif``, ``a.ome.tif``, ``a.nii.gz`` and the like."""
    name = path.name
    at = name.rfind(".")  # as in Path.suffix, which takes several times as long
    stem, suffix = (name[:at], name[at:]) if 0 < at < len(name) - 1 else (name, "")
    if suffix.lower() == ".gz" and stem.lower().endswith(".geojson"):
        return stem[: -len(".geojson")]
    return stem[: -len(".ome")] if stem.lower().endswith((".ome", ".nii")) else stem


def name_part(text: str) -> str:
    """Return a text, such as the name of a scene, as a part of the name of a file: letters, digits, ``_``, + and -."""
    return _NOT_IN_NAMES.sub("-", text).strip("-_")[:_LONGEST_PART].rstrip("-_")


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return a key for sorting as people do: ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]


def unique_values(items: Iterable[tuple[Key, T]]) -> dict[Key, T]:
    """Return the values of those keys that occur once."""
    groups: dict[Key, list[T]] = defaultdict(list)
    for key, value in items:
        groups[key].append(value)
    return {key: values[0] for key, values in groups.items() if len(values) == 1}


def match_any_case(files: Mapping[str, T], keys: Collection[str]) -> dict[str, T]:
    """Return the file of each key that is equal to it but for capitals, where one file and one key are."""
    files = unique_values((key.casefold(), file) for key, file in files.items())
    unique_keys = unique_values((key.casefold(), key) for key in keys)
    return {key: files[folded] for folded, key in unique_keys.items() if folded in files}


def says_nothing(folder: Path) -> bool:
    """Whether a folder is called like what it holds, such as ``DICOM``, and not like whose it is."""
    return folder.name.casefold() in _GENERIC_FOLDERS


def telling_folder(folder: Path) -> Path:
    """Return the absolute path of a folder, or of the nearest one above whose name says more than ``DICOM``."""
    folder = folder.absolute()
    return next((one for one in (folder, *folder.parents) if one.name and not says_nothing(one)), folder)
