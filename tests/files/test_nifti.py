"""NIfTI: complete or an error, with the geometry of the header, which label volumes get back."""

import gzip
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import DataSettings, Grid, InputError
from biounet.files import (
    ReadOptions,
    inspect_volume,
    label_suffix,
    read_annotation,
    read_labels,
    read_volume,
    write_labels,
)
from support.nifti import FIELDS, VOLUME, VOXELS, F, nifti

TISSUES = DataSettings(kind="classes", classes=("core", "rim"), dims=3)
KINDS = {1: nib.Nifti1Image, 2: nib.Nifti2Image}


def failure(path, read=read_volume, **options):
    with pytest.raises(InputError) as caught:
        read(path, ReadOptions(**{"dims": 3} | options))
    assert caught.value.path == path
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif", "a"])
def test_the_content_decides_and_not_the_name(tmp_path, name):
    plain, packed = nifti(tmp_path / "x.nii"), nifti(tmp_path / "x.nii.gz")
    for source in (plain, packed):
        path = tmp_path / name
        path.write_bytes(source.read_bytes())
        volume = read_volume(path, VOLUME)
        np.testing.assert_array_equal(volume.array, VOXELS[None], strict=True)
        assert volume.grid == Grid((2, 3, 4), (2, 0.75, 0.5), "mm", volume.grid.affine)
        assert volume.grid.affine == ((0.5, 0, 0, 0), (0, 0.75, 0, 0), (0, 0, 2, 0))
        assert not volume.notes
        assert inspect_volume(path, VOLUME).grid == volume.grid


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", KINDS)
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_number_types_byte_orders_and_versions(tmp_path, dtype, version, order):
    kind = KINDS[version]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image = kind(VOXELS.T.astype(dtype), np.eye(4), header)
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nii", VOLUME).array[0], VOXELS.astype(dtype), strict=True)


def test_scaling_is_applied_where_it_changes_values(tmp_path):
    read = lambda **fields: read_volume(nifti(tmp_path / "x.nii", **fields), VOLUME).array[0]  # noqa: E731
    np.testing.assert_array_equal(read(slope=0.5, inter=-3.0), VOXELS.astype(np.float32) / 2 - 3, strict=True)
    for slope, inter in ((1.0, 0.0), (0.0, 7.0), (np.nan, 0.0)):
        np.testing.assert_array_equal(read(slope=slope, inter=inter), VOXELS, strict=True)
    wide = VOXELS.astype(np.int32) + 2**30
    np.testing.assert_array_equal(read(array=wide, slope=1.0, inter=1.0), wide + 1.0, strict=True)
    assert "intercept" in failure(nifti(tmp_path / "x.nii", slope=2.0, inter=np.nan))


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-3), ("meter", 1000), (0, 1)])
def test_lengths_are_mm(tmp_path, unit, factor):
    grid = read_volume(nifti(tmp_path / "x.nii", unit=unit), VOLUME).grid
    assert grid.unit == "mm"
    np.testing.assert_allclose(grid.spacing, np.multiply((2, 0.75, 0.5), factor))
    np.testing.assert_allclose(np.array(grid.affine)[:, :3], np.diag([0.5, 0.75, 2]) * factor)


def test_a_header_without_an_affine(tmp_path):
    volume = read_volume(nifti(tmp_path / "x.nii", unit=0, sform=0), VOLUME)
    assert volume.grid == Grid((2, 3, 4))
    assert "voxel size unknown" in volume.notes[0]
    sized = read_volume(nifti(tmp_path / "x.nii", sform=0), VOLUME)
    assert sized.grid == Grid((2, 3, 4), (2, 0.75, 0.5), "mm")
    for notes in (volume.notes[1:], sized.notes):
        assert len(notes) == 1
        assert notes[0].startswith("orientation unknown: the header has neither a sform nor a qform")
    stated = read_volume(nifti(tmp_path / "x.nii", unit=0, sform=0), ReadOptions(dims=3, spacing=(3, 2, 1)))
    assert (stated.grid, stated.notes) == (Grid((2, 3, 4), (3, 2, 1), "mm"), sized.notes)


def test_the_qform_is_used_without_an_sform(tmp_path):
    affine = np.array([[0, -2, 0, 7], [3, 0, 0, 8], [0, 0, 4, 9], [0, 0, 0, 1]], float)
    image = nib.Nifti1Image(VOXELS.T, None)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "x.nii")
    grid = read_volume(tmp_path / "x.nii", VOLUME).grid
    np.testing.assert_allclose(grid.affine, affine[:3], atol=1e-6)
    np.testing.assert_allclose(grid.spacing, (4, 2, 3), rtol=1e-6)


def test_invalid_geometry_is_an_error(tmp_path):
    path = tmp_path / "x.nii.gz"
    for size in (0.0, -1.0, np.nan, np.inf):
        assert "hint: state the voxel size with --spacing" in failure(nifti(path, pixdim__2=size))
        assert "with --spacing" in failure(path, inspect_volume)
    for value in (np.nan, np.inf, 0.0):
        assert "affine of the header is damaged (hint: state" in failure(nifti(path, srow__0=value))
    flat = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    assert "singular" in failure(nifti(path, affine=flat))
    sheared = np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    assert "meet at 84.29 degrees (hint: resample" in failure(nifti(path, affine=sheared))
    sheared[0, 1] = 5e-4
    assert read_volume(nifti(path, affine=sheared), VOLUME).grid.affine[0][1] == pytest.approx(5e-4)
    assert "damaged" in failure(nifti(path, sform=0, qform=1, quaternion=3.0))
    volume = read_volume(nifti(path, pixdim__2=0), ReadOptions(dims=3, spacing=(2, 1, 1)))
    assert volume.grid == Grid((2, 3, 4), (2, 1, 1), "mm")
    assert label_suffix(volume.grid) == "_labels.nii.gz"


@pytest.mark.parametrize("forms", [(1, 0), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("first", [0.0, 1.0, 2.0, np.nan])
def test_an_invalid_handedness_is_the_default_one(tmp_path, forms, first):
    """The standard reads a 0, which programs of long ago write in front of the voxel sizes, as a 1."""
    image, affine = nib.Nifti1Image(VOXELS.T, None), np.diag([0.5, 0.75, 2, 1])
    image.header.set_zooms((0.5, 0.75, 2))
    image.header.set_xyzt_units("mm")
    for place, code in zip((image.header.set_sform, image.header.set_qform), forms, strict=True):
        place(affine if code else None, code)
    data = bytearray(nib.Nifti1Image(VOXELS.T, None, image.header).to_bytes())
    F.pack_into(data, FIELDS["pixdim"][0], first)
    (tmp_path / "x.nii").write_bytes(data)
    volume = read_volume(tmp_path / "x.nii", VOLUME)
    assert volume.grid.spacing == (2, 0.75, 0.5)
    assert volume.grid.axcodes == "RAS"
    assert volume.notes == ()


def test_a_contradicting_header_is_noted(tmp_path):
    (note,) = read_volume(nifti(tmp_path / "x.nii", pixdim__1=0.6), VOLUME).notes
    assert note == "the header gives voxels of 0.6 x 0.75 x 2 mm, its affine, which is used, of 0.5 x 0.75 x 2 mm"


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_every_cut_is_refused(tmp_path, ending):
    path = nifti(tmp_path / f"x.{ending}")
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        failure(path)


def test_every_flipped_bit_is_harmless_or_refused(tmp_path):
    labels = np.zeros((3, 6, 7), np.uint8)
    labels[1, 2:5, 2:5], labels[2, 3, 1:] = 1, 2
    path = nifti(tmp_path / "x.nii.gz", labels)
    whole = path.read_bytes()
    grid = read_volume(path, VOLUME).grid
    harmless = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            annotation = read_annotation(path, TISSUES, grid)
        except InputError as error:
            assert error.path == path  # noqa: PT017 - some bits are of no account
        else:
            np.testing.assert_array_equal(annotation.labels, labels)
            harmless += 1
    assert 0 < harmless < 100  # time, program and system of the gzip header


def test_data_behind_the_stream(tmp_path):
    path = nifti(tmp_path / "x.nii.gz")
    whole = path.read_bytes()
    content = gzip.decompress(whole)
    for harmless in (whole + bytes(7), gzip.compress(content[:370]) + gzip.compress(content[370:] + bytes(16))):
        path.write_bytes(harmless)
        np.testing.assert_array_equal(read_volume(path, VOLUME).array[0], VOXELS)
    for wrong in (whole + b"x", gzip.compress(content + bytes(9999))):
        path.write_bytes(wrong)
        assert "damaged" in failure(path)


def test_files_that_are_not_a_nifti(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(b"something else"))
    assert "no NIfTI in it" in failure(path)
    nib.save(nib.Nifti1Pair(VOXELS.T, np.eye(4)), tmp_path / "x.hdr")
    assert "two files (.hdr and .img), or damaged (hint: convert it to .nii.gz" in failure(tmp_path / "x.hdr")
    colours = np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), path)
    assert "colours (RGB) are not supported" in failure(path)
    nib.save(nib.Nifti1Image(VOXELS.T.astype(complex), np.eye(4)), path)
    assert "complex128 are not supported" in failure(path)
    for damage in ({"datatype": 999}, {"bitpix": 8}, {"vox_offset": 0.0}, {"vox_offset": np.nan}, {"vox_offset": 1e20},
                   {"dim": 0}, {"dim": 8}, {"dim__1": -4}, {"dim__2": 0}, {"dim__2": 30000}):  # fmt: skip
        failure(nifti(path, **damage))


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path):
    path = nifti(tmp_path / "x.nii.gz", dim__1=32767, dim__2=32767, dim__3=32767)
    assert "the limit is" in failure(path)


def test_voxels_that_are_not_numbers(tmp_path):
    voxels = VOXELS.astype(np.float32)
    voxels[0, 1, 2], voxels[1, 1, 1] = np.nan, np.inf
    assert "2 of 24 pixels are NaN or infinite" in failure(nifti(tmp_path / "x.nii", voxels))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "infinite" in failure(nifti(tmp_path / "x.nii", VOXELS.astype("f4"), slope=3e38, inter=0.0))


def test_several_volumes_in_one_file_are_ambiguous(tmp_path):
    path = nifti(tmp_path / "x.nii.gz", np.stack([VOXELS, VOXELS + 100]))
    text = failure(path)
    assert "2 times (axes TZYX, shape 2 x 2 x 3 x 4) (hint: choose one with --plane, or say --axes CZYX" in text
    np.testing.assert_array_equal(read_volume(path, ReadOptions(dims=3, plane=1)).array[0], VOXELS + 100)
    channels = read_volume(path, ReadOptions(dims=3, axes="CZYX"))
    np.testing.assert_array_equal(channels.array, [VOXELS, VOXELS + 100])
    with pytest.raises(InputError, match="not TZYX of shape 2 x 2 x 3 x 4"):
        read_labels(path)
    write_labels(tmp_path / "y.nii.gz", VOXELS, channels.grid)
    assert nib.load(tmp_path / "y.nii.gz").shape == (4, 3, 2)
    one = nifti(tmp_path / "x.nii.gz", VOXELS[None])
    np.testing.assert_array_equal(read_volume(one, VOLUME).array[0], VOXELS)


def test_stated_axes_cannot_exchange_those_of_a_nifti(tmp_path):
    path = nifti(tmp_path / "x.nii")
    assert read_volume(path, ReadOptions(dims=3, axes="ZYX")).grid.affine is not None
    for axes in ("XYZ", "CYX", "YXZ"):
        assert "end in ZYX" in failure(path, axes=axes)


@pytest.mark.parametrize("flat", [True, False], ids=["two dimensions", "one slice"])
def test_one_slice_is_an_image_and_a_volume(tmp_path, flat):
    slice_ = VOXELS[0] if flat else VOXELS[:1]
    path = nifti(tmp_path / "x.nii.gz", slice_)
    image, volume = read_volume(path), read_volume(path, VOLUME)
    np.testing.assert_array_equal(image.array[0], VOXELS[0])
    np.testing.assert_array_equal(volume.array[0], VOXELS[:1])
    assert image.grid.spacing == (0.75, 0.5)
    assert volume.grid.spacing == (None if flat else (2, 0.75, 0.5))  # nobody said how thick the one plane is
    for found in (image, volume):
        drawn = (VOXELS[0] > 5).astype(np.int32).reshape(found.grid.shape)
        write_labels(tmp_path / "l.nii.gz", drawn, found.grid)
        assert nib.load(tmp_path / "l.nii.gz").shape == slice_.T.shape
        data = DataSettings(dims=found.grid.dims)
        labels = read_annotation(tmp_path / "l.nii.gz", data, found.grid).labels
        np.testing.assert_array_equal(labels, drawn)


def test_one_plane_of_many_has_no_affine(tmp_path):
    path = nifti(tmp_path / "x.nii.gz")
    grid = read_volume(path, ReadOptions(plane=1)).grid
    assert grid == Grid((3, 4), (0.75, 0.5), "mm")
    assert label_suffix(grid) == "_labels.tif"


numbers = st.floats(-300, 300, width=32)


@st.composite
def affines(draw):
    """Oblique, flipped, anisotropic: a rotation times voxel sizes, with an origin."""
    rotation, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(3, 3)))
    sizes = draw(st.lists(st.floats(0.05, 20), min_size=3, max_size=3))
    affine = np.eye(4)
    affine[:3, :3] = rotation * sizes
    affine[:3, 3] = draw(st.lists(numbers, min_size=3, max_size=3))
    return affine


@given(affine=affines(), version=st.sampled_from([1, 2]), order=st.sampled_from("<>"),
       codes=st.tuples(st.integers(0, 4), st.integers(0, 4)), largest=st.sampled_from([2, 255, 256, 65536, 2**32 - 1]),
       unit=st.sampled_from(["mm", "micron", "meter"]), shape=st.tuples(*[st.integers(1, 5)] * 3))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_labels_have_the_affine_of_their_source(tmp_path_factory, affine, version, order, codes, largest, unit, shape):
    folder, kind = tmp_path_factory.getbasetemp(), KINDS[version]
    image = kind(np.zeros(shape[::-1], np.float32), None, kind.header_class(endianness=order))
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units(unit, "sec")
    image.header["descrip"] = b"made by a scanner"
    (folder / "x.nii").write_bytes(image.to_bytes())
    volume = read_volume(folder / "x.nii", VOLUME)
    labels = np.random.default_rng(0).integers(0, largest, shape, np.int64, endpoint=True)
    labels.flat[0] = largest
    write_labels(folder / "y.nii.gz", labels, volume)
    written = nib.load(folder / "y.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, labels)
    kept = ["pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
            "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "descrip", "sizeof_hdr", "dim"]  # fmt: skip
    for name in kept:
        assert written.header[name].tobytes() == image.header[name].tobytes(), name
    assert written.header.endianness == order
    assert written.header["intent_code"] == 1002
    assert read_volume(folder / "y.nii.gz", VOLUME).grid == volume.grid
    sizes = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    factor = {"mm": 1, "micron": 1e-3, "meter": 1000}[unit]
    np.testing.assert_allclose(volume.grid.spacing, sizes * factor, rtol=1e-5)


def test_written_files_are_equal_and_whole(tmp_path):
    grid = read_volume(nifti(tmp_path / "x.nii", slope=2.0, inter=5.0), VOLUME).grid
    for name in ("a.nii.gz", "b.nii.gz", "c.nii"):
        write_labels(tmp_path / name, VOXELS, grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "c.nii").read_bytes()
    np.testing.assert_array_equal(nib.load(tmp_path / "c.nii").get_fdata().T, VOXELS)  # not scaled as the source is
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(InputError, match="no NIfTI header"):
        write_labels(tmp_path / "d.nii.gz", VOXELS, Grid((2, 3, 4)))
    with pytest.raises(InputError, match="not a label image"):
        write_labels(tmp_path / "d.nii.gz", VOXELS[:1], grid)


def test_a_misaligned_annotation_is_refused(tmp_path):
    affine = np.diag([-0.5, 0.75, 2, 1])
    grid = read_volume(nifti(tmp_path / "image.nii.gz", affine=affine), VOLUME).grid
    labels = (VOXELS % 3).astype(np.uint8)
    for name in ("x.nii", "x.nii.gz"):
        path = nifti(tmp_path / name, labels, affine)
        np.testing.assert_array_equal(read_annotation(path, TISSUES, grid).labels, labels)
    assert read_annotation(nifti(path, labels, affine, unit=0, sform=0), TISSUES, grid).grid == grid  # says nothing
    moved = affine.copy()
    moved[1, 3] = 1.5
    with pytest.raises(
        InputError, match=r"does not lie where its image does: voxels lie up to 1.5 mm \(3 voxels\) apart"
    ):
        read_annotation(nifti(path, labels, moved), TISSUES, grid)
    with pytest.raises(InputError, match=r"voxel size 1 x 0.75 x 0.5 mm, not 2 x 0.75 x 0.5 mm"):
        read_annotation(nifti(path, labels, np.diag([-0.5, 0.75, 1, 1])), TISSUES, grid)
    moved[1, 3] = 4e-4  # less than a thousandth of a voxel
    assert read_annotation(nifti(path, labels, moved), TISSUES, grid).source == path
    with pytest.raises(InputError, match="is 2 x 3 x 3, its image 2 x 3 x 4"):
        read_annotation(nifti(path, labels[..., :3], affine), TISSUES, grid)
    for wrong, cause in ((labels + 0.5, "fractions"), (labels + 1, "no class has: 3")):
        with pytest.raises(InputError, match=cause):
            read_annotation(nifti(path, wrong, affine), TISSUES, grid)
    cells = DataSettings(dims=3)
    np.testing.assert_array_equal(read_annotation(nifti(path, labels * 2.0, affine), cells, grid).labels, labels * 2)
