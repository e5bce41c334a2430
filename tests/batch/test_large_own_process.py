"""An image in super-blocks has a process of its own: its end costs one image, and what it has done stays."""

import shutil
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import tifffile
import zarr

from biounet.batch import BatchOptions, own_process, runner, segment_batch
from biounet.batch.large_image import work_folder
from biounet.batch.parts_done import PartsClock
from biounet.batch.process_image import BatchContext, _in_own_process
from biounet.batch.records import Record, Row
from biounet.core import InputError, MachineError, Stopped, WorkerDiedError, builtin_models, sample_folder
from biounet.files import FoundImage, find_images
from biounet.large_images import InThisProcess
from biounet.network import load_model
from biounet.segmentation import SegmentOptions
from support.batches import all_files

IN_ZARR = BatchOptions(segment=SegmentOptions(diameter="native"), overlay=False, label_format="zarr", jobs=1)


@pytest.fixture(scope="module")
def model():
    return load_model(builtin_models()["nuclei"])


@pytest.fixture(autouse=True)
def every_large_image_has_a_process(monkeypatch):
    monkeypatch.setattr("biounet.batch.large_image._LASTING", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image in Zarr, which may be large, and a small file."""
    folder = tmp_path_factory.mktemp("in")
    image = tifffile.imread(sample_folder() / "images" / "nuclei.tif")
    zarr.create_array(folder / "large.zarr", data=image, chunks=(64, 64))
    shutil.copy(sample_folder() / "images" / "tiny.tif", folder / "small.tif")
    return folder


@pytest.fixture(scope="module")
def whole(folder, model, tmp_path_factory):
    """The label store of a run in this process."""
    out = tmp_path_factory.mktemp("whole")
    segment_batch(find_images([folder]), model, out, IN_ZARR)
    return all_files(out / "large_labels.ome.zarr"), (out / "large_objects.csv").read_bytes()


def results(out):
    return all_files(out / "large_labels.ome.zarr"), (out / "large_objects.csv").read_bytes()


def when_started(monkeypatch, act):
    """Let `act` see each process that is started for a large image."""
    really = own_process.start_process

    def start(*arguments):
        child = really(*arguments)
        act(child)
        return child

    monkeypatch.setattr(own_process, "start_process", start)


def after_first_part(out, act):
    """Call a function when a super-block is predicted, and the process still works."""

    def wait():
        while not list(out.glob(".large/large*/find/*/*.npz")):
            time.sleep(0.002)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_what_is_done_before_a_kill_or_a_stop_stays(folder, model, whole, tmp_path, monkeypatch):
    images, said = find_images([folder]), []
    with monkeypatch.context() as patch:
        when_started(patch, lambda child: after_first_part(tmp_path, lambda: child.send_signal(signal.SIGKILL)))
        rows = {row.image: row for row in segment_batch(images, model, tmp_path, IN_ZARR)}
    assert rows["small.tif"].status != "failed"
    assert rows["large.zarr"].message == (
        "the process that worked on it was ended (signal 9, as by a machine that runs out of memory);"
        " it was tried 3 times (hint: the same command continues: what is done stays)"
    )
    [part] = tmp_path.glob(".large/large*/find/*/*.npz")
    before, stop, after = part.stat().st_mtime_ns, threading.Event(), []
    with monkeypatch.context() as patch:
        when_started(patch, lambda child: stop.set())
        with pytest.raises(Stopped):
            segment_batch(images, model, tmp_path, IN_ZARR, stop=stop)
    options = BatchOptions(**(vars(IN_ZARR) | {"on_parts": said.append}))
    after_first_part(tmp_path, lambda: after.append(part.stat().st_mtime_ns))
    rows = segment_batch(images, model, tmp_path, options)
    assert [row.status == "failed" for row in rows] == [False, False]
    assert results(tmp_path) == whole
    assert after == [before]
    assert not (tmp_path / ".large").exists()
    assert {parts.image for parts in said} == {"large.zarr"}
    assert said[-1].share > 0.8


def test_a_process_without_a_sign_of_life_is_ended(folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(own_process, "_SILENCE", 0.5)
    children = []
    when_started(monkeypatch, lambda child: (child.send_signal(signal.SIGSTOP), children.append(child)))
    rows = {row.image: row for row in segment_batch(find_images([folder]), model, tmp_path, IN_ZARR)}
    assert "was ended (it gave no sign of life for 0.5 s)" in rows["large.zarr"].message
    assert rows["small.tif"].status != "failed"
    assert [child.poll() is not None for child in children] == [True] * 3


def test_a_shard_of_an_image_has_a_process_too(folder, model, whole, tmp_path, monkeypatch):
    images = find_images([folder / "large.zarr"])
    options = [BatchOptions(**(vars(IN_ZARR) | {"shard": (number, 2)})) for number in (1, 2)]
    children = []
    when_started(monkeypatch, children.append)
    segment_batch(images, model, tmp_path, options[0])
    assert len(children) == 1
    assert len(list(tmp_path.glob(".large/large*/find/*/*.npz"))) == 1
    monkeypatch.setattr("biounet.batch.large_image._LASTING", 2**30)
    segment_batch(images, model, tmp_path, options[1])
    assert results(tmp_path) == whole


def test_a_shard_whose_process_dies_is_left_to_the_others(folder, model, tmp_path, monkeypatch, caplog):
    def died(*_):
        raise WorkerDiedError("the process that worked on it was ended")

    monkeypatch.setattr(runner, "segment_share_in_own_process", died)
    options = BatchOptions(**(vars(IN_ZARR) | {"shard": (1, 2)}))
    assert list(segment_batch(find_images([folder / "large.zarr"]), model, tmp_path, options)) == []
    assert "large.zarr: the process that worked on it was ended" in caplog.text


@pytest.mark.parametrize("deaths", [1, 3])
def test_attempts_that_overwrite_go_on_from_the_first(tmp_path, deaths):
    image, seen = FoundImage(tmp_path / "a.tif", Path("a.tif")), []
    work = work_folder(image, tmp_path)
    work.mkdir(parents=True)

    def die_after_a_while(image, context, protected):
        seen.append((context.options.overwrite, work.is_dir()))
        work.mkdir(parents=True, exist_ok=True)
        if len(seen) <= deaths:
            raise WorkerDiedError("ended", hint="the same command continues")
        return Record(Row("a.tif", "failed", None, 0.0, ""), (), "", "")

    batch = BatchOptions(overwrite=True)
    context = BatchContext(None, None, tmp_path, batch, 1, threading.Event(), None, segment_large=die_after_a_while)
    if deaths == 1:
        assert _in_own_process(image, context, ()).row.details == {"attempts": 2}
    else:
        with pytest.raises(WorkerDiedError, match="tried 3 times") as caught:
            _in_own_process(image, context, ())
        assert caught.value.hint == "the same command without --overwrite continues"
    assert seen == [(False, False), *[(False, True)] * min(deaths, 2)]


def test_the_time_that_is_left_is_told_by_what_was_done_since_the_start():
    said, now = [], [0.0]
    clock = PartsClock("slide", said.append, lambda: now[0])
    clock("find", 4, 8)  # of an earlier run
    now[0] = 10.0
    clock("find", 6, 8)
    clock("channels0", 3, 8)
    clock("measure", 8, 8)
    assert said[2].stage == "counting background"
    assert said[0].left is None
    gained, left = said[1].share - said[0].share, 1 - said[1].share
    assert said[1].left == pytest.approx(10 * left / gained)
    assert said[1].describe().startswith("slide: predicting, 6 of 8 parts, about ")
    shares = [parts.share for parts in said]
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_a_cluster_that_does_not_answer_is_told_once(folder, model, tmp_path):
    options = BatchOptions(**(vars(IN_ZARR) | {"cluster": "tcp://127.0.0.1:9"}))  # the port of "discard"
    with pytest.raises(MachineError) as told:
        segment_batch(find_images([folder / "large.zarr"]), model, tmp_path, options)
    assert str(told.value).count("(hint: ") == 1
    assert not list(tmp_path.glob(".large/**/scale.json"))  # at once, not after a pass over the image


def local_workers(monkeypatch):
    """Let threads of this process be the workers of this machine; return what happens to them."""
    happened = []

    @contextmanager
    def connect(*_):
        happened.append("started")
        try:
            yield InThisProcess(1)
        finally:
            happened.append("ended")

    monkeypatch.setattr("biounet.batch.large_image.connect", connect)
    return happened


def test_with_a_cluster_no_other_process_is_started(folder, model, tmp_path, monkeypatch, whole):
    children, happened = [], local_workers(monkeypatch)
    when_started(monkeypatch, children.append)
    options = BatchOptions(**(vars(IN_ZARR) | {"cluster": "local:1"}))
    segment_batch(find_images([folder / "large.zarr"]), model, tmp_path, options)
    assert (children, happened) == ([], ["started", "ended"])
    assert results(tmp_path) == whole


def test_workers_end_when_the_image_is_damaged(folder, model, tmp_path, monkeypatch):
    image, happened = tmp_path / "large.zarr", local_workers(monkeypatch)
    shutil.copytree(folder / "large.zarr", image)
    (image / "c" / "0" / "0").write_bytes(b"no chunk")
    options = BatchOptions(**(vars(IN_ZARR) | {"cluster": "local:1"}))
    (row,) = segment_batch(find_images([image]), model, tmp_path / "out", options)
    assert row.status == "failed"
    assert happened == ["started", "ended"]


def test_an_image_that_fails_when_its_pictures_are_drawn_is_done_by_the_same_command(
    folder, model, tmp_path, monkeypatch, whole
):
    """Its table, of which there is no record, was taken for a file of somebody else."""
    monkeypatch.setattr("biounet.batch.large_image._LASTING", 2**30)
    images = find_images([folder / "large.zarr"])

    def damaged(*_):
        raise InputError("damaged since")

    with monkeypatch.context() as patch:
        patch.setattr("biounet.batch.large_image.write_large_pictures", damaged)
        (row,) = segment_batch(images, model, tmp_path, IN_ZARR)
    assert (row.status, row.message) == ("failed", "damaged since")
    assert not list(tmp_path.glob("large_*"))
    segment_batch(images, model, tmp_path, IN_ZARR)
    assert results(tmp_path) == whole
