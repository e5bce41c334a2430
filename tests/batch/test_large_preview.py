"""What working on a large image takes is said, and refused where the disk is too small, before anything is written."""

import json
import re
import shutil
from collections import namedtuple

import pytest
import zarr

from biounet.batch import BatchOptions, large_preview, preview, preview_table, segment_batch
from biounet.core import MachineError, builtin_models, sample_folder
from biounet.files import find_images
from biounet.large_images import budget
from biounet.network import load_model
from biounet.segmentation import SegmentOptions

NUCLEI = str(sample_folder() / "images" / "nuclei.tif")
NATIVE = SegmentOptions(diameter="native")
IN_ZARR = BatchOptions(segment=NATIVE, overlay=False, label_format="zarr")


@pytest.fixture(autouse=True)
def small_images_are_large(monkeypatch):
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
    monkeypatch.setattr(budget, "_EDGES", {2: ((96, 64),), 3: ((48, 32),)})
    monkeypatch.setattr(large_preview, "_SAMPLE", {2: (96, 96), 3: (16, 48, 48)})


@pytest.fixture(scope="module")
def model():
    return load_model(builtin_models()["nuclei"])


def test_super_blocks_workers_memory_disk_and_time_are_said(model):
    [one] = preview(find_images([NUCLEI]), model, IN_ZARR)
    large = one.large
    _, height, width = one.shape
    assert large.number == -(-height // 96) * -(-width // 96)
    assert (large.edge, large.labels) == (96, "OME-Zarr")
    assert one.memory == large.memory > 2**28
    assert large.disk >= height * width
    assert large.seconds > 0
    assert "nuclei_labels.ome.zarr" in one.outputs
    header, row = preview_table([one])
    shown = dict(zip(header, row, strict=True))
    assert shown["super-blocks"] == f"{large.number} of 96"
    assert shown["disk"].startswith("about ")
    assert shown["time"].startswith("about ")


def test_more_workers_take_less_time_and_each_has_its_memory(model, monkeypatch):
    monkeypatch.setattr(large_preview, "available_cores", lambda: 4)
    monkeypatch.setattr(large_preview.Speedometer, "_measure", lambda self, grid: 1e-6)
    found = find_images([NUCLEI])
    one, four = (
        preview(found, model, BatchOptions(segment=NATIVE, label_format="zarr", cluster=f"local:{n}"))[0].large
        for n in (1, 4)
    )
    assert (one.workers, four.workers) == (1, 4)
    serial = large_preview._START + large_preview._LOOK * one.number
    assert one.seconds - serial == pytest.approx(4 * (four.seconds - serial))
    assert four.memory == pytest.approx(4 * one.memory)
    away = preview(found, model, BatchOptions(segment=NATIVE, label_format="zarr", cluster="tcp://host:1"))[0].large
    assert (away.workers, away.seconds) == (None, one.seconds)
    assert "of one worker" in away.describe()[3]


def test_each_shard_shows_a_large_image_and_its_part_of_the_others(model, tmp_path):
    for name in ("nuclei.tif", "dim.tif"):
        shutil.copy(sample_folder() / "images" / name, tmp_path)
    found = find_images([tmp_path])
    shards = [(number, 2) for number in (1, 2)]
    for options, expected in ((IN_ZARR, 4), (BatchOptions(), 2)):
        shown = [preview(found, model, BatchOptions(**(vars(options) | {"shard": shard}))) for shard in shards]
        assert sum(map(len, shown)) == expected


def test_the_job_of_slurm_is_shown_and_nothing_is_started(biounet, tmp_path):
    (tmp_path / "slurm.toml").write_text('workers = 3\nmemory = "16GB"\nwalltime = "02:00:00"\nqueue = "short"\n')
    common = ("segment", NUCLEI, "--diameter", "native", "--dry-run", "--cluster", "slurm.toml")
    code, shown, err = biounet(*common, "--format", "zarr")
    assert (code, err) == (0, "")
    assert "jobs of SLURM: up to 3" in shown
    assert "#SBATCH -p short" in shown
    code, shown, _ = biounet(*common, "--format", "zarr", "--json")
    row, cluster = map(json.loads, shown.splitlines())
    assert row["large"]["workers"] == 3
    assert "#SBATCH -t 02:00:00" in cluster["cluster"]
    code, shown, _ = biounet(*common, "--format", "tif")
    assert "no image is worked on in super-blocks: --cluster is not used" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.toml"]
    code, _, err = biounet(*common[:-1], "other.toml")
    assert (code, err) == (2, "ERROR other.toml: no such file of a SLURM cluster\n")


@pytest.mark.parametrize("text", ["local:0", "slurm", "other.toml"])
def test_a_cluster_that_there_is_not_is_told_though_no_image_needs_it(biounet, tmp_path, text):
    code, shown, err = biounet("segment", NUCLEI, "--cluster", text)
    assert (code, shown) == (2, "")
    assert err.startswith("ERROR ")
    assert text in err
    assert not any(tmp_path.iterdir())


def test_a_cluster_that_is_not_used_is_said(biounet):
    code, _, err = biounet("segment", NUCLEI, "--cluster", "tcp://127.0.0.1:9", "--no-overlay")
    assert (code, err) == (0, "no image is worked on in super-blocks: --cluster is not used\n")


def test_an_image_that_takes_more_than_it_may_in_memory_is_said(model, tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(8192, 8192), chunks=(4096, 4096), dtype="u1")
    found = find_images([str(tmp_path / "a.zarr")])
    [one] = preview(found, model, BatchOptions(segment=SegmentOptions(diameter="auto"), ram=2**30))
    assert one.memory > 2**30
    assert re.search(r"in memory, of which it takes about .* GiB, more than --ram; with --diameter native", one.message)
    [one] = preview(found, model, BatchOptions(segment=NATIVE, ram=2**30))
    assert one.memory <= 2**30
    assert "--ram" not in one.message


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(model, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 1000))
    with pytest.raises(MachineError, match=r"GiB are needed, and .* are free on this disk"):
        segment_batch(find_images([NUCLEI]), model, tmp_path / "out", IN_ZARR)
    assert not (tmp_path / "out" / ".large").exists()


def test_what_an_earlier_run_left_is_room_that_is_taken_already(model, tmp_path, monkeypatch):
    [one] = preview(find_images([NUCLEI]), model, IN_ZARR)
    left = tmp_path / "out" / ".large" / "nuclei.work" / "find"
    left.mkdir(parents=True)
    (left / "left").write_bytes(bytes(2 * one.large.disk))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 1000))
    [row] = segment_batch(find_images([NUCLEI]), model, tmp_path / "out", IN_ZARR)
    assert row.status != "failed"


def test_an_image_of_100_gigapixels_is_planned_within_the_memory_that_is_given(model, tmp_path, monkeypatch):
    monkeypatch.undo()
    zarr.create_array(tmp_path / "a.zarr", shape=(320_000, 320_000), chunks=(4096, 4096), dtype="u1")
    options = BatchOptions(segment=NATIVE, ram=2**31)
    [one] = preview(find_images([str(tmp_path / "a.zarr")]), model, options)
    assert one.shape == (1, 320_000, 320_000)
    assert one.large.number * one.large.edge**2 >= 320_000**2
    assert one.memory <= 2**31
    assert "about 0" not in one.large.describe()[3]  # nothing is stored of it, which takes a look at each super-block
    assert one.large.seconds > 30
    assert "a_labels.ome.zarr" in one.outputs
