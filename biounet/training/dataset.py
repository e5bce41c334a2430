"""Annotated images in memory, and the patches that training draws from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from biounet.core import UNLABELLED, Annotation, Grid, Kind, Recipe, Volume, canonical_volume
from biounet.files import Pair, ReadOptions, read_annotation, undrawn_regions
from biounet.preprocessing import ImageStatistics, image_statistics, rescale, resize_labels, scale_intensities
from biounet.training.augmentation import CENTRE, IMAGE, TARGET, augmentation, seed_all
from biounet.training.losses import boundary_regions, weights_of
from biounet.training.preflight import Placed, place
from biounet.training.preflight import hold_out as hold_out
from biounet.training.targets.distances import signed_distance
from biounet.training.targets.instances import make_class_targets, make_targets
from biounet.training.volume_reader import VolumeReader

_LIMIT = 1e4  # of normalised intensities: beyond it a hot pixel would be infinite in float16


@dataclass(frozen=True)
class Case:
    """One annotated image in the canonical orientation on the working grid, inside `biounet.preprocessing.body_box`.

    Attributes
    ----------
    name
        For messages.
    image
        Normalised intensities, float16, shape ``(c, [z,] y, x)``.
    target
        Values and weights that the loss compares with, float16, shape ``(k, [z,] y, x)``; the weights come last.
    labels
        The annotation, int32, shape ``([z,] y, x)``.
    centres
        Flat indices of the labelled voxels; None where every voxel is labelled.
    foreground
        Flat indices of the voxels of objects, or of each class that occurs.
    steps
        Length of a voxel of the working grid along each axis, the shortest being 1 where lengths are in pixels.
    grid
        Grid of the image in the canonical orientation, before it is resampled.
    section_axis
        The axis normal to the labelled planes, whose sections are learned; None where whole objects are.
    surroundings_removed
        Whether the surroundings of the body were removed from the image.
    looks
        How the image looks, from `biounet.preprocessing.image_statistics`.
    voxel_um
        Area (µm²) or volume (µm³) of a voxel of the working grid; None where it is unknown.
    """

    name: str
    image: Tensor
    target: Tensor
    labels: NDArray[np.int32]
    centres: NDArray[np.int32] | None
    foreground: tuple[NDArray[np.int32], ...]
    steps: tuple[float, ...]
    grid: Grid
    section_axis: int | None = None
    surroundings_removed: bool = False
    looks: ImageStatistics = field(default_factory=dict)
    voxel_um: float | None = None

    @property
    def labelled(self) -> int:
        """Number of labelled voxels."""
        return self.labels.size if self.centres is None else len(self.centres)


def load_cases(pairs: Sequence[Pair], recipe: Recipe, options: ReadOptions | None = None) -> Iterator[Case]:
    """Read annotated images and make what the network learns from them.

    Raises
    ------
    InputError
        Naming the file that cannot be used.
    """
    options = options or ReadOptions(dims=recipe.data.dims)
    reader = VolumeReader(options)  # not through LoadImaged: a MetaTensor has no 16-bit unsigned numbers and no grid
    for pair in pairs:
        volume = reader.load(pair.files())
        yield make_case(volume, read_annotation(pair.label, recipe.data, volume.grid), recipe)


def make_case(volume: Volume, annotation: Annotation, recipe: Recipe) -> Case:
    """Bring an image and its annotation to the canonical orientation and the working grid, and make the targets."""
    return case_of(volume, annotation, place(volume, annotation, recipe), recipe)


def case_of(volume: Volume, annotation: Annotation, placed: Placed, recipe: Recipe) -> Case:
    """Make what the network learns from an image and the place of its annotation on the working grid."""
    volume = canonical_volume(volume)
    scaled = scale_intensities(volume.array, recipe.normalise)
    image = rescale(scaled.image[(slice(None), *placed.body)], placed.zoom)
    labels, steps = placed.labels, placed.steps
    if scaled.acquired is not None:  # nobody can have seen anything there
        there = resize_labels(scaled.acquired[placed.body].astype(np.int32), labels.shape)
        labels = np.where(there > 0, labels, UNLABELLED)
    if placed.section_axis is not None:  # the recipe counts along the axes of the file
        recipe = recipe.replace("data", slices="zyx"[placed.section_axis])
    drawn = Annotation(labels, annotation.kind, Grid(labels.shape), annotation.source)
    target = targets_of(drawn, recipe, steps)
    dense = bool((labels != UNLABELLED).all())
    return Case(
        name=str(volume.source or "array"),
        image=torch.from_numpy(image).clamp(-_LIMIT, _LIMIT).half(),
        target=torch.from_numpy(target),
        labels=labels,
        centres=None if dense else np.flatnonzero(labels != UNLABELLED).astype(np.int32),
        foreground=_places(labels, annotation.kind),
        steps=steps,
        grid=volume.grid,
        section_axis=placed.section_axis,
        surroundings_removed=placed.surroundings_removed,
        looks=image_statistics(volume, replace(scaled, image=image)),
        voxel_um=math.prod(volume.grid.steps_um) / math.prod(placed.zoom) if volume.grid.steps_um else None,
    )


def targets_of(annotation: Annotation, recipe: Recipe, steps: tuple[float, ...]) -> NDArray[np.float16]:
    """Return what `recipe_loss` compares with, float16, shape ``(k, [z,] y, x)``: weights come last."""
    values, weights = _values_and_weights(annotation, recipe, steps)
    outlines = _outlines(annotation, recipe)[: boundary_regions(recipe)]
    known = _known(annotation, recipe, len(outlines))
    away = [signed_distance(region, labelled, steps) for region, labelled in zip(outlines, known, strict=True)]
    parts = [*values, *(distance for distance, _ in away), *weights, *(known for _, known in away)]
    return np.stack(parts).astype(np.float16)


def _outlines(annotation: Annotation, recipe: Recipe) -> list[NDArray[np.bool_]]:
    """Return the regions whose outlines matter: the foreground, or each region or class but the background."""
    if annotation.kind == "instances":
        return [annotation.labels > 0]
    return [np.isin(annotation.labels, values) for values in recipe.data.label_values.values()]


def _known(annotation: Annotation, recipe: Recipe, regions: int) -> list[NDArray[np.bool_]]:
    """Return where each region is known: nowhere in a case in which nobody drew it."""
    missing = undrawn_regions(annotation.source, recipe.data) if annotation.source is not None else ()
    drawn = list(recipe.data.overlapping)[:regions] or [""] * regions
    return [annotation.labelled & (region not in missing) for region in drawn]


def _values_and_weights(
    annotation: Annotation, recipe: Recipe, steps: tuple[float, ...]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    if recipe.data.kind == "instances":
        made = make_targets(annotation, recipe.targets, steps, recipe.data.section_axis)
        values = [made.foreground, made.contour, made.distance]
        return values, [made.weight, made.contour_weight, made.distance_weight]
    if recipe.data.overlapping:
        regions = _outlines(annotation, recipe)
        return list(regions), list(_known(annotation, recipe, len(regions)))
    classes, weight = make_class_targets(annotation)
    return [(classes == k) & (weight > 0) for k in range(len(recipe.data.foreground) + 1)], [weight]


def _places(labels: NDArray[np.int32], kind: Kind) -> tuple[NDArray[np.int32], ...]:
    if kind == "instances":
        return tuple(places for places in [np.flatnonzero(labels > 0).astype(np.int32)] if places.size)
    return tuple(np.flatnonzero(labels == n).astype(np.int32) for n in np.unique(labels[labels > 0]))


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Let MONAI return tensors without its metadata, and leave its setting for the whole process as it was."""
    tracked = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(tracked)


class Patches(Dataset[tuple[Tensor, Tensor, int]]):
    """Patches of cases; patch ``n`` depends on the seed and ``n`` alone, whoever makes it.

    Parameters
    ----------
    cases
        Where patches are drawn: a case with the square root of its labelled voxels; half of the centres near a voxel
        of an object, or of a class that is drawn first, so that rare ones are seen; half near any labelled voxel.
    recipe
        Augmentation, patch and seed.
    """

    def __init__(self, cases: Sequence[Case], recipe: Recipe) -> None:
        self.cases = cases
        self.recipe = recipe
        self.patch = edges_of(recipe)
        # Which weight says whether a value exists: its own, or the one that all classes share.
        shared = len(recipe.data.foreground) if recipe.data.exclusive else 0
        owners = [0] * shared + list(range(weights_of(recipe) + boundary_regions(recipe)))
        # Angles are those of the specimen, so that images of other voxels are turned by other matrices.
        steps = {case.steps for case in cases}
        self.augment = {each: augmentation(recipe.augment, self.patch, each, owners) for each in steps}
        shares = np.array([case.labelled for case in cases], np.float64) ** 0.5
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return image ``(c, …)``, target ``(k, …)`` and the number of the case."""
        draw = np.random.default_rng([self.recipe.train.seed, index])
        number = int(draw.choice(len(self.cases), p=self.shares))
        case = self.cases[number]
        centre = self._draw_centre(case, draw)
        augment = self.augment[case.steps]
        seed_all(augment, int(draw.integers(2**32)))
        with _plain_tensors():
            drawn = augment({IMAGE: case.image, TARGET: case.target, CENTRE: centre})
        return drawn[IMAGE], drawn[TARGET], number

    def _draw_centre(self, case: Case, draw: np.random.Generator) -> tuple[float, ...]:
        """Draw the centre of a patch that lies inside the image, or around all of it where the image is smaller."""
        shape = case.labels.shape
        near = case.centres
        if draw.random() < 0.5 and case.foreground:
            near = case.foreground[draw.integers(len(case.foreground))]
        if near is None:
            at = tuple(int(draw.integers(size)) for size in shape)
        else:
            voxel = np.unravel_index(near[draw.integers(near.size)], shape)
            at = tuple(int(v + draw.integers(-(e // 3), e // 3 + 1)) for v, e in zip(voxel, self.patch, strict=True))
        halves = [min(edge, size) // 2 for edge, size in zip(self.patch, shape, strict=True)]
        # What lies beyond the border is mirrored and teaches nothing: that was a quarter of small images' patches.
        inside = [min(max(c, half), size - half) for c, half, size in zip(at, halves, shape, strict=True)]
        # A patch of even size has its centre between voxels.
        return tuple(c - 0.5 * (edge % 2 == 0) for c, edge in zip(inside, self.patch, strict=True))


class Steps(Sampler[list[int]]):
    """Numbers of the patches of each batch from one step to another; the same wherever training was interrupted."""

    def __init__(self, first: int, last: int, batch: int) -> None:
        self.first, self.last, self.batch = first, last, batch

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield list(range(step * self.batch, (step + 1) * self.batch))

    def __len__(self) -> int:
        return max(0, self.last - self.first)


def edges_of(recipe: Recipe) -> tuple[int, ...]:
    """Return the edges of a training patch along each axis."""
    patch = recipe.train.patch
    return (patch,) * recipe.data.dims if isinstance(patch, int) else patch


def fit_patch(recipe: Recipe, cases: Sequence[Case], strides: tuple[int, ...]) -> Recipe:
    """Bring the patch to multiples of the stride and, in images, shrink it to what is labelled, with more of them.

    Little work is then spent on unlabelled pixels. An edge becomes the smallest multiple of the stride that holds the
    median extent of the labelled pixels and half as much again; never more than the recipe says, never less than 2
    strides. Volumes are labelled in planes, and the patch has to see beyond them.
    """
    wanted_edges = edges_of(recipe)
    edges = tuple(max(edge // stride, 1) * stride for edge, stride in zip(wanted_edges, strides, strict=True))
    if recipe.data.dims == 3:
        return recipe.replace("train", patch=edges)
    stride = max(strides)
    extents = [max(_extent(case)) for case in cases]
    holding = max(int(np.ceil(1.5 * float(np.median(extents)) / stride)) * stride, 2 * stride)
    edges = tuple(min(edge, holding) for edge in edges)
    more = np.prod(wanted_edges) / np.prod(edges)
    patch = edges if isinstance(recipe.train.patch, tuple) else edges[0]
    return recipe.replace("train", patch=patch, batch=max(1, round(recipe.train.batch * min(more, 8.0))))


def _extent(case: Case) -> tuple[int, ...]:
    if case.centres is None:
        return case.labels.shape
    places = np.unravel_index(case.centres, case.labels.shape)
    return tuple(int(axis.max() - axis.min()) + 1 for axis in places)


def hash_training_files(pairs: Sequence[Pair]) -> str:
    """Return the SHA-256 over the names and contents of the training files, in order of name."""
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda p: Path(p.image).name):
        for path in (*pair.files(), pair.label):
            digest.update(Path(path).name.encode())
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()
