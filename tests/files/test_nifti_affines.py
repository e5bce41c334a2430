"""The two affines of a NIfTI header: contradictions are noted, and a label with either one is aligned."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from biounet.core import DataSettings, InputError
from biounet.evaluation import evaluate
from biounet.files import ReadOptions, read_annotation, read_volume
from biounet.files.read import read_header
from biounet.measurement import measure_lesions

VOLUME = ReadOptions(dims=3)
ORGAN = DataSettings(kind="classes", classes=("organ",), dims=3)
SCANNER = np.array([[-1, 0, 0, 20], [0, 0.9950, -0.1998, -18], [0, 0.0998, 1.9900, -15], [0, 0, 0, 1.0]])
SCALED = np.array([[-1.08, 0, 0, 25], [0, 1.1, 0, -30], [0, 0, 2.2, -10], [0, 0, 0, 1.0]])
MOVED = SCANNER + np.array([[0, 0, 0, 9]] * 3 + [[0] * 4])
SHEARED = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
SHAPE = (10, 12, 6)


def write(path, array=None, qform=(None, 0), sform=(None, 0), pixdim=(1, 1, 2)):
    image = nib.Nifti1Image(mask() if array is None else array, None)
    image.header.set_xyzt_units("mm")
    image.header["pixdim"][1:4] = pixdim
    image.header.set_qform(*qform)
    image.header.set_sform(*sform)
    nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_filename(path)
    return path


def mask():
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:7, 3:7, 2:4] = 1
    return labels


@pytest.mark.parametrize("sform", [SCALED, MOVED], ids=["scaled", "moved"])
def test_contradicting_affines_are_noted_with_the_difference(tmp_path, sform):
    volume = read_volume(write(tmp_path / "x.nii", qform=(SCANNER, 1), sform=(sform, 4)), VOLUME)
    (note,) = volume.notes
    assert note.startswith("sform and qform differ by up to ")
    far = [(*np.array(corner) * (9, 11, 5), 1) @ (sform - SCANNER)[:3].T for corner in np.ndindex(2, 2, 2)]
    assert f"by up to {np.linalg.norm(far, axis=1).max():.3g} mm" in note
    assert "used is the sform: MNI152, LAS" in note
    assert "not the qform: scanner, LAS, voxels of 1 x 1 x 2 mm from (20, -18, -15)" in note
    np.testing.assert_allclose(volume.grid.affine, sform[:3], atol=1e-4)
    assert volume.grid.frame == "MNI152"


def test_contradicting_orientations_are_noted_even_with_a_stated_size(tmp_path):
    flipped = SCANNER @ np.diag([-1, 1, 1, 1])
    path = write(tmp_path / "x.nii", qform=(SCANNER, 1), sform=(flipped, 1))
    (note,) = read_volume(path, VOLUME).notes
    assert note.startswith("sform and qform disagree on the orientation and differ by up to 18 mm")
    assert read_volume(path, ReadOptions(dims=3, spacing=(2, 1, 1))).notes == (note,)
    moved = write(tmp_path / "y.nii", qform=(SCANNER, 1), sform=(MOVED, 1))
    assert read_volume(moved, ReadOptions(dims=3, spacing=(2, 1, 1))).notes == ()


def test_an_sform_of_unit_steps_has_no_voxel_size(tmp_path):
    qform, sform = np.diag([-1.316, -1.316, 10, 1]), np.diag([-1, -1, 1, 1.0])
    labels = np.zeros((40, 40, 12), np.uint8)
    labels[16:24, 16:24, 4:7] = 1
    path = write(tmp_path / "x.nii", labels, (qform, 1), (sform, 1), (1.316, 1.316, 10))
    volume = read_volume(path, VOLUME)
    (note,) = volume.notes
    assert "used is the qform: scanner, LPS, voxels of 1.316 x 1.316 x 10 mm" in note
    table = measure_lesions(volume.array[0], {"organ": (1,)}, volume.grid).columns
    assert table["volume_mm3"][0] == pytest.approx(192 * 1.316 * 1.316 * 10, rel=1e-5)
    assert list(table["frame"]) == ["scanner"] * 2
    unit = read_volume(write(tmp_path / "y.nii", None, (np.eye(4), 1), (np.eye(4), 1), (1, 1, 1)), VOLUME)
    assert unit.notes == ()


@pytest.mark.parametrize("sform", [SHEARED, np.diag([0, 1, 1, 1.0]), np.full((4, 4), np.nan)])
def test_an_invalid_sform_is_replaced_by_the_qform(tmp_path, sform):
    volume = read_volume(write(tmp_path / "x.nii", qform=(SCANNER, 1), sform=(sform, 2)), VOLUME)
    (note,) = volume.notes
    assert note.startswith("the sform of the header is not used: ")
    assert "; placed by the qform: scanner, LAS" in note
    np.testing.assert_allclose(volume.grid.affine, SCANNER[:3], atol=1e-3)
    with pytest.raises(InputError):
        read_volume(write(tmp_path / "x.nii", sform=(sform, 2)), VOLUME)


@pytest.mark.parametrize("code", range(1, 6))
def test_the_frame_is_named_by_its_code(tmp_path, code):
    names = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI152", 5: "template"}
    for how in ({"sform": (SCALED, code)}, {"qform": (SCANNER, code)}):
        assert read_volume(write(tmp_path / "x.nii", **how), VOLUME).grid.frame == names[code]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), half_turn=st.booleans(), size=st.floats(0.2, 8), far=st.floats(0.2, 50))
def test_rounding_of_a_quaternion_is_no_contradiction_and_a_shift_is(tmp_path_factory, seed, half_turn, size, far):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * (np.pi - rng.uniform(0, 1e-3) if half_turn else 1))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn.as_matrix() * size, rng.uniform(-200, 200, 3)
    path, zooms = tmp_path_factory.getbasetemp() / "matrices.nii", (size,) * 3
    large = np.zeros((256, 3, 200), np.uint8)
    large[0] = 1
    assert read_volume(write(path, large, (affine, 1), (affine, 1), zooms), VOLUME).notes == ()
    moved = affine.copy()
    moved[:3, 3] += rng.permutation([far * size, 0, 0])
    (note,) = read_volume(write(path, large, (affine, 1), (moved, 1), zooms), VOLUME).notes
    away = float(note.split("differ by up to ")[1].split(" mm")[0])
    assert away == pytest.approx(far * size, rel=0.02, abs=0.4 * size)


@pytest.mark.parametrize("sform", [SCALED, MOVED], ids=["scaled", "moved"])
@pytest.mark.parametrize("follows", ["sform", "qform"])
def test_a_label_with_either_affine_of_its_image_is_aligned(tmp_path, sform, follows):
    for folder in ("images", "labels", "found"):
        (tmp_path / folder).mkdir()
    both = {"qform": (SCANNER, 1), "sform": (sform, 4)}
    grid = read_volume(write(tmp_path / "images/x.nii", mask(), **both), VOLUME).grid
    # as ITK writes it: both forms are the one it has read
    own = {"qform": (both[follows][0], 1), "sform": (both[follows][0], 1)}
    sizes = np.linalg.norm(both[follows][0][:3, :3], axis=0)
    path = write(tmp_path / "labels/x.nii", mask(), **own, pixdim=sizes)
    drawn = read_annotation(path, ORGAN, grid)
    np.testing.assert_array_equal(drawn.labels, mask().T)
    said = [note for note in drawn.notes if "lies where the" in note]
    assert len(said) == (follows == "qform")
    assert not said or said[0].startswith("its annotation lies where the qform of its image says, not by the matrix in")
    write(tmp_path / "found/x_labels.nii.gz", mask(), **both)
    figures = evaluate(tmp_path / "found", tmp_path / "labels", ORGAN)
    assert figures.dice == (1.0,)
    differs, *remarks = figures.notes
    assert "x_labels.nii.gz: sform and qform differ by up to" in differs
    assert [("lies where the qform" in remark) for remark in remarks] == [True] * (follows == "qform")


ORDERS = ["".join(codes) for axes in permutations(["LR", "PA", "IS"]) for codes in product(*axes)]


def stored_as(path, array, affine, codes):
    """Write a volume with its axes exchanged and flipped, which its affine says."""
    image = nib.Nifti1Image(array, affine)
    found, wanted = nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(nib.orientations.ornt_transform(found, wanted))
    return write(path, np.asarray(image.dataobj), (image.affine, 1), (image.affine, 1), image.header.get_zooms())


@settings(deadline=None, max_examples=30)
@given(image=st.sampled_from(ORDERS), label=st.sampled_from(ORDERS), oblique=st.booleans())
def test_a_label_with_its_voxels_in_another_order_is_aligned(tmp_path_factory, image, label, oblique):
    folder = tmp_path_factory.mktemp("orders")
    for name in ("truth", "found"):
        (folder / name).mkdir()
    affine = SCANNER if oblique else np.diag([1.0, 1, 2, 1])
    drawn = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) % 4
    several = DataSettings(kind="classes", classes=("a", "b", "c"), dims=3)
    path = stored_as(folder / "found/x_labels.nii", drawn, affine, image)
    stored_as(folder / "truth/x.nii", drawn, affine, label)
    read = read_annotation(folder / "truth/x.nii", several, read_volume(path, VOLUME).grid)
    np.testing.assert_array_equal(read.labels, np.asarray(nib.load(path).dataobj).T)
    said = f"is stored as {label}, and was brought to {image}"
    assert [said in note for note in read.notes] == [True] * (label != image)
    figures = evaluate(folder / "found", folder / "truth", several)
    assert figures.dice == (1.0, 1.0, 1.0)
    assert [said in note for note in figures.notes] == [True] * (label != image)


@pytest.mark.parametrize("order", ["RAS", "LPS", "PIR", "SLA", "IPL"])
def test_channels_with_the_same_voxels_in_another_order_are_one_image(tmp_path, order):
    values = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    first = stored_as(tmp_path / "flair.nii", values, SCANNER, "LIP")
    other = stored_as(tmp_path / "t1.nii", values, SCANNER, order)
    volume = read_volume([first, other], VOLUME)
    np.testing.assert_array_equal(volume.array[0], volume.array[1])
    assert volume.grid == read_volume(first, VOLUME).grid
    assert read_header([first, other], VOLUME)[0].array.shape == volume.array.shape
    moved = stored_as(tmp_path / "moved.nii", values, MOVED, order)
    with pytest.raises(InputError, match="not on the grid of"):
        read_volume([first, moved], VOLUME)


def test_a_misaligned_label_in_another_order_is_refused(tmp_path):
    affine, moved = np.diag([1.0, 1, 2, 1]), np.diag([1.0, 1, 2, 1])
    moved[0, 3] = 3
    grid = read_volume(stored_as(tmp_path / "x.nii", mask(), affine, "RAS"), VOLUME).grid
    label = stored_as(tmp_path / "y.nii", mask(), moved, "LPS")
    with pytest.raises(InputError, match="does not lie where its image does"):
        read_annotation(label, ORGAN, grid)


def test_annotated_planes_are_those_of_the_image_whatever_the_order_of_the_label(tmp_path):
    planes = DataSettings(kind="classes", classes=("organ",), dims=3, slices="z")
    for name in ("truth", "found"):
        (tmp_path / name).mkdir()
    affine = np.diag([1.0, 1, 2, 1])
    path = stored_as(tmp_path / "found/x_labels.nii", mask(), affine, "RAS")
    label = stored_as(tmp_path / "truth/x.nii", mask(), affine, "SPL")
    drawn = read_annotation(label, planes, read_volume(path, VOLUME).grid)
    assert (drawn.labels >= 0).any((1, 2)).tolist() == [False, False, True, True, False, False]
    (row,) = evaluate(tmp_path / "found", tmp_path / "truth", planes).cases
    assert row["true_voxels"] == row["predicted_voxels"] == 32


@pytest.mark.parametrize("data", [ORGAN, DataSettings(dims=3)], ids=["classes", "instances"])
def test_evaluation_notes_contradictions_in_the_header_of_a_result(tmp_path, data):
    for folder, name in (("found", "x_labels"), ("truth", "x")):
        (tmp_path / folder).mkdir()
        write(
            tmp_path / folder / f"{name}.nii.gz",
            mask(),
            (np.diag([-1.3, -1.3, 9, 1]), 1),
            (np.eye(4), 1),
            (1.3, 1.3, 9),
        )
    (note,) = evaluate(tmp_path / "found", tmp_path / "truth", data).notes
    assert "used is the qform: scanner, LPS, voxels of 1.3 x 1.3 x 9 mm" in note
    write(tmp_path / "truth/x.nii.gz", mask(), sform=(MOVED, 1))
    with pytest.raises(InputError, match="does not lie where the result"):
        evaluate(tmp_path / "found", tmp_path / "truth", data)


def test_a_label_with_neither_affine_is_refused(tmp_path):
    both = {"qform": (SCANNER, 1), "sform": (SCALED, 4)}
    grid = read_volume(write(tmp_path / "x.nii", mask(), **both), VOLUME).grid
    path = write(tmp_path / "y.nii", mask(), sform=(MOVED, 1))
    with pytest.raises(InputError, match="does not lie where its image does: voxels lie up to"):
        read_annotation(path, ORGAN, grid)
    # an image with one matrix, a label with the same and another
    single = read_volume(write(tmp_path / "x.nii", mask(), qform=(SCANNER, 1)), VOLUME).grid
    path = write(tmp_path / "y.nii", mask(), **both)
    assert any("lies where the qform" in note for note in read_annotation(path, ORGAN, single).notes)
