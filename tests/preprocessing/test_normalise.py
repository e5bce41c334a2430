"""Intensities on one scale and images on one grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from biounet.core import DataSettings, Grid, InputError, NormaliseSettings
from biounet.preprocessing import body_box, resample_planes, rescale_labels, working_zoom
from biounet.preprocessing.normalisation import normalise

ZSCORE = NormaliseSettings(method="zscore")


def test_scores_are_those_of_the_brain_and_the_surroundings_become_0():
    draw = np.random.default_rng(0)
    image = np.zeros((1, 12, 20, 20), np.float32)
    image[0, 3:9, 4:16, 4:16] = draw.normal(500, 80, (6, 12, 12))
    brain = image[0] > 0
    scores = normalise(image, ZSCORE)[0]
    assert scores[brain].mean() == pytest.approx(0, abs=1e-5)
    assert scores[brain].std() == pytest.approx(1, abs=1e-5)
    assert (scores[~brain] == 0).all()


def test_the_box_of_the_body_holds_every_channel_of_it():
    classes = DataSettings(kind="classes", classes=("tumour",), dims=3)
    image = np.zeros((2, 6, 8, 9), np.float32)
    image[0, 2:4, 3:5, 1:6] = 1
    image[1, 1:3, 3:6, 4:8] = 5
    assert body_box(image, ZSCORE, classes) == (slice(1, 4), slice(3, 6), slice(1, 8))
    whole = (slice(0, 6), slice(0, 8), slice(0, 9))
    noise = np.random.default_rng(0).normal(50, 5, image.shape).astype(np.float32)
    assert body_box(noise, ZSCORE, classes) == whole  # nothing was removed
    assert body_box(np.stack([image[0], noise[1]]), ZSCORE, classes) == whole
    assert body_box(np.zeros_like(image), ZSCORE, classes) == whole
    assert body_box(image[:1], ZSCORE, DataSettings(dims=3)) == whole
    assert body_box(image[:1], NormaliseSettings(), classes) == whole


def test_without_surroundings_every_voxel_counts():
    image = np.random.default_rng(1).normal(30, 5, (2, 6, 7, 8))
    image[1] *= 4
    scores = normalise(image, ZSCORE)
    np.testing.assert_allclose(scores.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(axis=(1, 2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0, 7, -3])
def test_an_image_without_contrast_becomes_0(value):
    assert (normalise(np.full((1, 4, 5, 6), value, np.int16), ZSCORE) == 0).all()


shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=40)
@given(old=shapes, new=shapes, seed=st.integers(0, 9))
def test_planes_of_another_grid_are_those_of_a_linear_resize(old, new, seed):
    maps = np.random.default_rng(seed).integers(0, 65536, (2, *old)).astype(np.uint16)
    found = np.stack(list(resample_planes(maps, new)), 1)
    linear = [resize(m.astype(float), new, order=1, mode="edge", anti_aliasing=False) for m in maps]
    assert found.shape == (2, *new)
    np.testing.assert_allclose(found, np.stack(linear), atol=1)


def test_the_same_grid_gives_the_same_maps():
    maps = np.random.default_rng(0).integers(0, 65536, (3, 5, 6)).astype(np.uint16)
    (plane,) = resample_planes(maps, (5, 6))
    assert np.array_equal(plane, maps)


def test_the_way_to_the_working_grid():
    thick = Grid((10, 20, 20), (3.0, 0.5, 0.5), "mm")
    assert working_zoom(thick, DataSettings(dims=3)) == (1, 1, 1)
    assert working_zoom(thick, DataSettings(dims=3, voxel_size=(1.5, 1.0, 0.505))) == (2, 0.5, 1)
    assert working_zoom(Grid((8, 8), (0.25, 0.25), "um"), DataSettings(pixel_size_um=0.5)) == (0.5, 0.5)
    with pytest.raises(InputError, match=r"1\.5 x 1\.0 x 1\.0"):
        working_zoom(Grid((10, 20, 20)), DataSettings(dims=3, voxel_size=(1.5, 1, 1)))


@pytest.mark.parametrize("plane", range(20))
@pytest.mark.parametrize("axis", range(3))
def test_a_labelled_plane_is_one_on_a_grid_half_as_fine(plane, axis):
    labels = np.full((20, 20, 20), -1, np.int32)
    at = (slice(None),) * axis + (plane,)
    labels[at] = np.arange(400).reshape(20, 20) % 3
    coarse = rescale_labels(labels, tuple(10 if n == axis else 20 for n in range(3)))
    labelled = np.flatnonzero((coarse >= 0).any(axis=tuple({0, 1, 2} - {axis})))
    assert labelled.tolist() == [plane // 2]
    np.testing.assert_array_equal(coarse.take(plane // 2, axis=axis), labels[at])


@settings(max_examples=200, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 2**32), share=st.sampled_from([0.02, 0.3, 1.0]))
def test_what_is_labelled_stays_labelled_on_any_grid(old, new, seed, share):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(old) < share, rng.integers(0, 5, old), -1).astype(np.int32)
    found = rescale_labels(labels, new)
    assert found.shape == new
    assert found.dtype == np.int32
    middles = [(np.arange(n) + 0.5) * b / n for n, b in zip(old, new, strict=True)]
    cells = [middle.astype(int) for middle in middles]
    # The voxel of the new grid in which the middle of a labelled one lies is labelled.
    assert (found[np.ix_(*cells)][labels >= 0] >= 0).all()
    nearest = labels[np.ix_(*(((np.arange(n) + 0.5) * b / n).astype(int) for n, b in zip(new, old, strict=True)))]
    np.testing.assert_array_equal(found[nearest >= 0], nearest[nearest >= 0])
    if share == 1:
        np.testing.assert_array_equal(found, nearest)
    # and none that does not touch a labelled one: of two voxels one has the middle of the other along each axis
    near = labels >= 0
    for axis, (n, b) in enumerate(zip(new, old, strict=True)):
        touches = (cells[axis] == np.arange(n)[:, None]) | ((np.arange(n) + 0.5)[:, None] * b // n == np.arange(b))
        near = np.moveaxis(np.tensordot(touches, near, (1, axis)), 0, axis)
    assert not (found >= 0)[~near].any()


def test_statistics_are_of_the_whole_image_and_each_channel():
    image = np.stack([np.arange(101.0), np.arange(101.0) * 5 + 3])[:, None]
    scaled = normalise(image, NormaliseSettings(low=0, high=100))
    assert np.allclose(scaled[0], np.arange(101) / 100)
    assert np.allclose(scaled[0], scaled[1])
    together = normalise(image, NormaliseSettings(low=0, high=100, per_channel=False))
    assert np.allclose(together, image / 503, atol=1e-6)
    assert (normalise(np.full((1, 3, 3), 9), NormaliseSettings()) == 0).all()
