"""An image in super-blocks has the labels and the table that it has in memory, whoever works on it."""

import json
import re
import shutil
from threading import Event

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, segment_batch
from biounet.core import Stopped, builtin_models, sample_folder
from biounet.files import find_images, open_label_store
from biounet.large_images import budget, run, work
from biounet.network import load_model
from biounet.segmentation import SegmentOptions

NATIVE = SegmentOptions(diameter="native")


@pytest.fixture(scope="module")
def model():
    return load_model(builtin_models()["nuclei"])


@pytest.fixture
def images(monkeypatch):
    monkeypatch.setattr(budget, "_EDGES", {2: ((96, 64),), 3: ((48, 32),)})
    return find_images([str(sample_folder() / "images" / "nuclei.tif")])


@pytest.fixture(autouse=True)
def small_files_may_be_large(monkeypatch):
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 0)


def segment(images, model, out, chosen=NATIVE, **options):
    return list(segment_batch(images, model, out, BatchOptions(segment=chosen, overlay=False, **options)))


def labels(out):
    store = open_label_store(out / "nuclei_labels.ome.zarr")
    return store.read(tuple(slice(0, n) for n in store.grid.shape))


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_super_blocks_give_what_memory_gives(images, model, tmp_path, monkeypatch):
    [row] = segment(images, model, tmp_path / "large", label_format="zarr")
    [other] = segment(images, model, tmp_path / "memory")
    assert (row.count, row.message, row.figures) == (other.count, other.message, other.figures)
    assert row.sizes == other.sizes
    assert row.details["channel_types"] == other.details["channel_types"] == {"intensity": "uint16"}
    name = "nuclei_objects.csv"
    assert (tmp_path / "large" / name).read_bytes() == (tmp_path / "memory" / name).read_bytes()
    monkeypatch.setattr("biounet.batch.large_image.LARGEST_TIFF", 0)
    monkeypatch.setattr("biounet.batch.records.usable_memory", lambda: 2**34)
    again = segment(images, model, tmp_path / "auto")
    assert again[0].count == row.count
    assert np.array_equal(labels(tmp_path / "auto"), labels(tmp_path / "large"))
    assert not (tmp_path / "large" / ".large").exists()


def test_stores_of_images_in_memory_say_what_made_them_as_others_do(images, model, tmp_path, monkeypatch):
    segment(images, model, tmp_path / "large", label_format="zarr")
    monkeypatch.setattr("biounet.batch.large_image._SMALL_FILE", 2**24)
    [row] = segment(images, model, tmp_path / "small", label_format="zarr")
    assert "super_blocks" not in row.details
    stores = [open_label_store(tmp_path / name / "nuclei_labels.ome.zarr") for name in ("large", "small")]
    assert stores[0].pinned == stores[1].pinned == {"model": model.sha256, "arithmetic": row.details["arithmetic"]}


@pytest.mark.parametrize("diameter", [13.0, 40.0])
def test_an_image_of_another_magnification_is_resampled_in_super_blocks(diameter, images, model, tmp_path, monkeypatch):
    monkeypatch.setattr("biounet.batch.process_image.write_as_zarr", None)  # of images in memory
    chosen = SegmentOptions(diameter=diameter)
    [row] = segment(images, model, tmp_path / "large", chosen, label_format="zarr")
    [other] = segment(images, model, tmp_path / "memory", chosen)
    assert (row.count, row.message, row.figures) == (other.count, other.message, other.figures)
    name = "nuclei_objects.csv"
    assert (tmp_path / "large" / name).read_bytes() == (tmp_path / "memory" / name).read_bytes()
    assert np.array_equal(labels(tmp_path / "large"), tifffile.imread(tmp_path / "memory" / "nuclei_labels.tif"))


def test_shards_of_one_image_give_the_bytes_of_one_run(images, model, tmp_path):
    segment(images, model, tmp_path / "one", label_format="zarr")
    for number in (1, 2, 3):
        segment(images, model, tmp_path / "shards", label_format="zarr", shard=(number, 3))
    stores = [tree(tmp_path / name / "nuclei_labels.ome.zarr") for name in ("one", "shards")]
    assert stores[0] == stores[1]
    assert segment(images, model, tmp_path / "shards", label_format="zarr")[0].status != "failed"


def test_shards_that_overwrite_leave_what_the_others_found(images, model, tmp_path, monkeypatch):
    segment(images, model, tmp_path, label_format="zarr")
    whole, found, work_on = tree(tmp_path / "nuclei_labels.ome.zarr"), [], run.work_on
    monkeypatch.setattr(run, "work_on", lambda task: (found.append((task.stage, task.index)), work_on(task))[1])
    for number in (1, 2, 3):
        segment(images, model, tmp_path, label_format="zarr", shard=(number, 3), overwrite=True)
    assert tree(tmp_path / "nuclei_labels.ome.zarr") == whole
    predicted = [index for stage, index in found if stage == "find"]
    assert sorted(predicted) == list(range(len(predicted)))
    assert not (tmp_path / ".large").exists()


def test_shards_that_overwrite_begin_anew_where_settings_differ(images, model, tmp_path):
    segment(images, model, tmp_path, label_format="zarr", shard=(1, 2))
    other = SegmentOptions(diameter="native", min_size=60)
    for number in (1, 2):
        rows = segment(images, model, tmp_path, other, label_format="zarr", shard=(number, 2), overwrite=True)
    [row] = rows
    assert row.status != "failed"
    [alone] = segment(images, model, tmp_path / "alone", other, label_format="zarr")
    assert row.count == alone.count


def test_an_image_that_is_named_from_its_folder_is_the_same_when_work_goes_on(images, model, tmp_path, monkeypatch):
    monkeypatch.chdir(sample_folder() / "images")
    near = find_images(["nuclei.tif"])
    for number in (1, 2):
        segment(near, model, tmp_path, label_format="zarr", shard=(number, 2))
    assert labels(tmp_path).any()


def test_a_run_that_was_stopped_continues(images, model, tmp_path, monkeypatch):
    stop, done = Event(), []
    work_on = run.work_on

    def stop_after_some(task):
        done.append((task.stage, task.index))
        if len(done) == 7:
            stop.set()
        return work_on(task)

    monkeypatch.setattr(run, "work_on", stop_after_some)
    options = BatchOptions(segment=NATIVE, overlay=False, label_format="zarr")
    with pytest.raises(Stopped):
        segment_batch(images, model, tmp_path / "stopped", options, stop=stop)
    stop.clear()
    segment_batch(images, model, tmp_path / "stopped", options, stop=stop)
    segment(images, model, tmp_path / "whole", label_format="zarr")
    assert tree(tmp_path / "stopped" / "nuclei_labels.ome.zarr") == tree(tmp_path / "whole" / "nuclei_labels.ome.zarr")
    found = [task for task in done if task[0] == "find"]
    assert len(found) <= 2 * len({*found})


def test_other_settings_are_refused_until_they_may_overwrite(images, model, tmp_path):
    segment(images, model, tmp_path, label_format="zarr", shard=(1, 2))
    shutil.rmtree(tmp_path / "manifest.jsonl", ignore_errors=True)
    plan = tmp_path / ".large" / "nuclei.work" / "plan.json"
    text = plan.read_text(encoding="utf-8")
    plan.write_text(text.replace('"native"', "12.0"), encoding="utf-8")
    [row] = segment(images, model, tmp_path, label_format="zarr")
    assert row.status == "failed"
    assert "begun with other settings" in row.message
    assert segment(images, model, tmp_path, label_format="zarr", overwrite=True)[0].status != "failed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan | {"biounet": "0.0.9"}, r"begun by biounet 0\.0\.9, and this is \S+ \(hint: --overwrite"),
        (lambda plan: {"biounet": plan["biounet"]}, r"damaged, or of another version of biounet \(hint: --overwrite"),
    ],
)
def test_a_work_folder_of_another_version_is_left_as_it_is(change, message, images, model, tmp_path):
    segment(images, model, tmp_path, label_format="zarr", shard=(1, 2))
    plan = tmp_path / ".large" / "nuclei.work" / "plan.json"
    plan.write_text(json.dumps(change(json.loads(plan.read_text(encoding="utf-8")))), encoding="utf-8")
    before = tree(tmp_path / ".large")
    [row] = segment(images, model, tmp_path, label_format="zarr")
    assert row.status == "failed"
    assert re.search(message, row.message)
    assert "\n" not in row.message
    assert tree(tmp_path / ".large") == before
    [row] = segment(images, model, tmp_path, label_format="zarr", overwrite=True)
    assert row.status != "failed"


def test_a_model_that_is_gone_from_the_work_folder_is_written_again(images, model, tmp_path):
    segment(images, model, tmp_path, label_format="zarr", shard=(1, 2))
    (tmp_path / ".large" / "nuclei.work" / "model.safetensors").unlink()
    work._opened.clear()
    [row] = segment(images, model, tmp_path, label_format="zarr")
    assert row.status != "failed"


def test_pictures_and_what_the_report_shows_are_those_of_memory(images, model, tmp_path, monkeypatch):
    for module in ("overlays", "large_pictures"):
        monkeypatch.setattr(f"biounet.reporting.{module}.MAX_SIDE", 100)
    outs = [tmp_path / "large", tmp_path / "memory"]
    for out, label_format in zip(outs, ("zarr", "tif"), strict=True):
        segment_batch(images, model, out, BatchOptions(segment=NATIVE, label_format=label_format))
    pictures = [
        "nuclei_overlay.png",
        *(f"report_files/nuclei_{name}" for name in ("thumb.webp", "view.webp", "view.js")),
    ]
    for name in pictures:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
    assert "nuclei_overlay.png" in (outs[0] / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr("biounet.reporting.large_pictures.MOST_VIEWED", 3)
    [row] = segment_batch(images, model, tmp_path / "many", BatchOptions(segment=NATIVE, label_format="zarr"))
    assert sorted(row.outputs) == ["nuclei_labels.ome.zarr", "nuclei_objects.csv", "nuclei_overlay.png"]


def test_an_image_without_objects_has_its_files_too(images, model, tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "blank.tif", np.full((200, 150), 7, np.uint8))
    found, outs = find_images([tmp_path / "in"]), [tmp_path / "large", tmp_path / "memory"]
    for out, label_format in zip(outs, ("zarr", "tif"), strict=True):
        [row] = segment_batch(found, model, out, BatchOptions(segment=NATIVE, label_format=label_format))
        assert (row.status == "failed", row.count) == (False, 0)
    for name in ("blank_objects.csv", "blank_overlay.png", "report_files/blank_view.js"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
