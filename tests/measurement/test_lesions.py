"""Lesions: ellipsoids of known size on all kinds of grids, small images, and invariance to storage order."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.measure import regionprops

from biounet.core import Grid, InputError
from biounet.measurement import columns_to_csv, measure_lesions, min_lesion_voxels

WHOLE = {"whole": (1,)}


def measure(*args, **options):
    """Return the columns of regions and lesions."""
    return measure_lesions(*args, **options).columns


def affine_grid(shape, affine):
    """Return the grid of an array (z, y, x) with an affine for voxels x, y, z, as in NIfTI."""
    affine = np.asarray(affine, float)[:3]
    spacing = tuple(np.linalg.norm(affine[:, :3], axis=0)[::-1].tolist())
    return Grid(shape, spacing, "mm", tuple(map(tuple, affine.tolist())))


def oriented(spacing_xyz, angles=(0, 0, 0), flips=(1, 1, 1), origin=(0, 0, 0)):
    """An affine that turns by angles in degrees about R, A and S."""
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return np.column_stack([turn * np.array(spacing_xyz) * np.array(flips), origin])


def ellipsoid(grid, centre, half_axes):
    """Return the mask of an ellipsoid with its axes along z, y and x; centre in voxels, half axes in mm."""
    places = np.ogrid[tuple(slice(n) for n in grid.shape)]
    distances = zip(places, centre, grid.steps, half_axes, strict=True)
    return sum(((place - c) * step / half) ** 2 for place, c, step, half in distances) <= 1


def lesions(columns, name):
    """Return the values of a column for lesions, without those of regions."""
    return columns[name][columns["lesion"] > 0].tolist()


def picture(text):
    return np.array([[int(c.replace(".", "0")) for c in line] for line in text.split()], np.uint8)


GRIDS = {
    "plain": oriented((1, 1, 1)),
    "flipped": oriented((0.9, 1.1, 1.2), flips=(-1, -1, 1), origin=(90, 120, -70)),
    "anisotropic": oriented((0.7, 0.7, 3.5), origin=(-20, 5, 7)),
    "oblique": oriented((0.8, 1.0, 2.0), (20, -15, 10), (-1, 1, 1), (30, -40, 10)),
    "sagittal": oriented((1, 1, 1))[:, [1, 2, 0, 3]],  # x of the array is A, y is S, z is R
}


@pytest.mark.parametrize("name", GRIDS)
def test_ellipsoids_with_known_answers(name):
    affine = GRIDS[name]
    steps = np.linalg.norm(affine[:, 2::-1], axis=0)
    size_mm, half_axes = np.array([44, 44, 44]), np.array([14.0, 9.0, 11.0])
    grid = affine_grid(tuple(np.ceil(size_mm / steps).astype(int).tolist()), affine)
    centre = np.array(grid.shape) / 2 - 0.3
    labels = ellipsoid(grid, centre, half_axes).astype(np.uint8)
    found = measure(labels, WHOLE, grid)
    assert found["lesion"].tolist() == [0, 1]
    (volume,) = lesions(found, "volume_mm3")
    assert volume == pytest.approx(4 / 3 * math.pi * half_axes.prod(), rel=0.02)
    assert lesions(found, "volume_ml") == [volume / 1000]
    across = {"sagittal": 1}.get(name, 0)  # of the array's axes, the one nearest to superior-inferior
    shorter, longer = np.sort(2 * np.delete(half_axes, across))
    assert lesions(found, "longest_diameter_mm") == pytest.approx([longer], abs=steps.max())
    assert lesions(found, "perpendicular_diameter_mm") == pytest.approx([shorter], abs=steps.max())
    assert lesions(found, "longest_diameter_3d_mm") == pytest.approx([2 * half_axes.max()], abs=steps.max())
    place = affine @ [*centre[::-1], 1]
    for axis, value in zip("xyz", place, strict=True):
        assert lesions(found, f"centroid_{axis}_ras_mm") == pytest.approx([value], abs=0.1 * steps.max())
    assert not found["touches_border"].any()


def test_lesions_are_counted_largest_first():
    grid = affine_grid((30, 40, 50), oriented((1, 1, 1.5)))
    halves = [3, 6, 4.5, 2]
    centres = [(8, 8, 8), (15, 20, 25), (20, 32, 42), (22, 8, 42)]
    labels = np.zeros(grid.shape, np.uint8)
    for half, centre in zip(halves, centres, strict=True):
        labels[ellipsoid(grid, centre, (half,) * 3)] = 1
    found = measure(labels, WHOLE, grid)
    assert found["lesion"].tolist() == [0, 1, 2, 3, 4]
    assert lesions(found, "centroid_z_px") == pytest.approx([15, 20, 8, 22])
    assert found["voxels"][0] == sum(lesions(found, "voxels")) == labels.sum()
    assert np.isnan(found["longest_diameter_mm"][0])


def test_nested_regions():
    labels = picture("..... .123. .113. ..... ....1")
    found = measure(labels, {"whole": (1, 2, 3), "core": (2, 3), "three": (3,), "none": (4,)}, Grid((5, 5)))
    assert columns_to_csv(found) == (
        "class,lesion,pixels,centroid_y_px,centroid_x_px,touches_border\n"
        "whole,0,7,1.8571428571428572,2.2857142857142856,1\n"
        "whole,1,6,1.5,2.0,0\n"
        "whole,2,1,4.0,4.0,1\n"
        "core,0,3,1.3333333333333333,2.6666666666666665,0\n"
        "core,1,3,1.3333333333333333,2.6666666666666665,0\n"
        "three,0,2,1.5,3.0,0\n"
        "three,1,2,1.5,3.0,0\n"
        "none,0,0,,,0\n"
    )


def test_an_absent_region_has_size_0_and_no_centroid():
    found = measure(np.zeros((3, 4, 5), np.uint8), WHOLE, affine_grid((3, 4, 5), oriented((1, 1, 1))))
    assert (found["voxels"].tolist(), found["volume_ml"].tolist(), found["lesion"].tolist()) == ([0], [0], [0])
    for name in ("centroid_x_ras_mm", "centroid_z_px", "longest_diameter_mm", "longest_diameter_3d_mm"):
        assert np.isnan(found[name]).all()


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Grid((2, 2, 2)), ["voxels"]),
        (Grid((2, 2)), ["pixels"]),
        (Grid((2, 2), (1.0, 1.0), "um"), ["pixels", "area_um2", "longest_diameter_um", "perpendicular_diameter_um"]),
        (
            Grid((2, 2, 2), (1.0, 1.0, 1.0), "um"),
            ["voxels", "volume_um3", "longest_diameter_um", "perpendicular_diameter_um", "longest_diameter_3d_um"],
        ),
    ],
)
def test_columns_by_grid(grid, expected):
    found = measure(np.ones(grid.shape, np.uint8), WHOLE, grid)
    axes = [f"centroid_{axis}_px" for axis in "zyx"[3 - grid.dims :]]
    assert list(found) == ["class", "lesion", *expected, *axes, "touches_border"]


@pytest.mark.parametrize(
    ("text", "spacing", "longest", "across"),
    [
        ("1", (1, 1), 1, 1),
        ("1", (2, 3), 3, 2),
        ("11111", (1, 1), 5, 1),
        ("11111", (2, 1), 5, 2),
        ("1 1 1", (2, 1), 6, 1),
        (".1. 111 .1.", (1, 1), 3, 3),
        # A roof: the chord is below its ridge.
        ("...111... 111111111", (1, 1), 9, 2),
    ],
)
def test_diameters_of_small_images(text, spacing, longest, across):
    labels = picture(text)
    found = measure(labels, WHOLE, Grid(labels.shape, spacing, "mm"))
    assert lesions(found, "longest_diameter_mm") == pytest.approx([longest])
    assert lesions(found, "perpendicular_diameter_mm") == pytest.approx([across])


@given(st.floats(3, 12), st.floats(3, 12), st.floats(0, math.pi))
@settings(deadline=None, max_examples=40)
def test_diameters_of_ellipses(a, b, angle):
    y, x = np.indices((31, 31)) - 15
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    labels = ((u / a) ** 2 + (v / b) ** 2 <= 1).astype(np.uint8)
    found = measure(labels, WHOLE, Grid(labels.shape, (1.0, 1.0), "mm"))
    assert lesions(found, "longest_diameter_mm") == pytest.approx([2 * max(a, b)], abs=1)
    assert lesions(found, "longest_diameter_mm")[0] <= regionprops(labels)[0].feret_diameter_max + 1e-9
    # Of a nearly round one the longest diameter lies anywhere, and with it the one across: within a voxel's diagonal.
    assert lesions(found, "perpendicular_diameter_mm") == pytest.approx([2 * min(a, b)], abs=math.sqrt(2))


def test_longest_diameter_lies_in_one_axial_slice():
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[0, 1, 1:5] = labels[1, 1:8, 4] = labels[2, 7, 4:6] = 1
    found = measure(labels, WHOLE, affine_grid(labels.shape, oriented((1, 1, 5))))
    assert lesions(found, "longest_diameter_mm") == [7]
    assert lesions(found, "perpendicular_diameter_mm") == [1]
    assert lesions(found, "longest_diameter_3d_mm")[0] > 10


def test_equal_longest_diameters_have_the_longer_perpendicular_one():
    labels = np.stack([picture("..... 11111 ....."), picture("..1.. 11111 ..1.."), picture("..... 11111 .....")])
    found = measure(labels, WHOLE, affine_grid(labels.shape, oriented((1, 1, 1))))
    assert lesions(found, "longest_diameter_mm") == [5]
    assert lesions(found, "perpendicular_diameter_mm") == [3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("..... .1... ...1. ..... .....", [False, False, False]),
        ("1.... ..... ..1.. ..... .....", [True, True, False]),
        ("..... .1... ..... ...1. ....1", [True, True, False]),
        ("..... .1..1 ..... ..... .....", [True, False, True]),
    ],
)
def test_lesions_at_the_border(text, expected):
    labels = picture(text)
    assert measure(labels, WHOLE, Grid(labels.shape))["touches_border"].tolist() == expected
    assert measure(labels.T, WHOLE, Grid(labels.shape))["touches_border"].tolist() == expected


def volumes():
    return hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, 2))


@given(volumes(), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
@settings(deadline=None, max_examples=40)
def test_storage_order_does_not_change_the_table(labels, axes, flips):
    assume(labels.any())
    affine = np.vstack([oriented((0.8, 1.0, 2.3), (20, -15, 10), (-1, 1, 1), (30, -40, 10)), [0, 0, 0, 1]])
    regions = {"whole": (1, 2), "core": (2,)}
    before = measure(labels, regions, affine_grid(labels.shape, affine))
    stored = labels.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    # The voxel of `labels`, x first, at a voxel of `stored`, x first.
    back = np.zeros((4, 4))
    back[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        back[2 - old, 2 - new] = -1 if flip else 1
        back[2 - old, 3] = stored.shape[new] - 1 if flip else 0
    after = measure(stored, regions, affine_grid(stored.shape, affine @ back))
    for name in before:
        if "_px" not in name and name != "class":
            np.testing.assert_allclose(after[name], before[name], rtol=1e-9, atol=1e-9, err_msg=name)


@given(volumes())
@settings(deadline=None, max_examples=25)
def test_class_values_do_not_change_the_table(labels):
    grid = Grid(labels.shape, (2.0, 1.0, 0.5), "mm")
    other = np.array([0, 200, 7], np.uint8)[labels]
    before = measure(labels, {"a": (1,), "b": (2,)}, grid)
    after = measure(other, {"b": (7,), "a": (200,)}, grid)
    first = int((before["class"] == "a").sum())
    for name, column in before.items():
        np.testing.assert_array_equal(np.roll(after[name], first) if first else after[name], column, err_msg=name)


def test_small_lesions_have_no_row_but_count_in_their_region():
    labels = picture("11..1 11... .....")
    found = measure(labels, WHOLE, Grid(labels.shape), min_voxels=2)
    assert (found["lesion"].tolist(), found["pixels"].tolist()) == ([0, 1], [5, 4])
    none = measure(labels, WHOLE, Grid(labels.shape, (1.0, 1.0), "mm"), min_voxels=5)
    assert (none["lesion"].tolist(), none["pixels"].tolist()) == ([0], [5])


@pytest.mark.parametrize(
    ("steps", "unit", "voxels"),
    [
        ((1.0, 1.0, 1.0), "mm", 50),
        ((0.99999999, 1.0, 1.0), "mm", 50),
        ((3.0, 1.0, 1.0), "mm", 17),
        ((5.0, 5.0, 5.0), "mm", 1),
        ((1000.0, 1000.0, 1000.0), "um", 50),
        (None, None, 1),
        ((1.0, 1.0), "mm", 1),
    ],
)
def test_smallest_lesion_in_voxels(steps, unit, voxels):
    assert min_lesion_voxels(50, Grid((9,) * (3 if steps is None else len(steps)), steps, unit)) == voxels


def test_voxels_connect_by_corners():
    labels = np.zeros((2, 2, 3), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert lesions(measure(labels, WHOLE, Grid(labels.shape)), "voxels") == [2]


def test_one_slice():
    labels = np.zeros((1, 6, 6), np.int16)
    labels[0, 2:4, 1:5] = 1
    found = measure(labels, WHOLE, affine_grid(labels.shape, oriented((1, 1, 4))))
    assert found["touches_border"].all()
    assert lesions(found, "volume_mm3") == pytest.approx([32])


def test_invalid_lesion_arguments():
    for labels, regions in ((np.zeros((2, 2)), WHOLE), (np.zeros((2, 3), int), WHOLE), (np.zeros((2, 2), int), {})):
        with pytest.raises(InputError):
            measure_lesions(labels, regions, Grid((2, 2)))


@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 2)),
    st.permutations(range(3)),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=40)
def test_channels_are_measured_in_regions_and_lesions(labels, axes, min_voxels):
    channel = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    affine = oriented((1, 2, 3))[:, [*axes, 3]]  # the storage order of voxels differs from that of the slices
    regions = {"whole": (1, 2), "two": (2,)}
    columns = measure(labels, regions, affine_grid(labels.shape, affine), min_voxels, {"t1": channel})
    for k, (region, lesion) in enumerate(zip(columns["class"], columns["lesion"], strict=True)):
        mask = np.isin(labels, regions[region])
        if lesion:
            centroid = [columns[f"centroid_{axis}_px"][k] for axis in "zyx"]
            pieces, n = ndimage.label(mask, np.ones((3, 3, 3)))
            candidates = [pieces == piece for piece in range(1, n + 1)]
            centroids = [np.allclose(np.argwhere(one).mean(axis=0), centroid) for one in candidates]
            means = [channel[one].mean() for one, same in zip(candidates, centroids, strict=True) if same]
        else:
            means = [channel[mask].mean() if mask.any() else np.nan]
        assert any(
            np.isclose(columns["intensity_mean_t1"][k], mean, rtol=1e-4, atol=1e-6, equal_nan=True) for mean in means
        )


def test_lesions_of_an_image_without_any_have_no_intensity():
    columns = measure(np.zeros((2, 3, 4), np.uint8), WHOLE, Grid((2, 3, 4)), channels={"t1": np.ones((2, 3, 4))})
    assert np.isnan(columns["intensity_mean_t1"]).tolist() == [True]
