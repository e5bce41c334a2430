"""The manifest: what was written comes back, and nothing else is believed; locks end with their holder."""

import gc
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import biounet.batch.record_lines
from biounet.batch import BatchOptions, Row, segment_batch
from biounet.batch.manifest import Manifest, is_inside
from biounet.batch.record_lines import LONGEST_LINE, record_lines
from biounet.batch.recorded_files import InputFile
from biounet.batch.records import FrameRow, Record
from biounet.core import Stopped
from biounet.files import Locks, append_line, find_images
from biounet.reporting import SizeHistogram

SIZES = SizeHistogram.of("area_um2", np.array([0.1, 1e9, 3], np.float32))
ROW = Row("é\udcff/a.tif", "ok", 3, 0.1, "", {"shape": [1, 4, 4]}, ("é\udcff/a_labels.tif",), SIZES)
RECORD = Record(ROW, (InputFile("in/a.tif", 5, 7, "ab"),), "m", "s", {"é\udcff/a_labels.tif": "cd"})


def write(folder: Path, record: Record = RECORD) -> None:
    with Locks(folder) as locks:
        Manifest(folder).append(record, locks)


def test_a_record_comes_back_as_it_was(tmp_path):
    write(tmp_path)
    (found,) = Manifest(tmp_path).records()
    assert found == RECORD
    assert found.row.sizes == SIZES


def test_sizes_as_earlier_versions_wrote_them_are_counted_the_same(tmp_path):
    append_line(tmp_path / "manifest.jsonl", line_with(sizes=["area_px", [1, 2.5, 300]]))
    (found,) = Manifest(tmp_path).records()
    assert found.row.sizes == SizeHistogram.of("area_px", [1, 2.5, 300])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 400), st.text(max_size=300), st.integers(0, 3))
def test_no_line_is_longer_than_4_kb_and_the_record_comes_back(tmp_path_factory, frames, text, others):
    """Whatever the image, as a series of many frames with notes of each; and records of other images lie beside it."""
    folder = tmp_path_factory.mktemp("out")
    row = replace(ROW, frames=tuple(FrameRow(t, "ok", 1, 0.5, text, {"flags": text}) for t in range(frames)))
    for number in range(others):
        write(folder, replace(RECORD, row=replace(ROW, image=f"é\udcff/{number}.tif"), outputs={}, inputs=()))
    write(folder, replace(RECORD, row=row))
    write(folder, replace(RECORD, row=replace(ROW, image="last.tif", status="failed"), outputs={}))
    assert max(map(len, (folder / "manifest.jsonl").read_bytes().splitlines())) <= LONGEST_LINE
    assert Manifest(folder).get(ROW.image).row == row
    assert Manifest(folder).get("last.tif").row.status == "failed"


@pytest.mark.parametrize("kept", range(4))
def test_a_record_in_parts_that_a_kill_cut_short_is_none_and_costs_no_other(kept, tmp_path, caplog):
    write(tmp_path)
    row = replace(ROW, image="long.tif", status="failed", message="x" * 9000, outputs=())
    lines = record_lines(replace(RECORD, row=row, outputs={}))
    assert len(lines) == 6
    for line in [*lines[:kept], lines[kept][:-100]]:
        append_line(tmp_path / "manifest.jsonl", line)
    assert Manifest(tmp_path).names() == [ROW.image]
    write(tmp_path, replace(RECORD, row=row, outputs={}))
    manifest = Manifest(tmp_path)
    assert [record.row for record in manifest.records()] == [ROW, row]
    assert not caplog.messages


def test_records_are_decoded_when_they_are_asked_for_and_not_kept(tmp_path, monkeypatch):
    """Law: what a manifest of any length holds in memory is where its records begin."""
    for number in range(30):
        write(tmp_path, replace(RECORD, row=replace(ROW, image=f"{number}.tif", status="failed"), outputs={}))
    live, made = [], []
    really = biounet.batch.record_lines.decode_record

    def watched(line):
        record = really(line)
        live.append(weakref.ref(record))
        made.append(record.row.image)
        return record

    monkeypatch.setattr(biounet.batch.record_lines, "decode_record", watched)
    manifest = Manifest(tmp_path)
    assert made == []
    rows, most = manifest.rows(manifest.names()), 0
    gc.freeze()  # what there is by now, such as torch, is not searched each time
    try:
        for _ in rows:
            gc.collect()
            most = max(most, sum(one() is not None for one in live))
    finally:
        gc.unfreeze()
    assert (len(rows), len(made), most) == (30, 30, 1)
    assert rows[-1].image == "29.tif"
    assert [row.image for row in rows[3:5]] == ["3.tif", "4.tif"]
    assert rows == manifest.rows(manifest.names()) != rows[1:]
    with pytest.raises(IndexError):
        rows[30]


def test_the_last_record_of_an_image_holds_and_only_new_ones_are_fresh(tmp_path):
    write(tmp_path)
    manifest = Manifest(tmp_path)
    assert not manifest.is_new(ROW.image)
    write(tmp_path, Record(Row("é\udcff/a.tif", "failed", None, 0.1, "gone"), (), "m", "s"))
    manifest.refresh()
    assert manifest.is_new(ROW.image)
    assert manifest.get(ROW.image).row.message == "gone"
    assert manifest.output_hashes(ROW.image) == RECORD.outputs


def test_a_torn_line_costs_itself_only(tmp_path, caplog):
    write(tmp_path)
    line = (tmp_path / "manifest.jsonl").read_text()
    (tmp_path / "manifest.jsonl").write_text(line.replace("a.tif", "b.tif")[: len(line) // 2])
    write(tmp_path)
    assert Manifest(tmp_path).names() == [ROW.image]
    assert not caplog.messages


def line_with(**changes) -> str:
    raw = {
        "biounet": 1, "image": "a.tif", "status": "ok", "count": 3, "seconds": 1.5, "message": "", "details": {},
        "sizes": None, "inputs": [{"path": "a.tif", "size": 1, "mtime_ns": 2, "sha256": "x"}], "model": "m",
        "settings": "s", "outputs": {"a_labels.tif": "y"},
    }  # fmt: skip
    return json.dumps(raw | changes)


STRANGE = {
    "not JSON": "{",
    "a list": "[1]",
    "a number": "7",
    "deep": "[" * 100_000,
    "later version": line_with(biounet=2),
    "another key": line_with(more=1),
    "count as text": line_with(count="3"),
    "count made up": line_with(count=1.5),
    "unknown status": line_with(status="fine"),
    "done without outputs": line_with(outputs={}),
    "done without inputs": line_with(inputs=[]),
    "inputs of another form": line_with(inputs=[{"path": 1, "size": 1, "mtime_ns": 2, "sha256": "x"}]),
    "outputs of another form": line_with(outputs={"a_labels.tif": 3}),
    "outputs of another image": line_with(outputs={"b_labels.tif": "y"}),
    "outputs of an image elsewhere": line_with(outputs={"deep/a_labels.tif": "y"}),
    "a file of somebody": line_with(outputs={"a_labels.tif": "y", "a_notes.txt": "y"}),
    "a table of the batch": line_with(outputs={"counts.csv": "y"}),
    "count that is not that of its objects": line_with(count=4, sizes=["area_px", [1, 2, 3]]),
    "outside": line_with(outputs={"../a_labels.tif": "y"}),
    "absolute": line_with(outputs={"/etc/passwd": "y"}),
    "the name of an image outside": line_with(image="../a.tif"),
    "zero byte in an input": line_with(inputs=[{"path": "\0", "size": 1, "mtime_ns": 2, "sha256": "x"}]),
    "count without end": line_with(count=10**30),
    "seconds without end": line_with(seconds=10**400),
    "sizes without end": line_with(sizes=["area_px", [10**400]]),
    "through a link": line_with(outputs={"link/a_labels.tif": "y"}),
    "zero byte": line_with(outputs={"a\0": "y"}),
    "sizes of a strange column": line_with(sizes=["__class__", [1]]),
    "sizes that are none": line_with(sizes=["area_px", [-1]]),
    "sizes of text": line_with(sizes=["area_px", ["x"]]),
    "sizes of other bins": line_with(sizes=["area_px", 3, 0, [1, 2], 1, 2]),
    "sizes below none": line_with(sizes=["area_px", 16, 0, [4, -1], 1, 2]),
    "sizes upside down": line_with(sizes=["area_px", 16, 0, [3], 2, 1]),
    "a part of nothing": json.dumps({"biounet": 1, "image": "a.tif", "part": [0, 1], "text": "{}"}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_biounet_does_not_write_is_ignored_with_a_remark(name, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    append_line(tmp_path / "out" / "manifest.jsonl", STRANGE[name])
    append_line(tmp_path / "out" / "manifest.jsonl", line_with(image="good.tif", outputs={"good_labels.tif": "y"}))
    assert [record.row.image for record in Manifest(tmp_path / "out").records()] == ["good.tif"]
    (remark,) = caplog.messages
    assert "line 1 is no record" in remark


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(json.loads(line_with()))), JSON)
def test_any_value_anywhere_is_a_record_or_none(tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("out")
    append_line(folder / "manifest.jsonl", line_with(**{key: value}))
    for record in Manifest(folder).records():
        assert isinstance(record.row.seconds, float)
        assert all(is_inside(folder, path) for path in record.outputs)


PARTS = st.lists(st.sampled_from(["..", ".", "a", "", "/", "link", "C:", "\\"]), max_size=5)


@settings(deadline=None, max_examples=60)
@given(PARTS)
def test_no_path_leads_out_of_the_folder(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("out")
    (folder / "link").symlink_to("..")
    path = "/".join(parts)
    if is_inside(folder, path):
        assert (folder / path).resolve().is_relative_to(folder.resolve())


HOLDER = """
import sys
from pathlib import Path
from biounet.files import Locks
with Locks(Path(sys.argv[1])) as locks:
    print(locks.try_lock(sys.argv[2]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``a.tif`` in the folder ``out``."""
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out"), "a.tif"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_lock_keeps_others_out_and_ends_with_its_holder(holder, tmp_path):
    stop = Event()
    with Locks(tmp_path / "out", stop) as locks:
        assert not locks.try_lock("a.tif")
        assert locks.try_lock("b.tif")
        stop.set()
        with pytest.raises(Stopped):
            locks.lock("a.tif")
        stop.clear()
        holder.kill()
        locks.lock("a.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
@pytest.mark.parametrize("finished", [True, False])
def test_what_another_process_works_on_is_waited_for(finished, holder, few, untrained, tmp_path):
    """Its record is taken over, or, when it died without one, the image is done here."""
    out, seen = tmp_path / "out", []
    segment_batch(find_images([few]), untrained, tmp_path / "other", BatchOptions(jobs=1))
    record = Manifest(tmp_path / "other").get("a.tif")

    def report(row):
        seen.append(row.image)
        if len(seen) == 2:
            if finished:
                for path in record.outputs:
                    (out / path).write_bytes((tmp_path / "other" / path).read_bytes())
                append_line(out / "manifest.jsonl", (tmp_path / "other" / "manifest.jsonl").read_text().splitlines()[0])
            holder.kill()

    rows = segment_batch(find_images([few]), untrained, out, BatchOptions(jobs=1), report)
    assert seen == ["b.tif", "deep/c.tif", "a.tif"]
    assert [row.image for row in rows] == ["a.tif", "b.tif", "deep/c.tif"]
    assert (rows[0].seconds == record.row.seconds) == finished
