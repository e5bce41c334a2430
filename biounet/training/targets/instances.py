"""Annotation -> targets and weights: what the network learns at each voxel, and at which voxels it is known.

Unlabelled space may hide anything: a neighbour, or the rest of an object. A target has weight 0 wherever something
hidden there could change it; elsewhere it is what a complete annotation would give. The edge of the image hides
nothing that matters, because the network meets it again when it predicts: cells cut by it are taken as they appear.

In a volume of which single planes are labelled no object is known as a whole, and neither is any distance to its edge.
There the network learns contour and distance of the sections, which are known: they shrink towards either end of an
object as its sections do, so that the surface is still highest in the middle and lowest where objects meet.
"""
# Compiled functions carry no annotations: numba infers its types from the arrays that `edge_distance` passes.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from biounet.core import LENGTH_TOLERANCE, UNLABELLED, Annotation, InputError, TargetSettings, bounding_box, compiled
from biounet.training.targets.boundary_weight import border_weight, steps_of, two_nearest
from biounet.training.targets.distances import edge_distance

_LARGE = 90  # percentile of the sections of an annotation whose middle counts as the middle of an object


@dataclass(frozen=True)
class Targets:
    """What a model of instances learns; every array is float32 and has the shape of the annotation.

    Attributes
    ----------
    foreground
        1 in objects, else 0.
    contour
        1 in the voxels of an object along its edge, else 0.
    distance
        Distance to the edge of the object, divided by the largest in the object: 1 in its middle, 0 in background. Of
        sections, distance to the edge of the section, divided by that in the middle of a large one, at most 1.
    weight
        Of `foreground`: 0 where unlabelled, else 1 and the U-Net boundary weight.
    contour_weight, distance_weight
        Of `contour` and `distance`: 0 where they are unknown, else 1 and the boundary weight of `separation_weight`.
    """

    foreground: NDArray[np.float32]
    contour: NDArray[np.float32]
    distance: NDArray[np.float32]
    weight: NDArray[np.float32]
    contour_weight: NDArray[np.float32]
    distance_weight: NDArray[np.float32]


def make_targets(
    annotation: Annotation,
    settings: TargetSettings,
    steps: tuple[float, ...] | None = None,
    axis: int | None = None,
) -> Targets:
    """Return targets and weights of an annotation of kind ``instances``.

    Objects are taken to be connected, across faces, edges or corners of voxels: one that meets no unlabelled voxel is
    complete.

    Parameters
    ----------
    annotation
        Labels of shape ``([z,] y, x)``.
    settings
        Width of the contour, and height and width of the boundary weight.
    steps
        Length of a voxel along each axis in the unit of `settings`; None for 1, that is lengths in voxels.
    axis
        Of a volume: the axis across which single planes are labelled. Targets are then those of the sections.

    Raises
    ------
    InputError
        If the annotation holds classes or scribbles, or if `steps` does not fit it.
    """
    if annotation.kind != "instances":
        raise InputError(f"targets of instances need instances, not {annotation.kind}", path=annotation.source)
    steps = steps_of(annotation.labels.ndim, steps)
    window = _labelled_window(annotation.labelled)
    labels = _compact(annotation.labels[window])
    if axis is None:
        made = _targets_of(labels, settings, steps, *_distance(labels, steps))
    else:
        made = _sections_of(labels, settings, steps, axis)
    if made.weight.shape == annotation.labels.shape:
        return made
    whole = {f.name: np.zeros(annotation.labels.shape, np.float32) for f in fields(Targets)}
    for name, array in whole.items():
        array[window] = getattr(made, name)
    return Targets(**whole)


def make_class_targets(annotation: Annotation) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the class of each voxel, 0 where unlabelled, and its weight: 1 where labelled, else 0."""
    labelled = annotation.labelled
    return np.where(labelled, annotation.labels, np.int32(0)), labelled.astype(np.float32)


def _labelled_window(labelled: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the bounding box of what is labelled and one voxel more, so that unlabelled space is seen to go on."""
    # Nothing labelled: any one voxel is as good as the whole.
    box = bounding_box(labelled) or (slice(0, 1),) * labelled.ndim
    return tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)


def _compact(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return labels whose ids are small enough to number a table."""
    if labels.max() <= labels.size:
        return np.ascontiguousarray(labels)
    _, numbers = np.unique(np.append(labels.ravel(), (UNLABELLED, 0)), return_inverse=True)
    return (numbers[:-2] + UNLABELLED).reshape(labels.shape).astype(np.int32)


def _sections_of(labels: NDArray[np.int32], settings: TargetSettings, steps: tuple[float, ...], axis: int) -> Targets:
    """Return the targets of a volume of which planes across `axis` are labelled."""
    whole = {f.name: np.zeros(labels.shape, np.float32) for f in fields(Targets)}
    views = {name: np.moveaxis(array, axis, 0) for name, array in whole.items()}
    inside = steps[:axis] + steps[axis + 1 :]
    middles = [np.empty(0, np.float32)]
    for number, plane in enumerate(np.moveaxis(labels, axis, 0)):
        if (plane == UNLABELLED).all():
            continue
        plane = np.ascontiguousarray(plane)
        distance, largest, known = _distances(plane, inside)
        made = _targets_of(plane, settings, inside, distance, known)
        for name, view in views.items():
            view[number] = getattr(made, name)
        middles.append(largest[np.isfinite(largest) & (largest > 0)])
    found = np.concatenate(middles)
    if found.size:
        whole["distance"] = np.minimum(whole["distance"] / np.float32(np.percentile(found, _LARGE)), 1)
    return Targets(**whole)


def _targets_of(
    labels: NDArray[np.int32],
    settings: TargetSettings,
    steps: tuple[float, ...],
    distance: NDArray[np.float32],
    distance_known: NDArray[np.bool_],
) -> Targets:
    labelled = labels != UNLABELLED
    contour, contour_known = _contour(labels, settings.contour, steps)
    between = border_weight(labels, 1.0, settings.border_sigma, steps)
    weight = (1 + settings.border_weight * between) * labelled
    separation = 1 + settings.separation_weight * between
    return Targets(
        foreground=(labels > 0).astype(np.float32),
        contour=contour.astype(np.float32),
        distance=distance,
        weight=weight,
        contour_weight=contour_known * separation,
        distance_weight=distance_known * separation,
    )


def _contour(
    labels: NDArray[np.int32], width: float, steps: tuple[float, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which voxels are contour and where this is known.

    Contour are the voxels of an object whose centre is within `width` of the centre of a voxel labelled as something
    else, and those that face one, so that the contour is nowhere thinner than a voxel. Near unlabelled space a voxel is
    contour if an edge that was drawn makes it so, and unknown else.
    """
    objects, labelled = labels > 0, labels != UNLABELLED
    square = (width * (1 + LENGTH_TOLERANCE)) ** 2
    # Background takes part as a label of its own.
    contour = _faces_other(labels) | (two_nearest(labels + 1, width, steps)[1] <= square)
    contour &= objects
    if labelled.all():
        return contour, labelled
    hidden = _near(~labelled, corners=False) | (two_nearest(~labelled, width, steps)[0] <= square)
    return contour, labelled & (contour | ~(objects & hidden))


def _distance(labels: NDArray[np.int32], steps: tuple[float, ...]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the normalised distance and where it is known."""
    distance, largest, known = _distances(labels, steps)
    scale = np.divide(1, largest, out=np.zeros_like(largest), where=largest > 0)
    distance *= scale[np.maximum(labels, 0)]
    return distance, known


def _distances(
    labels: NDArray[np.int32], steps: tuple[float, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return the distance to the edge of the object, 0 where unknown, the largest of each, and where it is known.

    It is known in background and in every object of which no voxel meets an unlabelled one, even at a corner: what is
    nearest to a voxel and not of its object always meets the object, so that nothing hidden can be nearer. Any other
    object may go on in unlabelled space, where its largest distance may lie, and is unknown as a whole, with infinity
    as its largest; so is one without an edge in the image. Number 0 has 0.
    """
    unlabelled = labels == UNLABELLED
    distance = edge_distance(labels, steps)
    ids = np.maximum(labels, 0)
    largest = np.zeros(int(ids.max(initial=0)) + 1, np.float32)
    _largest_of_each(ids.ravel(), distance.ravel(), largest)
    if unlabelled.any():
        largest[ids[_near(unlabelled, corners=True)]] = np.inf
    largest[0] = 0
    known = np.isfinite(largest)[ids] & ~unlabelled
    distance[~known] = 0
    return distance, largest, known


def _faces_other(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which voxels share a face with a voxel labelled as something else."""
    found = np.zeros(labels.shape, bool)
    for before, after in _neighbours(labels.ndim):
        ours, theirs = labels[before], labels[after]
        differs = (ours != theirs) & (ours != UNLABELLED) & (theirs != UNLABELLED)
        found[before] |= differs
        found[after] |= differs
    return found


def _near(mask: NDArray[np.bool_], corners: bool) -> NDArray[np.bool_]:
    """Return `mask` and the voxels that share a face with it, or at least a corner."""
    found = mask.copy()
    for before, after in _neighbours(mask.ndim):
        source = found.copy() if corners else mask
        found[before] |= source[after]
        found[after] |= source[before]
    return found


def _neighbours(dims: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return for each axis two indices: of the voxels that have a next one, and of those next ones."""
    rest = (slice(None),)
    return [((*rest * axis, slice(None, -1)), (*rest * axis, slice(1, None))) for axis in range(dims)]


@compiled
def _largest_of_each(ids, values, largest):
    for i in range(ids.size):
        largest[ids[i]] = max(largest[ids[i]], values[i])
