"""A large image in a process of its own: the same results, and its end costs one image."""

import signal
import subprocess
import threading

import pytest

from biounet.batch import BatchOptions, own_process, segment_batch
from biounet.core import Stopped
from biounet.files import find_images
from biounet.segmentation import SegmentOptions, memory


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(memory, "_LARGE", 0)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_results_are_the_same_to_the_last_byte(few, untrained, monkeypatch):
    for name in ("a.tif", "b.tif"):  # one good image, in a sub-folder, and one that fails
        (few / name).unlink()
    (few / "z.tif").write_bytes(b"")
    options = BatchOptions(jobs=1, segment=SegmentOptions(block=64, label=untrained.card.label))
    rows = [segment_batch(find_images([few]), untrained, few.parent / "here", options)]
    monkeypatch.setattr(memory, "_LARGE", 0)
    rows.append(segment_batch(find_images([few]), untrained, few.parent / "apart", options))
    assert [(row.status, row.count, row.message, row.outputs) for row in rows[0]] == [
        (row.status, row.count, row.message, row.outputs) for row in rows[1]
    ]
    here, there = files(few.parent / "here"), files(few.parent / "apart")
    changing = {".claims", "run.json", "manifest.jsonl", "counts.csv", "report.html"}  # the seconds
    assert here.keys() == there.keys()
    assert [name for name in sorted(here.keys() - changing) if here[name] != there[name]] == []
    again = segment_batch(find_images([few]), untrained, few.parent / "apart", options)
    assert [row.seconds for row in again[:1]] == [row.seconds for row in rows[1][:1]]


def test_labels_are_written_in_the_format_that_was_asked_for(few, untrained, all_large):
    (few / "b.tif").unlink()
    [row, _] = segment_batch(
        find_images([few]), untrained, few.parent / "out", BatchOptions(jobs=1, label_format="zarr")
    )
    assert "a_labels.ome.zarr" in row.outputs


@pytest.mark.parametrize("kills", [2, 3])
def test_a_process_that_the_machine_ends_three_times_costs_one_image(kills, few, untrained, all_large, monkeypatch):
    (few / "b.tif").unlink()
    really, killed = own_process.start_process, []

    def start(*args):
        child = really(*args)
        if len(killed) < kills:
            killed.append(child.pid)
            child.send_signal(signal.SIGKILL)
        return child

    monkeypatch.setattr(own_process, "start_process", start)
    rows = segment_batch(find_images([few]), untrained, few.parent / "out", BatchOptions(jobs=1))
    assert [row.status == "failed" for row in rows] == [kills == 3, False]
    if kills == 2:
        assert [row.details.get("attempts") for row in rows] == [3, None]
        return
    how = "was ended (signal 9, as by a machine that runs out of memory); it was tried 3 times: it needs about"
    assert how in rows[0].message
    assert not any(path.name.startswith("a_") for path in (few.parent / "out").iterdir())
    rows = segment_batch(find_images([few]), untrained, few.parent / "out", BatchOptions(jobs=1))
    assert not [row for row in rows if row.status == "failed"]


def test_work_that_is_to_end_does_not_wait_for_it(few, untrained, all_large, monkeypatch):
    stop, really, children = threading.Event(), own_process.start_process, []

    def start(*args):
        children.append(really(*args))
        stop.set()
        return children[-1]

    monkeypatch.setattr(own_process, "start_process", start)
    with pytest.raises(Stopped):
        segment_batch(find_images([few]), untrained, few.parent / "out", BatchOptions(jobs=1), stop=stop)
    assert [child.returncode is not None for child in children] == [True]


def test_the_process_ends_with_the_one_that_started_it():
    child = own_process.start_process(own_process._PROGRAM, "for a large image")
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)
    child.stdin.write(b'{"folder": "2f"}\n')
    child.stdin.close()
    child.wait(60)
    assert child.returncode
