"""Headers in 32 bits give 0.99999998 mm for 1 mm: no figure, plan or target may depend on that."""

import math

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from biounet.core import UNLABELLED, DataSettings, Grid, LabelSettings
from biounet.core.recipe import parse_recipe
from biounet.evaluation import evaluate, score_classes
from biounet.files import ReadOptions, read_volume
from biounet.labelling import smallest_object
from biounet.measurement import measure_lesions, min_lesion_voxels
from biounet.training.planning import plan
from biounet.training.targets.boundary_weight import border_weight
from biounet.training.targets.distances import signed_distance

LESIONS = DataSettings(kind="classes", dims=3, classes=("lesion",))
SPACINGS = st.sampled_from([0.1, 0.3, 0.7, 0.8, 1.0, 1.5, 3.3])
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
NOISE = st.tuples(*[st.floats(-2e-7, 2e-7)] * 3)


def save(path, voxels, affine, both=True):
    """Write a volume whose header has the affine as 32-bit floats and, with `both`, as a quaternion too."""
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_qform(affine, int(both))
    image.set_sform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def oblique(spacing, angles):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.array(spacing)
    return affine


def cube(moved=0, axis=0):
    mask = np.zeros((14, 14, 14), np.uint8)
    mask[4:9, 4:9, 4:9] = 1
    return np.roll(mask, moved, axis)


def test_surfaces_one_voxel_apart_are_within_that_tolerance_for_every_header(tmp_path):
    draw = np.random.default_rng(28)
    for n in range(12):
        turn = np.linalg.qr(np.eye(3) + 0.2 * draw.normal(size=(3, 3)))[0]
        affine = np.eye(4)
        affine[:3, :3] = turn * np.sign(np.diag(turn))
        for kind, own in (("straight", np.eye(4)), ("oblique", affine)):
            save(tmp_path / kind / "truth" / f"{n}.nii", cube(), own)
            save(tmp_path / kind / "out" / f"{n}_labels.nii", cube(1), own)
    straight, turned = (
        evaluate(tmp_path / kind / "out", tmp_path / kind / "truth", LESIONS) for kind in ("straight", "oblique")
    )
    assert straight.surfaces.nsd == turned.surfaces.nsd == (1.0,)
    assert turned.surfaces.hd95 == pytest.approx(straight.surfaces.hd95, rel=1e-6)
    assert straight.dice == turned.dice


@settings(max_examples=60, deadline=None)
@given(st.tuples(SPACINGS, SPACINGS, SPACINGS), ANGLES, st.integers(0, 3), st.integers(0, 2), st.booleans())
def test_figures_do_not_depend_on_the_rotation_in_a_header(tmp_path_factory, spacing, angles, moved, axis, both):
    path = tmp_path_factory.getbasetemp() / "turned.nii"
    save(path, cube(), oblique(spacing, angles), both)
    turned = read_volume(path, ReadOptions(dims=3)).grid
    straight = Grid(turned.shape, spacing[::-1], "mm")
    tolerance = moved * straight.steps[axis]
    one, other = (
        score_classes([cube()], [cube(moved, axis)], ["lesion"], [grid], tolerance=tolerance).surfaces
        for grid in (straight, turned)
    )
    assert other.nsd == one.nsd == (1.0,)
    assert other.hd95 == pytest.approx(one.hd95, rel=1e-5)
    nothing = score_classes([cube()], [cube(moved, axis)], ["lesion"], [turned], tolerance=tolerance * (1 - 1e-4))
    assert moved == 0 or nothing.surfaces.nsd[0] < 1, "the guard is no second tolerance"


def shaken(lengths, noise):
    return tuple(length * (1 + n) for length, n in zip(lengths, noise, strict=True))


@settings(deadline=None)
@given(st.tuples(SPACINGS, SPACINGS, SPACINGS), NOISE, st.integers(1, 60))
def test_minimum_sizes_do_not_depend_on_rounding(spacing, noise, voxels):
    size = voxels * math.prod(spacing)
    for steps in (spacing, shaken(spacing, noise)):
        assert min_lesion_voxels(size, Grid((9, 9, 9), steps, "mm")) == voxels
        assert smallest_object(LabelSettings(min_size=size, min_size_unit="um"), math.prod(steps)) == voxels


@settings(deadline=None)
@given(st.sampled_from([(1.0, 1.0, 1.0), (1.6, 0.8, 0.8), (2.0, 1.0, 1.0), (3.0, 1.0, 1.0), (6.0, 3.0, 1.5)]), NOISE)
def test_a_plan_does_not_depend_on_rounding(spacing, noise):
    recipe = parse_recipe({"data": {"dims": 3}, "train": {"patch": 32}})
    shape = (16, 32, 64)
    one, other = (plan(recipe, [Grid(shape, steps, "mm")]) for steps in (spacing, shaken(spacing, noise)))
    assert (other.network, other.train.patch) == (one.network, one.train.patch)
    stated = recipe.replace("data", voxel_size=list(shaken(spacing, noise)))
    assert (plan(stated, [Grid(shape, spacing, "mm")]).network) == one.network


@settings(deadline=None)
@given(st.tuples(SPACINGS, SPACINGS), NOISE, st.randoms(use_true_random=False))
def test_targets_do_not_depend_on_rounding(spacing, noise, draw):
    """What unlabelled voxels could hide at exactly the distance of an outline is hidden under no header."""
    labels = np.array([[draw.choice([UNLABELLED, 0, 0, 1, 2]) for _ in range(9)] for _ in range(8)], np.int32)
    steps = shaken(spacing, noise[:2])
    known = [signed_distance(labels > 0, labels != UNLABELLED, each)[1] for each in (spacing, steps)]
    np.testing.assert_array_equal(*known)
    weights = [border_weight(labels, 10.0, 5.0, each) > 0 for each in (spacing, steps)]
    np.testing.assert_array_equal(*weights)


@settings(deadline=None)
@given(NOISE)
def test_perpendicular_diameters_do_not_depend_on_rounding(noise):
    """Two slices with a diagonal of one length: the table has the wider one's perpendicular."""
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[1, 2, 1:8] = labels[2, 1:8, 2] = 1
    labels[2, 4, 2:5] = 1
    one, other = (
        measure_lesions(labels, {"lesion": (1,)}, Grid(labels.shape, steps, "mm")).columns
        for steps in ((1.0, 1.0, 1.0), shaken((1.0, 1.0, 1.0), noise))
    )
    for name in ("longest_diameter_mm", "perpendicular_diameter_mm"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-5)
