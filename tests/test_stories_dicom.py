"""What a radiology researcher does with a scanner's export folder, from the shell to the files."""

import csv
import json

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest

from support.dicom_files import classic, enhanced, uid
from support.nifti import nifti
from support.volume_models import save_random_model

RNG = np.random.default_rng(3)
HEAD = (RNG.normal(600, 60, (12, 20, 16)) * (np.hypot(*np.mgrid[-10:10, -8:8]) < 9)).clip(0).astype(np.int16)
AFFINE = np.diag([-1.0, 1.2, 2.5, 1.0])
AFFINE[:3, 3] = 20, -30, 40


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of models for tumours in one or two channels."""
    folder = tmp_path_factory.mktemp("models")
    for channels in (("mri",), ("t1c", "flair")):
        save_random_model(folder / f"{len(channels)}.safetensors", channels)
    return folder


@pytest.fixture
def export(tmp_path):
    """A scanner's export: a localiser, two series of a study, one with a missing slice, a directory file."""
    root = tmp_path / "export"
    for number, text, add in ((3, "Ax T1 +C", 0), (5, "FLAIR tra", 40)):
        fields = {"series": number, "SeriesNumber": number, "SeriesDescription": text, "StudyInstanceUID": uid("s")}
        classic(root / "p1" / f"SE{number}", HEAD + add, AFFINE, **fields)
    scout = {"series": 1, "SeriesNumber": 1, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    classic(root / "p1" / "SE1", HEAD[:3], AFFINE, **scout)
    gap = {"series": 7, "SeriesNumber": 7, "SeriesDescription": "T2 tra", "StudyInstanceUID": uid("s")}
    classic(root / "p1" / "SE7", HEAD, AFFINE, order=[0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], **gap)
    return root


def rows(path):
    return {row["image"]: row for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}


def test_each_series_is_segmented_as_its_nifti_file_and_the_rest_goes_on(biounet, export, model, tmp_path):
    one = model / "1.safetensors"
    code, out, _ = biounet("segment", export, "-m", one, "--dry-run")
    assert code == 3
    for name in ("p1/SE3_3_Ax-T1-+C", "p1/SE5_5_FLAIR-tra", "left out", "a localiser 1"):
        assert name in out
    code, _, err = biounet("segment", export, "-m", one, "-o", "out", "--export", "dicom-seg")
    assert code == 3
    assert "1 slice is missing" in err
    table = rows(tmp_path / "out" / "counts.csv")
    assert {name: row["status"] == "failed" for name, row in table.items()} == {
        "p1/SE3_3_Ax-T1-+C": False,
        "p1/SE5_5_FLAIR-tra": False,
        "p1/SE7_7_T2-tra": True,
    }
    assert not (tmp_path / "out" / "p1" / "SE3_3_Ax-T1-+C_seg.dcm").exists()  # since one image failed
    code, _, _ = biounet("export", "out", "--format", "dicom-seg")
    assert code == 0
    nifti(tmp_path / "a.nii.gz", HEAD, AFFINE, sform=1)
    biounet("segment", tmp_path / "a.nii.gz", "-m", one, "-o", "nii")
    expected, found = (
        nib.load(tmp_path / name) for name in ("nii/a_labels.nii.gz", "out/p1/SE3_3_Ax-T1-+C_labels.nii.gz")
    )
    labels = np.asarray(found.dataobj)
    assert labels.any()
    np.testing.assert_array_equal(labels, np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3)
    tables = [(tmp_path / name).read_text() for name in ("nii/a_objects.csv", "out/p1/SE3_3_Ax-T1-+C_objects.csv")]
    assert tables[0] == tables[1]
    segmentation = hd.seg.segread(tmp_path / "out" / "p1" / "SE3_3_Ax-T1-+C_seg.dcm")
    combined = segmentation.get_volume(combine_segments=True).array
    assert np.count_nonzero(combined) == np.count_nonzero(labels)


def test_a_run_on_series_goes_on_and_is_verified(biounet, export, model, tmp_path):
    command = ("segment", export, "-m", model / "1.safetensors", "--series", "*tra,3", "-o", "out", "--no-overlay")
    biounet(*command)
    labels = tmp_path / "out" / "p1" / "SE5_5_FLAIR-tra_labels.nii.gz"
    written = labels.stat().st_mtime_ns
    assert biounet(*command)[0] == 3
    assert labels.stat().st_mtime_ns == written
    code, out, _ = biounet("verify", "out", "-m", model / "1.safetensors")
    assert (code, out.count("same")) == (0, 3)
    export.rename(tmp_path / "moved")
    code, out, _ = biounet("verify", "out", "-m", model / "1.safetensors", "--images", "moved")
    assert (code, out.count("same")) == (0, 3)
    (tmp_path / "moved" / "p1" / "SE5" / "IM0002").write_bytes((tmp_path / "moved/p1/SE5/IM0003").read_bytes())
    code, out, _ = biounet("verify", "out", "-m", model / "1.safetensors", "--images", "moved")
    assert code == 3
    assert "SE5_5_FLAIR-tra: differs: its input" in out


def test_the_series_of_a_study_are_one_case(biounet, export, model, tmp_path):
    code, _, _ = biounet("segment", export, "-m", model / "2.safetensors", "-o", "out", "--export", "dicom-seg")
    assert code == 0
    assert {*rows(tmp_path / "out" / "counts.csv")} == {"p1"}
    referenced = hd.seg.segread(tmp_path / "out" / "p1_seg.dcm").ReferencedSeriesSequence[0]
    record = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert referenced.SeriesInstanceUID == record["details"]["scene"].split("|")[0]


def test_a_series_in_python(export, model, tmp_path):
    import biounet

    segmenter = biounet.load(model / "1.safetensors")
    result = segmenter.segment(export / "p1" / "SE3")
    assert result.labels.shape == HEAD.shape
    (other,) = segmenter(export, series="FLAIR*")
    assert other.name == "p1/SE5_5_FLAIR-tra"
    paths = result.save(tmp_path / "saved", export="dicom-seg")
    assert any(path.name.endswith("_seg.dcm") for path in paths)
    enhanced(tmp_path / "e.dcm", HEAD, AFFINE)
    np.testing.assert_array_equal(segmenter.segment(tmp_path / "e.dcm").labels, result.labels)


def test_labels_are_measured_on_their_series(biounet, export, tmp_path):
    labels = (HEAD > 0).astype(np.uint8)
    (tmp_path / "drawn").mkdir()
    for number in (3, 5):
        nifti(tmp_path / "drawn" / f"SE{number}_labels.nii", labels, AFFINE)
    code, _, err = biounet("measure", "drawn", "--image", export / "p1", "-o", "all", "--quiet")
    assert code == 0, err
    tables = [(tmp_path / "all" / f"SE{number}_objects.csv").read_text().splitlines() for number in (3, 5)]
    (first,), (second,) = map(list, map(csv.DictReader, tables))
    (column,) = (name for name in first if name.startswith("intensity_mean_"))
    assert float(second[column]) - float(first[column]) == pytest.approx(40)
    one = tmp_path / "drawn" / "SE3_labels.nii"
    assert biounet("measure", one, "--image", export / "p1" / "SE3", "-o", "one", "--quiet")[0] == 0


def test_a_run_of_nifti_files_has_no_dicom_seg(biounet, model, tmp_path):
    nifti(tmp_path / "a.nii.gz", HEAD, AFFINE)
    biounet("segment", tmp_path / "a.nii.gz", "-m", model / "1.safetensors", "-o", "out")
    code, _, err = biounet("export", "out", "--format", "dicom-seg")
    assert code == 4
    assert "its image was not read from a DICOM series" in err
    assert len(err.strip().splitlines()) == 1
