"""Tables of volumes: against scikit-image, against ellipsoids of known surface, and neighbours in small volumes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skimage.measure import regionprops_table

from biounet.core import Grid
from support.label_images import label_images, pixels, table

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.5, 0.1, 0.1), (1.0, 1.5, 4.0)]


def measure(labels, spacing=None):
    """Return the columns without intensities."""
    grid = Grid(labels.shape) if spacing is None else Grid(labels.shape, spacing, "um")
    return table(labels, grid, np.empty((0, *labels.shape)))


def ellipsoid(axes, spacing, seed):
    """Return the label image of an ellipsoid, rotated at random and shifted by a fraction of a voxel."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=rng).as_matrix()
    half = [math.ceil(max(axes) / step) + 1 for step in spacing]
    places = [(np.arange(-n, n + 1) + rng.uniform(-0.5, 0.5)) * step for n, step in zip(half, spacing, strict=True)]
    points = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1) @ turn
    return (((points / axes) ** 2).sum(axis=-1) <= 1).astype(np.int32)


def ellipsoid_surface(axes):
    """Return the surface area of an ellipsoid by numerical integration."""
    a, b, c = axes
    polar, turn = np.meshgrid((np.arange(500) + 0.5) * np.pi / 500, np.arange(500) * 2 * np.pi / 500)
    normal = np.hypot(np.hypot(b * c * np.cos(turn), a * c * np.sin(turn)) * np.sin(polar), a * b * np.cos(polar))
    return (normal * np.sin(polar)).sum() * 2 * np.pi**2 / 500**2


def test_ellipsoid_surface_of_a_ball():
    assert ellipsoid_surface((2, 2, 2)) == pytest.approx(16 * np.pi, rel=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("axes", [(4, 4, 4), (4, 4, 8), (4, 8, 8), (2, 6, 6)])
def test_ellipsoids(axes, spacing):
    axes = np.array(axes) * max(spacing)
    volume, surface = 4 / 3 * np.pi * axes.prod(), ellipsoid_surface(axes)
    many = [measure(ellipsoid(axes, spacing, seed), spacing) for seed in range(4)]
    found = {name: np.concatenate([one[name] for one in many]) for name in many[0]}
    np.testing.assert_allclose(found["surface_area_um2"], surface, rtol=0.03)
    assert found["surface_area_um2"].mean() == pytest.approx(surface, rel=0.015)
    np.testing.assert_allclose(found["sphericity"], np.cbrt(np.pi) * (6 * volume) ** (2 / 3) / surface, rtol=0.04)
    np.testing.assert_allclose(found["axis_major_length_um"], 2 * max(axes), rtol=0.05)
    np.testing.assert_allclose(found["axis_minor_length_um"], 2 * min(axes), rtol=0.05)


@given(label_images(dims=3, longest=6), st.permutations(range(3)), st.sampled_from(SPACINGS))
@settings(deadline=None, max_examples=30)
def test_transposed_volumes_have_equal_shapes(labels, axes, spacing):
    before = measure(labels, spacing)
    after = measure(labels.transpose(axes)[:, ::-1], tuple(spacing[axis] for axis in axes))
    for name in ("surface_area_um2", "axis_major_length_um", "axis_minor_length_um", "neighbours"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_twice_the_spacing_is_four_times_the_surface():
    body = ellipsoid((4, 6, 8), (1, 1, 1), 0)
    once, twice = measure(body, (1.5, 0.5, 0.5)), measure(body, (3.0, 1.0, 1.0))
    for name, column in once.items():
        factor = {"um": 2, "um2": 4, "um3": 8}.get(name.rsplit("_", 1)[-1], 1)
        np.testing.assert_allclose(twice[name], factor * column, rtol=1e-9, err_msg=name)


def test_axis_lengths_match_scikit_image():
    body = ellipsoid((3, 5, 8), (2, 1, 1), 1)
    theirs = regionprops_table(body, properties=["axis_major_length", "axis_minor_length"], spacing=(2, 1, 1))
    for name, value in theirs.items():
        assert measure(body, (2.0, 1.0, 1.0))[f"{name}_um"] == pytest.approx(value)


def test_surface_and_axis_columns_have_the_unit_of_the_grid():
    body = np.ones((2, 3, 4), np.int32)
    bare, um = measure(body), measure(body, (1.0, 1.0, 1.0))
    assert list(bare)[5:] == [
        "surface_area_px", "sphericity", "axis_major_length_px", "axis_minor_length_px", "neighbours", "touches_border",
        "border_weight",
    ]  # fmt: skip
    assert list(um)[9:] == [name.replace("area_px", "area_um2").replace("_px", "_um") for name in list(bare)[5:]]
    assert bare["surface_area_px"] == um["surface_area_um2"]


def test_the_cut_at_the_edge_of_the_image_is_surface():
    body = np.ones((6, 6, 6), np.int32)
    assert measure(body)["surface_area_px"] == pytest.approx(measure(np.pad(body, 3))["surface_area_px"])


@pytest.mark.parametrize("side", [1, 2, 6])
def test_surface_of_cubes_is_that_of_the_formula(side):
    """Lines in the directions of Lebedev's 26 points, corrected by the share of chords that are found in a ball."""
    surface = 0.0
    for axes, weight in ((1, 6 / 21), (2, 12 * 4 / 105), (3, 8 * 9 / 280)):
        exits = side**3 - side ** (3 - axes) * (side - 1) ** axes
        t2 = axes * 12 / (20 * side**2)
        found = 1 - t2 / 3 if t2 < 1 else 2 / (3 * math.sqrt(t2))
        surface += 4 * weight * exits / found / math.sqrt(axes)
    labels = np.pad(np.ones((side,) * 3, np.int32), 1)
    assert measure(labels)["surface_area_px"].item() == pytest.approx(surface, rel=1e-6)


def test_line_of_voxels():
    labels = np.zeros((3, 3, 7), np.int32)
    labels[1, 1, 1:6] = 1
    found = {name: column.item() for name, column in measure(labels, (2.0, 1.0, 0.5)).items()}
    assert found["axis_minor_length_um"] == 0
    assert found["axis_major_length_um"] == pytest.approx(np.sqrt(20 * 2) * 0.5)  # the variance of 5 indices is 2
    assert (found["volume_px"], found["volume_um3"], found["neighbours"]) == (5, 5, 0)


def test_neighbours_touch_by_faces_edges_and_corners():
    labels = np.zeros((3, 3, 6), np.int32)
    labels[1, 1, 1] = 1
    labels[1, 1, 2] = 2  # a face
    labels[2, 2, 1] = 3  # an edge
    labels[0, 0, 0] = 4  # a corner
    labels[:, :, 4] = 5  # a gap
    assert measure(labels)["neighbours"].tolist() == [3, 2, 2, 1, 0]


@given(label_images(dims=3, longest=5))
@settings(deadline=None, max_examples=50)
def test_neighbours_match_shifted_arrays(labels):
    padded = np.pad(labels, 1)
    shifted = [np.roll(padded, step, axis=(0, 1, 2)) for step in itertools.product((-1, 0, 1), repeat=3)]
    around = [{int(k) for other in shifted for k in other[padded == n]} - {0, n} for n in range(1, labels.max() + 1)]
    assert measure(labels)["neighbours"].tolist() == [len(found) for found in around]


@given(label_images(dims=3, longest=6))
@settings(deadline=None, max_examples=60)
def test_volumes(labels):
    spacing = (2.0, 0.5, 0.25)
    image = pixels(labels.shape, 1)
    ours = table(labels, Grid(labels.shape, spacing, "mm"), image)
    theirs = regionprops_table(labels, image[0], properties=["area", "centroid", "intensity_mean", "bbox"])
    np.testing.assert_array_equal(ours["volume_px"], theirs["area"])
    np.testing.assert_allclose(ours["volume_mm3"], theirs["area"] * 0.25)
    np.testing.assert_allclose(ours["intensity_mean_a"], theirs["intensity_mean"])
    for i, axis in enumerate("zyx"):
        np.testing.assert_allclose(ours[f"centroid_{axis}_px"], theirs[f"centroid-{i}"])
        np.testing.assert_allclose(ours[f"centroid_{axis}_mm"], theirs[f"centroid-{i}"] * spacing[i])
    touches = np.any([theirs[f"bbox-{i}"] == 0 for i in range(3)], axis=0)
    touches |= np.any([theirs[f"bbox-{3 + i}"] == labels.shape[i] for i in range(3)], axis=0)
    np.testing.assert_array_equal(ours["touches_border"], touches)


def test_a_volume_that_touches_the_border_in_one_slice():
    inside = np.zeros((5, 4, 4), np.int32)
    inside[1:4, 1, 1] = 1
    assert not table(inside)["touches_border"].item()
    for y, x in ((1, 2), (2, 1)):
        touching = inside.copy()
        touching[2, y : 2 * y, x : 2 * x] = 1
        assert table(touching)["touches_border"].item()
        assert table(touching[:, ::-1, ::-1])["touches_border"].item()
