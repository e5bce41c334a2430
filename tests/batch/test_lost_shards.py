"""Parts of the labels of a large image that are removed, or lost by a disk, while it is worked on are made again."""

import shutil
from threading import Event

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, segment_batch
from biounet.core import MachineError, Stopped, builtin_models, sample_folder
from biounet.files import ReadOptions, find_images
from biounet.large_images import budget, run
from biounet.network import load_model
from biounet.segmentation import SegmentOptions
from support.batches import all_files

STORE = "nuclei_labels.ome.zarr"
OPTIONS = {"segment": SegmentOptions(diameter="native"), "overlay": False, "label_format": "zarr", "jobs": 1}
MEASURED = OPTIONS | {
    "segment": SegmentOptions(diameter="native", ring="1,5px"),
    "read": ReadOptions(channel=0, measure=("all",)),
}


@pytest.fixture(scope="module")
def model():
    return load_model(builtin_models()["nuclei"])


@pytest.fixture(autouse=True)
def small_super_blocks(monkeypatch):
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
    monkeypatch.setattr(budget, "_EDGES", {2: ((192, 96),)})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """An image of two channels, the second of which is measured; a part of it is empty."""
    image = np.tile(tifffile.imread(sample_folder() / "images" / "nuclei.tif"), (3, 2))[:600]
    image[380:, 190:] = 0
    path = tmp_path_factory.mktemp("in") / "nuclei.tif"
    tifffile.imwrite(path, np.stack([image, image[:, ::-1]]), metadata={"axes": "CYX"}, tile=(64, 64))
    return path


@pytest.fixture(scope="module")
def whole(path, model, tmp_path_factory):
    """The label store and the table of a run in which nothing is lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
        patch.setattr(budget, "_EDGES", {2: ((192, 96),)})
        out = tmp_path_factory.mktemp("whole")
        segment_batch(find_images([path]), model, out, BatchOptions(**MEASURED))
    return results(out)


def results(out):
    return all_files(out / STORE), (out / "nuclei_objects.csv").read_bytes()


def work_of(out):
    return out / ".large" / "nuclei.work"


def shards(out, level=0):
    """Return the shards of a level that there are."""
    return sorted(file for file in (work_of(out) / STORE / str(level) / "c").rglob("*") if file.is_file())


def when_done(monkeypatch, stage, act):
    """Call a function each time that all of a stage is done; return the stages of all tasks."""
    tasks, run_stage, work_on = [], run._run_stage, run.work_on

    def run_and_act(work, how, name, indices):
        run_stage(work, how, name, indices)
        if name == stage:
            act()

    monkeypatch.setattr(run, "_run_stage", run_and_act)
    monkeypatch.setattr(run, "work_on", lambda task: (tasks.append((task.stage, task.index)), work_on(task))[1])
    return tasks


def only_once(act):
    """Return a function that acts when it is called for the first time."""
    left = [act]
    return lambda: left.pop()() if left else None


@pytest.mark.parametrize("stage", ["paint", "channels0", "measure", "level1", "level2"])
def test_a_shard_that_is_lost_during_the_work_is_made_again(stage, path, model, whole, tmp_path, monkeypatch, caplog):
    lost = []

    def lose():
        lost.append(shards(tmp_path)[1])
        lost[0].unlink()

    tasks = when_done(monkeypatch, stage, only_once(lose))
    [row] = segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    assert row.status != "failed", row.message
    assert results(tmp_path) == whole
    painted = [task for task in tasks if task[0] == "paint"]
    assert len(painted) == len({*painted}) + 1
    [line] = [record.getMessage() for record in caplog.records if "made again" in record.getMessage()]
    assert line.startswith(f"{lost[0].parents[3]}: ")
    assert "shard 0/c/" in line


def test_a_shard_of_lower_resolution_is_made_again(path, model, whole, tmp_path, monkeypatch):
    tasks = when_done(monkeypatch, "level2", only_once(lambda: shards(tmp_path, 1)[0].unlink()))
    segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    assert results(tmp_path) == whole
    again = [task for number, task in enumerate(tasks) if task in tasks[:number]]
    assert {stage for stage, _ in again} == {"level1", "level2"}


@pytest.mark.parametrize("stage", ["paint", "measure", "level1"])
@pytest.mark.parametrize("what", ["one", "all"])
def test_what_is_lost_between_two_commands_is_made_again(stage, what, path, model, whole, tmp_path, monkeypatch):
    stop = Event()
    with monkeypatch.context() as patch:
        when_done(patch, stage, stop.set)
        with pytest.raises(Stopped):
            segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED), stop=stop)
    if what == "one":
        shards(tmp_path)[0].unlink()
    else:
        shutil.rmtree(work_of(tmp_path) / STORE)
    [row] = segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    assert row.status != "failed", row.message
    assert results(tmp_path) == whole


def test_a_shard_that_is_lost_before_the_store_is_in_its_place_is_made_again(path, model, whole, tmp_path, monkeypatch):
    def fail(*_):
        raise MachineError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("biounet.batch.large_image._move", fail)
        with pytest.raises(MachineError):
            segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    shards(tmp_path)[0].unlink()
    [row] = segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    assert row.status != "failed", row.message
    assert results(tmp_path) == whole


def test_a_disk_that_loses_shards_again_and_again_is_one_line(path, model, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        when_done(patch, "level1", lambda: shards(tmp_path)[0].unlink())
        [row] = segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    assert row.status == "failed"
    assert "shard 0/c/0/0 is not there any more" in row.message
    assert "(hint: " in row.message
    assert not (tmp_path / "nuclei_objects.csv").exists()
    segment_batch(find_images([path]), model, tmp_path, BatchOptions(**MEASURED))
    assert results(tmp_path) == whole
