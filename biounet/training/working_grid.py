"""The annotation of an image on the working grid, on which the network learns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    UNLABELLED,
    Annotation,
    Grid,
    InputError,
    Recipe,
    SettingsError,
    Volume,
    canonical_transform,
    canonical_volume,
)
from biounet.preprocessing import Zoom, body_box, body_masks, rescaled_shape, resize_labels, working_zoom


@dataclass(frozen=True)
class ResampledAnnotation:
    """The annotation of an image in the canonical orientation on the working grid; fields as of `Case`."""

    crop: tuple[slice, ...]  # the part of the image that is used
    zoom: Zoom  # from the voxels of the image to the working grid
    labels: NDArray[np.int32]
    spacing: tuple[float, ...]
    section_axis: int | None = None
    surroundings_removed: bool = False


def resample_annotation(volume: Volume, annotation: Annotation, recipe: Recipe) -> ResampledAnnotation:
    """Bring the annotation of an image to the canonical orientation and the working grid of a recipe.

    An `InputError` says that the image has other channels than the recipe, no pixel size where one is needed, or no
    labelled voxel, a `SettingsError` that the recipe has lengths in µm and the image no pixel size.
    """
    if volume.channels != len(recipe.data.channels):
        cause = f"{volume.channels} channels, the recipe expects {len(recipe.data.channels)}"
        raise InputError(cause, path=volume.source, hint="choose one with --channel")
    transform, volume = canonical_transform(volume.grid), canonical_volume(volume)
    zoom = working_zoom(volume.grid, recipe.data, volume.source)
    crop = body_box(volume.array, recipe.normalise, recipe.data)
    cropped = np.ascontiguousarray(transform.apply(annotation.labels)[crop])
    labels = resize_labels(cropped, rescaled_shape(cropped.shape, zoom))
    if (labels == UNLABELLED).all():
        raise InputError("nothing is labelled", path=annotation.source)
    axis = recipe.data.section_axis
    return ResampledAnnotation(
        crop,
        zoom,
        labels,
        _target_spacing(volume.grid, zoom, recipe),
        section_axis=None if axis is None else transform.axes.index(axis),
        surroundings_removed=recipe.normalise.method == "zscore" and body_masks(volume.array) is not None,
    )


def _target_spacing(grid: Grid, zoom: Zoom, recipe: Recipe) -> tuple[float, ...]:
    units = {"targets.unit": recipe.targets.unit}
    if recipe.data.kind != "classes":
        units["label.min_size_unit"] = recipe.label.min_size_unit
    for name, needed in units.items():
        if grid.spacing is None and needed == "um":
            raise SettingsError(f"{name} = 'um' needs calibrated images", hint=f"set {name} = 'px', or --spacing")
    if grid.spacing is None or (recipe.targets.unit == "px" and grid.dims == 2):
        return (1.0,) * grid.dims
    spacing = [step / factor for step, factor in zip(grid.spacing, zoom, strict=True)]
    unit = min(spacing) if recipe.targets.unit == "px" else 1e-3 if grid.unit == "mm" else 1.0
    return tuple(step / unit for step in spacing)
