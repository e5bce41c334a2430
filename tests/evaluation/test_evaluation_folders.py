"""Results on disk against annotations on disk: which file belongs to which, and what cannot be compared."""

import re

import nibabel
import numpy as np
import pytest
import tifffile

from biounet.core import DataSettings, Grid, InputError, SettingsError
from biounet.evaluation import evaluate
from biounet.files import StoreOptions, write_label_store


def picture(*rows):
    """Labels from text: digits are ids, ``.`` background."""
    return np.array([[int(letter.replace(".", "0")) for letter in row] for row in rows], np.int32)


def write(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels.astype(np.uint16))


@pytest.fixture
def folders(tmp_path):
    truth, out = tmp_path / "truth", tmp_path / "out"
    write(truth / "a.tif", picture("11.22"))
    write(truth / "deep" / "b.png.tif", picture("11..."))
    write(out / "a_labels.tif", picture("33..."))
    write(out / "deep" / "b.png_labels.tif", picture("11..."))
    write(out / "extra_labels.tif", picture("1"))
    (out / "a_overlay.png").write_bytes(b"no image")
    return out, truth


def test_same_names(folders):
    result = evaluate(*folders, DataSettings())
    assert result.truth_counts == (2, 1)
    assert result.ap == (2 / 3,) * 9


def test_what_is_too_large_to_compare_is_one_line_and_others_are_compared(folders, monkeypatch):
    write(folders[0] / "a_labels.tif", np.ones((2, 5)))
    write(folders[1] / "a.tif", np.ones((2, 5)))
    monkeypatch.setattr("biounet.evaluation.folders.free_memory", lambda: 24 * 5)
    result = evaluate(*folders, DataSettings())
    assert ([row["case"] for row in result.cases], result.truth_counts) == (["a.tif", "deep/b.png.tif"], (1,))
    assert "comparing 2 x 5 pixels" in result.failed[0]
    monkeypatch.setattr("biounet.evaluation.folders.free_memory", lambda: 10)
    with pytest.raises(InputError, match=r"comparing 2 x 5 pixels takes about .* GiB, and .* are free.*cut the same"):
        evaluate(*folders, DataSettings())


def test_label_stores_are_compared(folders):
    out, truth = folders
    (out / "a_labels.tif").unlink()
    labels = picture("33...")
    write_label_store(out / "a_labels.ome.zarr", labels, Grid(labels.shape), StoreOptions((4, 4)))
    assert evaluate(out, truth, DataSettings()).ap == (2 / 3,) * 9


def test_masks_beside_their_images(folders):
    out, truth = folders
    (truth / "a.tif").rename(truth / "a_masks.tif")
    (truth / "deep" / "b.png.tif").rename(truth / "deep" / "b.png_masks.tif")
    for name in ("a.tif", "unannotated.tif"):
        write(truth / name, picture("99999"))
    assert evaluate(out, truth, DataSettings()).ap == (2 / 3,) * 9


def test_one_name_in_two_spellings(tmp_path):
    write(tmp_path / "truth" / "Zelle a\u0308-mask.tif", picture("11.22"))
    write(tmp_path / "truth" / "face_mask.tif", picture("11.22"))
    write(tmp_path / "out" / "Zelle ä_labels.tif", picture("11.22"))
    write(tmp_path / "truth" / "cell1.tif", picture("11.22"))
    write(tmp_path / "out" / "face_mask_labels.tif", picture("11.22"))
    write(tmp_path / "out" / "Cell1_labels.tif", picture("11.22"))
    assert evaluate(tmp_path / "out", tmp_path / "truth", DataSettings()).ap == (1,) * 9


def test_images_with_an_ending_of_their_own(tmp_path):
    for name in ("000_img.tif", "001_img.tif"):
        write(tmp_path / "truth" / name, picture("99999"))
    for number in "01":
        write(tmp_path / "truth" / f"00{number}_masks.tif", picture("11.22"))
        write(tmp_path / "out" / f"00{number}_img_labels.tif", picture("11.22"))
    assert evaluate(tmp_path / "out", tmp_path / "truth", DataSettings()).ap == (1,) * 9


def test_results_are_not_compared_with_themselves(folders):
    out, _ = folders
    with pytest.raises(InputError, match=r"a_labels\.tif: both the result and the annotation"):
        evaluate(out, out, DataSettings())
    (out / "counts.csv").write_text("image,status,count\n")
    with pytest.raises(InputError, match=r"counts\.csv: not a folder"):
        evaluate(out / "counts.csv", out, DataSettings())


def test_results_below_the_folder_of_annotations_are_no_annotations(folders):
    out, truth = folders
    out = out.rename(truth / "biounet-out")
    assert evaluate(out, truth, DataSettings()).truth_counts == (2, 1)


def test_results_in_other_folders_if_names_are_unique(folders):
    out, truth = folders
    (out / "deep" / "b.png_labels.tif").rename(out / "b.png_labels.tif")
    assert evaluate(out, truth, DataSettings()).truth_counts == (2, 1)
    write(truth / "else" / "b.png.tif", picture("....."))
    with pytest.raises(InputError, match=r"2 of 3 annotations: deep/b.png, else/b.png"):
        evaluate(out, truth, DataSettings())


def test_one_result_is_not_that_of_two_annotations_which_differ_in_capitals(tmp_path):
    for name in ("truth/Cell.tif", "truth/cell.tif", "out/CELL_labels.tif"):
        write(tmp_path / name, picture("11.22"))
    with pytest.raises(InputError, match="no result for 2 of 2 annotations: Cell, cell"):
        evaluate(tmp_path / "out", tmp_path / "truth", DataSettings())


def test_missing_results_are_named(folders):
    out, truth = folders
    for name in ("c.tif", "d.tif"):
        write(truth / name, picture("1.."))
    with pytest.raises(InputError, match=r"out: no result for 2 of 4 annotations: c, d "):
        evaluate(out, truth, DataSettings())


def test_shapes_differ(folders):
    out, truth = folders
    write(out / "a_labels.tif", picture("11..", "...."))
    (failed,) = evaluate(out, truth, DataSettings()).failed
    assert re.search(r"a\.tif: is \(1, 5\), but the result .*a_labels\.tif is \(2, 4\)", failed)
    (truth / "deep" / "b.png.tif").unlink()
    with pytest.raises(InputError, match=r"a\.tif: is \(1, 5\), but the result .*a_labels\.tif is \(2, 4\)"):
        evaluate(out, truth, DataSettings())


def test_two_annotations_of_one_image(folders):
    out, truth = folders
    for name in ("a_mask.tif", "a_label.tif"):
        write(truth / name, picture("1"))
    with pytest.raises(InputError, match="annotation of the same image"):
        evaluate(out, truth, DataSettings())


def test_folders_without_images(folders, tmp_path):
    out, _ = folders
    with pytest.raises(InputError, match="no such folder"):
        evaluate(out, tmp_path / "nowhere", DataSettings())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no annotation found"):
        evaluate(out, tmp_path / "empty", DataSettings())


def test_classes_and_scribbles(folders):
    out, truth = folders
    found = evaluate(out, truth, DataSettings(kind="classes", classes=("x", "y", "z")))
    assert found.classes == ("x", "y", "z")
    assert found.dice == (2 * 2 / (4 + 2), 0, 0)
    strokes = DataSettings(kind="scribbles", classes=("background", "cell", "other", "more"))
    assert evaluate(out, truth, strokes).classes == ("cell", "other", "more")


TUMOURS = DataSettings(
    kind="classes",
    dims=3,
    classes=("oedema", "core"),
    channels=("flair", "t1"),
    regions={"whole": (1, 2), "core": (2,)},
)


def write_nifti(path, labels, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
    image = nibabel.Nifti1Image(labels.T.astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


@pytest.fixture
def cases(tmp_path):
    """Two cases with their images and one annotation each, and results that lie a plane too far."""
    truth, out = tmp_path / "cases", tmp_path / "out"
    for name in ("case_1", "case_2"):
        labels = np.zeros((5, 6, 7), np.int32)
        labels[1:3, 2:5, 2:5] = 1
        labels[1, 3, 3] = 2
        for file in ("flair", "t1", "tumour", "brainmask"):
            write_nifti(truth / name / f"{file}.nii.gz", labels if file == "tumour" else np.ones_like(labels))
        write_nifti(out / f"{name}_labels.nii.gz", np.roll(labels, 1, axis=0))
    return out, truth


def assert_a_plane_too_far(figures):
    assert figures.images == 2
    assert figures.dice == (0.5, 0)
    assert figures.surfaces.unit == "mm"
    assert figures.surfaces.hd95 == (3, 3)
    assert figures.lesions.found == (2, 0)


def test_annotations_in_the_folders_of_cases(cases):
    out, truth = cases
    assert_a_plane_too_far(evaluate(out, truth, TUMOURS))
    for name in ("case_1", "case_2"):  # without the images, in folders of their own
        for file in ("flair", "t1", "brainmask"):
            (truth / name / f"{file}.nii.gz").unlink()
    assert_a_plane_too_far(evaluate(out, truth, TUMOURS))
    for name in ("case_1", "case_2"):
        (out / name).mkdir()
        (out / f"{name}_labels.nii.gz").rename(out / name / "flair_labels.nii.gz")
    assert_a_plane_too_far(evaluate(out, truth, TUMOURS))
    for name in ("case_1", "case_2"):
        (truth / name / "tumour.nii.gz").rename(truth / f"{name}.nii.gz")
        (out / name / "flair_labels.nii.gz").rename(out / f"{name}_labels.nii.gz")
    assert_a_plane_too_far(evaluate(out, truth, TUMOURS))


def test_the_tolerance_of_surfaces(cases):
    assert evaluate(*cases, TUMOURS, 3.0).surfaces.nsd == (1, 1)
    assert evaluate(*cases, TUMOURS, 2.9).surfaces.nsd[1] == 0
    with pytest.raises(SettingsError, match="tolerance"):
        evaluate(*cases, TUMOURS, -1.0)


def test_a_case_without_annotation_is_left_out(cases):
    out, truth = cases
    (truth / "case_2" / "tumour.nii.gz").unlink()
    (truth / "case_2" / "brainmask.nii.gz").unlink()
    assert evaluate(out, truth, TUMOURS).images == 1


def test_two_annotations_of_one_case(cases):
    out, truth = cases
    write_nifti(truth / "case_2" / "seg.nii.gz", np.ones((5, 6, 7)))
    with pytest.raises(InputError, match=r"seg\.nii\.gz.*tumour\.nii\.gz is an annotation of the same image"):
        evaluate(out, truth, TUMOURS)
    assert_a_plane_too_far(evaluate(out, truth, TUMOURS.model_copy(update={"annotation": ("tumour",)})))


def test_a_mask_of_the_brain_is_no_annotation(cases):
    out, truth = cases
    (truth / "case_2" / "tumour.nii.gz").unlink()
    assert evaluate(out, truth, TUMOURS).images == 1
    (truth / "case_1" / "tumour.nii.gz").unlink()
    with pytest.raises(InputError, match="no annotation found"):
        evaluate(out, truth, TUMOURS)


def test_links_to_folders_are_followed(cases, tmp_path):
    out, truth = cases
    for folder, name in ((truth, "linked_truth"), (out, "linked_out")):
        (tmp_path / name).mkdir()
        for entry in folder.iterdir():
            (tmp_path / name / entry.name).symlink_to(entry)
        (tmp_path / name / "round").symlink_to(tmp_path / name)
    assert_a_plane_too_far(evaluate(tmp_path / "linked_out", tmp_path / "linked_truth", TUMOURS))


def test_a_result_of_another_file_is_not_that_of_a_lone_annotation(cases):
    out, truth = cases
    (out / "case_2").mkdir()
    (out / "case_2_labels.nii.gz").rename(out / "case_2" / "other_labels.nii.gz")
    with pytest.raises(InputError, match="no result for 1 of 2 annotations: case_2 "):
        evaluate(out, truth, TUMOURS)


def test_misaligned_results_fail(cases):
    out, truth = cases
    labels = np.zeros((5, 6, 7))
    labels[1] = 1
    write_nifti(truth / "case_1" / "tumour.nii.gz", labels, np.diag([-1.0, 2.0, 3.0, 1.0]))
    (failed,) = evaluate(out, truth, TUMOURS).failed
    assert re.search(r"tumour\.nii\.gz: does not lie where the result .*case_1_labels.nii.gz does", failed)


def test_undrawn_regions_of_a_case_are_not_compared(cases):
    data = TUMOURS.model_copy(update={"unknown": {"case_2": ("core",)}})
    figures = evaluate(*cases, data)
    assert figures.surfaces.images == (2, 1)
    assert figures.lesions.true == (2, 1)


def test_stacks_in_micrometres(tmp_path):
    labels = np.zeros((4, 5, 6), np.uint16)
    labels[1, 2, 3] = 1
    calibration = {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um", "axes": "ZYX", "spacing": 2.0}}
    for name, array in (("truth/a.tif", labels), ("out/a_labels.tif", np.roll(labels, 1, axis=2))):
        (tmp_path / name).parent.mkdir()
        tifffile.imwrite(tmp_path / name, array, **calibration)
    data = DataSettings(kind="classes", dims=3, classes=("cell",))
    figures = evaluate(tmp_path / "out", tmp_path / "truth", data).as_figures()
    assert figures["hd95_um"] == 0.5
    assert figures["nsd"] == 1
    objects = evaluate(tmp_path / "out", tmp_path / "truth", DataSettings(dims=3))
    assert (objects.truth_counts, objects.ap[0]) == ((1,), 0)
