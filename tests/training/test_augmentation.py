"""Patches: turned, scaled and cut out of an image as if all of it had been turned and scaled."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from biounet.core import AugmentSettings
from biounet.training.augmentation import CENTRE, IMAGE, TARGET, RandSimilarityd

STILL = AugmentSettings(affine_fraction=0.0, mirror=False)
WILD = AugmentSettings(affine_fraction=1.0, mirror=True, rotate=45, tilt=30, scale=2.0)


def drawn(patch, augment, centre, image, target, seed=0, steps=None, whole=False):
    transform = RandSimilarityd(patch, augment, steps or (1.0,) * len(patch), weight_index=[0])
    transform.set_random_state(seed)
    if whole:
        transform._window = lambda centre, shape: tuple(slice(0, size) for size in shape)
    made = transform({IMAGE: image, TARGET: target, CENTRE: centre})
    return made[IMAGE], made[TARGET]


@pytest.mark.parametrize("centre", [(3.5, 4.5), (1.5, 1.5), (5.5, 7.5)])
def test_a_patch_that_is_not_turned_is_a_part_of_the_image(centre):
    image = torch.arange(80.0).reshape(1, 8, 10)
    first = [int(c - 1.5) for c in centre]
    part = (slice(None), *(slice(start, start + 4) for start in first))
    found, target = drawn((4, 4), STILL, centre, image, torch.cat([image, torch.ones_like(image)]))
    np.testing.assert_allclose(found, image[part], atol=1e-4)
    np.testing.assert_allclose(target[0], image[part][0], atol=1e-4)
    assert (target[1] == 1).all()


def test_beyond_the_border_images_are_mirrored_and_nothing_is_known():
    image = torch.arange(1.0, 6.0).reshape(1, 1, 5)
    found, target = drawn((1, 9), STILL, (0, 2), image, torch.cat([image, torch.ones_like(image)]))
    assert found.round().int().flatten().tolist() == [2, 1, 1, 2, 3, 4, 5, 5, 4]
    assert target[1].flatten().tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]


def test_sides_are_exchanged_and_nothing_else_is():
    image = torch.arange(12.0).reshape(1, 3, 4)
    target = torch.cat([image, torch.ones_like(image)])
    paired = STILL.model_copy(update={"flip_x": True})
    found = [drawn((3, 4), paired, (1, 1.5), image, target, seed)[0].round() for seed in range(20)]
    assert any(torch.equal(one, image) for one in found)
    assert any(torch.equal(one, image.flip(-1)) for one in found)
    assert all(torch.equal(one, image) or torch.equal(one, image.flip(-1)) for one in found)


@given(
    shape=st.lists(st.integers(3, 24), min_size=2, max_size=3),
    edge=st.sampled_from([1, 4, 7, 16]),
    place=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    longer=st.sampled_from([1.0, 2.5]),
)
@settings(deadline=None, max_examples=150)
def test_what_a_patch_does_not_reach_does_not_matter(shape, edge, place, seed, longer):
    """The window is invisible: a patch is that of the whole image."""
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed))
    target = torch.cat([image[:1], (image[1:] > 0.3).float()])
    steps = (longer, *(1.0,) * (len(shape) - 1))
    centre = [place * (size - 1) for size in shape]
    settled = ((edge,) * len(shape), WILD, centre, image.half(), target.half(), seed, steps)
    (found, near), (expected, known) = drawn(*settled), drawn(*settled, whole=True)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    # Rounding may choose another voxel, or another side of an edge of what is known:
    # one voxel, and of larger patches a few more.
    other = ((near - known).abs() > 2e-3).any(dim=0).sum()
    voxels = edge ** len(shape)
    assert other <= 1 + voxels * (1 / edge**2 / len(shape) + 0.01)
