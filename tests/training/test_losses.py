"""A voxel of weight 0 does not exist, for any loss; elsewhere the losses are the textbook ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from biounet.core import LossSettings
from biounet.core.recipe import parse_recipe
from biounet.training import losses
from biounet.training.targets.layout import TargetLayout

INSTANCES = LossSettings()


def _batch(seed: int, channels: int = 6, shape: tuple[int, ...] = (2, 7, 9)) -> tuple[Tensor, Tensor]:
    """Logits (2, 3, …) and instance targets (2, 6, …) with about half of each weight at 0."""
    draw = torch.Generator().manual_seed(seed)
    batch, *space = shape
    logits = torch.randn(batch, 3, *space, generator=draw) * 3
    target = torch.rand(batch, channels, *space, generator=draw)
    target[:, 3:] *= torch.rand(batch, channels - 3, *space, generator=draw) > 0.5
    return logits, target


def _instance(logits: Tensor, target: Tensor, total: losses.Total = losses.this_process_only) -> Tensor:
    return losses.instance_loss(logits, target[:, :3], target[:, 3:], INSTANCES, total)


def _classes(logits: Tensor, target: Tensor, total: losses.Total = losses.this_process_only) -> Tensor:
    return losses.class_loss(logits, target[:, 0].mul(3).long(), target[:, 3], INSTANCES, total)


WITH_BOUNDARY = parse_recipe({"loss": {"boundary": 0.5}})


def _boundary(logits: Tensor, target: Tensor, total: losses.Total = losses.this_process_only) -> Tensor:
    away = target[:, :1] - 0.5, target[:, 3:4]
    target = torch.cat([target[:, :3], away[0], target[:, 3:], away[1]], 1)
    return losses.recipe_loss(logits, target, WITH_BOUNDARY, total)


LOSSES = {"instances": _instance, "classes": _classes, "boundary": _boundary}
WEIGHTS_OF_HEAD = (3, 4, 5)


def _unlabelled(name: str, target: Tensor) -> Tensor:
    """Where no head of the loss has a weight, (b, …)."""
    used = (3,) if name == "classes" else WEIGHTS_OF_HEAD
    return (target[:, used] == 0).all(1)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 2**31), poison=st.sampled_from([0.0, 1e30, -1e30, math.nan, math.inf]))
@settings(deadline=None, max_examples=10)
def test_what_stands_at_unlabelled_voxels_changes_no_bit_of_the_loss(name, seed, poison):
    logits, target = _batch(seed)
    there = _unlabelled(name, target)
    changed, other = logits.clone(), target.clone()
    changed.movedim(1, -1)[there] = poison
    other[:, :3].movedim(1, -1)[there] = 0.25
    assert torch.equal(LOSSES[name](logits, target), LOSSES[name](changed, other))


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 2**31), poison=st.sampled_from([0.0, 1e30, math.nan]))
@settings(deadline=None, max_examples=10)
def test_the_gradient_at_unlabelled_voxels_is_exactly_zero(name, seed, poison):
    logits, target = _batch(seed)
    there = _unlabelled(name, target)
    logits.movedim(1, -1)[there] = poison
    logits.requires_grad_()
    LOSSES[name](logits, target).backward()
    assert (logits.grad.movedim(1, -1)[there] == 0).all()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_patch_without_labels_costs_nothing(name):
    logits, target = _batch(0)
    target[:, 3:] = 0
    logits.requires_grad_()
    value = LOSSES[name](logits, target)
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=5)
def test_the_loss_of_a_padded_patch_is_the_loss_of_the_patch(seed):
    logits, target = _batch(seed)
    wide_logits = torch.nn.functional.pad(logits, (3, 2, 1, 4), value=7.0)
    wide_target = torch.nn.functional.pad(target, (3, 2, 1, 4))
    torch.testing.assert_close(_instance(wide_logits, wide_target), _instance(logits, target))


def test_binary_cross_entropy_is_that_of_torch_where_all_weights_are_one():
    logits, target = _batch(1)
    ours = losses.binary_cross_entropy(logits, target[:, :3], torch.ones_like(logits))
    torch.testing.assert_close(ours, torch.nn.functional.binary_cross_entropy_with_logits(logits, target[:, :3]))


def test_weights_weigh():
    logits, target = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 0.0])
    value = losses.binary_cross_entropy(logits, target, torch.tensor([3.0, 1.0]))
    assert value == pytest.approx((3 * math.log(2) + math.log1p(math.exp(10))) / 4)


def test_cross_entropy_is_that_of_torch_on_the_labelled_voxels_alone():
    logits, target = _batch(2)
    classes, weight = target[:, 0].mul(3).long(), (target[:, 3] > 0).float()
    alone = torch.nn.functional.cross_entropy(logits.movedim(1, -1)[weight > 0], classes[weight > 0])
    torch.testing.assert_close(losses.cross_entropy(logits, classes, weight), alone)


def test_unlabelled_values_become_zero_and_get_no_gradient():
    values = torch.tensor([2.0, math.nan, -3.0], requires_grad=True)
    masked = losses.mask_unlabelled(values, torch.tensor([0.5, 0.0, 1.0]))
    masked.sum().backward()
    assert masked.tolist() == [2, 0, -3]
    assert values.grad.tolist() == [1, 0, 1]


def test_a_mean_with_small_weights_is_still_a_mean():
    assert losses.weighted_mean(torch.tensor([4.0, 8.0]), torch.tensor([0.25, 0.25])) == 6


def test_any_number_may_stand_for_the_class_of_an_unlabelled_voxel():
    logits, classes = torch.zeros(1, 2, 3), torch.tensor([[0, -1, 99]])
    assert losses.cross_entropy(logits, classes, torch.tensor([[2.0, 0.0, 0.0]])) == pytest.approx(math.log(2))


def test_dice_of_a_perfect_and_of_a_wrong_prediction():
    truth = torch.tensor([1.0, 1.0, 0.0, 0.0])
    everywhere = torch.ones(4)
    assert losses.dice(truth, truth, everywhere) == 0
    assert losses.dice(1 - truth, truth, everywhere) == pytest.approx(1 - 1 / 5)


def only(**factors: float) -> LossSettings:
    return LossSettings(**{"cross_entropy": 0, "dice": 0, "contour": 0, "distance": 0, **factors})


def naive_dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    p, y = probability[weight > 0], target[weight > 0]
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def naive_entropy(logit: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    each = torch.nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return (each * weight).sum() / weight.sum()


def test_the_loss_of_instances_is_the_sum_of_its_terms():
    logits, target = _batch(5)
    values, weights = target[:, :3], target[:, 3:]
    heads = [(logits[:, k], values[:, k], weights[:, k]) for k in range(3)]
    (logit, to_edge, weight) = heads[2]
    miss = (logit.sigmoid() - to_edge).abs()
    smooth = torch.where(miss < 0.1, 5 * miss**2, miss - 0.05)  # smooth L1 with beta .1
    terms = {
        "cross_entropy": naive_entropy(*heads[0]),
        "dice": naive_dice(heads[0][0].sigmoid(), *heads[0][1:]),
        "contour": naive_entropy(*heads[1]) + naive_dice(heads[1][0].sigmoid(), *heads[1][1:]),
        "distance": (smooth * weight).sum() / weight.sum(),
    }
    for name, term in terms.items():
        torch.testing.assert_close(losses.instance_loss(logits, values, weights, only(**{name: 3})), 3 * term)
    whole = losses.instance_loss(logits, values, weights, only(**dict.fromkeys(terms, 1)))
    torch.testing.assert_close(whole, sum(terms.values()))


def test_the_loss_of_classes_is_cross_entropy_and_the_mean_dice_of_all_but_background():
    logits, target = _batch(6)
    classes, weight = target[:, 0].mul(3).long(), target[:, 3]
    probability = logits.softmax(1)
    overlap = sum(naive_dice(probability[:, k], (classes == k).float(), weight) for k in (1, 2)) / 2
    expected = 2 * losses.cross_entropy(logits, classes, weight) + 3 * overlap
    torch.testing.assert_close(losses.class_loss(logits, classes, weight, only(cross_entropy=2, dice=3)), expected)


def test_the_loss_of_regions_is_the_mean_over_the_regions():
    logits, target = _batch(7)
    regions = [(logits[:, k], target[:, k], target[:, 3 + k]) for k in range(3)]
    each = [2 * naive_entropy(*one) + 3 * naive_dice(one[0].sigmoid(), *one[1:]) for one in regions]
    loss = losses.region_loss(logits, target[:, :3], target[:, 3:], only(cross_entropy=2, dice=3))
    torch.testing.assert_close(loss, sum(each) / 3)


@pytest.mark.parametrize("kind", ["instances", "classes", "regions"])
def test_the_boundary_loss_is_added_for_each_outline(kind):
    data = {"kind": "classes", "classes": ["a", "b"]} if kind != "instances" else {}
    data |= {"regions": {"ab": [1, 2], "b": [2]}} if kind == "regions" else {}
    plain = parse_recipe({"data": data})
    layout = TargetLayout.from_recipe(plain.replace("loss", boundary=0.5))
    count, outlines = len(layout.values), len(layout.outlines)
    logits, target = torch.randn(2, count, 5, 6), torch.rand(2, count + outlines + len(layout.weights) + outlines, 5, 6)
    target[:, -outlines:] = (target[:, -outlines:] > 0.5).float()
    parts = layout.split(target, axis=1)
    added = losses.recipe_loss(logits, target, plain.replace("loss", boundary=0.5))
    added -= losses.recipe_loss(logits, torch.cat([parts.values, parts.weights], 1), plain)
    probability = logits.softmax(1)[:, 1:] if kind == "classes" else logits.sigmoid()[:, :outlines]
    distances, weights = parts.outline_distances, parts.outline_weights
    each = [
        (probability[:, k] * distances[:, k])[weights[:, k] > 0].sum() / weights[:, k].sum() for k in range(outlines)
    ]
    torch.testing.assert_close(added, 0.5 * sum(each) / outlines)


def test_boundary_loss_counts_distance_outside_and_rewards_inside():
    distance = torch.tensor([2.0, 1.0, -1.0])
    everywhere = torch.ones(3)
    assert losses.boundary(torch.tensor([1.0, 0.0, 0.0]), distance, everywhere) == pytest.approx(2 / 3)
    assert losses.boundary(torch.tensor([0.0, 0.0, 1.0]), distance, everywhere) == pytest.approx(-1 / 3)


def test_a_better_prediction_costs_less():
    _, target = _batch(3)
    target[:, :2] = (target[:, :2] > 0.5).float()
    good = torch.logit(target[:, :3].clamp(0.01, 0.99))
    assert _instance(good, target) < _instance(good * 0.5, target) < _instance(-good, target)


def test_the_recipe_chooses_the_loss():
    logits, target = _batch(4)
    classes = parse_recipe({"data": {"kind": "classes", "classes": ["a", "b"]}})
    one_hot = torch.cat([torch.nn.functional.one_hot(target[:, 0].mul(3).long(), 3).movedim(-1, 1), target[:, 3:4]], 1)
    assert torch.equal(losses.recipe_loss(logits, one_hot, classes), _classes(logits, target))
    assert torch.equal(losses.recipe_loss(logits, target, parse_recipe({})), _instance(logits, target))


def test_classes_without_foreground_have_no_overlap_to_learn():
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = losses.class_loss(logits, torch.zeros(1, 4, 4).long(), torch.ones(1, 4, 4), only(cross_entropy=1, dice=1))
    assert loss.item() == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labelled", [(True, True), (True, False), (False, True), (False, False)])
def test_the_loss_over_parts_of_a_batch_is_the_loss_over_the_batch(name, labelled):
    """With sums over all parts each part gives the loss of all, and the gradient at its own voxels."""
    logits, target = _batch(9)
    for part, is_labelled in enumerate(labelled):
        target[part, 3:] *= is_labelled
    logits.requires_grad_()
    whole = LOSSES[name](logits, target)
    whole.backward()
    sums: list[list[Tensor]] = [[], []]
    for part in range(2):
        LOSSES[name](logits[part : part + 1], target[part : part + 1], lambda s, to=sums[part]: to.append(s) or s)
    for part in range(2):
        own = logits[part : part + 1].detach().requires_grad_()
        others = iter(sums[1 - part])
        loss = LOSSES[name](own, target[part : part + 1], lambda s, others=others: s + next(others).detach())
        loss.backward()
        torch.testing.assert_close(loss, whole)
        torch.testing.assert_close(own.grad, logits.grad[part : part + 1])
