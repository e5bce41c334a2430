"""Random patches of cases, the same for each step whoever makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np
from monai.data import get_track_meta, set_track_meta
from torch import Tensor
from torch.utils.data import Dataset

from biounet.core import Recipe
from biounet.training.augmentation import CENTRE, IMAGE, TARGET, augmentation, seed_transforms
from biounet.training.cases import Case
from biounet.training.targets.layout import TargetLayout

_SMALLEST = 16  # edge of a patch that a recipe may have


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Let MONAI return tensors without metadata, and restore its process-wide setting."""
    tracked = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(tracked)


class Patches(Dataset[tuple[Tensor, Tensor, int]]):
    """Random patches; patch ``n`` depends on the seed and ``n`` alone, whichever process makes it.

    A case is drawn in proportion to the square root of the number of its labelled voxels. Half of the patches lie
    around a random voxel of an object, or of a class that is drawn first, so that rare classes are seen; half around
    any labelled voxel.
    """

    def __init__(self, cases: Sequence[Case], recipe: Recipe) -> None:
        self.cases = cases
        self.recipe = recipe
        self.patch = patch_shape(recipe)
        weight_index = TargetLayout.from_recipe(recipe).weight_index
        # Angles are those of the specimen, so that each voxel spacing needs matrices of its own.
        self.augment = {
            spacing: augmentation(recipe.augment, self.patch, spacing, weight_index)
            for spacing in {case.spacing for case in cases}
        }
        shares = np.array([case.labelled_count for case in cases], np.float64) ** 0.5
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return image ``(c, …)``, target ``(k, …)`` and the number of the case."""
        number, rng = self._draw_case(index)
        case = self.cases[number]
        centre = self._draw_centre(case, rng)
        augment = self.augment[case.spacing]
        seed_transforms(augment, int(rng.integers(2**32)))
        with _plain_tensors():
            patch = augment({IMAGE: case.image, TARGET: case.target, CENTRE: centre})
        return patch[IMAGE], patch[TARGET], number

    def case_of(self, index: int) -> Case:
        """Return the case that a patch is drawn from."""
        return self.cases[self._draw_case(index)[0]]

    def _draw_case(self, index: int) -> tuple[int, np.random.Generator]:
        rng = np.random.default_rng([self.recipe.train.seed, index])
        return int(rng.choice(len(self.cases), p=self.shares)), rng

    def _draw_centre(self, case: Case, rng: np.random.Generator) -> tuple[float, ...]:
        """Draw the centre of a patch that lies inside the image, or of one around it where the image is smaller."""
        shape = case.labels.shape
        candidates = case.labelled_voxels
        if rng.random() < 0.5 and case.object_voxels:
            candidates = case.object_voxels[rng.integers(len(case.object_voxels))]
        if candidates is None:
            centre = tuple(int(rng.integers(size)) for size in shape)
        else:
            voxel = np.unravel_index(candidates[rng.integers(candidates.size)], shape)
            centre = tuple(int(v + rng.integers(-(e // 3), e // 3 + 1)) for v, e in zip(voxel, self.patch, strict=True))
        halves = [min(edge, size) // 2 for edge, size in zip(self.patch, shape, strict=True)]
        # What lies beyond the border is mirrored and teaches nothing: that was a quarter of small images' patches.
        inside = [min(max(c, half), size - half) for c, half, size in zip(centre, halves, shape, strict=True)]
        # A patch of even size has its centre between voxels.
        return tuple(c - 0.5 * (edge % 2 == 0) for c, edge in zip(inside, self.patch, strict=True))


def step_batches(first: int, batch: int) -> Iterator[list[int]]:
    """Return the patch numbers of each batch from the first step on; the same wherever training was interrupted."""
    return (list(range(step * batch, (step + 1) * batch)) for step in count(first))


def patch_shape(recipe: Recipe) -> tuple[int, ...]:
    """Return the edges of a training patch along each axis."""
    patch = recipe.train.patch
    return (patch,) * recipe.data.dims if isinstance(patch, int) else patch


def fit_patch(recipe: Recipe, cases: Sequence[Case], strides: tuple[int, ...]) -> Recipe:
    """Bring the patch to multiples of the stride; in 2D, shrink it to the labelled extent and enlarge the batch.

    Little work is then spent on unlabelled pixels. An edge becomes the smallest multiple of the stride that holds the
    median extent of the labelled pixels and half as much again; never more than the recipe says, never less than 2
    strides and 16 pixels. Volumes are labelled in planes, and the patch has to reach beyond them.
    """
    requested = patch_shape(recipe)
    edges = tuple(max(edge // stride, 1) * stride for edge, stride in zip(requested, strides, strict=True))
    if recipe.data.dims == 3:
        return recipe.replace("train", patch=edges)
    stride = max(strides)
    extent = float(np.median([max(_labelled_extent(case)) for case in cases]))
    longest = max(int(np.ceil(1.5 * extent / stride)) * stride, 2 * stride, -(-_SMALLEST // stride) * stride)
    edges = tuple(min(edge, longest) for edge in edges)
    ratio = np.prod(requested) / np.prod(edges)
    patch = edges if isinstance(recipe.train.patch, tuple) else edges[0]
    return recipe.replace("train", patch=patch, batch=max(1, round(recipe.train.batch * min(ratio, 8.0))))


def _labelled_extent(case: Case) -> tuple[int, ...]:
    if case.labelled_voxels is None:
        return case.labels.shape
    indices = np.unravel_index(case.labelled_voxels, case.labels.shape)
    return tuple(int(axis.max() - axis.min()) + 1 for axis in indices)
