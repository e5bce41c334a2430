"""Annotated images in memory, ready to draw training patches from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biounet.core import UNLABELLED, Annotation, Grid, Kind, Recipe, Volume, canonical_volume
from biounet.files import Pair, ReadOptions, read_annotation
from biounet.preprocessing import ImageStatistics, image_statistics, rescale, resize_labels, scale_intensities
from biounet.training.targets.layout import make_target
from biounet.training.volume_reader import VolumeReader
from biounet.training.working_grid import ResampledAnnotation, resample_annotation

_LIMIT = 1e4  # of normalised intensities: beyond it a hot pixel would be infinite in float16


@dataclass(frozen=True)
class Case:
    """One annotated image in the canonical orientation on the working grid, inside `biounet.preprocessing.body_box`.

    Attributes
    ----------
    image
        Normalised intensities, float16, shape ``(c, [z,] y, x)``.
    target
        Values and weights that the loss compares with, float16, shape ``(k, [z,] y, x)``, channels in the order of
        `TargetLayout`.
    labels
        The annotation, shape ``([z,] y, x)``.
    labelled_voxels, object_voxels
        Flat indices of the labelled voxels, None if all are labelled, and of those of objects, or of each class.
    spacing
        Voxel spacing of the working grid in the unit of target lengths; the smallest is 1 where they are in pixels.
    grid
        Grid of the image in the canonical orientation, before it is resampled.
    """

    name: str
    image: Tensor
    target: Tensor
    labels: NDArray[np.int32]
    labelled_voxels: NDArray[np.int32] | None
    object_voxels: tuple[NDArray[np.int32], ...]
    spacing: tuple[float, ...]
    grid: Grid
    section_axis: int | None = None  # normal to the labelled planes, whose sections are learned; None for whole objects
    surroundings_removed: bool = False  # of the body
    statistics: ImageStatistics = field(default_factory=dict)
    voxel_um: float | None = None  # area (µm²) or volume (µm³) of a voxel of the working grid, if known

    @property
    def labelled_count(self) -> int:
        """Number of labelled voxels."""
        return self.labels.size if self.labelled_voxels is None else len(self.labelled_voxels)


def load_cases(pairs: Sequence[Pair], recipe: Recipe, options: ReadOptions | None = None) -> Iterator[Case]:
    """Read annotated images and prepare them for training; an `InputError` names the file that cannot be used."""
    # Not through LoadImaged: a MetaTensor has no 16-bit unsigned numbers and no grid.
    options = options or ReadOptions(dims=recipe.data.dims)
    for pair in pairs:
        read = replace(options, scene=pair.scene)
        volume = VolumeReader(read).load(pair.files())
        annotation = read_annotation(pair.label, recipe.data, volume.grid, options, image=pair.drawn_on)
        yield make_case(volume, annotation, recipe)


def make_case(
    volume: Volume, annotation: Annotation, recipe: Recipe, resampled: ResampledAnnotation | None = None
) -> Case:
    """Bring an image and its annotation to the canonical orientation and the working grid, and make the target.

    Errors are those of `resample_annotation`; `resampled` is its result if it has already been called.
    """
    resampled = resampled or resample_annotation(volume, annotation, recipe)
    volume = canonical_volume(volume)
    scaled = scale_intensities(volume.array, recipe.normalise)
    image = rescale(scaled.image[(slice(None), *resampled.crop)], resampled.zoom)
    labels = resampled.labels
    if scaled.acquired is not None:  # nobody can have seen anything elsewhere
        acquired = resize_labels(scaled.acquired[resampled.crop].astype(np.int32), labels.shape)
        labels = np.where(acquired > 0, labels, UNLABELLED)
    if resampled.section_axis is not None:  # in the recipe it is an axis of the file
        recipe = recipe.replace("data", slices="zyx"[resampled.section_axis])
    labelled = labels != UNLABELLED
    on_working_grid = replace(annotation, labels=labels, grid=Grid(labels.shape))
    target = make_target(on_working_grid, recipe, resampled.spacing)
    return Case(
        name=str(volume.source or "array"),
        image=torch.from_numpy(image).clamp(-_LIMIT, _LIMIT).half(),
        target=torch.from_numpy(target),
        labels=labels,
        labelled_voxels=None if labelled.all() else np.flatnonzero(labelled).astype(np.int32),
        object_voxels=_object_voxels(labels, annotation.kind),
        spacing=resampled.spacing,
        grid=volume.grid,
        section_axis=resampled.section_axis,
        surroundings_removed=resampled.surroundings_removed,
        statistics=image_statistics(volume, replace(scaled, image=image)),
        voxel_um=math.prod(volume.grid.steps_um) / math.prod(resampled.zoom) if volume.grid.steps_um else None,
    )


def _object_voxels(labels: NDArray[np.int32], kind: Kind) -> tuple[NDArray[np.int32], ...]:
    objects = labels > 0
    masks = [objects] * bool(objects.any())
    if kind != "instances":
        masks = [labels == number for number in np.unique(labels[objects])]
    return tuple(np.flatnonzero(mask).astype(np.int32) for mask in masks)
