"""What the name of a file says: whether it is an image, a result or an annotation, and what it is called."""

from __future__ import annotations

import re
from pathlib import Path

NIFTI = (".nii", ".nii.gz")
SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", *NIFTI, ".png", ".jpg", ".jpeg")
OUTPUTS = ("_overlay", ".curve")
MASKS = ("_masks", "_mask", "_labels", "_label")


def is_image(path: Path) -> bool:
    """Whether the suffix is one that images have."""
    return path.name.lower().endswith(SUFFIXES)


def is_result(path: Path) -> bool:
    """Whether the name is one of biounet's own outputs or of an annotation."""
    return bool(ending(path, (*OUTPUTS, *MASKS)))


def ending(path: Path, endings: tuple[str, ...]) -> str:
    """Return the ending that a name has, however it is capitalised; empty where it has none of them."""
    stem = stem_of(path).lower()
    return next((end for end in endings if stem.endswith(end)), "")


def stem_of(path: Path) -> str:
    """Return the name of an image without its suffix, ``a.ome.tif`` and ``a.nii.gz`` being ``a``."""
    stem = path.name.removesuffix(path.suffix)
    return stem[: -len(".ome")] if stem.lower().endswith((".ome", ".nii")) else stem


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Key for sorting as people do: ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
