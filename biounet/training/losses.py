"""Losses in which a voxel of weight 0 does not exist.

Whatever logit or label stands at such a voxel, each loss here is the same to the last bit, and the gradient of the
logit is exactly 0; where every weight is 0 the loss is 0. To get there, a voxel is replaced *before* the activation
(``torch.where``), never multiplied by 0 after it: 0 · NaN is NaN, and a logit of 0 still counts as a probability of ½.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from biounet.core import LossSettings, Recipe
from biounet.network import INSTANCE_HEADS

TARGETS = ("foreground", "contour", "distance", "weight", "contour_weight", "distance_weight")
"""Channels of the target of an instance model, in order."""


def existing(values: Tensor, weight: Tensor) -> Tensor:
    """Replace the values at voxels of weight 0 by 0, and cut their gradient."""
    return torch.where(weight > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return ``sum(weight · values) / sum(weight)``, and 0 where all weights are 0."""
    total = weight.sum()
    return (existing(values, weight) * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def binary_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the binary cross entropy; all arguments have one shape."""
    logits, target = existing(logits, weight), existing(target, weight)
    return weighted_mean(functional.binary_cross_entropy_with_logits(logits, target, reduction="none"), weight)


def cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the softmax cross entropy.

    Parameters
    ----------
    logits
        Shape ``(b, k, …)``.
    classes
        Class of each voxel, int64, shape ``(b, …)``; any value where the weight is 0.
    weight
        Shape ``(b, …)``.
    """
    logits = existing(logits, weight[:, None].expand_as(logits))
    classes = torch.where(weight > 0, classes, torch.zeros_like(classes))
    return weighted_mean(functional.cross_entropy(logits, classes, reduction="none"), weight)


def dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """One minus the soft Dice coefficient over the voxels that exist, over the batch as a whole.

    ``1 - 2 Σ p y / (Σ p + Σ y)`` (Milletari et al. 2016), over voxels of positive weight; the size of the weight is
    ignored because it would move the optimal outline. 0 where neither is there.
    """
    exists = (weight > 0).to(probability.dtype)
    probability, target = existing(probability, weight) * exists, existing(target, weight) * exists
    overlap, total = (probability * target).sum(), probability.sum() + target.sum()
    score = (2 * overlap + 1) / (total + 1)
    return torch.where(exists.sum() > 0, 1 - score, score.detach() * 0)


def boundary(probability: Tensor, signed_distance: Tensor, weight: Tensor) -> Tensor:
    """Boundary loss of Kervadec et al. 2019: the mean of probability times signed distance to the true outline.

    Parameters
    ----------
    probability
        Of one region, any shape, from logits that went through `existing`.
    signed_distance
        Distance to the outline of the region, negative inside, in the unit of the voxel spacing; same shape.
    weight
        0 where the voxel, or its distance, is unknown.
    """
    exists = (weight > 0).to(probability.dtype)
    return weighted_mean(existing(probability, weight) * existing(signed_distance, weight), exists)


def instance_loss(logits: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
    """Loss of a model of instances.

    Parameters
    ----------
    logits
        Shape ``(b, 3, …)``, channels `INSTANCE_HEADS`.
    target
        Shape ``(b, 6, …)``, channels `TARGETS`.
    """
    foreground, contour, distance = logits.float().unbind(1)
    is_foreground, is_contour, to_edge, weight, contour_weight, distance_weight = target.float().unbind(1)
    loss = settings.cross_entropy * binary_cross_entropy(foreground, is_foreground, weight)
    loss = loss + settings.dice * dice(_probability(foreground, weight), is_foreground, weight)
    loss = loss + settings.contour * binary_cross_entropy(contour, is_contour, contour_weight)
    loss = loss + settings.contour * dice(_probability(contour, contour_weight), is_contour, contour_weight)
    miss = functional.smooth_l1_loss(
        _probability(distance, distance_weight), existing(to_edge, distance_weight), reduction="none", beta=0.1
    )
    return loss + settings.distance * weighted_mean(miss, distance_weight)


def class_loss(logits: Tensor, classes: Tensor, weight: Tensor, settings: LossSettings) -> Tensor:
    """Loss of a model of classes: weighted cross entropy plus the mean Dice loss of all classes but background.

    Shapes as in `cross_entropy`; channel 0 of `logits` is background.
    """
    logits = existing(logits.float(), weight[:, None].expand_as(logits))
    probability = logits.softmax(1)
    misses = [dice(probability[:, k], (classes == k).to(probability.dtype), weight) for k in range(1, logits.shape[1])]
    overlap = torch.stack(misses).mean() if misses else logits.sum() * 0
    return settings.cross_entropy * cross_entropy(logits, classes, weight) + settings.dice * overlap


def region_loss(logits: Tensor, target: Tensor, weight: Tensor, settings: LossSettings) -> Tensor:
    """Loss of a model of regions: binary cross entropy plus Dice loss of each region, averaged over the regions.

    Parameters
    ----------
    logits, target, weight
        Shape ``(b, k, …)``: a region that is unknown in an image has weight 0 in all of it.
    """
    loss = torch.zeros((), device=logits.device)
    for logit, is_region, known in zip(logits.float().unbind(1), target.unbind(1), weight.unbind(1), strict=True):
        loss = loss + settings.cross_entropy * binary_cross_entropy(logit, is_region, known)
        loss = loss + settings.dice * dice(_probability(logit, known), is_region, known)
    return loss / logits.shape[1]


def _probability(logits: Tensor, weight: Tensor) -> Tensor:
    return torch.sigmoid(existing(logits, weight))


def recipe_loss(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """Loss of a batch as the recipe has it.

    Parameters
    ----------
    logits
        Shape ``(b, k, …)``.
    target
        Shape ``(b, n, …)``: values, signed distances, weights, weights of the signed distances. Values and weights are
        `TARGETS` for instances; for classes there is one value for each class, and one weight; for regions a value and
        a weight for each. Signed distances, one for each of `boundary_regions`, are there only where the recipe asks
        for the boundary loss.
    """
    weights, regions = weights_of(recipe), boundary_regions(recipe)
    sizes = [target.shape[1] - weights - 2 * regions, regions, weights, regions]
    values, away, weight, away_weight = torch.split(target.float(), sizes, 1)
    if recipe.data.kind == "instances":
        loss = instance_loss(logits, torch.cat([values, weight], 1), recipe.loss)
    elif recipe.data.exclusive:
        loss = class_loss(logits, values.argmax(1), weight[:, 0], recipe.loss)
    else:
        loss = region_loss(logits, values, weight, recipe.loss)
    for region in range(regions):
        one = away_weight[:, region]
        logit = existing(logits.float(), one[:, None].expand_as(logits))
        probability = logit.softmax(1)[:, region + 1] if recipe.data.exclusive else logit[:, region].sigmoid()
        loss = loss + recipe.loss.boundary / regions * boundary(probability, away[:, region], one)
    return loss


def weights_of(recipe: Recipe) -> int:
    """Return how many weights a target has: one for each head, for each region, or one for all classes."""
    return len(INSTANCE_HEADS) if recipe.data.kind == "instances" else len(recipe.data.overlapping) or 1


def boundary_regions(recipe: Recipe) -> int:
    """Return how many outlines the boundary loss looks at: the foreground's, or one for each class; 0 without it."""
    if recipe.loss.boundary == 0:
        return 0
    return 1 if recipe.data.kind == "instances" else len(recipe.data.overlapping or recipe.data.foreground)
