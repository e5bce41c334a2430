"""The training target of an annotation, and the order of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biounet.core import Annotation, Recipe
from biounet.files import undrawn_regions
from biounet.network import output_channels
from biounet.training.targets.distances import signed_distance
from biounet.training.targets.instances import make_instance_targets


class TargetParts(NamedTuple):
    """The channels of a target, or of a batch of targets, by what they hold."""

    values: Tensor
    outline_distances: Tensor
    weights: Tensor
    outline_weights: Tensor


@dataclass(frozen=True)
class TargetLayout:
    """Names of the channels of a target, in the order of `TargetParts`.

    Attributes
    ----------
    values
        Output channels of the network, each of which has a target value.
    weights
        Those of them that have a weight of their own; exclusive classes share one, called ``labelled``.
    outlines
        Regions whose outline enters the boundary loss, each with a signed distance and a weight; none without it.
    """

    values: tuple[str, ...]
    weights: tuple[str, ...]
    outlines: tuple[str, ...]

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> TargetLayout:
        """Return the layout of the targets of a recipe."""
        values = output_channels(recipe)
        outlines = values[:1] if recipe.data.kind == "instances" else tuple(recipe.data.label_values)
        return cls(
            values=values,
            weights=("labelled",) if recipe.data.exclusive else values,
            outlines=outlines if recipe.loss.boundary else (),
        )

    @property
    def weight_index(self) -> list[int]:
        """For each value and each signed distance, the position of its weight among all weights."""
        of_values = [0] * len(self.values) if len(self.weights) == 1 else list(range(len(self.values)))
        return of_values + [len(self.weights) + number for number in range(len(self.outlines))]

    def split(self, target: Tensor, axis: int = 0) -> TargetParts:
        """Return views of the channels, which lie along `axis`."""
        outlines = len(self.outlines)
        return TargetParts(*torch.split(target, [len(self.values), outlines, len(self.weights), outlines], axis))


def make_target(annotation: Annotation, recipe: Recipe, spacing: tuple[float, ...]) -> NDArray[np.float16]:
    """Return the target of an annotation on the working grid.

    Parameters
    ----------
    annotation
        Labels of shape ``([z,] y, x)``.
    recipe
        Kind of annotation, targets and loss.
    spacing
        Voxel spacing along each axis, in the unit of the lengths of the recipe.

    Returns
    -------
    Shape ``(k, [z,] y, x)``, channels in the order of `TargetLayout`.
    """
    layout = TargetLayout.from_recipe(recipe)
    values: list[NDArray[np.float32]] | list[NDArray[np.bool_]]
    weights: list[NDArray[np.float32]] | list[NDArray[np.bool_]]
    if recipe.data.kind == "instances":
        made = make_instance_targets(annotation, recipe.targets, spacing, recipe.data.section_axis)
        values = [made.foreground, made.contour, made.distance]
        weights = [made.foreground_weight, made.contour_weight, made.distance_weight]
    elif recipe.data.exclusive:
        values = [annotation.labels == number for number in range(len(layout.values))]
        weights = [annotation.labelled]
    else:
        regions = _regions(annotation, recipe)
        values, weights = [region for region, _ in regions], [known for _, known in regions]
    outlined = _regions(annotation, recipe) if layout.outlines else []
    outlines = [signed_distance(region, known, spacing) for region, known in outlined]
    distances, distance_weights = [distance for distance, _ in outlines], [known for _, known in outlines]
    return np.stack([*values, *distances, *weights, *distance_weights]).astype(np.float16)


def _regions(annotation: Annotation, recipe: Recipe) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return the mask of each region, and the mask of the voxels where it is known: none if nobody drew it."""
    labels, labelled = annotation.labels, annotation.labelled
    if recipe.data.kind == "instances":
        return [(labels > 0, labelled)]
    undrawn = undrawn_regions(annotation.source, recipe.data, annotation.image) if annotation.source is not None else ()
    regions = recipe.data.label_values
    return [(np.isin(labels, values), labelled & (name not in undrawn)) for name, values in regions.items()]
