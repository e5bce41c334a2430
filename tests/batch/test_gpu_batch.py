"""A batch on a device: the files of the plain path, errors of one image only, and what happens without memory."""

import json
from threading import Event

import numpy as np
import pytest
import tifffile
import torch

from biounet.batch import BatchOptions, segment_batch
from biounet.core import Stopped
from biounet.files import find_images, open_label_store
from biounet.large_images import budget
from biounet.segmentation import SegmentOptions
from biounet.synthetic import draw_field_settings, make_field
from tests.support.batches import result_files, shared_readers
from tests.support.fake_device import FakeDevice, float_predictor

NATIVE = SegmentOptions(diameter="native", block=128)


@pytest.fixture
def model(untrained):
    return untrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("images")
    for number in range(5):
        image, _ = make_field(number, draw_field_settings(number, (200 + 40 * number, 230)))
        tifffile.imwrite(made / f"{number}.tif", image)
    return made


@pytest.fixture
def run(model, folder, tmp_path, monkeypatch):
    """Segment the folder, as the name of the results says, on a device or by the plain path in the same numbers."""

    def segment(name, device=None, images=None, stop=None, **options):
        predictor = float_predictor(model, device)
        for room in ("biounet.batch.runner", "biounet.large_images.work"):
            monkeypatch.setattr(f"{room}.model_predictor", lambda *_: predictor)
        options = {"overlay": False, "segment": NATIVE, "readers": shared_readers(), **options}
        found = find_images([folder if images is None else images])
        return list(segment_batch(found, model, tmp_path / name, BatchOptions(**options), stop=stop))

    return segment


def _seen(model, edge):
    """Return the edge of what the network sees of a block."""
    return edge + 2 * model.network.receptive_radius[0] + 2 * model.network.stride[0]


def recorded(row):
    return row.details["device"], row.details["arithmetic"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_files_are_those_of_the_plain_path(run, tmp_path, jobs, monkeypatch):
    rows = run("plain")
    monkeypatch.setattr("biounet.batch.process_image.available_cores", lambda: 3)
    blocks = sum(-(-(200 + 40 * n) // 128) * 2 for n in range(5))
    device = FakeDevice(together=3, expected=blocks)
    assert [row.count for row in run("device", device, jobs=jobs)] == [row.count for row in rows]
    assert result_files(tmp_path / "device") == result_files(tmp_path / "plain")
    assert device.most_together == 3, "blocks overlap, also those of one image"
    assert device.uploads == blocks, "each block once"


def test_blocks_that_are_computed_otherwise_do_not_break_an_image(run):
    rows = run("device", FakeDevice(depends_on_shape=True))
    assert [row.message for row in rows if row.status == "failed"] == []


def test_an_error_reaches_its_image_only(run):
    rows = run("device", FakeDevice(errors={7: ValueError("this block is bad")}), jobs=2)
    assert sorted(row.status == "failed" for row in rows) == [False] * 4 + [True]
    assert "this block is bad" in "".join(row.message for row in rows)


def test_memory_runs_out_step_by_step(run, tmp_path, caplog, model, monkeypatch):
    """Blocks of 128 and what the network sees around them do not fit, those of 64 do."""
    plain = run("plain")
    monkeypatch.setattr("biounet.segmentation.memory._SMALLER_EDGES", {2: (64, 32), 3: (64, 32)})
    device = FakeDevice(values=_seen(model, 64) ** 2)
    rows = run("device", device, jobs=1)
    assert [row.count for row in rows] == [row.count for row in plain]
    assert result_files(tmp_path / "device") == result_files(tmp_path / "plain")
    codes = [{note["code"] for note in row.details["notes"]} for row in rows]
    assert all("smaller_blocks" in each for each in codes)
    assert caplog.text.count("blocks of 64 from here on") == 1
    assert {recorded(row) for row in rows} == {recorded(row) for row in plain}
    assert device.releases >= 2


def test_without_any_room_images_are_computed_on_the_cpu(run, caplog, tmp_path):
    rows = run("device", FakeDevice(values=1), jobs=2)
    assert all(row.status != "failed" for row in rows)
    assert "on the CPU from here on" in caplog.text
    text = [note["text"] for row in rows for note in row.details["notes"] if note["code"] == "on_cpu"]
    assert len(text) == 5
    assert len(set(text)) == 1
    run_file = json.loads((tmp_path / "device" / "run.json").read_text())
    assert sum(run_file["arithmetic"].values()) == 5


def test_two_arithmetics_in_a_folder_are_told(run, folder, tmp_path, caplog, monkeypatch):
    run("both", images=folder / "0.tif")
    changed = folder.parent / "more"
    changed.mkdir(exist_ok=True)
    for number in (0, 1):
        (changed / f"{number}.tif").write_bytes((folder / f"{number}.tif").read_bytes())
    monkeypatch.setattr("biounet.network.predictor.Predictor.arithmetic", "int8")
    run("both", images=folder)
    arithmetic = json.loads((tmp_path / "both" / "run.json").read_text())["arithmetic"]
    assert sorted(arithmetic.values()) == [1, 4]
    assert "int8" in arithmetic
    assert "computed in different numbers" in caplog.text


def stopped_at_the_sixth_upload():
    """Return an event, and a device that sets it when it gets its sixth block."""
    stop, device = Event(), FakeDevice()
    enter = device.enter

    def enter_or_stop(size):
        if device.uploads == 6:
            stop.set()
        return enter(size)

    device.enter = enter_or_stop
    return stop, device


def test_stop_ends_a_batch_and_the_same_call_continues(run, tmp_path):
    stop, device = stopped_at_the_sixth_upload()
    with pytest.raises(Stopped):
        run("device", device, stop=stop, jobs=1)
    assert device.on_their_way == 0
    run("device", FakeDevice())
    run("plain")
    assert result_files(tmp_path / "device") == result_files(tmp_path / "plain")


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", {2: ((96, 64),), 3: ((48, 32),)})
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)
    monkeypatch.setattr("biounet.batch.runner.segment_in_own_process", None)
    return {"label_format": "zarr", "segment": SegmentOptions(diameter="native")}


def labels(path):
    store = open_label_store(path)
    return store.read(tuple(slice(0, n) for n in store.grid.shape))


def test_super_blocks_agree_on_a_device_that_computes_by_the_shape(run, large, folder, tmp_path):
    [plain] = run("plain", images=folder / "4.tif", **large)
    [exact] = run("exact", FakeDevice(), images=folder / "4.tif", **large)
    device = FakeDevice(depends_on_shape=True)
    [row] = run("device", device, images=folder / "4.tif", **large)
    assert exact.count == plain.count
    name = "4_labels.ome.zarr"
    assert np.array_equal(labels(tmp_path / "exact" / name), labels(tmp_path / "plain" / name))
    assert row.status != "failed", row.message
    assert row.details["arithmetic"] == plain.details["arithmetic"]


def test_a_large_image_is_not_continued_in_other_numbers(run, large, folder, tmp_path, monkeypatch):
    stop, device = stopped_at_the_sixth_upload()
    with pytest.raises(Stopped):
        run("large", device, images=folder / "4.tif", stop=stop, **large)
    with monkeypatch.context() as patched:
        patched.setattr("biounet.network.predictor.Predictor.arithmetic", "int8")
        [row] = run("large", images=folder / "4.tif", **large)
    assert row.status == "failed"
    assert "this machine computes in int8" in row.message
    assert "--overwrite" in row.message
    [row] = run("large", FakeDevice(), images=folder / "4.tif", **large)
    [plain] = run("plain", images=folder / "4.tif", **large)
    assert row.count == plain.count


def test_super_blocks_without_memory_become_smaller_blocks(run, large, folder, monkeypatch, model):
    monkeypatch.setattr("biounet.segmentation.memory._SMALLER_EDGES", {2: (32,), 3: (32,)})
    [plain] = run("plain", images=folder / "4.tif", **large)
    device = FakeDevice(values=(_seen(model, 32 + 4) + 2 * model.network.stride[0]) ** 2)
    [row] = run("device", device, images=folder / "4.tif", **large)
    assert row.count == plain.count
    assert "smaller_blocks" in {note["code"] for note in row.details["notes"]}


def test_a_failed_device_ends_the_batch(run):
    with pytest.raises(OSError, match="device failed"):
        run("device", FakeDevice(errors={2: torch.AcceleratorError("CUDA error: an illegal memory access")}), jobs=1)
