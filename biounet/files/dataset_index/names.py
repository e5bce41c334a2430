"""What the name of a file says: whether it is an image, a result or an annotation, and what it is called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

NIFTI = (".nii", ".nii.gz")
SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", *NIFTI, ".png", ".jpg", ".jpeg")
OUTPUTS = ("_overlay", ".curve")
MASKS = ("_masks", "_mask", "_labels", "_label", "_seg", "_dseg", "_seg-manual", "_cp_masks")
ANNOTATIONS = (
    *("seg", "dseg", "seg-manual", "segmentation", "label", "labels", "annotation", "annotations", "drawn", "manual"),
    *("lesion", "lesions", "tumour", "tumours", "tumor", "tumors", "masks", "cp_masks"),
)
"""Names of the annotation of a case, where the recipe has none.

In a NIfTI file a mask is none, as it may be that of the brain; masks are those of objects.
"""

ANNOTATION_FOLDERS = {"masks", "mask", "labels", "label", "annotations", "labelstr", "labelsts", "labelsval"}
"""What folders of annotations are called, in small letters; the last ones by nnU-Net."""

IMAGES = ("_img", "_image", "_raw")
"""How the names of images end beside annotations of the same begin, as in the data of Cellpose."""

SEPARATORS = "_-. "
"""What stands before the ending of a name."""

_SEPARATOR = re.compile(f"[{re.escape(SEPARATORS)}]")


def is_image(path: Path) -> bool:
    """Whether the suffix is one that images have."""
    return path.name.lower().endswith(SUFFIXES)


def is_nifti(path: Path) -> bool:
    """Whether the suffix is that of a NIfTI file."""
    return path.name.lower().endswith(NIFTI)


def is_result(path: Path) -> bool:
    """Whether the name is one of biounet's own outputs or of an annotation."""
    return bool(ending(path, OUTPUTS)) or is_annotation(path)


def spelt(text: str) -> str:
    """Return a name in the one spelling of Unicode: a Mac writes umlauts as two characters."""
    return unicodedata.normalize("NFC", text)


def mask_ending(path: Path) -> str:
    """Return the longest ending of annotations that a name has, such as ``_masks`` or ``-mask``; empty: none."""
    stem, plain = stem_of(path), [end.replace("-", "_") for end in MASKS]
    low = _SEPARATOR.sub("_", stem.lower())
    length = max((len(end) for end in plain if low.endswith(end)), default=0)
    return stem[len(stem) - length :]


def is_annotation(path: Path, names: Sequence[str] = ()) -> bool:
    """Whether the name is that of an annotation: ``x_masks.tif``, ``seg.nii.gz``, or as `names` say.

    A NIfTI file whose name ends in ``mask``, such as ``brainmask.nii.gz``, is a label map too.
    """
    stem = stem_of(path).lower()
    if mask_ending(path) or f"_{stem}" in MASKS:
        return True
    if is_nifti(path) and (stem in ANNOTATIONS or stem.endswith("mask")):
        return True
    return before_annotation(stem, names) is not None


def is_body_mask(path: Path) -> bool:
    """Whether it is called like a mask of the brain or body, which lies beside the annotation of a volume."""
    stem = stem_of(path).lower()
    one_word = stem.endswith("mask") and not stem.endswith("_mask")
    return is_nifti(path) and (one_word or stem.endswith(("brain_mask", "head_mask", "body_mask")))


def before_annotation(stem: str, names: Sequence[str]) -> str | None:
    """Return what stands before the name of an annotation in a stem; None where the stem has none of the names.

    Parameters
    ----------
    stem
        Such as ``p1_lesions``.
    names
        Such as ``lesions``, or patterns, ``lesions_*``; whatever the capitals.

    Returns
    -------
    Such as ``p1``; empty where all of the stem is the name.
    """
    own = [name.casefold().removeprefix("*_").removeprefix("_") for name in names]
    starts = [match.end() for match in _SEPARATOR.finditer(stem)]
    for start in [*reversed(starts), 0]:
        rest = stem[start:].casefold()
        if any(fnmatch(rest, name) for name in own):
            return stem[: max(0, start - 1)]
    return None


def ending(path: Path, endings: tuple[str, ...]) -> str:
    """Return the longest ending that a name has, however it is capitalised; empty where it has none of them."""
    stem = stem_of(path).lower()
    return max((end for end in endings if stem.endswith(end)), key=len, default="")


def stem_of(path: Path) -> str:
    """Return the name of an image without its suffix, ``a.ome.tif`` and ``a.nii.gz`` being ``a``."""
    stem = path.name.removesuffix(path.suffix)
    return stem[: -len(".ome")] if stem.lower().endswith((".ome", ".nii")) else stem


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Key for sorting as people do: ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
