"""Images, labels and predictions on the working grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from biounet.core import DataSettings, Grid, InputError
from biounet.preprocessing import resample_planes, resize_labels, working_zoom

shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=40)
@given(old=shapes, new=shapes, seed=st.integers(0, 9))
def test_resampled_planes_are_those_of_a_linear_resize(old, new, seed):
    maps = np.random.default_rng(seed).integers(0, 65536, (2, *old)).astype(np.uint16)
    found = np.stack(list(resample_planes(maps, new)), 1)
    linear = [resize(m.astype(float), new, order=1, mode="edge", anti_aliasing=False) for m in maps]
    assert found.shape == (2, *new)
    np.testing.assert_allclose(found, np.stack(linear), atol=1)


def test_the_same_grid_gives_the_same_maps():
    maps = np.random.default_rng(0).integers(0, 65536, (3, 5, 6)).astype(np.uint16)
    (plane,) = resample_planes(maps, (5, 6))
    assert np.array_equal(plane, maps)


def test_the_zoom_to_the_working_grid_follows_from_the_voxel_sizes():
    thick = Grid((10, 20, 20), (3.0, 0.5, 0.5), "mm")
    assert working_zoom(thick, DataSettings(dims=3)) == (1, 1, 1)
    assert working_zoom(thick, DataSettings(dims=3, voxel_size=(1.5, 1.0, 0.505))) == (2, 0.5, 1)
    assert working_zoom(Grid((8, 8), (0.25, 0.25), "um"), DataSettings(pixel_size_um=0.5)) == (0.5, 0.5)
    with pytest.raises(InputError, match=r"1\.5 x 1\.0 x 1\.0"):
        working_zoom(Grid((10, 20, 20)), DataSettings(dims=3, voxel_size=(1.5, 1, 1)))


@pytest.mark.parametrize("plane", range(20))
@pytest.mark.parametrize("axis", range(3))
def test_a_labelled_plane_stays_one_plane_on_a_coarser_grid(plane, axis):
    labels = np.full((20, 20, 20), -1, np.int32)
    at = (slice(None),) * axis + (plane,)
    labels[at] = np.arange(400).reshape(20, 20) % 3
    coarse = resize_labels(labels, tuple(10 if n == axis else 20 for n in range(3)))
    labelled = np.flatnonzero((coarse >= 0).any(axis=tuple({0, 1, 2} - {axis})))
    assert labelled.tolist() == [plane // 2]
    np.testing.assert_array_equal(coarse.take(plane // 2, axis=axis), labels[at])


@settings(max_examples=200, deadline=None)
@given(old=shapes, new=shapes, seed=st.integers(0, 2**32), share=st.sampled_from([0.02, 0.3, 1.0]))
def test_labelled_voxels_stay_labelled_on_any_grid(old, new, seed, share):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(old) < share, rng.integers(0, 5, old), -1).astype(np.int32)
    found = resize_labels(labels, new)
    assert found.shape == new
    assert found.dtype == np.int32
    centres = [(np.arange(n) + 0.5) * b / n for n, b in zip(old, new, strict=True)]
    cells = [centre.astype(int) for centre in centres]
    # A voxel of the new grid is labelled if the centre of a labelled one lies in it,
    assert (found[np.ix_(*cells)][labels >= 0] >= 0).all()
    nearest = labels[np.ix_(*(((np.arange(n) + 0.5) * b / n).astype(int) for n, b in zip(new, old, strict=True)))]
    np.testing.assert_array_equal(found[nearest >= 0], nearest[nearest >= 0])
    if share == 1:
        np.testing.assert_array_equal(found, nearest)
    # and only if it touches a labelled one: along each axis, one of two such voxels has the other's centre.
    near = labels >= 0
    for axis, (n, b) in enumerate(zip(new, old, strict=True)):
        touches = (cells[axis] == np.arange(n)[:, None]) | ((np.arange(n) + 0.5)[:, None] * b // n == np.arange(b))
        near = np.moveaxis(np.tensordot(touches, near, (1, axis)), 0, axis)
    assert not (found >= 0)[~near].any()
