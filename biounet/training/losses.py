"""Losses in which a voxel of weight 0 does not exist.

Whatever its logit and target are, each loss here is the same to the last bit, and the gradient of the logit is exactly
0; if every weight is 0, so is the loss. Therefore a voxel is replaced *before* the activation (``torch.where``), never
multiplied by 0 after it: 0 · NaN is NaN, and a logit of 0 still counts as a probability of ½.

Where several processes hold a part of a batch each, `total` makes sums over a part those over the batch, with gradient;
means and Dice coefficients are ratios of such sums. The mean of the losses of all parts would be another: parts have
different numbers of labelled voxels, with sparse labels often none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from biounet.core import LossSettings, Recipe
from biounet.training.targets.layout import TargetLayout

Total = Callable[[Tensor], Tensor]


def this_process_only(sums: Tensor) -> Tensor:
    """Return the sums over the batch of a process that holds all of it."""
    return sums


def mask_unlabelled(values: Tensor, weight: Tensor) -> Tensor:
    """Replace the values at voxels of weight 0 by 0, and cut their gradient."""
    return torch.where(weight > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))


def weighted_mean(values: Tensor, weight: Tensor, total: Total = this_process_only) -> Tensor:
    """Return ``sum(weight · values) / sum(weight)``, and 0 where all weights are 0."""
    weighted = (mask_unlabelled(values, weight) * weight).sum()
    sum_of_values, sum_of_weights = total(torch.stack([weighted, weight.sum()])).unbind()
    return sum_of_values / torch.where(sum_of_weights > 0, sum_of_weights, torch.ones_like(sum_of_weights))


def binary_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, total: Total = this_process_only) -> Tensor:
    """Return the weighted mean of the binary cross entropy; all arguments have the same shape."""
    logits, target = mask_unlabelled(logits, weight), mask_unlabelled(target, weight)
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return weighted_mean(each, weight, total)


def cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor, total: Total = this_process_only) -> Tensor:
    """Return the weighted mean of the softmax cross entropy.

    Parameters
    ----------
    logits
        Shape ``(b, k, …)``.
    classes
        Class of each voxel, int64, shape ``(b, …)``; any value where the weight is 0.
    weight
        Shape ``(b, …)``.
    """
    logits = mask_unlabelled(logits, weight[:, None].expand_as(logits))
    classes = torch.where(weight > 0, classes, torch.zeros_like(classes))
    return weighted_mean(functional.cross_entropy(logits, classes, reduction="none"), weight, total)


def dice(probability: Tensor, target: Tensor, weight: Tensor, total: Total = this_process_only) -> Tensor:
    """Return one minus the soft Dice coefficient over the labelled voxels of the whole batch.

    ``1 - 2 Σ p y / (Σ p + Σ y)`` (Milletari et al. 2016), over voxels of positive weight. The weight is otherwise
    ignored, since it would move the optimal outline. Prediction and target that are both empty have loss 0.
    """
    probability, target = mask_unlabelled(probability, weight), mask_unlabelled(target, weight)
    sums = torch.stack([(probability * target).sum(), probability.sum() + target.sum()])
    overlap, both = total(sums).unbind()
    return 1 - (2 * overlap + 1) / (both + 1)


def boundary(probability: Tensor, signed_distance: Tensor, weight: Tensor, total: Total = this_process_only) -> Tensor:
    """Return the boundary loss of Kervadec et al. 2019: the mean of probability times signed distance to the outline.

    Parameters
    ----------
    probability
        Of one region, any shape, from logits masked by `mask_unlabelled`.
    signed_distance
        Distance to the outline of the region, negative inside, in the unit of the voxel spacing; same shape.
    weight
        0 where the voxel, or its distance, is unknown.
    """
    exists = (weight > 0).to(probability.dtype)
    product = mask_unlabelled(probability, weight) * mask_unlabelled(signed_distance, weight)
    return weighted_mean(product, exists, total)


def instance_loss(
    logits: Tensor, target: Tensor, weight: Tensor, settings: LossSettings, total: Total = this_process_only
) -> Tensor:
    """Return the loss of a model of instances.

    Parameters
    ----------
    logits, target, weight
        Shape ``(b, 3, …)``, channels foreground, contour and distance.
    """
    foreground, contour, distance = logits.float().unbind(1)
    is_foreground, is_contour, to_edge = target.unbind(1)
    weight, contour_weight, distance_weight = weight.unbind(1)
    loss = settings.cross_entropy * binary_cross_entropy(foreground, is_foreground, weight, total)
    loss = loss + settings.dice * dice(_probability(foreground, weight), is_foreground, weight, total)
    loss = loss + settings.contour * binary_cross_entropy(contour, is_contour, contour_weight, total)
    loss = loss + settings.contour * dice(_probability(contour, contour_weight), is_contour, contour_weight, total)
    error = functional.smooth_l1_loss(
        _probability(distance, distance_weight), mask_unlabelled(to_edge, distance_weight), reduction="none", beta=0.1
    )
    return loss + settings.distance * weighted_mean(error, distance_weight, total)


def class_loss(
    logits: Tensor, classes: Tensor, weight: Tensor, settings: LossSettings, total: Total = this_process_only
) -> Tensor:
    """Return the loss of a model of classes: cross entropy plus the mean Dice loss of all classes but background.

    Shapes as in `cross_entropy`; channel 0 of `logits` is background.
    """
    logits = mask_unlabelled(logits.float(), weight[:, None].expand_as(logits))
    probability = logits.softmax(1)
    one_hot = [(classes == k).to(probability.dtype) for k in range(logits.shape[1])]
    overlaps = [dice(probability[:, k], one_hot[k], weight, total) for k in range(1, len(one_hot))]
    overlap = torch.stack(overlaps).mean() if overlaps else logits.sum() * 0  # only background is a class
    return settings.cross_entropy * cross_entropy(logits, classes, weight, total) + settings.dice * overlap


def region_loss(
    logits: Tensor, target: Tensor, weight: Tensor, settings: LossSettings, total: Total = this_process_only
) -> Tensor:
    """Return the loss of a model of regions: binary cross entropy plus Dice loss, averaged over the regions.

    Parameters
    ----------
    logits, target, weight
        Shape ``(b, k, …)``: a region that is unknown in an image has weight 0 everywhere in it.
    """
    loss = torch.zeros((), device=logits.device)
    for logit, is_region, known in zip(logits.float().unbind(1), target.unbind(1), weight.unbind(1), strict=True):
        loss = loss + settings.cross_entropy * binary_cross_entropy(logit, is_region, known, total)
        loss = loss + settings.dice * dice(_probability(logit, known), is_region, known, total)
    return loss / logits.shape[1]


def _probability(logits: Tensor, weight: Tensor) -> Tensor:
    return torch.sigmoid(mask_unlabelled(logits, weight))


def recipe_loss(logits: Tensor, target: Tensor, recipe: Recipe, total: Total = this_process_only) -> Tensor:
    """Return the loss of a batch with the terms and weights of a recipe.

    Parameters
    ----------
    logits
        Shape ``(b, k, …)``.
    target
        Shape ``(b, n, …)``, channels in the order of the recipe's `TargetLayout`.
    total
        Makes sums over this part of the batch those over the whole batch, `Processes.total`.
    """
    layout = TargetLayout.from_recipe(recipe)
    parts = layout.split(target.float(), axis=1)
    if recipe.data.kind == "instances":
        loss = instance_loss(logits, parts.values, parts.weights, recipe.loss, total)
    elif recipe.data.exclusive:
        loss = class_loss(logits, parts.values.argmax(1), parts.weights[:, 0], recipe.loss, total)
    else:
        loss = region_loss(logits, parts.values, parts.weights, recipe.loss, total)
    for number in range(len(layout.outlines)):
        weight = parts.outline_weights[:, number]
        logit = mask_unlabelled(logits.float(), weight[:, None].expand_as(logits))
        probability = logit.softmax(1)[:, number + 1] if recipe.data.exclusive else logit[:, number].sigmoid()
        term = boundary(probability, parts.outline_distances[:, number], weight, total)
        loss = loss + recipe.loss.boundary / len(layout.outlines) * term
    return loss
