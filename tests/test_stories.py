"""What the users of biounet do, from the shell to the files, with the built-in model and the samples."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import biounet
from biounet.core import sample_folder
from biounet.evaluation import score_instances
from biounet.files import open_label_store
from support.commands import read_rows, run_biounet


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A folder with images/ and labels/ of the samples, as the README assumes."""
    for name in ("images", "labels"):
        shutil.copytree(sample_folder() / name, tmp_path / name)
    return tmp_path


def test_lab_scientist_counts_a_folder_of_images(samples):
    done = run_biounet(samples, "segment", "images", "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    expected = json.loads((sample_folder() / "expected.json").read_text())
    counts = read_rows(samples / "out" / "counts.csv")
    assert {row["image"] for row in counts} == set(expected)
    for row in counts:
        truth = expected[row["image"]]
        assert abs(int(row["count"]) - truth["count"]) <= truth["tolerance"], row["image"]
        cells = read_rows(samples / "out" / row["image"].replace(".tif", "_objects.csv"))
        assert len(cells) == int(row["count"])
        assert {"label", "area_um2", "centroid_y_um", "confidence"} <= cells[0].keys()
    with tifffile.TiffFile(samples / "out" / "nuclei_labels.tif") as tif:
        assert tif.is_imagej
        assert tif.imagej_metadata["unit"] == "um"
    page = (samples / "out" / "report.html").read_text()
    assert all(row["image"] in page for row in counts)


def test_lab_scientist_teaches_the_model_with_one_outlined_window(samples):
    """The window is worth something: on the field that it was drawn in, outlines get no worse in a few steps."""
    ids = tifffile.imread(samples / "labels" / "crowded.tif").astype(np.int32)
    drawn = np.full_like(ids, -1)
    drawn[60:190, 60:190] = ids[60:190, 60:190]
    (samples / "mine").mkdir()
    tifffile.imwrite(samples / "mine" / "crowded.tif", drawn)
    (samples / "few").mkdir()
    shutil.copy(samples / "images" / "crowded.tif", samples / "few")
    recipe = samples / "mine.toml"
    recipe.write_text("[train]\nsteps_per_epoch = 10\nlearning_rate = 1e-3\nbatch = 2\n")
    assert run_biounet(samples, "check", "few", "mine").returncode == 0
    options = ["--images", "few", "--labels", "mine", "--from", "nuclei", "--epochs", "2", "-o", "m.safetensors"]
    done = run_biounet(samples, "train", str(recipe), *options)
    assert done.returncode == 0, done.stderr
    image = samples / "images" / "crowded.tif"
    before, after = (biounet.load(name).segment(image) for name in ("nuclei", samples / "m.safetensors"))
    assert biounet.load(samples / "m.safetensors").card.data["share"] < 0.5
    f1 = [score_instances([ids], [found.labels]).as_figures()["f1_50"] for found in (before, after)]
    assert f1[1] > f1[0] - 0.1
    assert f1[1] > 0.8


def test_batch_operator_can_believe_the_exit_code(samples):
    (samples / "images" / "broken.tif").write_bytes((samples / "images" / "dim.tif").read_bytes()[:3000])
    first = run_biounet(samples, "segment", "images", "-o", "out", "--json", "--jobs", "2")
    assert first.returncode == 3
    assert len(first.stderr.splitlines()) == 1
    assert first.stderr.startswith("ERROR broken.tif: ")
    rows = {row["image"]: row for row in map(json.loads, first.stdout.splitlines())}
    assert len(rows) == 5
    assert rows["broken.tif"]["count"] is None
    assert not list((samples / "out").glob("broken*"))
    assert len(first.stdout.splitlines()) == len(read_rows(samples / "out" / "counts.csv"))
    results = {p.name: p.read_bytes() for p in (samples / "out").glob("*_*") if p.is_file()}
    (samples / "images" / "broken.tif").unlink()
    (samples / "out" / "dim_labels.tif").unlink()
    again = run_biounet(samples, "segment", "images", "-o", "out", "--quiet", "--jobs", "1")
    assert (again.returncode, again.stderr) == (0, "")
    assert results == {p.name: p.read_bytes() for p in (samples / "out").glob("*_*") if p.is_file()}
    done = run_biounet(samples, "verify", "out", "--images", "images", "--json")
    said = {row["image"]: row["status"] for row in map(json.loads, done.stdout.splitlines())}
    assert said.pop("broken.tif") == "missing"
    assert said == {row["image"]: "same" for row in read_rows(samples / "out" / "counts.csv")}
    assert done.returncode == 3


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_batch_operator_loses_a_worker_of_a_cluster(tmp_path):
    """An image in super-blocks, on two workers of Dask of which one is killed: the labels and the table of memory."""
    pytest.importorskip("distributed")
    image = np.tile(tifffile.imread(sample_folder() / "images" / "nuclei.tif"), (5, 2))
    zarr.create_array(tmp_path / "slide.zarr", data=image, chunks=(512, 512))
    native = ("segment", "slide.zarr", "--diameter", "native", "--quiet")
    memory = run_biounet(tmp_path, *native, "-o", "memory", "--format", "tif")
    assert (memory.returncode, memory.stderr) == (0, "")
    command = [sys.executable, "-c", "from biounet.cli import main; main()", *native, "-o", "out", "--format", "zarr"]
    with subprocess.Popen([*command, "--cluster", "local:2", "--ram", "2500M"], cwd=tmp_path) as run:
        while run.poll() is None and not list((tmp_path / "out" / ".large").glob("*/find/*/*.npz")):
            time.sleep(0.01)
        os.kill(worker_below(run.pid), signal.SIGKILL)
    assert run.returncode == 0
    store = open_label_store(tmp_path / "out" / "slide_labels.ome.zarr")
    found = store.read(tuple(slice(0, n) for n in store.grid.shape))
    assert np.array_equal(found, tifffile.imread(tmp_path / "memory" / "slide_labels.tif"))
    tables = [(tmp_path / name / "slide_objects.csv").read_bytes() for name in ("memory", "out")]
    assert tables[0] == tables[1]


def worker_below(process):
    """Return a process that was started by another one and the like, and has started none."""
    spawned = [child for child in children(process) if b"spawn_main" in command_line(child)]
    return next(child for child in spawned if not [*children(child)])


def children(process):
    """Yield the processes below one."""
    for thread in Path(f"/proc/{process}/task").iterdir():  # workers of Dask are started by another than the first
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from children(child)


def command_line(process):
    return Path(f"/proc/{process}/cmdline").read_bytes()


def test_the_demo_runs_in_an_empty_folder(tmp_path):
    done = run_biounet(tmp_path, "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert [p.name for p in tmp_path.iterdir()] == ["biounet-out"]
    assert "crowded.tif" in done.stdout


def test_land_cover_is_trained_and_measured_by_the_same_code(tmp_path, shared_data):
    """Colour-coded classes in, areas per class out; ten steps on two tiles, to see that the chain holds."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for path in sorted((shared_data / "landcover" / "tile1" / name).iterdir())[:3]:
            shutil.copy(path, tmp_path / name)
    options = ["--images", "images", "--labels", "masks", "--epochs", "1", "-o", "m.safetensors"]
    recipe = tmp_path / "small.toml"
    text = (Path(biounet.__file__).parent.parent / "pipelines" / "land_cover.toml").read_text()
    recipe.write_text(text.replace("[train]", "[train]\nsteps_per_epoch = 10"))
    done = run_biounet(tmp_path, "train", str(recipe), *options)
    assert done.returncode == 0, done.stderr
    done = run_biounet(tmp_path, "segment", "images", "-m", "m.safetensors", "-o", "out")
    assert done.returncode == 0, done.stderr
    for row in read_rows(tmp_path / "out" / "counts.csv"):
        assert row["count"] == ""
        areas = read_rows(tmp_path / "out" / f"{Path(row['image']).stem}_objects.csv")
        assert sum(float(line["fraction"]) for line in areas) <= 1 + 1e-9
