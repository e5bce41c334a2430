"""The command line: exit codes that can be believed, one line for each error, the bytes of the API."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from biounet import train
from biounet.batch import BatchTotals, Row
from biounet.cli import segmenting
from support import ROOT


@pytest.fixture(scope="session")
def model(segmenter, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "discs.safetensors"
    segmenter.save(path)
    return path


def test_segment_writes_what_the_api_writes(biounet, segmenter, model, cell_folder, tmp_path):
    image = cell_folder / "images" / "field0.tif"
    code, out, err = biounet("segment", image, "-m", model)
    assert (code, err) == (0, "")
    assert "field0.tif" in out
    segmenter.segment(image).save(tmp_path / "api")
    for path in (tmp_path / "api").iterdir():
        assert path.read_bytes() == (tmp_path / "biounet-out" / path.name).read_bytes()
    assert sorted(p.name for p in image.parent.iterdir()) == [f"field{n}.tif" for n in range(6)]


def test_json_lines_hold_one_object_for_each_input(biounet, model, cell_folder, tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"")
    code, out, err = biounet("segment", cell_folder / "images", tmp_path / "bad.tif", "-m", model, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert len(rows) == 7
    assert [row["count"] for row in rows if row["status"] == "failed"] == [None]
    assert err.splitlines() == ["ERROR bad.tif: empty file"]


USAGE = {
    "unknown option": (["segment", "x.tif", "--blok", "3"], 2, "--blok"),
    "unknown command": (["segmnt"], 2, "segmnt"),
    "among the images": (["segment", "{image}", "-m", "{model}", "-o", "{image}/.."], 2, "lie among the images"),
    "among them, dry": (
        ["segment", "{image}", "-m", "{model}", "-o", "{image}/..", "--dry-run"],
        2,
        "lie among the images",
    ),
    "no such choice": (["segment", "{image}", "--project", "sum"], 2, "'--project': 'sum' is not one of 'max', 'mean'"),
    "no such file": (["segment", "nowhere.tif"], 4, "nowhere.tif: no such file"),
    "no such model": (["segment", "{image}", "-m", "nucleii"], 5, "nucleii"),
    "bad spacing": (["segment", "{image}", "-m", "{model}", "--spacing", "1,2,3"], 2, "--spacing 1,2,3"),
    "spacing with a unit": (["segment", "{image}", "-m", "{model}", "--spacing", "0.3um"], 2, "as 0.325,0.325, in µm"),
    "spacing of volumes": (["segment", "{image}", "-m", "nuclei3d", "--spacing", "1,2"], 2, "such as 2,0.325,0.325"),
    "bad device": (["segment", "{image}", "-m", "{model}", "--device", "cuda:7"], 5, "cuda:7"),
    "unknown recipe": (["train", "nuclei_2f", "--images", "."], 2, "nuclei_2d"),
    "all fail": (["segment", "{root}/README.md", "-m", "{model}"], 4, "README.md: not a TIFF"),
}


@pytest.mark.parametrize("name", USAGE)
def test_errors_are_one_line_with_the_right_code(name, biounet, model, cell_folder):
    arguments, code, words = USAGE[name]
    places = {"image": cell_folder / "images" / "field0.tif", "model": model, "root": ROOT}
    found, _, err = biounet(*(a.format(**places) for a in arguments))
    assert found == code
    assert err.startswith("ERROR ")
    assert len(err.splitlines()) == 1
    assert words in err


def test_train_check_evaluate(biounet, cell_folder, tmp_path):
    images, labels = cell_folder / "images", cell_folder / "labels"
    code, out, _ = biounet("check", images, labels)
    assert (code, "6 images read, 0 problems" in out) == (0, True)
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[network]\nwidths = [8, 12]\n[train]\npatch = 32\nbatch = 2\nsteps_per_epoch = 3\n")
    code, _, err = biounet(
        "train", recipe, "--images", images, "--labels", labels, "-o", "m.safetensors", "--epochs", 2
    )
    assert code == 0
    assert [line.split(":")[0] for line in err.splitlines()] == ["epoch 1", "epoch 2"]
    made = sorted(p.name for p in tmp_path.iterdir())
    assert made == ["m.curve.png", "m.history.csv", "m.safetensors", "m_howto.txt", "mine.toml"]
    assert len((tmp_path / "m.history.csv").read_text().splitlines()) == 3
    assert biounet("segment", images, "-m", "m.safetensors", "-q")[0] == 0
    code, out, _ = biounet("evaluate", "biounet-out", labels, "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures["truth_counts"] == [int(tifffile.imread(path).max()) for path in sorted(labels.iterdir())]
    assert all(0 <= share <= 1 for share in figures["ap"])


def test_train_writes_the_model_of_the_api(biounet, cell_folder, tmp_path):
    images, labels = cell_folder / "images", cell_folder / "labels"
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[network]\nwidths = [8, 12]\n[train]\npatch = 32\nbatch = 2\nsteps_per_epoch = 3\nseed = 7\n")
    options = ["--images", images, "--labels", labels, "--epochs", 2, "--quiet"]
    assert biounet("train", recipe, *options, "-o", "cli.safetensors") == (0, "", "")
    train(recipe, images, labels, epochs=2).save(tmp_path / "api.safetensors")
    assert (tmp_path / "api.safetensors").read_bytes() == (tmp_path / "cli.safetensors").read_bytes()


def test_evaluate_continues_and_reports_failures(biounet, tmp_path):
    drawn = np.zeros((20, 20), np.uint16)
    drawn[3:9, 3:9] = 1
    for name, labels in (("truth/a", drawn), ("truth/b", drawn), ("out/a_labels", drawn), ("out/b_labels", drawn[:9])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"{name}.tif", labels)
    code, out, err = biounet("evaluate", "out", "truth", "--csv")
    header, first, second = out.splitlines()
    assert (code, header.split(",")[:4]) == (3, ["case", "true", "predicted", "ap"])
    assert (first.split(",")[:4], second.split(",")[:4]) == (["a.tif", "1", "1", "1.0"], ["b.tif", "", "", ""])
    assert err.startswith("ERROR ")
    assert "b.tif: is (20, 20), but the result" in err
    code, out, _ = biounet("evaluate", "out", "truth", "--json")
    assert (code, json.loads(out)["ap"][0], len(json.loads(out)["failed"])) == (3, 1, 1)
    (tmp_path / "truth" / "a.tif").unlink()
    code, out, err = biounet("evaluate", "out", "truth")
    assert (code, out, len(err.splitlines())) == (4, "", 1)


def test_check_lists_everything_at_once(biounet, cell_folder, tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        for path in (cell_folder / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "images" / "field1.tif").unlink()
    (tmp_path / "labels" / "field2.tif").unlink()
    tifffile.imwrite(tmp_path / "labels" / "field3.tif", tifffile.imread(tmp_path / "labels" / "field3.tif")[:50])
    (tmp_path / "images" / "field4.tif").write_bytes(b"II*\0broken")
    validation = ["--val-images", cell_folder / "images", "--val-labels", cell_folder / "labels"]
    code, _, err = biounet("check", tmp_path / "images", tmp_path / "labels", *validation)
    lines = err.splitlines()
    assert code == 2
    assert sum("field1.tif has no image" in line for line in lines) == 1
    assert sum("field2.tif has no annotation" in line for line in lines) == 1
    assert sum("field3.tif: is 50 x 96, its image 96 x 96" in line for line in lines) == 1
    assert sum(str(tmp_path / "images" / "field4.tif") in line for line in lines) == 1
    assert sum("in training and in validation" in line for line in lines) == 3


def test_annotations_of_validation_need_its_images(biounet, cell_folder):
    images, labels = cell_folder / "images", cell_folder / "labels"
    for command in (["check", images, labels], ["train", "nuclei_2d", "--images", images, "--labels", labels]):
        code, _, err = biounet(*command, "--val-labels", labels)
        assert code == 2
        assert err.startswith("ERROR --val-labels without --val-images")


def test_help_and_import_load_nothing_heavy():
    heavy = (
        "{'torch', 'monai', 'pandas', 'numba', 'skimage', 'scipy', 'tifffile', 'matplotlib',"
        " 'zarr', 'numcodecs', 'dask', 'distributed'}"
    )
    code = (
        "import sys, biounet\nfrom biounet.cli import main\nsys.argv = ['biounet', 'segment', '--help']\n"
        f"try: main()\nexcept SystemExit: pass\nassert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--diameter" in done.stdout


def test_segmenting_does_not_import_what_only_training_needs(model, cell_folder, tmp_path):
    code = (
        "import sys\nfrom biounet.cli import main\n"
        f"sys.argv = ['biounet', 'segment', {str(cell_folder / 'images' / 'field0.tif')!r}, '-m', {str(model)!r}]\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'monai', 'pandas', 'skimage', 'matplotlib', 'pyarrow', 'zarr', 'dask'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_models_and_version(biounet):
    assert "nuclei" in biounet("models")[1]
    assert biounet("--version")[1].startswith("biounet 0.")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([3, 0], "3 objects in 2 of 2 images"),
        ([0], "0 objects in 1 of 1 images"),
        ([None, None], "2 of 2 images segmented"),  # a model of classes: nobody counted
    ],
)
def test_objects_that_were_not_counted_are_not_said_to_be_none(counts, expected):
    totals = BatchTotals()
    for number, count in enumerate(counts):
        totals.add(Row(f"{number}.tif", "ok", count, 0.1, ""))
    assert segmenting._count_objects(totals) == expected
