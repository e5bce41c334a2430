"""DICOM series are the volumes that the same voxels are in a NIfTI file: array, place in space, header."""

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from imagecodecs import jpeg2k_encode
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from scipy.spatial.transform import Rotation

from biounet.core import InputError
from biounet.files import find_images, read_volume
from support.dicom_files import classic, enhanced, item
from support.nifti import VOLUME, nifti

VOXELS = np.random.default_rng(0).integers(0, 4000, (6, 5, 4)).astype(np.int16)  # (z, y, x)


def placed(spacing=(0.5, 0.7, 2.0), angles=(0, 0, 0), codes="LAS"):
    """An affine to RAS with axes in these directions, turned by angles in degrees."""
    axes = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))[:3, :3]
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ axes @ np.diag(spacing), (-31.25, 12.5, 101.125)
    return affine


PLACES = {
    "axial": placed(),
    "sagittal": placed(codes="PSR"),
    "coronal": placed(codes="LSP"),
    "oblique": placed(angles=(20, -10, 30)),
    "anisotropic": placed((0.3, 1.1, 7.5), (3, 4, -50)),
    "downwards": placed(codes="RAI"),
}
ORDERS = {"forward": range(6), "reversed": range(5, -1, -1), "mixed": (3, 0, 5, 1, 4, 2)}


def assert_same(read, expected):
    np.testing.assert_array_equal(read.array, expected.array)
    corners = np.array([(x, y, z, 1) for x in (0, 3) for y in (0, 4) for z in (0, 5)])
    difference = corners @ (np.array(read.grid.affine) - np.array(expected.grid.affine)).T
    assert np.abs(difference).max() < 1e-3  # mm
    assert read.grid.axcodes == expected.grid.axcodes
    assert read.grid.unit == "mm"
    assert read.grid.frame == "scanner"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("place", PLACES)
def test_a_series_is_the_volume_of_a_nifti_file(tmp_path, place, order):
    expected = read_volume(nifti(tmp_path / "a.nii", VOXELS, PLACES[place]), VOLUME)
    classic(tmp_path / "c", VOXELS, PLACES[place], order=ORDERS[order])
    enhanced(tmp_path / "e.dcm", VOXELS, PLACES[place], order=ORDERS[order])
    for path in (tmp_path / "c", tmp_path / "e.dcm"):
        read = read_volume(path, VOLUME)
        assert read.array.dtype == np.int16
        assert_same(read, expected)


def test_values_are_rescaled_as_the_header_says(tmp_path):
    stored = VOXELS.astype(np.uint16)
    for name, (slope, intercept), dtype in (
        ("whole", (1, -1024), np.int32),  # of 16 bits, which reach beyond 16 bits with a sign
        ("part", (0.25, 3.5), np.float32),
    ):
        classic(tmp_path / name, stored, placed(), RescaleSlope=str(slope), RescaleIntercept=str(intercept))
        enhanced(tmp_path / f"{name}.dcm", stored, placed(), rescale=(slope, intercept))
        for path in (tmp_path / name, tmp_path / f"{name}.dcm"):
            read = read_volume(path, VOLUME)
            np.testing.assert_array_equal(read.array[0], VOXELS * slope + intercept)
            assert read.array.dtype == dtype


def test_twelve_bits_of_ct_stay_in_sixteen(tmp_path):
    def twelve(data, _):
        data.BitsStored, data.HighBit = 12, 11

    fields = {"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    classic(tmp_path / "ct", VOXELS.astype(np.uint16), placed(), each=twelve, **fields)
    read = read_volume(tmp_path / "ct", VOLUME)
    assert read.array.dtype == np.int16
    assert read.array.min() == VOXELS.min() - 1024


@pytest.mark.parametrize("slope", [0.5, 0.001])
def test_slopes_are_applied_in_the_arithmetic_of_nifti(tmp_path, slope):
    classic(tmp_path / "c", VOXELS, placed(), RescaleSlope=str(slope), RescaleIntercept="0")
    expected = read_volume(nifti(tmp_path / "a.nii", VOXELS, placed(), slope=slope), VOLUME)
    np.testing.assert_array_equal(read_volume(tmp_path / "c", VOLUME).array, expected.array)


def test_files_with_implicit_vr_and_without_preamble_are_read(tmp_path):
    paths = classic(tmp_path / "c", VOXELS, placed(), implicit=True, syntax=ImplicitVRLittleEndian)
    expected = read_volume(tmp_path / "c", VOLUME)
    for path in paths:
        content = path.read_bytes()
        meta = 132 + 12 + int.from_bytes(content[140:144], "little")
        path.write_bytes(content[meta:])
    np.testing.assert_array_equal(read_volume(tmp_path / "c", VOLUME).array, expected.array)


def test_stated_thickness_and_spacing_are_not_used(tmp_path):
    def lie(data, _):
        data.SpacingBetweenSlices, data.SliceThickness = "1.5", "4"

    classic(tmp_path / "c", VOXELS, placed(), each=lie)
    assert read_volume(tmp_path / "c", VOLUME).grid.spacing == pytest.approx((2.0, 0.7, 0.5))


def b_value(data, value):
    data.MRDiffusionSequence = item(DiffusionBValue=float(value))


def test_one_of_several_volumes_is_chosen(tmp_path):
    for number, b in enumerate((0, 1000)):
        fields = {"name": f"b{b}_{{}}", "DiffusionBValue": float(b), "SeriesDescription": "DWI tra"}
        classic(tmp_path / "c", VOXELS + number, placed(), **fields)
    with pytest.raises(InputError, match=r"2 volumes in one series: b=0, b=1000 .*--series 'DWI tra b=0'"):
        read_volume(tmp_path / "c", VOLUME)
    (image,) = find_images([tmp_path / "c"], series="dwi* b=1000")
    assert image.relative.name == "c_3_DWI-tra_b1000"
    read = read_volume(image.files(), image.read_options(VOLUME))
    np.testing.assert_array_equal(read.array[0], VOXELS + 1)


def recompressed(syntax):
    def compress(data, _):
        if syntax != JPEG2000Lossless:
            data.compress(syntax)
            return
        encoded = jpeg2k_encode(data.pixel_array, level=0, codecformat="j2k", reversible=True)
        data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate([encoded]), syntax
        data["PixelData"].is_undefined_length = True

    return compress


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_slices_are_decoded(tmp_path, syntax):
    voxels = np.abs(VOXELS).astype(np.uint16)
    classic(tmp_path / "c", voxels, placed(), each=recompressed(syntax), syntax=ExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_volume(tmp_path / "c", VOLUME).array[0], voxels)


def test_deflated_files_are_read(tmp_path):
    classic(tmp_path / "c", VOXELS, placed(), syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_volume(tmp_path / "c", VOLUME).array[0], VOXELS)


def test_a_deflated_file_that_could_take_all_memory_is_refused(tmp_path):
    bomb = classic(tmp_path, np.zeros((1, 2000, 3000), np.int16), placed(), syntax=DeflatedExplicitVRLittleEndian)[0]
    assert read_volume(bomb).array.shape == (1, 2000, 3000)
    with bomb.open("ab") as file:
        file.write(bytes(2**21))
    with pytest.raises(InputError, match=r"a deflated file of 2\.1. MB, which could take all memory"):
        read_volume(bomb)


@pytest.mark.parametrize("order", ORDERS)
def test_highdicom_reads_the_same_volume(tmp_path, order):
    """An independent reader gives the same values in the same place."""
    paths = classic(tmp_path / "c", VOXELS, PLACES["oblique"], order=ORDERS[order])
    expected = hd.get_volume_from_series([dcmread(path) for path in paths])
    own = read_volume(tmp_path / "c", VOLUME)
    affine = np.vstack([np.array(own.grid.affine) * [[-1], [-1], [1]], (0, 0, 0, 1)])[:, [2, 1, 0, 3]]
    frame = expected.frame_of_reference_uid
    place = hd.VolumeGeometry(affine, VOXELS.shape, coordinate_system="PATIENT", frame_of_reference_uid=frame)
    np.testing.assert_array_equal(expected.match_geometry(place, tol=1e-3).array, own.array[0])


def test_a_file_that_begins_like_a_tiff_as_well_is_what_its_name_says(tmp_path):
    for path in classic(tmp_path / "c", VOXELS, placed()):
        path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert read_volume(tmp_path / "c", VOLUME).array.shape == (1, *VOXELS.shape)
    one = (tmp_path / "c" / "IM0001").rename(tmp_path / "c" / "IM0001.dcm")
    assert read_volume(one).array.shape == (1, 5, 4)


def test_a_picture_without_a_place_is_one_as_it_is_seen(tmp_path):
    def flat(data, _):
        for name in ("ImagePositionPatient", "ImageOrientationPatient"):
            del data[name]

    (path,) = classic(tmp_path, VOXELS[:1, ::-1], placed(), each=flat, PhotometricInterpretation="MONOCHROME1")
    read = read_volume(path)
    np.testing.assert_array_equal(read.array[0], VOXELS[0])
    assert read.grid.spacing == pytest.approx((0.7, 0.5))
    assert (read.grid.unit, read.grid.affine) == ("mm", None)
    with pytest.raises(InputError, match=r"an image, not a volume .*\(hint: name the folder of its series"):
        read_volume(path, VOLUME)
