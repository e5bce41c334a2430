"""How well the regions of one image agree with the truth: in voxels, along their surfaces, and lesion by lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import LENGTH_TOLERANCE, UNLABELLED, Grid, InputError, SettingsError
from biounet.evaluation.matching import match_objects
from biounet.evaluation.records import ratio
from biounet.measurement import min_lesion_voxels

Mask = NDArray[np.bool_]

_PERCENTILE = 95.0


@dataclass(frozen=True)
class Regions:
    """The classes or regions to compare, and how exactly their surfaces have to agree (see `score_classes`)."""

    class_names: Sequence[str]
    regions: Mapping[str, Sequence[int]] | None = None
    tolerance: float = 1.0
    min_lesion_mm3: float = 0.0  # smaller lesions are not compared

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < np.inf:
            raise SettingsError(f"a tolerance is a length, not {self.tolerance}")

    @cached_property
    def values(self) -> Mapping[str, Sequence[int]]:
        """The classes of each region, by its name; without regions, each class is one."""
        return self.regions or {name: (value,) for value, name in enumerate(self.class_names, 1)}


class Surfaces(NamedTuple):
    """Agreement of the surfaces of one region in one image; NaN if it is not defined (see `compare_surfaces`)."""

    hd95: float
    nsd: float


class Lesions(NamedTuple):
    """Number of lesions of one region in one image, and the sum of the Dice of the true ones."""

    true: int
    found: int
    false_positives: int
    dice: float


@dataclass(frozen=True)
class RegionScore:
    """Agreement of one region in one image; voxels are the labelled ones.

    Surfaces and lesions are None without a grid, or if voxels are unlabelled (see `score_classes`).
    """

    intersection: int = 0
    true_voxels: int = 0
    predicted_voxels: int = 0
    surfaces: Surfaces | None = None
    lesions: Lesions | None = None

    @property
    def dice(self) -> float:
        """Dice; NaN if neither has the region."""
        return ratio(2 * self.intersection, self.true_voxels + self.predicted_voxels)

    @property
    def iou(self) -> float:
        """Intersection over union; NaN if neither has the region."""
        return ratio(self.intersection, self.true_voxels + self.predicted_voxels - self.intersection)


def score_regions(
    truth: NDArray[Any], predicted: NDArray[Any], regions: Regions, grid: Grid | None = None
) -> list[RegionScore]:
    """Compare each region of one image with the truth, as `score_classes` does for several."""
    if truth.shape != predicted.shape:
        raise InputError(f"predicted classes are {predicted.shape}, the truth is {truth.shape}")
    if grid is not None and grid.shape != truth.shape:
        raise InputError(f"the truth is {truth.shape}, its grid {grid.shape}")
    table = _confusion(truth, predicted, len(regions.class_names))
    dense = int(table.sum()) == truth.size
    scores = []
    min_voxels = 1 if grid is None else min_lesion_voxels(regions.min_lesion_mm3, grid)
    for classes in map(list, regions.values.values()):
        parts = table[classes][:, classes], table[classes], table[:, classes]
        intersection, true_voxels, predicted_voxels = (int(part.sum()) for part in parts)
        surfaces = lesions = None
        if grid is not None and dense:
            masks = np.isin(truth, classes), np.isin(predicted, classes)
            surfaces = compare_surfaces(*masks, grid.steps, regions.tolerance)
            lesions = compare_lesions(*masks, min_voxels)
        scores.append(RegionScore(intersection, true_voxels, predicted_voxels, surfaces, lesions))
    return scores


def _confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count labelled voxels by true (row) and predicted (column) class, shape ``(classes + 1, classes + 1)``."""
    labelled = truth != UNLABELLED
    true, found = truth[labelled], predicted[labelled]
    for values, whose in ((true, "the truth"), (found, "the prediction")):
        if values.size and not 0 <= values.min() <= values.max() <= classes:
            raise InputError(f"{whose} has classes {values.min()} to {values.max()}, of which 0 to {classes} are known")
    edge = classes + 1
    return np.bincount(true.astype(np.int64) * edge + found, minlength=edge * edge).reshape(edge, edge)


def compare_surfaces(truth: Mask, predicted: Mask, steps: tuple[float, ...], tolerance: float) -> Surfaces:
    """Measure the distance between the surfaces of two masks.

    The surface of a mask is its voxels with a face on another voxel or on the edge of the image; distances are those of
    their centres. HD95 is the larger one of the 95th percentiles of the distances from either surface to the
    other, NaN where a mask is empty. NSD, the normalised surface Dice, is the share of both surfaces that lies within
    the tolerance of the other one (Seidlitz et al. 2021, arXiv:2111.05408), 0 where one mask is empty, NaN where both
    are. Lengths are in the unit of `steps`, those of one voxel step along each axis. These are the figures of
    `monai.metrics`, which would load PyTorch for them and measure each surface twice.
    """
    from scipy.spatial import KDTree  # slow to import

    if not truth.any() or not predicted.any():
        return Surfaces(np.nan, 0.0 if truth.any() or predicted.any() else np.nan)
    one, other = (_surface(mask) * np.array(steps) for mask in (truth, predicted))
    away = [KDTree(other).query(one)[0], KDTree(one).query(other)[0]]
    within = sum(int(np.count_nonzero(distances <= tolerance * (1 + LENGTH_TOLERANCE))) for distances in away)
    return Surfaces(
        hd95=float(max(np.percentile(distances, _PERCENTILE) for distances in away)),
        nsd=within / (len(one) + len(other)),
    )


def _surface(mask: Mask) -> NDArray[np.int64]:
    """Return the voxels (n, d) of a mask that have another voxel, or the edge of the image, at one of their faces."""
    from scipy import ndimage  # slow to import

    (box,) = ndimage.find_objects(mask.view(np.uint8))
    inside = mask[box]
    return np.asarray(np.argwhere(inside & ~ndimage.binary_erosion(inside)) + [part.start for part in box])


def compare_lesions(truth: Mask, predicted: Mask, min_voxels: int = 1) -> Lesions:
    """Compare two masks lesion by lesion.

    A lesion is a set of voxels that are connected by faces, edges or corners. A true lesion is found if any predicted
    lesion shares a voxel with it; its Dice is the one with all predicted lesions that do, together, and 0 if none does.
    A predicted lesion that shares no voxel with a true one is a false positive. This is the lesion-wise comparison of
    the BraTS challenge 2023 (Moawad et al. 2023, arXiv:2306.00838) without its constants, which suit one kind of tumour
    on voxels of 1 mm: lesions are not dilated before they are matched or joined. Lesions of fewer than `min_voxels` are
    background, in both masks.
    """
    from scipy import ndimage  # slow to import

    touching = np.ones((3,) * truth.ndim)
    pairs = match_objects(
        *(_without_small(ndimage.label(mask, touching)[0], min_voxels) for mask in (truth, predicted))
    )
    number = len(pairs.truth_ids)
    intersection = np.bincount(pairs.truth_index, pairs.intersection, number)
    partners = np.bincount(pairs.truth_index, pairs.predicted_sizes[pairs.predicted_index], number)
    return Lesions(
        true=number,
        found=int(np.count_nonzero(intersection)),
        false_positives=len(pairs.predicted_ids) - len(np.unique(pairs.predicted_index)),
        dice=float(np.sum(2 * intersection / (pairs.truth_sizes + partners))),
    )


def _without_small(labels: NDArray[np.int32], min_voxels: int) -> NDArray[np.int32]:
    small = np.bincount(labels.ravel()) < min_voxels
    return np.where(small[labels], 0, labels) if small.any() else labels
