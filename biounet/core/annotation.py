"""Annotations: label images with unlabelled voxels, and checks of what they contain."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from biounet.core.errors import InputError
from biounet.core.volume import Grid, slices_with_any

UNLABELLED = -1
"""The value of unlabelled voxels in memory."""

Kind = Literal["instances", "classes", "scribbles"]

ResultKind = Literal["objects", "classes"]
"""Meaning of the values of a label image that biounet wrote."""


@dataclass(frozen=True)
class Annotation:
    """Labels of one image on its grid: int32, shape ``([z,] y, x)``.

    They are `UNLABELLED`, 0 for background, and from 1 the ids of objects (``instances``) or classes (other kinds).
    `format` is that of the file, `overlaps` the number of pairs of outlines in it that overlap, None of a label image,
    and `image` the file of the image, if known.
    """

    labels: NDArray[np.int32]
    kind: Kind
    grid: Grid
    source: Path | None = None
    notes: tuple[str, ...] = ()
    format: str = "label image"
    overlaps: int | None = None
    image: Path | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != np.int32:
            raise InputError(f"labels are int32 in memory, not {self.labels.dtype}", path=self.source)
        if self.labels.shape != self.grid.shape:
            raise InputError(f"labels {self.labels.shape} do not lie on grid {self.grid.shape}", path=self.source)
        if self.labels.size and self.labels.min() < UNLABELLED:
            raise InputError(f"label {self.labels.min()} is below {UNLABELLED} (unlabelled)", path=self.source)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Mask of the labelled voxels, shape of `labels`."""
        return np.asarray(self.labels != UNLABELLED)


def keep_slices(labels: NDArray[np.int32], axis: str, numbers: Sequence[int] = ()) -> NDArray[np.int32]:
    """Return labels ``([z,] y, x)`` in which all but some slices are unlabelled.

    The slices are normal to `axis` (``z``, ``y`` or ``x``) and numbered from 0; without `numbers`, those with any
    object or class stay. Raise `InputError` if there is no such axis or slice.
    """
    normal = "zyx"[-labels.ndim :].find(axis)
    if normal < 0:
        raise InputError(f"an annotation of one plane, where slices along {axis} are labelled")
    labelled = slices_with_any(labels > 0, normal)
    if numbers:
        if not 0 <= min(numbers) <= max(numbers) < labels.shape[normal]:
            raise InputError(f"slices {list(numbers)} along {axis}, of which there are {labels.shape[normal]}")
        labelled = np.isin(np.arange(labels.shape[normal]), numbers)
    kept = labels.copy()
    np.moveaxis(kept, normal, 0)[~labelled] = UNLABELLED
    return kept


def check_classes_present(values: Collection[int], regions: Mapping[str, Collection[int]]) -> None:
    """Raise `InputError` with the classes or regions that do not occur among the values of the annotations."""
    missing = [
        f"{name} ({', '.join(map(str, sorted(own)))})" for name, own in regions.items() if not {*own} & {*values}
    ]
    if missing:
        hint = "take it out of the recipe, or add a case that has it"
        raise InputError(f"no annotation has {', '.join(missing)}", hint=hint)


def check_foreground_and_background(values: Collection[int], kind: Kind) -> None:
    """Raise `InputError` unless foreground and background both occur among the values of the annotations.

    Classes may cover everything, and so may objects in images without unlabelled voxels.
    """
    if kind == "instances" and max(values, default=0) <= 0:
        hint = "is this the folder of the annotations, and did their export work?"
        raise InputError("no annotation has an object", hint=hint)
    if 0 in values or kind == "classes":
        return
    if kind == "scribbles":
        hint = "paint some where no object is, as a class called 'background'"
        raise InputError("no annotation has a stroke of background: everything would become an object", hint=hint)
    if UNLABELLED in values:
        hint = "label some voxels where no object is as 0"
        raise InputError("no annotation has background: everything would become an object", hint=hint)


def check_whole_objects(whole: Iterable[bool | None]) -> None:
    """Raise `InputError` if no annotation of instances, by `has_whole_object` of each, has a whole object.

    Contours and distances could not be learned.
    """
    if {*whole} - {None} == {False}:
        hint = "outline some whole; where single planes of volumes are outlined, say slices = 'z' in the recipe"
        raise InputError("every object meets unlabelled space, so that none is known as a whole", hint=hint)


def has_whole_object(labels: NDArray[np.int32], section_axis: int | None) -> bool | None:
    """Whether an object is whole (see `mask_partial_objects`); None without objects."""
    return bool((mask_partial_objects(labels, section_axis) > 0).any()) if (labels > 0).any() else None


def mask_partial_objects(labels: NDArray[np.int32], section_axis: int | None = None) -> NDArray[np.int32]:
    """Return labels of instances in which objects that touch unlabelled voxels, even at a corner, are unlabelled.

    Such an object may extend further, so that a correct prediction would count as wrong. With `section_axis`, the axis
    normal to the labelled planes of a volume, sections are handled separately.
    """
    if section_axis is not None:
        planes = np.moveaxis(labels, section_axis, 0)
        return np.stack([mask_partial_objects(plane) for plane in planes], axis=section_axis)
    touching = np.unique(labels[near_unlabelled(labels)])
    return np.where(np.isin(labels, touching[touching > 0]), np.int32(UNLABELLED), labels) if touching.size else labels


def near_unlabelled(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the mask of voxels that are unlabelled, or touch an unlabelled voxel even at a corner."""
    from scipy.ndimage import binary_dilation  # slow to import

    unlabelled = labels == UNLABELLED
    return np.asarray(binary_dilation(unlabelled, np.ones((3,) * labels.ndim)) if unlabelled.any() else unlabelled)
