"""Orientation: one head stored in 48 orders is one head, in training, planning, prediction and tables."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from biounet.core import (
    Annotation,
    Grid,
    InputError,
    Volume,
    canonical_grid,
    canonical_transform,
    canonical_volume,
    describe_orientations,
    nearest_axcodes,
)
from biounet.core.recipe import parse_recipe
from biounet.files import ReadOptions, inspect_volume, read_annotation, read_volume, write_labels
from biounet.network import Card, build_network, initialise_weights, make_predictor, output_channels
from biounet.segmentation import segment
from biounet.training import check_data, make_case
from biounet.training.planning import plan

ORDERS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]
VOLUMES = ReadOptions(dims=3)
AFFINE = np.array([[0.9, 0, 0, -7.0], [0, 1.1, 0, 20], [0, 0, 2.0, 3], [0, 0, 0, 1]])
TISSUES = {
    "name": "tissues",
    "data": {"kind": "classes", "dims": 3, "classes": ["core", "rim"], "channels": ["mri"]},
    "normalise": {"method": "zscore"},
    "network": {"widths": [6, 8]},
    "augment": {"mirror": False},
    "train": {"patch": 16, "batch": 1},
}


def stored(array, affine, axes, flips):
    """The same voxels (x, y, z) in space with the axes in another order, some of them reversed, and their affine."""
    affine = np.array(affine, float)
    array = array.transpose(axes)
    affine[:3, :3] = affine[:3, axes]
    for axis in np.flatnonzero(flips):
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    return array, affine


def write(path, array, affine, axes=(0, 1, 2), flips=(False,) * 3):
    array, affine = stored(array, affine, axes, flips)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine), path)
    return path


def head(seed=0):
    """Shape (x, y, z), without any symmetry, and an annotation of it."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*map(np.arange, (13, 16, 11)), indexing="ij"), -1)
    labels = np.zeros((13, 16, 11), np.uint8)
    for value, centre, size in ((1, (4, 5, 3), 3.5), (2, (8, 11, 7), 2.5)):
        labels[np.linalg.norm(places - centre, axis=-1) < size] = value
    image = 100 + 40 * labels + places @ [1, 2, 3] + rng.normal(0, 5, labels.shape)
    return image.astype(np.int16), labels


def model_of(recipe, **card):
    network = build_network(recipe)
    initialise_weights(network, 1)
    torch.nn.init.normal_(network.head.weight, std=0.4, generator=torch.Generator().manual_seed(2))
    return make_predictor(network.eval(), "cpu", softmax=recipe.data.exclusive), Card(
        recipe=recipe, inputs=recipe.data.channels, outputs=output_channels(recipe), orientation="RAS", **card
    )


@given(seed=st.integers(0, 2**32), sizes=st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
       shape=st.tuples(*[st.integers(1, 4)] * 3), order=st.sampled_from(ORDERS),
       turned=st.sampled_from([0, 45, None]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_volume_has_one_canonical_orientation_and_an_inverse(seed, sizes, shape, order, turned):
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(rng=rng) if turned is None else Rotation.from_euler("z", turned, degrees=True)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation.as_matrix() * sizes, rng.normal(0, 50, 3)
    array = rng.normal(size=shape)
    volumes = []
    for how in (ORDERS[0], order):
        voxels, matrix = stored(array, affine, *how)
        spacing = tuple(np.linalg.norm(matrix[:3, 2::-1], axis=0).tolist())
        grid = Grid(voxels.T.shape, spacing, "mm", tuple(map(tuple, matrix[:3].tolist())))
        volumes.append(Volume(np.ascontiguousarray(voxels.T)[None], grid))
    one, other = map(canonical_volume, volumes)
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.grid.affine, other.grid.affine, atol=1e-9)
    np.testing.assert_allclose(one.grid.spacing, other.grid.spacing)
    assert one.grid.axcodes == other.grid.axcodes == "RAS"
    assert np.linalg.norm(np.array(one.grid.affine)[:, :3], axis=0)[::-1] == pytest.approx(one.grid.spacing)
    assert canonical_grid(other.grid) == other.grid
    way = canonical_transform(volumes[1].grid)
    np.testing.assert_array_equal(way.undo(way.apply(volumes[1].array)), volumes[1].array)
    # The sum of the cosines with right, anterior and superior is the largest that any order has.
    turned = np.array(one.grid.affine)[:, :3] / one.grid.spacing[::-1]
    best = max(np.abs(turned[list(axes), range(3)]).sum() for axes in permutations(range(3)))
    assert np.trace(turned) == pytest.approx(best, abs=1e-3)


def test_codes_agree_with_nibabel_for_nearly_straight_heads():
    for seed, (axes, flips) in enumerate(ORDERS):
        tilt = Rotation.from_rotvec(np.random.default_rng(seed).uniform(-0.3, 0.3, 3)).as_matrix()
        _, affine = stored(np.zeros((3, 4, 5)), np.diag([*np.diag(tilt * 0 + np.diag([1, 2, 3])), 1.0]), axes, flips)
        affine[:3, :3] = tilt @ affine[:3, :3]
        assert nearest_axcodes(affine[:3].tolist()) == "".join(nib.aff2axcodes(affine))


@pytest.mark.parametrize("kind", ["classes", "instances"])
def test_a_head_in_48_orientations_gives_the_same_labels_in_space(tmp_path, kind):
    image, _ = head()
    recipe = dict(TISSUES)
    if kind == "instances":
        recipe |= {"data": {"dims": 3}, "normalise": {}}
    recipe = plan(parse_recipe(recipe), [Grid((11, 16, 13), (2.0, 1.1, 0.9), "mm")])
    predictor, card = model_of(recipe)
    expected, table = None, None
    for axes, flips in ORDERS if kind == "classes" else ORDERS[::7]:
        path = write(tmp_path / "x.nii.gz", image, AFFINE, axes, flips)
        volume = read_volume(path, VOLUMES)
        found = segment(volume, predictor, card)
        assert found.labels.shape == volume.grid.shape
        assert not any("orientation" in note for note in found.notes)
        write_labels(tmp_path / "y.nii.gz", found.labels, volume)
        written = nib.load(tmp_path / "y.nii.gz")
        np.testing.assert_array_equal(written.affine, nib.load(path).affine)
        labels = np.asarray(nib.as_closest_canonical(written).dataobj)
        places = [name for name in found.columns if "_px" not in name and "index" not in name]
        if expected is None:
            expected, table = labels, found.columns
            assert len(np.unique(labels)) > 2
        np.testing.assert_array_equal(labels, expected)
        for name in places:
            if table[name].dtype == object:
                assert list(found.columns[name]) == list(table[name])
            elif not name.startswith("centroid") or "ras" in name:
                np.testing.assert_allclose(
                    found.columns[name].astype(float), table[name].astype(float), rtol=1e-5, atol=1e-5
                )


def test_training_cases_do_not_depend_on_the_orientation(tmp_path):
    image, labels = head()
    recipe = parse_recipe(TISSUES)
    cases, plans = [], []
    for axes, flips in ORDERS:
        volume = read_volume(write(tmp_path / "x.nii.gz", image, AFFINE, axes, flips), VOLUMES)
        path = write(tmp_path / "y.nii.gz", labels, AFFINE, axes, flips)
        plans.append(plan(recipe, [inspect_volume(tmp_path / "x.nii.gz", VOLUMES).grid]))
        cases.append(make_case(volume, read_annotation(path, recipe.data, volume.grid), plans[-1]))
    for case, planned in zip(cases, plans, strict=True):
        assert planned == plans[0]
        assert case.grid.axcodes == "RAS"
        np.testing.assert_array_equal(case.labels, cases[0].labels)
        np.testing.assert_array_equal(case.image, cases[0].image)
        np.testing.assert_array_equal(case.target, cases[0].target)
    assert plans[0].data.voxel_size == (2.0, 1.1, 0.9)


def test_slices_are_counted_in_the_file_and_mapped_to_the_patient(tmp_path):
    recipe = parse_recipe({"data": {"dims": 3, "slices": "z"}, "network": {"widths": [6, 8]}})
    labels = np.full((6, 7, 8), -1, np.int32)  # (z, y, x) of the file, whose z leads to the right
    labels[2] = 0
    labels[2, 2:5, 2:5] = 1
    affine = ((0.0, 0, 1, 0), (1.0, 0, 0, 0), (0, 1.0, 0, 0))
    grid = Grid(labels.shape, (1.0,) * 3, "mm", affine)
    assert grid.axcodes == "ASR"
    case = make_case(Volume(np.zeros((1, 6, 7, 8), np.uint8), grid), Annotation(labels, "instances", grid), recipe)
    assert case.labels.shape == (7, 8, 6)
    assert case.section_axis == 2
    assert (case.labels[..., 2] >= 0).all()


def mixed(folder):
    kinds = [(np.diag([0.8, 0.8, 5, 1.0]), (40, 44, 10)),
             (np.array([[0, 0, 5, 0], [-0.8, 0, 0, 0], [0, 0.8, 0, 0], [0, 0, 0, 1.0]]), (44, 60, 7))]  # fmt: skip
    for n, (affine, shape) in enumerate(kinds):
        labels = np.zeros(shape, np.uint8)
        labels[10:20, 12:24, 3:6] = 1
        image = np.random.default_rng(n).normal(100 + 60 * labels, 10).astype(np.int16)
        for kind, array in (("images", image), ("labels", labels)):
            (folder / kind).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), folder / kind / f"c{n}.nii.gz")
    return folder / "images", folder / "labels"


def test_check_lists_orientations_and_plans_on_patient_axes(tmp_path):
    recipe = parse_recipe(TISSUES | {"data": TISSUES["data"] | {"classes": ["core"]}})
    report = check_data(*mixed(tmp_path), recipe)
    assert not report.problems
    assert [row.orientation for row in report.rows] == ["RAS", "PSR"]
    table = report.as_table()
    assert [line[table[0].index("orientation")] for line in table[1:]] == ["RAS", "PSR"]
    assert report.plan["orientation"].endswith("stored as 1 RAS, 1 PSR")
    grids = [read_volume(row.image, VOLUMES).grid for row in report.rows]
    planned = plan(recipe, grids)
    # superior, anterior, right: (5, .8, .8) of the axial scan and (.8, .8, 5) of the sagittal one
    assert planned.data.voxel_size == tuple(np.median([[5, 0.8, 0.8], [0.8, 0.8, 5]], axis=0).round(6))
    assert planned == plan(recipe, [canonical_grid(grid) for grid in grids])


def test_an_image_without_orientation_stays_as_stored():
    array = np.random.default_rng(0).integers(0, 9, (1, 3, 4, 5))
    volume = Volume(array, Grid((3, 4, 5), (2.0, 1.0, 1.0), "um"))
    assert canonical_volume(volume) is volume
    assert volume.grid.axcodes is None
    assert describe_orientations([volume.grid]) == "unknown: worked on as stored"


def test_a_given_voxel_size_keeps_the_orientation(tmp_path):
    image, _ = head()
    path = write(tmp_path / "x.nii.gz", image, AFFINE, (1, 2, 0), (True, False, True))
    grid = read_volume(path, ReadOptions(dims=3, spacing=(3.0, 2.0, 1.0))).grid
    assert grid.affine is None
    assert grid.axcodes == read_volume(path, VOLUMES).grid.axcodes == "PSL"
    assert canonical_grid(grid).spacing == (2.0, 1.0, 3.0)
    assert canonical_grid(grid).axcodes == "RAS"


def test_a_single_slice_keeps_its_axes():
    affine = ((0.0, 2.0, 0, 5), (0, 0, 1, 0), (-1.0, 0, 0, 9))  # sagittal axes x to inferior, y to the right: coronal
    grid = Grid((3, 4), (2.0, 1.0), "mm", affine)
    assert grid.axcodes == "IR"
    turned = canonical_grid(grid)
    assert (turned.axcodes, turned.shape, turned.spacing) == ("RS", (4, 3), (1.0, 2.0))
    assert turned.affine == ((2.0, 0, 0, 5), (0, 0, 1, 0), (0, 1.0, 0, 6))


@pytest.mark.parametrize(
    ("stated", "codes", "remark"),
    [
        ("RAS", "LPS", None),
        (None, "RAS", None),
        (None, "LPS", "brought from LPS to RAS: the model's card does not say"),
        ("RAS", None, "orientation unknown: worked on as stored, by a model of volumes in RAS"),
        ("as stored", None, None),
        ("as stored", "LPS", "brought to RAS, by a model of images that did not say"),
        (None, None, None),
    ],
)
def test_a_guessed_orientation_gives_a_remark(stated, codes, remark):
    predictor, card = model_of(parse_recipe(TISSUES))
    card = card.model_copy(update={"orientation": stated})
    image = np.ascontiguousarray(head()[0].T)[None]
    grid = Grid(image.shape[1:], (1.0,) * 3, "mm", axcodes=codes)
    notes = segment(Volume(image, grid), predictor, card).notes
    said = [note for note in notes if "RAS" in note]
    assert len(said) == (remark is not None)
    assert not said or said[0].startswith(remark)
    turned = card.model_copy(update={"recipe": card.recipe.replace("augment", mirror=True)})
    assert not [note for note in segment(Volume(image, grid), predictor, turned).notes if "RAS" in note]


@pytest.mark.parametrize("codes", ["", "RA", "RLS", "RAx", "RASR", "ras"])
def test_invalid_axcodes_are_refused(codes):
    with pytest.raises(InputError, match="a letter for each axis"):
        Grid((2, 3, 4), axcodes=codes)


@pytest.mark.parametrize("affine", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.eye(4), np.eye(3)])
def test_invalid_affines_are_refused(affine):
    with pytest.raises(InputError, match="no affine"):
        Grid((2, 3, 4), (1.0,) * 3, "mm", tuple(map(tuple, affine.tolist())))
