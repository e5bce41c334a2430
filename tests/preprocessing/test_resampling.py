"""Images, labels and predictions on the working grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from biounet.core import DataSettings, Grid, InputError
from biounet.preprocessing import (
    Resampling,
    resample_part,
    resample_planes,
    resampling,
    rescale,
    resize_labels,
    working_zoom,
)
from biounet.preprocessing.resampling import rescale_part

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


def part_of(shape, seed):
    draw = np.random.default_rng(seed)
    starts = [int(draw.integers(0, size)) for size in shape]
    return tuple(slice(at, int(draw.integers(at, size)) + 1) for at, size in zip(starts, shape, strict=True))


zooms = st.tuples(*[st.floats(0.1, 4)] * 3)


@settings(max_examples=60, deadline=None)
@given(shapes, zooms, st.integers(0, 2**32), st.sampled_from([2, 3]))
def test_a_region_is_rescaled_as_the_whole_image(shape, zoom, seed, axes):
    shape, zoom = tuple(3 * size for size in shape[-axes:]), zoom[-axes:]
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    whole, way = rescale(image, zoom), Resampling.zoomed(shape, zoom)
    linear = np.stack([resize(channel, way.new, order=1, mode="edge") for channel in image])
    np.testing.assert_allclose(whole, linear, atol=1e-6)
    region = part_of(way.new, seed)
    needed = way.needed(region, filtered=True)
    part = rescale_part(image[(slice(None), *needed)], way, region)
    assert np.array_equal(part, whole[(slice(None), *region)])


@settings(max_examples=60, deadline=None)
@given(shapes, shapes, st.integers(0, 2**32), st.sampled_from([2, 3]))
def test_a_region_of_maps_is_resampled_as_the_whole(old, new, seed, axes):
    way = Resampling(old[-axes:], new[-axes:])
    maps = np.random.default_rng(seed).integers(0, 65536, (2, *way.old)).astype(np.uint16)
    whole, region = np.stack(list(resample_planes(maps, way.new)), 1), part_of(way.new, seed)
    part = np.stack(list(resample_part(maps[(slice(None), *way.needed(region))], way, region)), 1)
    within = region if axes == 3 else (slice(0, 1), *region)
    assert np.array_equal(part, whole[(slice(None), *within)])


def test_bands_of_a_large_image_are_those_of_the_whole(monkeypatch):
    image = np.random.default_rng(1).normal(size=(1, 90, 40)).astype(np.float32)
    whole = [rescale(image, (zoom, 1.3)) for zoom in (0.3, 1.7)]
    monkeypatch.setattr(resampling, "_BAND", 200)
    assert all(np.array_equal(rescale(image, (zoom, 1.3)), one) for zoom, one in zip((0.3, 1.7), whole, strict=True))


@pytest.mark.parametrize("new", [(40, 9, 50), (5, 31, 20), (7, 30, 20)])
def test_bands_of_large_maps_are_those_of_the_whole(new, monkeypatch):
    maps = np.random.default_rng(1).integers(0, 65536, (2, 7, 30, 20)).astype(np.uint16)
    whole = [*resample_planes(maps, new)]
    monkeypatch.setattr(resampling, "_BAND", 200)
    assert all(np.array_equal(plane, one) for plane, one in zip(resample_planes(maps, new), whole, strict=True))
