"""What is no volume on a rectangular grid is one line that says what there is; other series are still read."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLosslessSV1

from biounet.core import InputError
from biounet.files import ReadOptions, find_images, read_volume, search_images
from biounet.files.formats.dicom.headers import read_header
from support.dicom_files import classic, enhanced, header, item, save, uid
from support.nifti import VOLUME

VOXELS = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
AFFINE = np.diag([-0.5, 0.7, 2.0, 1.0])


def without_slice(folder):
    classic(folder, VOXELS, AFFINE, order=[0, 1, 2, 4, 5])


def with_copy(folder):
    classic(folder, VOXELS, AFFINE)
    classic(folder, VOXELS[2:3], AFFINE @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]), name="X")


def with_tilt(folder):
    def shear(data, number):
        data.ImagePositionPatient[1] = float(data.ImagePositionPatient[1]) + 0.4 * number

    classic(folder, VOXELS, AFFINE, each=shear)


def with_uneven_slices(folder):
    def move(data, number):
        data.ImagePositionPatient[2] = float(data.ImagePositionPatient[2]) + 0.2 * (number == 3)

    classic(folder, VOXELS, AFFINE, each=move)


def with_two_directions(folder):
    classic(folder, VOXELS, AFFINE)
    classic(folder, VOXELS, np.diag([-0.5, 0.7, 2.0, 1.0])[[0, 2, 1, 3]], name="cor{}")


def with_two_sizes(folder):
    classic(folder, VOXELS, AFFINE)
    classic(folder, VOXELS[:2, :3], AFFINE + np.eye(4)[:, 2:3] @ [[0, 0, 0, 20]], name="small{}")


def with_echoes(folder):
    for number, echo in enumerate((4.6, 9.2)):
        classic(folder, VOXELS + number, AFFINE, name=f"e{number}_{{}}", EchoTime=str(echo))


def with_times(folder):
    for time in range(1, 8):
        classic(folder, VOXELS + time, AFFINE, name=f"t{time}_{{}}", TemporalPositionIdentifier=str(time))


def with_unplaced_slice(folder):
    def forget(data, number):
        if number == 2:
            del data.ImagePositionPatient

    classic(folder, VOXELS, AFFINE, each=forget)


def with_truncated_file(folder):
    path = classic(folder, VOXELS, AFFINE)[3]
    path.write_bytes(path.read_bytes()[:-20])


def with_unknown_codec(folder):
    def compress(data, _):
        data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00\xff\xd8\xff\xd9"

    classic(folder, VOXELS, AFFINE, each=compress)


def with_mosaic(folder):
    classic(folder, VOXELS, AFFINE, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])


def with_palette(folder):
    def colour(data, _):
        data.PhotometricInterpretation = "PALETTE COLOR"

    classic(folder, VOXELS, AFFINE, each=colour)


ERRORS = {
    with_mosaic: r"a mosaic of Siemens, .* \(hint: .*dcm2niix\)",
    with_palette: r"colours of a palette are not supported",
    without_slice: r"1 slice is missing: 5 are there, 2 mm apart, with gaps between IM0003 and IM0004",
    with_copy: r"1 slice is there twice, such as IM0003 and X .*remove the copies",
    with_tilt: r"a tilted gantry: its slices are sheared by 11\.3 degrees .*resamples",
    with_uneven_slices: r"slices at uneven distances, 1\.8 to 2\.2 mm",
    with_two_directions: r"slices of 2 directions in one series: 6 axial, 6 coronal",
    with_two_sizes: r"slices of different sizes in one series: 6 of 5 x 4, 2 of 3 x 4",
    with_echoes: r"2 volumes in one series: echo=4\.6, echo=9\.2 \(hint: .*--series 'T1w MPRAGE echo=4\.6'",
    with_times: r"7 volumes in one series: time=1, time=2, .* and 1 more",
    with_unplaced_slice: r"1 of 6 slices have no position",
    with_truncated_file: r"IM0004: cannot be read: .*The number of bytes of pixel data is less than expected",
    with_unknown_codec: r"compressed as JPEG Lossless.*no package .*\(hint: pip install pylibjpeg pylibjpeg-libjpeg\)",
}


@pytest.mark.parametrize("make", ERRORS, ids=lambda make: make.__name__)
def test_a_series_that_is_no_volume_says_why(tmp_path, make):
    make(tmp_path / "bad")
    classic(tmp_path / "good", VOXELS, AFFINE, series="good")
    bad, good = find_images([tmp_path])
    with pytest.raises(InputError, match=ERRORS[make]) as caught:
        read_volume(bad.files(), bad.read_options(VOLUME))
    assert "\n" not in str(caught.value)
    assert caught.value.path == bad.path
    np.testing.assert_array_equal(read_volume(good.files(), good.read_options(VOLUME)).array[0], VOXELS)


def test_more_frames_than_bytes_are_no_frames(tmp_path):
    path = classic(tmp_path, VOXELS, AFFINE, NumberOfFrames=2**31 - 1)[0]
    with pytest.raises(InputError, match=r"damaged: it declares 2147483647 frames in \d+ bytes"):
        read_header(path)


@pytest.mark.parametrize("trait", ["echo=9.2", "echo=9.20"])
def test_the_choice_that_the_error_names_reads_one_volume(tmp_path, trait):
    with_echoes(tmp_path / "bad")
    (image,) = find_images([tmp_path], series=trait)
    np.testing.assert_array_equal(read_volume(image.files(), image.read_options(VOLUME)).array[0], VOXELS + 1)
    (other,) = find_images([tmp_path], series="echo=3")
    with pytest.raises(InputError, match=r"no volume with echo=3 in the series: echo=4\.6, echo=9\.2"):
        read_volume(other.files(), other.read_options(VOLUME))


def test_volumes_in_a_multi_frame_file_are_told_apart(tmp_path):
    def diffusion(own, place):
        own.MRDiffusionSequence = item(DiffusionBValue=float(1000 * (place >= 6)))
        if place >= 6:
            own.PlanePositionSequence = first[place - 6]
        first.append(own.PlanePositionSequence)

    first = []
    array = np.concatenate([VOXELS, VOXELS + 1])
    path = enhanced(tmp_path / "e.dcm", array, AFFINE, each=diffusion)
    with pytest.raises(InputError, match="2 volumes in one series: b=0, b=1000"):
        read_volume(path, VOLUME)
    (image,) = find_images([tmp_path], series="b=1000")
    np.testing.assert_array_equal(read_volume(image.files(), image.read_options(VOLUME)).array[0], VOXELS + 1)


def test_files_that_are_damaged_fail_by_themselves(tmp_path):
    classic(tmp_path / "p", VOXELS, AFFINE)
    (tmp_path / "p" / "empty.dcm").touch()
    (tmp_path / "p" / "noise.dcm").write_bytes(bytes(range(256)) * 3)
    (tmp_path / "p" / "noise").write_bytes(bytes(128) + b"DICM" + bytes(range(256)))
    images = {image.path.name: image for image in find_images([tmp_path])}
    assert images.keys() == {"p", "empty.dcm", "noise.dcm", "noise"}
    assert images["empty.dcm"].problem == "empty file"
    assert all("DICOM" in images[name].problem for name in ("noise.dcm", "noise"))
    assert not images["p"].problem


def test_what_is_no_image_is_left_out_with_the_reason(tmp_path):
    classic(tmp_path / "p" / "a", VOXELS, AFFINE)
    fields = {"series": "scout", "SeriesDescription": "3-plane", "SeriesNumber": 1}
    classic(tmp_path / "p" / "b", VOXELS[:3], AFFINE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **fields)
    capture = {"series": "capture", "SeriesDescription": "screen", "SeriesNumber": 9}
    classic(tmp_path / "p" / "c", VOXELS[:1], AFFINE, SOP="1.2.840.10008.5.1.4.1.1.7", **capture)
    report = header("1.2.840.10008.5.1.4.1.1.88.11", uid("sr"), uid("sr", 1), SeriesDescription="findings")
    save(report, tmp_path / "p" / "SR0001")
    found = search_images([tmp_path])
    assert [image.relative.as_posix() for image in found.images] == ["p/a_3_T1w-MPRAGE"]
    reasons = {file.path.name: file.reason for file in found.skipped}
    assert reasons == {
        "IM0001": "a secondary capture 9 'screen'",
        "SR0001": "Basic Text SR 3 'findings'",
    } | {"IM0001": reasons["IM0001"]}
    assert any(file.reason == "a localiser 1 '3-plane', 3 files" for file in found.skipped)
    (chosen,) = find_images([tmp_path], series="3-PLANE")
    assert chosen.relative.name == "b_1_3-plane"


def test_a_folder_without_a_series_to_segment_says_what_is_there(tmp_path):
    classic(tmp_path / "p", VOXELS, AFFINE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(InputError, match=r"no series to segment: .*a localiser 3 'T1w MPRAGE', 6 files"):
        find_images([tmp_path])
    classic(tmp_path / "q", VOXELS, AFFINE, series="q")
    classic(tmp_path / "q" / "second", VOXELS, AFFINE, series="again")
    with pytest.raises(InputError, match=r"no series to segment: .*series 3 'T1w MPRAGE' was not chosen") as caught:
        find_images([tmp_path / "q"], series="MPRAGE")  # not the whole description
    assert str(caught.value).count("was not chosen") == 1
    assert "such as '*FLAIR*'" in caught.value.hint


def test_several_series_in_a_folder_that_is_read_as_one_image_are_listed(tmp_path):
    for number in (1, 2):
        classic(tmp_path, VOXELS, AFFINE, series=number, name=f"{number}_{{}}", SeriesNumber=number)
    with pytest.raises(InputError, match=r"2 series: 1 'T1w MPRAGE', 2 'T1w MPRAGE' .*--series"):
        read_volume(tmp_path, VOLUME)


def test_without_the_extra_each_folder_says_how_to_install_it(tmp_path, monkeypatch):
    classic(tmp_path / "p", VOXELS, AFFINE)
    classic(tmp_path / "q", VOXELS, AFFINE)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    images = find_images([tmp_path])
    assert [image.path.name for image in images] == ["p", "q"]
    assert all("pip install 'biounet[dicom]'" in image.problem for image in images)
    with pytest.raises(InputError, match=r"pip install 'biounet\[dicom\]'"):
        read_volume(tmp_path / "p", VOLUME)


def test_slices_in_colours_are_left_out(tmp_path):
    def colour(data, _):
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.PixelData = bytes(5 * 4 * 3)

    classic(tmp_path / "fa", VOXELS, AFFINE, each=colour)
    classic(tmp_path / "t1", VOXELS, AFFINE, series="t1")
    found = search_images([tmp_path])
    assert [image.path.name for image in found.images] == ["t1"]
    assert any("pictures in colours" in file.reason for file in found.skipped)


def test_encrypted_attributes_are_named(tmp_path):
    path = classic(tmp_path / "p", VOXELS, AFFINE)[0]
    data = dcmread(path)
    data.EncryptedAttributesSequence = item(EncryptedContent=b"12345678")
    for name in ("SOPClassUID", "SOPInstanceUID"):
        del data[name]
    data.file_meta.MediaStorageSOPClassUID = ""
    data.save_as(tmp_path / "p" / "IM0001", enforce_file_format=False)
    problems = [image.problem for image in find_images([tmp_path]) if image.problem]
    assert any("encrypted" in problem for problem in problems)


@pytest.mark.parametrize("left", [0, 150, 400, 900])
@pytest.mark.parametrize("name", ["IM{:04d}", "IM{:04d}.dcm"])
def test_a_damaged_last_slice_is_not_left_out_without_a_word(tmp_path, left, name):
    *_, last = classic(tmp_path / "a", VOXELS, AFFINE, name=name)
    last.write_bytes(last.read_bytes()[:left])
    with pytest.raises(InputError, match=f"^{tmp_path / 'a'}: {last.name}, which may be a slice of the series: "):
        read_volume(tmp_path / "a", ReadOptions(dims=3))


@pytest.mark.parametrize(
    ("element", "what"),
    [("PatientID", "patients"), ("StudyInstanceUID", "studies"), ("FrameOfReferenceUID", "frames of reference")],
)
def test_slices_of_several_patients_are_no_volume(tmp_path, element, what):
    def change(data, number):
        if number > 2:
            setattr(data, element, "1.2.3")

    classic(tmp_path / "a", VOXELS, AFFINE, each=change)
    with pytest.raises(InputError, match=f"slices of 2 {what}.* in one series"):
        read_volume(tmp_path / "a", ReadOptions(dims=3))


@pytest.mark.parametrize("text", ["abc", "2,0000", "1\\2", "nan"])
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_a_rescaling_that_is_no_number_is_not_left_out_without_a_word(tmp_path, name, text):
    """Pixels would be taken as they are stored, and so be wrong by a factor that nobody sees."""
    other = ({"RescaleSlope", "RescaleIntercept"} - {name}).pop()
    paths = classic(tmp_path / "a", VOXELS, AFFINE, each=lambda data, number: data.update({name: "77.777", other: "1"}))
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"77.777", text.encode().ljust(6)))
    with pytest.raises(InputError, match=rf"its header states {name} .*, which is no number \(hint: "):
        read_all(tmp_path)


def read_all(folder):
    return [read_volume(image.files(), image.read_options(ReadOptions(dims=3))) for image in find_images([str(folder)])]
