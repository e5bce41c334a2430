"""What operators do to a batch: odd names and folders, disks that do not answer, tables edited by hand, subsets."""

import csv
import json
import logging
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from biounet.batch import preview, segment_batch
from biounet.batch.names import natural_name_key
from biounet.batch.recorded_files import InputFile, is_unchanged, recorded_path, resolve_recorded_path
from biounet.batch.replay import verify
from biounet.core import InputError, MachineError, SettingsError
from biounet.files import IsolatedReader, ReaderPool, find_images, hash_file, retry, search_images
from biounet.reporting import make_folder
from support.batches import ONE_JOB, all_files, count_rows, segment_folder, shared_readers
from support.images import discs


@pytest.fixture
def out(few, untrained, tmp_path) -> Path:
    """Folder of the results of three images."""
    segment_folder(few, untrained, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("length", [230, 238, 242, 243, 244, 245, 250, 251])
def test_a_name_too_long_for_its_results_is_one_failed_row(length, few, untrained, tmp_path):
    long = few / f"{'x' * length}.tif"
    long.write_bytes((few / "a.tif").read_bytes())
    for _ in range(2):
        rows = {row.image: row for row in segment_folder(few, untrained, tmp_path / "out")}
        assert [rows[name].status != "failed" for name in ("a.tif", "b.tif", "deep/c.tif")] == [True] * 3
        row = rows[long.name]
        assert (row.status == "failed") == (length + len("_objects.csv") > 255)
        assert row.status != "failed" or "too long" in row.message
    assert len(count_rows(tmp_path / "out")) == 5


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(name="a\rb")
@example(name="a\r\nb")
@example(name='q"uo,te')
@example(name="PLAIN")
@example(name="x" * 250)
@given(name=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=300))
def test_a_batch_goes_on_whatever_one_file_is_called(name, few, untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    tifffile.imwrite(folder / "plain.tif", discs((40, 48), 3, 1)[0])
    try:
        os.link(folder / "plain.tif", folder / f"{name}.tif")
    except OSError:  # no file can be called so
        return
    found, options = find_images([folder]), replace(ONE_JOB, readers=shared_readers())
    rows = segment_batch(found, untrained, folder / "out", options)
    with (folder / "out" / "counts.csv").open(encoding="utf-8", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == sorted(
            (row.image for row in rows), key=natural_name_key
        )
    assert len(rows) == len(found)
    assert next(row for row in rows if row.image == "plain.tif").status != "failed" or name.lower() == "plain"
    assert {checked.status for checked in verify(folder / "out", untrained)} == {"same"}
    failed = {one.image for one in preview(found, untrained, options) if one.failed}
    assert failed == {row.image for row in rows if row.status == "failed"}


@pytest.fixture
def hung(monkeypatch):
    """Let reading of files called ``hang…`` never end, in the processes that read and in this one."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from biounet.files.isolation import worker as rp\n"
        "def late(really):\n"
        "    return lambda path, *rest: time.sleep(1000) if 'hang' in str(path) else really(path, *rest)\n"
        "rp.hash_image, rp.read_header = map(late, (rp.hash_image, rp.read_header))\n"
        "rp.main()\n"
    )
    monkeypatch.setattr("biounet.files.isolation.client._PROGRAM", program)
    really = IsolatedReader.__init__
    monkeypatch.setattr(IsolatedReader, "__init__", lambda self, timeout=0.5, pause=2.0: really(self, timeout, pause))


def test_a_rerun_is_not_held_up_by_an_image_whose_disk_hangs_meanwhile(few, untrained, tmp_path, hung, monkeypatch):
    (few / "b.tif").rename(few / "later.tif")
    segment_folder(few, untrained, tmp_path / "out")

    def hash_output(path):
        assert not path.is_relative_to(few), "an image is read in this process"
        return hash_file(path)

    monkeypatch.setattr("biounet.batch.recorded_files.hash_tree", hash_output)
    os.utime(few / "later.tif", ns=(1, 1))
    with ReaderPool() as readers:
        monkeypatch.setattr(
            readers, "hash_file", lambda path, stop, scene: IsolatedReader(0.5).hash_file(few / "hang.tif", stop)
        )
        (few / "hang.tif").write_bytes((few / "a.tif").read_bytes())
        images = [image for image in find_images([few]) if image.path.name != "hang.tif"]
        rows = segment_batch(images, untrained, tmp_path / "out", replace(ONE_JOB, readers=readers))
    assert [row.status == "failed" for row in rows] == [False] * 3


def test_a_file_that_cannot_be_hashed_is_not_the_same(few):
    def late(path, scene):
        raise InputError("could not be read in 60 s", path=path)

    state = (few / "a.tif").stat()
    known = InputFile("a.tif", state.st_size, state.st_mtime_ns + 1, "0" * 64)
    assert not is_unchanged(few / "a.tif", known, late)
    assert is_unchanged(few / "a.tif", replace(known, mtime_ns=state.st_mtime_ns), late)


def test_a_dry_run_goes_on_behind_an_image_whose_disk_hangs(few, untrained, hung):
    (few / "hang.tif").write_bytes((few / "a.tif").read_bytes())
    seen = {one.image: one for one in preview(find_images([few]), untrained, ONE_JOB)}
    assert [name for name, one in seen.items() if one.failed] == ["hang.tif"]
    assert "could not be read in" in seen["hang.tif"].message
    assert seen["a.tif"].axes.startswith("YX")


def test_a_search_goes_on_behind_a_file_whose_disk_hangs(few, monkeypatch):
    really = Path.open
    free = Event()

    def wait(path, *args, **kwargs):
        if path.name.startswith("hang"):
            free.wait(60)
        return really(path, *args, **kwargs)

    (few / "hang.xyz").write_bytes(b"II*\0")
    monkeypatch.setattr(Path, "open", wait)
    monkeypatch.setattr(retry, "_TIMEOUT", 0.2)
    try:
        found = search_images([few])
    finally:
        free.set()
    assert len(found.images) == 3
    assert [(file.path.name, file.reason) for file in found.skipped] == [("hang.xyz", "the disk does not answer")]


def test_the_first_bytes_and_their_errors_are_those_of_open(tmp_path):
    (tmp_path / "x").write_bytes(b"abcdef")
    assert retry.read_first_bytes(tmp_path / "x", 4) == b"abcd"
    assert retry.read_first_bytes(tmp_path / "x", 40) == b"abcdef"
    for path, error in ((tmp_path / "y", FileNotFoundError), (tmp_path, IsADirectoryError), (Path("a\0b"), ValueError)):
        with pytest.raises(error):
            retry.read_first_bytes(path, 4)


def test_a_user_without_a_home_gets_the_same_results(few, untrained, tmp_path, monkeypatch):
    segment_folder(few, untrained, tmp_path / "with")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])  # as in a container that runs as `--user 12345`
    rows = segment_folder(few, untrained, tmp_path / "out")
    assert all(row.status != "failed" for row in rows)
    assert {checked.status for checked in verify(tmp_path / "out", untrained)} == {"same"}
    path = Path("/data/x.tif")
    assert resolve_recorded_path(recorded_path(path, tmp_path), tmp_path) == path
    assert resolve_recorded_path("~/x.tif", Path("/o")) == Path("/o/~/x.tif")


def test_a_working_folder_that_was_removed_is_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n"
        "from biounet.cli import main; sys.argv = ['biounet', 'segment', 'a.tif']; main()"
    )
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert ran.returncode == 5
    assert ran.stderr.splitlines() == [ran.stderr.strip()]
    assert "is not there" in ran.stderr


@pytest.mark.parametrize("deep", ["", "below"])
def test_a_place_that_is_no_folder_is_named_for_what_it_is(tmp_path, deep):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(MachineError, match=r"it is a file|Not a directory"):
        make_folder(tmp_path / "file" / deep)
    with pytest.raises(MachineError, match="it is a link to nowhere, which is not there"):
        make_folder(tmp_path / "link" / deep)


def test_a_table_with_a_column_of_somebodys_own_is_not_overwritten(few, untrained, out):
    lines = (out / "counts.csv").read_text().splitlines()
    (out / "counts.csv").write_text("".join(f"{line},{'group' if not n else 'A'}\n" for n, line in enumerate(lines)))
    before = all_files(out)
    with pytest.raises(SettingsError, match=r"counts\.csv is there and was not written by biounet"):
        segment_folder(few, untrained, out)
    assert all_files(out) == before


def test_verify_sees_a_report_about_which_nothing_is_on_record(untrained, out):
    raw = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(raw | {"tables": {}}))
    other = {checked.image for checked in verify(out, untrained) if checked.status != "same"}
    assert other == {"counts.csv", "report.html"}


def test_pages_of_a_report_are_files_of_the_run(few, untrained, out, monkeypatch):
    monkeypatch.setattr("biounet.reporting.html_report.PAGE_ROWS", 1)
    (out / "report_3.html").write_text("mine")
    with pytest.raises(SettingsError, match=r"report_3\.html is there and was not written by biounet"):
        segment_folder(few, untrained, out)
    (out / "report_3.html").unlink()
    (out / "report_7.html").write_text("mine")
    segment_folder(few, untrained, out)
    pages = {path.name for path in out.glob("report*.html")}
    assert pages == {"report.html", "report_2.html", "report_3.html", "report_7.html"}
    assert {checked.status for checked in verify(out, untrained)} == {"same"}
    (out / "report_2.html").write_text("x")
    assert {checked.image for checked in verify(out, untrained) if checked.status != "same"} == {"report_2.html"}
    segment_folder(few, untrained, out, replace(ONE_JOB, overlay=False, overwrite=True))
    assert {path.name: path.read_text() for path in out.glob("report_*.html")} == {
        "report_2.html": "x", "report_7.html": "mine",
    }  # fmt: skip


def test_what_an_overwriting_subset_leaves_behind_is_said(few, untrained, out, caplog):
    options = replace(ONE_JOB, overlay=False, overwrite=True)
    with caplog.at_level(logging.WARNING):
        segment_batch(find_images([few / "a.tif"]), untrained, out, options)
    assert (
        "not in the tables, since their results are of other settings or not all there: b.tif, deep/c.tif"
        in caplog.text
    )


def test_a_subset_says_which_images_it_takes_from_the_table_since_files_of_theirs_are_gone(few, untrained, out, caplog):
    (out / "b_labels.tif").unlink()
    with caplog.at_level(logging.WARNING):
        segment_batch(find_images([few / "a.tif"]), untrained, out, ONE_JOB)
    assert "not all there: b.tif" in caplog.text


def test_an_image_that_failed_and_went_keeps_its_row_while_results_of_it_are_there(few, untrained, out):
    (few / "b.tif").write_text("junk")
    segment_folder(few, untrained, out)
    (few / "b.tif").unlink()
    segment_folder(few, untrained, out)
    assert [row[0] for row in count_rows(out)[1:]] == ["a.tif", "b.tif", "deep/c.tif"]
    assert count_rows(out)[2][1] == "failed"
    assert "b.tif" in {checked.image for checked in verify(out, untrained) if checked.status != "same"}
    for path in out.glob("b_*"):
        path.unlink()
    segment_folder(few, untrained, out)
    assert [row[0] for row in count_rows(out)[1:]] == ["a.tif", "deep/c.tif"]
