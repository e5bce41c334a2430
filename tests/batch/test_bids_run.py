"""A run over a BIDS dataset gives a derivative dataset, whose files go with the results that they were made from."""

import json

import nibabel as nib
import numpy as np
import pytest

from support.models import save_class_model
from support.nifti import nifti

FOLDER = "bids/sub-{0}/anat/sub-{0}_space-T1w_desc-biounet_dseg"


@pytest.fixture
def run(tmp_path, biounet):
    save_class_model(tmp_path / "m.safetensors")
    for subject in ("01", "02"):
        write_subject(tmp_path, subject, int(subject))
    assert segment(biounet, "--export", "bids,itk-snap")[0] == 0
    return tmp_path / "out"


def write_subject(folder, subject, seed):
    path = folder / "raw" / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti(path, np.random.default_rng(seed).normal(size=(16, 18, 20)).astype(np.float32))


def segment(biounet, *options):
    return biounet("segment", "raw", "-o", "out", "-m", "m.safetensors", "--quiet", "--jobs", 1, *options)


def test_the_dataset_holds_each_subject_and_says_what_it_is(run, biounet):
    assert json.loads((run / "bids/dataset_description.json").read_text())["DatasetLinks"] == {"raw": "../../raw"}
    for subject in ("01", "02"):
        stored = nib.load(run / f"{FOLDER.format(subject)}.nii.gz")
        labels = nib.load(run / f"sub-{subject}/anat/sub-{subject}_T1w_labels.nii.gz")
        np.testing.assert_array_equal(stored.get_fdata(), labels.get_fdata())
        names = (run / f"{FOLDER.format(subject)}.tsv").read_text().splitlines()
        assert [line.split("\t")[1] for line in names[1:]] == ["core", "rim"]
    assert '"core"' in (run / "sub-01/anat/sub-01_T1w_itksnap.txt").read_text()
    code, out, _ = biounet("export", "out", "-f", "bids,itk-snap")
    assert (code, out) == (0, "0 files exported, 5 already there; see out/\n")


def test_what_is_missing_of_a_subject_is_written_again(run, biounet):
    sidecar = run / f"{FOLDER.format('01')}.json"
    before = sidecar.read_bytes()
    sidecar.unlink()
    assert biounet("export", "out", "-f", "bids")[1].startswith("1 file exported, 2 already there")
    assert sidecar.read_bytes() == before


def test_files_of_an_earlier_result_go_with_it(run, biounet):
    write_subject(run.parent, "01", 7)
    assert segment(biounet)[0] == 0
    assert not list((run / "bids" / "sub-01").rglob("*dseg*"))
    assert len(list((run / "bids" / "sub-02").rglob("*dseg*"))) == 3


def test_two_images_of_one_name_do_not_replace_each_other(run, biounet):
    path = run.parent / "raw" / "other" / "sub-01_T1w.nii.gz"
    path.parent.mkdir()
    nifti(path, np.random.default_rng(9).normal(size=(16, 18, 20)).astype(np.float32))
    code, _, err = segment(biounet, "--export", "bids")
    assert code == 3
    assert "sub-01_space-T1w_desc-biounet_dseg.nii.gz is the export of" in err
    (run / "exports.jsonl").unlink()
    for _ in range(2):  # without a record of earlier exports, the first of the two is one all the same
        code, _, err = biounet("export", "out", "-f", "bids", "--overwrite")
        assert code == 3
        assert "sub-01_space-T1w_desc-biounet_dseg.nii.gz is the export of" in err
