"""Images of several files: which files are one case, and that their channels lie on one grid."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, preview
from biounet.batch.process_image import error_text
from biounet.core import InputError, SettingsError
from biounet.core.recipe import parse_recipe
from biounet.files import find_images, find_pairs, pair_files, read_volume
from biounet.training import check_data
from support.nifti import VOLUME, VOXELS, nifti

MRI = ("t1c", "flair")


def cases(found, root):
    return {image.relative.as_posix(): names(image.files(), root) for image in found}


def names(files, root):
    return [file.relative_to(root).as_posix() for file in files]


def pairs_of(pairs, root):
    return [(*names(pair.files(), root), *names([pair.label], root)) for pair in pairs]


def test_a_folder_for_each_case(make):
    root = make(*(f"{case}/{name}.nii.gz" for case in ("b.1", "a") for name in ("flair", "T1C", "brainmask", "tumour")))
    found = find_images([root], MRI)
    expected = {case: [f"{case}/T1C.nii.gz", f"{case}/flair.nii.gz"] for case in ("a", "b.1")}
    assert cases(found, root) == expected
    assert [image.stem for image in found] == ["a", "b.1"]
    assert cases(find_images([root / "a"], MRI), root) == {"a": expected["a"]}
    assert cases(find_images([f"{root}/*/*.nii.gz"], MRI), root) == expected
    assert pairs_of(find_pairs(root, None, MRI), root) == [(*expected[c], f"{c}/tumour.nii.gz") for c in ("a", "b.1")]


def test_common_names(make):
    root = make(*(f"{case}_{name}.nii" for case in ("x/p1", "x/p1_b") for name in ("t1c", "flair", "seg")), "y.tif")
    found = find_images([root], MRI)
    assert cases(found, root) == {
        "x/p1": ["x/p1_t1c.nii", "x/p1_flair.nii"],
        "x/p1_b": ["x/p1_b_t1c.nii", "x/p1_b_flair.nii"],
        "y.tif": ["y.tif"],
    }
    pairs, unpaired = pair_files(root, None, MRI)
    assert [pair.label.name for pair in pairs] == ["p1_b_seg.nii", "p1_seg.nii"]
    assert [problem.cause for problem in unpaired.problems] == [f"{root / 'y.tif'} has no annotation"]


@pytest.mark.parametrize("order", [("ce", "t1_ce"), ("t1_ce", "ce")])
def test_a_channel_whose_name_ends_in_that_of_another(make, order):
    root = make("p1_ce.nii.gz", "p1_t1_ce.nii.gz")
    assert cases(find_images([root], order), root) == {"p1": [f"p1_{channel}.nii.gz" for channel in order]}


def test_a_folder_of_labels(make):
    root = make("i/p1/t1c.nii", "i/p1/flair.nii", "i/p2_t1c.nii", "i/p2_flair.nii", "l/p1.nii.gz", "l/p2_labels.nii.gz")
    assert pairs_of(find_pairs(root / "i", root / "l", MRI), root) == [
        ("i/p1/t1c.nii", "i/p1/flair.nii", "l/p1.nii.gz"),
        ("i/p2_t1c.nii", "i/p2_flair.nii", "l/p2_labels.nii.gz"),
    ]


@pytest.mark.parametrize(
    ("dataset", "order"),
    [
        ({"channel_names": {"0": "FLAIR", "1": "T1c"}}, "10"),
        ({"modality": {"0": "flair", "1": "t2", "2": "t1c"}}, "20"),
        ({"modality": {"0": "MRI", "1": "MRI"}}, "01"),
        ({}, "01"),
        (None, "01"),
    ],
)
def test_nnunet(make, dataset, order):
    numbers = range(3 if "2" in order else 2)
    images = [f"imagesTr/{case}_{n:04d}.nii.gz" for case in ("BRATS_001", "BRATS_002") for n in numbers]
    root = make(*images, "labelsTr/BRATS_001.nii.gz", "labelsTr/BRATS_002.nii.gz")
    if dataset is not None:
        (root / "dataset.json").write_text(json.dumps(dataset))
    expected = [
        (*(f"imagesTr/BRATS_00{case}_000{n}.nii.gz" for n in order), f"labelsTr/BRATS_00{case}.nii.gz")
        for case in (1, 2)
    ]
    assert pairs_of(find_pairs(root / "imagesTr", root / "labelsTr", MRI), root) == expected
    if dataset is not None:
        assert pairs_of(find_pairs(root, None, MRI), root) == expected
    assert cases(find_images([root / "imagesTr"], MRI), root) == {e[2][9:-7]: list(e[:2]) for e in expected}


def test_nnunet_with_one_channel(make):
    root = make("imagesTr/h_001_0000.nii.gz", "imagesTr/h_002_0000.nii.gz", "labelsTr/h_001.nii.gz",
                "labelsTr/h_002.nii.gz")  # fmt: skip
    assert [pair.label.name for pair in find_pairs(root / "imagesTr", root / "labelsTr", ("mri",))] == [
        "h_001.nii.gz",
        "h_002.nii.gz",
    ]
    assert [image.stem for image in find_images([root / "imagesTr"], ("mri",))] == ["h_001", "h_002"]


def test_numbers_that_are_no_channels(make):
    root = make("s_0000.tif", "s_0001.tif", "m/s_0001.nii", "m/s_0002.nii")
    for channels in (("dapi",), MRI):
        assert {image.relative.name for image in find_images([root], channels)} == {
            "s_0000.tif", "s_0001.tif", "s_0001.nii", "s_0002.nii",
        }  # fmt: skip


def test_several_channels_in_one_file_stay_one_file(make):
    root = make("a.jpg", "b.tif", "a_mask.png", "b_mask.png")
    rgb = ("red", "green", "blue")
    assert cases(find_images([root], rgb), root) == {"a.jpg": ["a.jpg"], "b.tif": ["b.tif"]}
    assert pairs_of(find_pairs(root, None, rgb), root) == [("a.jpg", "a_mask.png"), ("b.tif", "b_mask.png")]


def test_channels_with_names_of_bids_are_called_like_their_subject(make):
    root = make("anat/sub-1_ses-2_ce-gd_T1w.nii", "anat/sub-1_ses-2_FLAIR.nii")
    inputs = [f"t1c={root}/anat/sub-1_ses-2_ce-gd_T1w.nii", f"flair={root}/anat/sub-1_ses-2_FLAIR.nii"]
    assert cases(find_images(inputs, MRI), root).keys() == {"sub-1_ses-2"}


def test_channels_by_name(make):
    root = make("p/a_t1c.nii.gz", "q/a_flair.nii.gz", "q/t1c.nii", "q/flair.nii", "r/x.nii", "t1c=x.nii")
    inputs = [f"flair={root}/q/a_flair.nii.gz", f"T1c={root}/p/a_t1c.nii.gz"]
    assert cases(find_images(inputs, MRI), root) == {"a": ["p/a_t1c.nii.gz", "q/a_flair.nii.gz"]}
    assert cases(find_images([f"t1c={root}/q/t1c.nii", f"flair={root}/q/flair.nii"], MRI), root).keys() == {"q"}
    assert cases(find_images([f"t1c={root}/r/x.nii", f"flair={root}/q/flair.nii"], MRI), root).keys() == {"r"}
    assert cases(find_images([root / "t1c=x.nii"], MRI), root).keys() == {"t1c=x.nii"}
    for wrong, cause in [
        ([inputs[0]], "no file of 't1c'"),
        ([*inputs, f"t2={root}/r/x.nii"], "no channel is called 't2' .hint: the channels are t1c, flair"),
        ([*inputs, f"t1c={root}/r/x.nii"], "a second file for channel 't1c'"),
        ([inputs[0], f"t1c={root}/none.nii"], "none.nii: no such file"),
    ]:
        with pytest.raises(InputError, match=cause):
            find_images(wrong, MRI)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["p1/t1c.nii"], "case 'p1': no file of 'flair'"),
        (["p1/t1c.nii", "p1/flair.nii", "p1/flair.nii.gz"], "2 files for channel 'flair': flair.nii, flair.nii.gz"),
        (["p1_0000.nii"], "case 'p1': no file of 'flair'"),
        (["p1_0000.nii", "p1_0001.nii", "p1_0002.nii"], "p1_0002.nii: one too many, the channels are t1c, flair"),
    ],
)
def test_a_channel_that_is_missing_or_too_many(make, files, problem):
    root = make(*files, "p2/t1c.nii", "p2/flair.nii", "l/p1.nii", "l/p2.nii")
    found = {image.relative.name: image for image in find_images([root], MRI)}
    assert len(found["p2"].files()) == 2  # the others can be used
    with pytest.raises(InputError, match=problem) as caught:
        found["p1"].files()
    assert caught.value.path == found["p1"].path
    pairs, unpaired = pair_files(root, root / "l", MRI)
    assert [pair.image.parent.name for pair in pairs] == ["p2"]
    assert problem in str(unpaired.problems[0])


def test_which_file_beside_the_channels_is_the_annotation(make):
    root = make("p/t1c.nii", "p/flair.nii", "p/brainmask.nii", "p/rim.nii", "p/core.nii")
    (problem,) = pair_files(root, None, MRI)[1].problems  # never what is merely left over
    assert "has no annotation (hint: if one of core.nii, rim.nii is it, say which in the recipe" in str(problem)
    for name in ("rim", "core"):
        assert find_pairs(root, None, MRI, (name,))[0].label.name == f"{name}.nii"
        (root / "p" / f"{name}.nii").unlink()
    (problem,) = pair_files(root, None, MRI)[1].problems
    assert "t1c.nii has no annotation, and a mask is none" in str(problem)
    (root / "p/brainmask.nii").unlink()
    (problem,) = pair_files(root, None, MRI)[1].problems
    assert problem.cause == f"{root / 'p/t1c.nii'} has no annotation"


@pytest.mark.parametrize("name", ["seg", "SEG", "dseg", "label", "p_seg", "p_seg-manual", "flair_seg", "lesions"])
def test_usual_names_of_an_annotation(make, name):
    root = make("p/t1c.nii", "p/flair.nii", "p/brainmask.nii", "p/brain_mask.nii", "p/t1_Eq_1.nii", f"p/{name}.nii")
    pairs, unpaired = pair_files(root, None, MRI)
    assert [pair.label.name for pair in pairs] == [f"{name}.nii"]
    assert unpaired.problems == ()
    assert {file.path.name for file in unpaired.skipped} == {"brainmask.nii", "brain_mask.nii", "t1_Eq_1.nii"}
    two = make(f"p/x_{name}.nii")
    assert [pair.label.name for pair in find_pairs(two, None, MRI)] == [f"{name}.nii"]  # x is no name of this case


@pytest.mark.parametrize(
    ("declared", "file"),
    [("rater1", "rater1"), ("*_rater1", "p_rater1"), ("rater*", "rater2"), ("mask", "mask"), ("*mask", "brainmask")],
)
def test_the_recipe_names_the_annotation(make, declared, file):
    root = make("p/t1c.nii", "p/flair.nii", "p/seg.nii", f"p/{file}.nii", "q_t1c.nii", "q_flair.nii", f"q_{file}.nii")
    recipe = parse_recipe({"data": {"annotation": declared}})
    assert recipe.data.annotation == (declared,)
    pairs = find_pairs(root, None, MRI, recipe.data.annotation)
    assert sorted(pair.label.name for pair in pairs) == sorted([f"{file}.nii", f"q_{file}.nii"])


@pytest.mark.parametrize("wrong", ["", "*", "a/b", "_"])
def test_an_invalid_name_of_an_annotation_is_refused(wrong):
    with pytest.raises(SettingsError, match="annotation"):
        parse_recipe({"data": {"annotation": wrong}})


def test_label_maps_are_never_patients_nor_images(make):
    maps = ("seg", "lesions", "brainmask", "mask", "p_dseg", "p_seg-manual", "labels")
    root = make("p/mri.nii.gz", "q/mri.nii.gz", *(f"p/{name}.nii.gz" for name in maps))
    assert [image.path.name for image in find_images([root], ("mri",))] == ["mri.nii.gz"] * 2
    root = make("r/t1c.nii", "r/flair.nii", *(f"r/{name}.nii" for name in maps))
    assert cases(find_images([root / "r"], MRI), root) == {"r": ["r/t1c.nii", "r/flair.nii"]}


def test_one_channel_and_the_annotation_in_a_folder_for_each_case(make):
    root = make("a/mri.nii.gz", "a/seg.nii.gz", "a/brainmask.nii.gz", "b/mri.nii.gz", "b/seg.nii.gz")
    pairs, unpaired = pair_files(root, None, ("mri",))
    assert pairs_of(pairs, root) == [(f"{case}/mri.nii.gz", f"{case}/seg.nii.gz") for case in "ab"]
    assert unpaired.problems == ()
    assert [file.path.name for file in unpaired.skipped] == ["brainmask.nii.gz"]


def test_a_table_of_channels(make):
    root = make("a.nii", "b.nii", "l.nii")
    table = root / "cases.csv"
    table.write_text("case,flair,label,t1c\n1,b.nii,l.nii,a.nii\n")
    assert pairs_of(find_pairs(table, None, MRI), root) == [("a.nii", "b.nii", "l.nii")]
    table.write_text("case,flair,label,t1c\n1,b.nii,l.nii,none.nii\n")
    with pytest.raises(InputError, match=r"none\.nii does not exist"):
        find_pairs(table, None, MRI)
    table.write_text("flair,label\nb.nii,l.nii\n")
    with pytest.raises(InputError, match="expected a CSV with the columns t1c, flair and label"):
        find_pairs(table, None, MRI)
    table.write_text("image,label\nb.nii,l.nii\n")
    assert pairs_of(find_pairs(table, None, MRI), root) == [("b.nii", "l.nii")]


def test_channels_are_read_on_one_grid(tmp_path):
    one, two = nifti(tmp_path / "t1c.nii.gz"), nifti(tmp_path / "flair.nii", VOXELS.astype(np.float32) / 2)
    volume = read_volume([one, two], VOLUME)
    np.testing.assert_array_equal(volume.array, np.stack([VOXELS, VOXELS / 2]).astype(np.float32), strict=True)
    assert volume.grid == read_volume(one, VOLUME).grid
    assert volume.source == one
    np.testing.assert_array_equal(read_volume([two], VOLUME).array, VOXELS[None] / 2)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"array": VOXELS[1:]}, "1 x 3 x 4 voxels, not 2 x 3 x 4"),
        ({"affine": np.diag([0.5, -0.75, 2, 1])}, "voxels lie up to 3.75 mm"),
        ({"affine": np.diag([0.5, 0.8, 2, 1])}, "voxel size 2 x 0.8 x 0.5 mm, not 2 x 0.75 x 0.5 mm"),
        ({"sform": 0, "unit": 0}, "only one of the two says where its voxels are"),
        ({"sform": 0, "pixdim__1": 0.6}, "voxel size 2 x 0.75 x 0.6 mm, not 2 x 0.75 x 0.5 mm"),
        ({"array": np.stack([VOXELS] * 2), "dim": 5, "dim__4": 1, "dim__5": 2}, "2 channels, where each file is one"),
    ],
)
def test_channels_on_different_grids(tmp_path, how, cause):
    one, two = nifti(tmp_path / "t1c.nii.gz"), nifti(tmp_path / "flair.nii.gz", **how)
    with pytest.raises(InputError) as caught:
        read_volume([one, two], VOLUME)
    assert caught.value.path == two
    assert cause in str(caught.value)
    assert "channels" in cause or f"not on the grid of {one}" in str(caught.value)


def test_channels_in_tiffs_of_a_microscope(tmp_path):
    for name, size in (("a_dapi", 0.5), ("a_gfp", 0.5), ("b_dapi", 0.5), ("b_gfp", 0.6)):
        shape = {"imagej": True, "resolution": (1 / size, 1 / size), "metadata": {"unit": "um", "axes": "YX"}}
        tifffile.imwrite(tmp_path / f"{name}.tif", np.eye(5, dtype=np.uint16), **shape)
    fine, wrong = find_images([tmp_path], ("DAPI", "GFP"))
    assert read_volume(fine.files()).array.shape == (2, 5, 5)
    with pytest.raises(
        InputError, match=r"b_gfp.tif: not on the grid of .*b_dapi.tif: .* voxel size 0.6 x 0.6 um, not 0.5"
    ):
        read_volume(wrong.files())


def test_check_lists_volumes_with_their_unit(tmp_path):
    recipe = parse_recipe({"data": {"kind": "classes", "classes": ["a"], "dims": 3, "channels": list(MRI)}})
    for case in ("p1", "p2"):
        (tmp_path / case).mkdir()
        for number, name in enumerate(MRI):
            nifti(tmp_path / case / f"{name}.nii.gz", VOXELS + number)
        nifti(tmp_path / case / "drawn.nii.gz", (VOXELS > 20).astype(np.uint8))
    (tmp_path / "p2/flair.nii.gz").unlink()
    report = check_data(tmp_path, None, recipe)
    _, row = report.as_table()
    assert row[1:7] == ("2 x 2 x 3 x 4", "int16", "2 x 0.75 x 0.5 mm", "RAS", "1", "100.0%")
    assert report.problems == (f"{tmp_path / 'p2/t1c.nii.gz'}: case 'p2': no file of 'flair'",)
    assert report.as_dict()["images"][0]["unit"] == "mm"


def test_a_preview_refuses_the_cases_that_the_run_does(tmp_path, untrained):
    """Channels of a case of which one says where its voxels are and the other does not, or that have other shapes."""
    card = untrained.card.model_copy(
        update={
            "recipe": parse_recipe({"data": {"dims": 3, "channels": list(MRI)}}),
            "inputs": MRI,
        }
    )
    model = replace(untrained, card=card)
    calibrated = {"imagej": True, "resolution": (2.0, 4 / 3), "metadata": {"unit": "mm", "axes": "ZYX", "spacing": 2}}
    for case, shape in (("mixed", VOXELS.shape), ("other", (3, *VOXELS.shape[1:]))):
        (tmp_path / case).mkdir()
        nifti(tmp_path / case / "t1c.nii.gz")
        tifffile.imwrite(tmp_path / case / "flair.tif", np.ones(shape, np.uint16), **calibrated)
    found = find_images([tmp_path], MRI)
    assert [len(image.files()) for image in found] == [2, 2]
    for image, seen in zip(found, preview(found, model, BatchOptions(read=VOLUME)), strict=True):
        with pytest.raises(InputError) as caught:
            read_volume(image.files(), VOLUME)
        assert seen.failed
        assert seen.message == error_text(caught.value)


@pytest.mark.parametrize("declared", [True, False])
def test_an_nnunet_folder_is_read_with_and_without_its_description(tmp_path, declared):
    for name in ("imagesTr/a_0000", "imagesTr/b_0000", "imagesTs/c_0000", "labelsTr/a", "labelsTr/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    if declared:
        (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "mri"}}')
    pairs = find_pairs(tmp_path, None, ("mri",))
    assert [(pair.image.name, pair.label.name) for pair in pairs] == [
        ("a_0000.nii.gz", "a.nii.gz"), ("b_0000.nii.gz", "b.nii.gz")
    ]  # fmt: skip
    found = find_images([tmp_path], ("mri",))
    assert [image.relative.as_posix() for image in found] == ["imagesTr/a", "imagesTr/b", "imagesTs/c"]


def test_the_hint_of_several_annotations_names_none_of_the_brain(tmp_path):
    for name in ("flair", "t1", "brainmask", "mask"):
        (tmp_path / f"{name}.nii.gz").touch()
    with pytest.raises(InputError, match=r"more than one annotation: brainmask.* such as data.annotation = 'mask'"):
        find_pairs(tmp_path, None, ("flair", "t1"), ("*mask*",))
