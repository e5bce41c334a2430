"""What is done is not done again, what is not is, and whatever stopped a batch, the same call completes it."""

import errno
import itertools
import os
import subprocess
import sys

import pytest
import tifffile

import biounet.batch.manifest
import biounet.batch.runner
from biounet.batch import BatchOptions, batch_exit_code, plan_batch, segment_batch
from biounet.batch.manifest import Manifest
from biounet.core import MachineError
from biounet.files import find_images, temporary_prefix
from biounet.network import save_model
from support import ROOT
from support.batches import count_rows, result_files, segment_folder
from support.images import discs
from support.write_faults import fail_at_write

THREE = [BatchOptions(jobs=1, shard=(number, 3)) for number in (1, 2, 3)]


@pytest.fixture
def worked(monkeypatch) -> list[str]:
    """Names of the images that are worked on, as it happens."""
    names: list[str] = []
    really = biounet.batch.runner.segment_file

    def watched(image, *others):
        names.append(image.relative.as_posix())
        return really(image, *others)

    monkeypatch.setattr(biounet.batch.runner, "segment_file", watched)
    return names


def test_what_is_done_is_not_done_again(few, untrained, tmp_path, worked):
    first = segment_folder(few, untrained, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "run.json"]
    before = {path: path.read_bytes() for path in files}
    again = segment_folder(few, untrained, tmp_path / "out", BatchOptions(jobs=2))
    assert worked == ["a.tif", "b.tif", "deep/c.tif"]
    assert first == again
    assert before == {path: path.read_bytes() for path in before}


def spoil_input(few, out):
    tifffile.imwrite(few / "b.tif", discs((40, 48), 4, 9)[0])


def touch_input(few, out):
    os.utime(few / "b.tif", ns=(1, 1))


def spoil_output(few, out):
    (out / "b_objects.csv").write_text("label\n")


def remove_output(few, out):
    (out / "b_labels.tif").unlink()


def tear_record(few, out):
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text(lines[0] + lines[2] + lines[1][:-20])


@pytest.mark.parametrize("change", [spoil_input, touch_input, spoil_output, remove_output, tear_record])
def test_what_changed_is_done_again_and_nothing_else(change, few, untrained, tmp_path, worked):
    segment_folder(few, untrained, tmp_path / "out")
    change(few, tmp_path / "out")
    worked.clear()
    segment_folder(few, untrained, tmp_path / "out")
    assert worked == ([] if change is touch_input else ["b.tif"])
    segment_folder(few, untrained, tmp_path / "fresh")
    assert result_files(tmp_path / "out") == result_files(tmp_path / "fresh")
    assert count_rows(tmp_path / "out") == count_rows(tmp_path / "fresh")


def test_the_number_of_jobs_is_no_other_setting_and_those_replace_results_on_request_only(
    few, untrained, tmp_path, worked
):
    for options in (BatchOptions(jobs=1), BatchOptions(jobs=2), BatchOptions(jobs=1, overlay=False, overwrite=True)):
        segment_folder(few, untrained, tmp_path / "out", options)
    assert len(worked) == 6
    assert not list((tmp_path / "out").rglob("*_overlay.png"))
    assert not (tmp_path / "out" / "report.html").exists()


def test_what_failed_is_tried_again(few, untrained, tmp_path, worked):
    good = (few / "b.tif").read_bytes()
    (few / "b.tif").write_bytes(good[:100])
    assert batch_exit_code(segment_folder(few, untrained, tmp_path / "out")) == 3
    (few / "b.tif").write_bytes(good)
    worked.clear()
    assert batch_exit_code(segment_folder(few, untrained, tmp_path / "out")) == 0
    assert worked == ["b.tif"]


def test_an_input_that_fails_now_leaves_what_was_there_and_says_so(few, untrained, tmp_path):
    segment_folder(few, untrained, tmp_path / "out")
    before = result_files(tmp_path / "out")
    (few / "b.tif").write_bytes(b"")
    segment_folder(few, untrained, tmp_path / "out")
    assert result_files(tmp_path / "out") == before
    assert count_rows(tmp_path / "out")[2] == (
        "b.tif",
        "failed",
        "",
        "empty file; what an earlier run gave is still there",
    )


def test_what_a_killed_process_left_is_removed(few, untrained, tmp_path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    left = [out / "deep" / "c_labels.tif", out / "counts.csv"]
    left = [path.with_name(f"{temporary_prefix(path)}12-34.part") for path in left]
    mine = out / ".mine.part"
    for path in (*left, mine):
        path.write_text("half")
    segment_folder(few, untrained, out)
    assert [path.exists() for path in (*left, mine)] == [False, False, True]


def test_each_shard_does_its_part_and_the_last_table_holds_all(few, untrained, tmp_path, worked):
    parts = [[row.image for row in segment_folder(few, untrained, tmp_path / "out", shard)] for shard in THREE]
    assert worked == ["a.tif", "b.tif", "deep/c.tif"]
    assert parts == [[], ["a.tif"], ["b.tif", "deep/c.tif"]]
    assert [row[0] for row in count_rows(tmp_path / "out")] == ["image", "a.tif", "b.tif", "deep/c.tif"]


def test_fail_fast_stops_at_the_first_failure(few, untrained, tmp_path, worked):
    (few / "b.tif").write_bytes(b"")
    rows = segment_folder(few, untrained, tmp_path / "out", BatchOptions(jobs=1, fail_fast=True))
    assert worked == ["a.tif", "b.tif"]
    assert batch_exit_code(rows) == 3
    assert [row[:2] for row in count_rows(tmp_path / "out")[1:]] == [("a.tif", "ok"), ("b.tif", "failed")]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_a_name_that_is_no_text_is_escaped_and_done_once(few, untrained, tmp_path, worked):
    name = os.fsdecode(b"\xff\xe9")
    (few / "a.tif").rename(few / f"{name}.tif")
    (few / "b.tif").write_bytes(b"")
    (few / "b.tif").rename(few / f"{name}2.tif")
    for _ in range(2):
        rows = segment_folder(few, untrained, tmp_path / "out")
    assert [row.status == "failed" for row in rows] == [False, True, False]
    assert len(worked) == 4  # the one that failed twice
    assert (tmp_path / "out" / f"{name}_labels.tif").exists()
    assert [row[0] for row in count_rows(tmp_path / "out")[2:]] == ["\\udcff\\udce92.tif", "\\udcff\\udce9.tif"]


def test_a_disk_that_is_full_at_any_write_costs_nothing_that_was_done(few, untrained, tmp_path, monkeypatch):
    segment_folder(few, untrained, tmp_path / "whole")
    whole = result_files(tmp_path / "whole")
    for number in itertools.count(1):
        out = tmp_path / f"out{number}"
        with monkeypatch.context() as disk:
            fail_at_write(number, patch=disk.setattr)
            try:
                segment_folder(few, untrained, out)
            except MachineError as error:
                message = str(error)
            else:
                break
        assert os.strerror(errno.ENOSPC) in message
        assert result_files(out).items() <= whole.items()  # no half file, and no temporary one
        segment_folder(few, untrained, out)
        assert result_files(out) == whole
        assert count_rows(out) == count_rows(tmp_path / "whole")
    assert number == 1 + 3 * (6 * 2 + 1) + 3 * 2  # content and name of each file, and a record for each image


KILLED = """
import itertools, os, sys
import torch
from pathlib import Path
from biounet.batch import segment_batch
from biounet.files import find_images
from biounet.batch import BatchOptions
from biounet.network import load_model
from support.write_faults import fail_at_write
torch.set_num_threads(1)
model, images = load_model(sys.argv[1]), find_images([sys.argv[2]])
segment_batch(images, model, Path(sys.argv[3]) / "warm", BatchOptions(jobs=1))  # imports and compiles for all children
for number in itertools.count(1):
    child = os.fork()
    if not child:
        fail_at_write(number, kill=True)
        segment_batch(images, model, Path(sys.argv[3]) / f"out{number}", BatchOptions(jobs=1))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs to fork")
def test_a_kill_at_any_write_leaves_no_half_file_and_the_same_call_completes(few, untrained, tmp_path):
    segment_folder(few, untrained, tmp_path / "whole")
    whole = result_files(tmp_path / "whole")
    save_model(untrained, tmp_path / "m.safetensors")
    command = [sys.executable, "-c", KILLED, tmp_path / "m.safetensors", few, tmp_path]
    helpers = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, "PYTHONPATH": helpers})
    outs = sorted(tmp_path.glob("out*"))
    assert len(outs) == 1 + 3 * (6 * 2 + 1) + 3 * 2
    for out in outs:
        left = {name: data for name, data in result_files(out).items() if not name.endswith(".part")}
        assert left.items() <= whole.items()
        segment_folder(few, untrained, out)
        assert result_files(out) == whole
        assert count_rows(out) == count_rows(tmp_path / "whole")
        assert len(Manifest(out).names()) == 3


def test_the_plan_counts_what_is_done_by_records_and_files(few, untrained, tmp_path):
    out, options = tmp_path / "out", BatchOptions(jobs=1)
    segment_folder(few, untrained, out, options)
    images, manifest = find_images([few]), out / "manifest.jsonl"
    assert plan_batch(images, untrained, out, options).done == {"a.tif", "b.tif", "deep/c.tif"}
    (out / "b_labels.tif").unlink()
    assert plan_batch(images, untrained, out, options).done == {"a.tif", "deep/c.tif"}
    with manifest.open("a") as file:
        file.write('{"biounet": 1, "image": "a.tif", "status": "ok", "outputs": 7}\n')
    assert plan_batch(images, untrained, out, options).done == {"deep/c.tif"}
    assert plan_batch(images, untrained, out, BatchOptions(jobs=1, overlay=False)).done == frozenset()


def test_a_rerun_reads_each_record_once(few, untrained, tmp_path, monkeypatch):
    segment_folder(few, untrained, tmp_path / "out")
    decoded: list[str] = []
    really = biounet.batch.manifest.decode_lines

    def watched(lines):
        record = really(lines)
        decoded.append(record.row.image)
        return record

    monkeypatch.setattr(biounet.batch.manifest, "decode_lines", watched)
    images = find_images([few])
    rows = segment_batch(images, untrained, tmp_path / "out", BatchOptions(jobs=1))
    assert sorted(decoded) == ["a.tif", "b.tif", "deep/c.tif"]
    assert [row.image for row in rows] == ["a.tif", "b.tif", "deep/c.tif"]
