"""Series of DICOM files in folders: what they are called, the cases they make, and their annotations."""

import json
import warnings

import nibabel as nib
import numpy as np
import pytest

from biounet.core import DataSettings, InputError
from biounet.core.recipe import parse_recipe
from biounet.evaluation import evaluate
from biounet.files import find_images, find_pairs, hash_image, image_state, read_annotation, read_volume
from biounet.files.dataset_index.channel_names import match_channels
from biounet.training import check_data
from support.dicom_files import classic, enhanced, header, item, save, uid
from support.nifti import VOLUME

VOXELS = np.random.default_rng(1).integers(0, 900, (6, 8, 10)).astype(np.int16)
AFFINE = np.diag([-0.5, 0.7, 2.0, 1.0])
LABELS = np.zeros(VOXELS.shape, np.uint8)
LABELS[2:5, 2:6, 3:8] = 1
CASE = ("t1c", "flair")


def study(folder, name, *, extra=()):
    """Write a study of two series, as scanners call them."""
    described = {3: "Ax T1 MPRAGE +C", 5: "t2_FLAIR_tra", **dict(extra)}
    for number, text in described.items():
        series = {"series": f"{name} {number}", "SeriesNumber": number, "SeriesDescription": text}
        classic(folder / "DICOM" / f"SE{number}", VOXELS + number, AFFINE, StudyInstanceUID=uid(name), **series)


def relatives(images):
    return [image.relative.as_posix() for image in images]


def draw(path, labels=LABELS):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(labels.T, AFFINE)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def test_series_are_called_like_their_folder_with_number_and_description(tmp_path):
    classic(tmp_path / "p1", VOXELS, AFFINE, series="a", name="a{}", SeriesDescription="T1w: 1.5 mm/iso ")
    classic(tmp_path / "p1", VOXELS, AFFINE, series="b", name="b{}", SeriesNumber=4, SeriesDescription="")
    for name in ("x", "y"):
        enhanced(tmp_path / "p2" / f"{name}.dcm", VOXELS, AFFINE, series=name)
    found = relatives(find_images([tmp_path]))
    assert found[:2] == ["p1_3_T1w-1-5-mm-iso", "p1_4"]
    assert len({*found}) == 4
    assert all(name.startswith("p2_3_T1w-MPRAGE_") for name in found[2:])
    assert relatives(find_images([tmp_path / "p1"], series="4")) == ["p1_4"]
    assert not any("Doe" in name or "P1" in name for name in found)


def test_one_series_in_several_folders_is_one_image_and_copies_are_two(tmp_path):
    paths = classic(tmp_path / "p" / "a", VOXELS, AFFINE)
    (tmp_path / "p" / "b").mkdir()
    for path in paths[3:]:
        path.rename(tmp_path / "p" / "b" / path.name)
    (image,) = find_images([tmp_path])
    assert (image.path.name, image.is_folder) == ("p", True)
    np.testing.assert_array_equal(read_volume(image.files(), image.read_options(VOLUME)).array[0], VOXELS)
    classic(tmp_path / "copy", VOXELS, AFFINE)
    (tmp_path / "p" / "b" / "IM0004").rename(tmp_path / "p" / "a" / "IM0004")
    assert "copy_3_T1w-MPRAGE" in relatives(find_images([tmp_path]))


def test_files_that_a_shell_lists_are_the_slices_of_their_series(tmp_path):
    paths = classic(tmp_path / "p", VOXELS, AFFINE)
    (image,) = find_images([str(path) for path in paths])
    assert image.relative.name == "p_3_T1w-MPRAGE"
    assert relatives(find_images([str(tmp_path / "p" / "IM*")])) == ["p_3_T1w-MPRAGE"]
    assert relatives(find_images([str(tmp_path / "p" / "DICOMDIR")])) == ["p_3_T1w-MPRAGE"]


def test_links_in_circles_end(tmp_path):
    classic(tmp_path / "p" / "a", VOXELS, AFFINE)
    (tmp_path / "p" / "a" / "up").symlink_to(tmp_path / "p")
    (image,) = find_images([tmp_path])
    assert read_volume(image.files(), image.read_options(VOLUME)).array.shape == (1, *VOXELS.shape)
    assert read_volume(tmp_path / "p", VOLUME).array.shape == (1, *VOXELS.shape)


def test_a_directory_file_is_not_followed(tmp_path):
    classic(tmp_path / "p", VOXELS, AFFINE, name="IM{}")
    classic(tmp_path / "secret", VOXELS, AFFINE, series="secret")
    directory = header("1.2.840.10008.1.3.10", uid("d"), uid("d", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says that the name is none
        directory.DirectoryRecordSequence = item(ReferencedFileID=["..", "SECRET", "IM0001"])
        save(directory, tmp_path / "p" / "DICOMDIR")
    for path in (tmp_path / "p", tmp_path / "p" / "DICOMDIR"):
        (image,) = find_images([path])
        assert image.path.name == "p"
        assert read_volume(image.files(), image.read_options(VOLUME)).array.shape == (1, *VOXELS.shape)


def test_state_and_hash_are_those_of_the_files_of_the_series(tmp_path):
    classic(tmp_path / "p", VOXELS, AFFINE, name="a{}")
    (image,) = find_images([tmp_path])
    state, digest = image_state(image.path, image.scene), hash_image(image.path, image.scene)
    classic(tmp_path / "p", VOXELS, AFFINE, series="other", name="b{}")
    assert (image_state(image.path, image.scene), hash_image(image.path, image.scene)) == (state, digest)
    (tmp_path / "p" / "a3").rename(tmp_path / "p" / "renamed")
    assert hash_image(image.path, image.scene) == digest
    classic(tmp_path / "p", VOXELS + 1, AFFINE, name="a{}", order=[2])
    assert hash_image(image.path, image.scene) != digest


def test_the_series_of_a_study_are_the_channels_of_a_case(tmp_path):
    for name in ("p1", "p2"):
        study(tmp_path / name, name, extra=[(1, "t1 native"), (7, "DWI")])
    found = find_images([tmp_path], CASE)
    assert relatives(found) == ["p1", "p2"]
    for folder in (tmp_path / "p1", tmp_path / "p1" / "DICOM"):
        assert relatives(find_images([folder], CASE)) == ["p1"]  # and not DICOM, the folder in it
    volume = read_volume(found[0].files(), found[0].read_options(VOLUME))
    np.testing.assert_array_equal(volume.array, [VOXELS + 3, VOXELS + 5])


def test_channels_may_be_named_folder_by_folder(tmp_path):
    study(tmp_path / "p1", "p1")
    folder = tmp_path / "p1" / "DICOM"
    (image,) = find_images([f"t1c={folder / 'SE5'}", f"flair={folder / 'SE3'}"], CASE)
    assert image.relative.name == "p1"
    volume = read_volume(image.files(), image.read_options(VOLUME))
    np.testing.assert_array_equal(volume.array, [VOXELS + 5, VOXELS + 3])
    for other, cause in ((folder, "2 series"), (tmp_path / "empty", "without DICOM files")):
        other.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=cause):
            find_images([f"t1c={folder / 'SE5'}", f"flair={other}"], CASE)


def test_channels_that_do_not_fit_are_listed_and_can_be_chosen(tmp_path):
    study(tmp_path / "p1", "p1", extra=[(6, "FLAIR cor")])
    (image,) = find_images([tmp_path], CASE)
    assert "2 series could be 'flair': 5 't2_FLAIR_tra', 6 'FLAIR cor'" in image.problem
    assert "--series 't1c=PATTERN,flair=PATTERN'" in image.problem
    (image,) = find_images([tmp_path], CASE, series="flair=*tra")
    assert not image.problem
    (image,) = find_images([tmp_path], ("t1c", "pd"))
    assert "no series of 'pd'" in image.problem


def test_folders_that_are_called_like_channels_make_a_case(tmp_path):
    for number, channel in enumerate(CASE):
        fields = {"series": channel, "SeriesDescription": "x", "StudyInstanceUID": uid(channel)}
        classic(tmp_path / "p1" / channel, VOXELS + number, AFFINE, **fields)
    (image,) = find_images([tmp_path], CASE)
    assert (image.relative.as_posix(), image.problem) == ("p1", "")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("T1w MPRAGE", "T1 tse +C", "T2 FLAIR", "T2 tse"), {"t1": [0], "t1c": [1], "flair": [2], "t2": [3]}),
        (("t1_tra", "t1_tra_KM", "TIRM dark-fluid"), {"t1": [0], "t1ce": [1], "flair": [2]}),
        (("sag C-Spine T1", "PD fs"), {"t1": [0], "t1c": [], "pd": [1]}),
        (("t1_mprage_pre_contrast", "t1_mprage_post contrast"), {"T1": [0], "T1gd": [1]}),
    ],
)
def test_descriptions_mean_channels(texts, expected):
    assert match_channels(texts, [*expected]) == expected


def test_annotations_have_the_name_of_the_series_or_its_folder_or_lie_beside_it(tmp_path):
    for name in ("p1", "p2", "p3"):
        classic(tmp_path / "img" / name, VOXELS, AFFINE, series=name)
    draw(tmp_path / "ann" / "p1.nii.gz")
    draw(tmp_path / "ann" / "p2_3_T1w-MPRAGE_seg.nii.gz")
    draw(tmp_path / "ann" / "p3" / "seg.nii.gz")
    pairs = find_pairs(tmp_path / "img", tmp_path / "ann")
    assert [(pair.image.name, pair.label.relative_to(tmp_path / "ann").parts[0][:2]) for pair in pairs] == [
        ("p1", "p1"),
        ("p2", "p2"),
        ("p3", "p3"),
    ]
    draw(tmp_path / "img" / "p1" / "seg.nii.gz")
    (tmp_path / "img" / "p2").rename(tmp_path / "elsewhere")
    (tmp_path / "img" / "p3").rename(tmp_path / "elsewhere3")
    (pair,) = find_pairs(tmp_path / "img")
    data = DataSettings(kind="classes", dims=3, classes=("tumour",))
    volume = read_volume(pair.image, VOLUME)
    annotation = read_annotation(pair.label, data, volume.grid)
    np.testing.assert_array_equal(annotation.labels, LABELS)


RECIPE = {"data": {"kind": "classes", "dims": 3, "classes": ["tumour"], "channels": ["t1c", "flair"]}}


def test_check_reads_cases_of_dicom_series(tmp_path):
    for name in ("p1", "p2"):
        study(tmp_path / "img" / name, name)
        draw(tmp_path / "ann" / f"{name}.nii.gz")
    result = check_data(tmp_path / "img", tmp_path / "ann", parse_recipe(RECIPE), VOLUME)
    assert result.problems == ()
    assert [row.shape for row in result.rows] == [(2, 6, 8, 10)] * 2
    assert result.rows[0].orientation == "LAS"
    json.dumps(result.as_dict())


def test_check_says_what_is_missing(tmp_path):
    classic(tmp_path / "img" / "p1", VOXELS, AFFINE, order=[0, 1, 2, 4, 5])
    draw(tmp_path / "ann" / "p1.nii.gz")
    recipe = parse_recipe({"data": {"kind": "classes", "dims": 3, "classes": ["tumour"]}})
    result = check_data(tmp_path / "img", tmp_path / "ann", recipe, VOLUME)
    assert any("1 slice is missing" in problem for problem in result.problems)


def test_results_are_compared_with_annotations_of_their_folder(tmp_path):
    draw(tmp_path / "out" / "p1_3_T1w-MPRAGE_labels.nii.gz")
    draw(tmp_path / "truth" / "p1.nii.gz")
    data = DataSettings(kind="classes", dims=3, classes=("tumour",))
    assert [row["dice"] for row in evaluate(tmp_path / "out", tmp_path / "truth", data).cases] == [1]
    draw(tmp_path / "out" / "p1_4_T2_labels.nii.gz")
    with pytest.raises(InputError, match="no result"):
        evaluate(tmp_path / "out", tmp_path / "truth", data)
