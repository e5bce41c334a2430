"""What users of volumes do, from the shell to the files, on the samples; a few steps of training, to see the chain."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from biounet.core import find_recipe, sample_folder
from support.commands import read_rows, run_biounet

SHORT = "[train]\nsteps_per_epoch = 15\nlearning_rate = 1e-2"


def short_recipe(name: str, folder: Path, *changes: tuple[str, str]) -> str:
    """Write a copy of a recipe with a small network and few steps; return its path."""
    text = find_recipe(name).read_text(encoding="utf-8").replace("[train]", SHORT)
    for old, new in (("widths = [32, 64, 96", "widths = [8, 12, 16"), *changes):
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}_short.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    shutil.copytree(sample_folder() / "cases", tmp_path / "cases")
    return tmp_path


def test_radiologist_trains_on_drawn_slices_and_measures_tumours(cases):
    recipe = short_recipe("brain_tumour", cases, ("patch = 96", "patch = 32"), ('# slices = "z"', 'slices = "z"'))
    checked = run_biounet(cases, "check", "cases", "--recipe", recipe)
    assert (checked.returncode, checked.stderr) == (0, "")
    done = run_biounet(cases, "train", recipe, "--images", "cases", "--epochs", "4", "-o", "m.safetensors", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_biounet(cases, "segment", "cases", "-m", "m.safetensors", "-o", "out", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = read_rows(cases / "out" / "counts.csv")
    assert [row["status"] for row in rows] != ["failed"] * 3
    assert len(rows) == 3
    for name in ("case_1", "case_2", "case_3"):
        (path,) = (cases / "out").rglob(f"{name}*_labels.nii.gz")
        labels, source = nibabel.load(path), nibabel.load(cases / "cases" / name / "flair.nii.gz")
        assert np.array_equal(labels.affine, source.affine)
        assert labels.shape == source.shape
        assert set(np.unique(np.asarray(labels.dataobj))) <= {0, 1, 2, 4}
        (table,) = (cases / "out").rglob(f"{name}*_objects.csv")
        lines = read_rows(table)
        whole = next(line for line in lines if line["class"] == "whole" and line["lesion"] == "0")
        found = int((np.asarray(labels.dataobj) > 0).sum())
        assert int(whole["voxels"]) == found
        assert float(whole["volume_ml"]) == pytest.approx(found * 1.5 / 1000)
    named = [f"{channel}=cases/case_2/{channel}.nii.gz" for channel in ("flair", "t1c")]
    assert run_biounet(cases, "segment", *named, "-m", "m.safetensors", "-o", "one", "--quiet").returncode == 0
    (one,) = (cases / "one").rglob("*_labels.nii.gz")
    (same,) = (cases / "out").rglob("case_2*_labels.nii.gz")
    assert one.read_bytes() == same.read_bytes()
    scored = run_biounet(cases, "evaluate", "out", "cases", "--recipe", recipe, "--json")
    assert (scored.returncode, scored.stderr) == (0, "")
    assert "dice" in json.dumps(json.loads(scored.stdout))


def test_one_contrast_is_missing(cases):
    recipe = short_recipe("brain_tumour", cases, ("patch = 96", "patch = 32"))
    (cases / "cases" / "case_2" / "t1c.nii.gz").unlink()
    done = run_biounet(cases, "train", recipe, "--images", "cases", "--epochs", "1", "-o", "m.safetensors", "--quiet")
    assert done.returncode in (2, 4)
    assert len(done.stderr.splitlines()) == 1
    assert "case_2" in done.stderr
    assert "t1c" in done.stderr


def test_microscopist_counts_nuclei_of_stacks(tmp_path):
    shutil.copytree(sample_folder() / "stacks", tmp_path / "stacks")
    recipe = short_recipe("nuclei_3d", tmp_path, ("patch = 48", "patch = 24"))
    options = ["--images", "stacks/images", "--labels", "stacks/labels", "--epochs", "8", "-o", "m.safetensors"]
    done = run_biounet(tmp_path, "train", recipe, *options, "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_biounet(tmp_path, "segment", "stacks/images", "-m", "m.safetensors", "-o", "out", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    for row in read_rows(tmp_path / "out" / "counts.csv"):
        stem = row["image"].removesuffix(".tif")
        cells = read_rows(tmp_path / "out" / f"{stem}_objects.csv")
        assert len(cells) == int(row["count"])
        with tifffile.TiffFile(tmp_path / "out" / f"{stem}_labels.tif") as file:
            labels = file.asarray()
            assert file.imagej_metadata["unit"] == "um"
            assert file.imagej_metadata["spacing"] == (2.0 if stem == "thick" else 1.0)
        assert labels.max() == len(cells)
        assert (tmp_path / "out" / f"{stem}_overlay.png").stat().st_size > 1000
        if cells:
            voxel = 0.25 * (2.0 if stem == "thick" else 1.0)
            volume = sum(float(cell["volume_um3"]) for cell in cells)
            assert volume == pytest.approx((labels > 0).sum() * voxel)
    scored = run_biounet(tmp_path, "evaluate", "out", "stacks/labels", "--recipe", recipe, "--json")
    assert json.loads(scored.stdout)["truth_counts"] == [55, 14, 27]
