"""A folder of results belongs to one model, its settings and its images; what others put there is never touched."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import biounet.batch.recorded_files
import biounet.batch.summary
import biounet.files.atomic
from biounet.batch import batch_exit_code, segment_batch
from biounet.batch.manifest import Manifest
from biounet.batch.names import escape, is_in_shard, unescape
from biounet.batch.records import hash_settings, output_settings
from biounet.batch.results_folder import ResultsFolder
from biounet.core import MachineError, SettingsError
from biounet.files import Locks, atomic_group, find_images, tree_state
from biounet.network import Model
from biounet.segmentation import SegmentOptions
from support.batches import ONE_JOB, OUR_OWN, TABLES, all_files, count_rows, result_files, segment_folder
from support.images import discs
from support.write_faults import fail_at_write

CERTAIN = replace(ONE_JOB, segment=SegmentOptions(foreground=0.9))


@pytest.fixture
def out(few, untrained, tmp_path) -> Path:
    """Folder of the results of three images."""
    segment_folder(few, untrained, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def other(untrained) -> Model:
    """The same network in a file of another hash."""
    return replace(untrained, file_sha256="0" * 64)


def test_another_model_or_other_settings_are_refused_and_nothing_is_touched(few, untrained, other, out):
    before = all_files(out)
    with pytest.raises(SettingsError, match=r"holds results of another model \(.*\) \(hint: .* --overwrite"):
        segment_folder(few, other, out)
    with pytest.raises(SettingsError, match=r"other settings \(foreground 0.5, now 0.9\)"):
        segment_folder(few, untrained, out, CERTAIN)
    assert all_files(out) == before
    (out / ".claims").write_bytes(b"")  # as versions before left it
    for model, options in ((other, ONE_JOB), (untrained, CERTAIN)):
        with pytest.raises(SettingsError, match="holds results of"):
            segment_folder(few, model, out, options)
    assert result_files(out).items() <= before.items()


def test_on_request_new_results_take_the_place_of_old_ones(few, untrained, out, tmp_path):
    larger = untrained.card.label.model_copy(update={"min_size": 10_000})
    options, before = replace(ONE_JOB, segment=SegmentOptions(label=larger)), result_files(out)
    segment_folder(few, untrained, out, replace(options, overwrite=True))
    segment_folder(few, untrained, tmp_path / "fresh", options)
    assert result_files(out) == result_files(tmp_path / "fresh") != before
    assert count_rows(out) == count_rows(tmp_path / "fresh")
    segment_folder(few, untrained, out, options)  # it is its folder now
    with pytest.raises(SettingsError):
        segment_folder(few, untrained, out)


def test_where_nothing_new_comes_out_the_old_stays(few, untrained, out, monkeypatch):
    before = result_files(out)

    def fail(*_):
        raise RuntimeError("no")

    monkeypatch.setattr("biounet.batch.process_image._segment", fail)
    rows = segment_folder(few, untrained, out, replace(CERTAIN, overwrite=True))
    assert batch_exit_code(rows) == 4
    assert result_files(out) == before


def test_a_folder_in_which_nothing_succeeded_is_free(few, untrained, other, tmp_path):
    good = {path: path.read_bytes() for path in few.rglob("*.tif")}
    for path in good:
        path.write_bytes(b"")
    segment_folder(few, other, tmp_path / "out")
    for path, content in good.items():
        path.write_bytes(content)
    assert batch_exit_code(segment_folder(few, untrained, tmp_path / "out")) == 0


def test_a_process_at_work_keeps_others_out_even_before_its_first_result(few, untrained, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    code = "import sys; from pathlib import Path; from biounet.files import Locks\n"
    code += f"locks = Locks(Path({str(out)!r}))\n"
    code += f"locks.append_note({json.dumps({'owner': {'model': 'x', 'settings': {}}})!r})\n"
    code += "locks.enter_folder(exclusive=False); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        peer.stdout.readline()
        for overwrite in (False, True):
            with pytest.raises(SettingsError, match="another process is at work here with another model"):
                segment_folder(few, untrained, out, replace(ONE_JOB, overwrite=overwrite))
        peer.communicate()
    assert batch_exit_code(segment_folder(few, untrained, out)) == 0


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["a_labels.tif", "a_objects.csv", "deep/c_overlay.png"])
def test_what_somebody_put_there_is_one_failed_row(name, overwrite, few, untrained, tmp_path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / name).write_text("mine")
    for _ in range(2):
        rows = segment_folder(few, untrained, out, replace(ONE_JOB, overwrite=overwrite))
        assert [row.status == "failed" for row in rows] == [
            row.image == f"{name[:-4].split('_')[0]}.tif" for row in rows
        ]
        assert "not written by biounet" in next(row.message for row in rows if row.status == "failed")
        assert (out / name).read_text() == "mine"
    (out / name).unlink()
    assert batch_exit_code(segment_folder(few, untrained, out)) == 0


def test_what_was_there_before_a_kill_is_still_somebody_elses(few, untrained, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_labels.tif").write_text("mine")
    (image,) = find_images([few / "a.tif"])
    with Locks(out) as locks:
        protected = ResultsFolder(out, locks, Manifest(out)).note_start(image)
    assert protected == {out / "a_labels.tif"}
    assert [row.status == "failed" for row in segment_folder(few, untrained, out)] == [True, False, False]
    assert (out / "a_labels.tif").read_text() == "mine"


def test_a_label_image_that_somebody_corrected_is_replaced_on_request_only(few, untrained, out, tmp_path):
    whole = result_files(out)
    tifffile.imwrite(out / "b_labels.tif", discs((40, 48), 4, 9)[1])
    corrected = (out / "b_labels.tif").read_bytes()
    rows = segment_folder(few, untrained, out)
    assert [row.status == "failed" for row in rows] == [False, True, False]
    assert "changed since" in rows[1].message
    assert (out / "b_labels.tif").read_bytes() == corrected
    segment_folder(few, untrained, out, replace(ONE_JOB, overwrite=True))
    assert result_files(out) == whole


@pytest.mark.parametrize("name", ["counts.csv", "run.json", "report.html", "manifest.jsonl"])
def test_somebodys_tables_are_refused_before_any_work(name, few, untrained, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}\nmine")
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match=f"out: {name} is there and was not written by biounet"):
            segment_folder(few, untrained, out, replace(ONE_JOB, overwrite=overwrite))
    assert all_files(out) == {name: b"{}\nmine"}


def test_images_of_one_name_from_elsewhere_do_not_take_the_place_of_results(few, untrained, out, tmp_path):
    shutil.copytree(few, tmp_path / "plate2")
    segment_folder(tmp_path / "plate2", untrained, out)  # the same content gives the same results
    tifffile.imwrite(tmp_path / "plate2" / "a.tif", discs((40, 48), 4, 9)[0])
    before = all_files(out)
    with pytest.raises(SettingsError, match=r"other images of these names: .*in/a\.tif"):
        segment_folder(tmp_path / "plate2", untrained, out)
    assert all_files(out) == before
    shutil.rmtree(few)  # they were moved, and then one was changed
    assert batch_exit_code(segment_folder(tmp_path / "plate2", untrained, out)) == 0


def test_a_part_of_the_images_leaves_the_rows_of_the_others(few, untrained, out):
    before = count_rows(out)
    rows = segment_folder(few / "b.tif", untrained, out)
    assert [row.image for row in rows] == ["b.tif"]
    assert count_rows(out) == before


def test_a_row_of_a_failed_image_goes_with_the_image(few, untrained, tmp_path):
    (few / "z.tif").write_bytes(b"")
    (few / "y.tif").symlink_to("nowhere")
    segment_folder(few, untrained, tmp_path / "out")
    segment_folder(few / "a.tif", untrained, tmp_path / "out")
    assert [row[0] for row in count_rows(tmp_path / "out")[1:]] == ["a.tif", "b.tif", "deep/c.tif", "y.tif", "z.tif"]
    (few / "z.tif").unlink()
    (few / "y.tif").unlink()
    segment_folder(few / "a.tif", untrained, tmp_path / "out")
    assert [row[0] for row in count_rows(tmp_path / "out")[1:]] == ["a.tif", "b.tif", "deep/c.tif"]


def test_a_count_that_is_made_up_is_found_out(few, untrained, out):
    before, manifest = count_rows(out), out / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for change in (["count"], ["count", "sizes"]):
        forged = lines[0] | {"count": 2} | ({"sizes": ["area_um2", [1, 2]]} if "sizes" in change else {})
        manifest.write_text("".join(f"{json.dumps(line)}\n" for line in (forged, *lines[1:])))
        segment_folder(few, untrained, out)
        assert count_rows(out) == before


def test_a_forged_manifest_costs_no_file(few, untrained, out):
    (out / "notes.txt").write_text("mine")
    manifest = out / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["outputs"] |= {"notes.txt": "0", "b_labels.tif": "0"}
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    before = result_files(out)
    segment_folder(few, untrained, out)
    assert result_files(out) == before


def test_a_folder_that_is_removed_meanwhile_is_an_error_and_the_same_call_completes(few, untrained, out, tmp_path):
    whole = result_files(out)
    for again in range(3):
        gone = tmp_path / f"out{again}"

        def remove(row, *, when=again, folder=gone):
            if row.image == ["a.tif", "b.tif", "deep/c.tif"][when]:
                shutil.rmtree(folder)

        with pytest.raises(MachineError, match="was removed while the batch ran"):
            segment_batch(find_images([few]), untrained, gone, ONE_JOB, remove)
        segment_folder(few, untrained, gone)
        assert result_files(gone) == whole


def test_a_single_output_that_is_removed_meanwhile_is_an_error(few, untrained, tmp_path):
    def remove(row):
        (tmp_path / "out" / "a_labels.tif").unlink(missing_ok=True)

    with pytest.raises(MachineError, match="makes again what is lost"):
        segment_batch(find_images([few]), untrained, tmp_path / "out", ONE_JOB, remove)
    assert not (tmp_path / "out" / "counts.csv").exists()


def test_an_image_that_comes_in_between_two_shards_is_done_by_the_last(few, untrained, tmp_path):
    out = tmp_path / "out"
    parts = [replace(ONE_JOB, shard=(number, 3)) for number in (3, 1, 2)]
    segment_folder(few, untrained, out, parts[0])
    late = next(f"{number}.tif" for number in range(99) if is_in_shard(f"{number}.tif", (3, 3)))
    tifffile.imwrite(few / late, discs((40, 48), 4, 7)[0])
    rows = [[row.image for row in segment_folder(few, untrained, out, part)] for part in parts[1:]]
    assert rows == [[], [late, "a.tif"]]
    assert len(count_rows(out)) == 5


def test_a_shard_says_what_is_left_to_others(few, untrained, tmp_path, caplog):
    segment_folder(few, untrained, tmp_path / "out", replace(ONE_JOB, shard=(1, 3)))
    assert "3 of 3 images have no result yet: they belong to other shards" in caplog.messages


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 20))
def test_every_image_belongs_to_one_shard_whatever_else_there_is(names, count):
    for name in map(escape, names):
        assert sum(is_in_shard(name, (number, count)) for number in range(1, count + 1)) == 1


def test_only_outputs_whose_time_changed_are_read_and_none_of_other_shards(few, untrained, out, monkeypatch):
    seen = []
    really = biounet.batch.recorded_files.hash_tree
    monkeypatch.setattr(biounet.batch.recorded_files, "hash_tree", lambda path: seen.append(path) or really(path))
    monkeypatch.setattr(biounet.batch.summary, "has_hash", lambda path, sha256: True)
    segment_folder(few, untrained, out)
    assert seen == []
    for path in out.rglob("*_labels.tif"):
        os.utime(path, ns=(1, 1))
    segment_folder(few, untrained, out, replace(ONE_JOB, shard=(1, 3)))
    assert seen == []
    segment_folder(few, untrained, out, replace(ONE_JOB, shard=(2, 3)))
    assert [path.name for path in seen] == ["a_labels.tif"]


def test_tables_are_written_again_only_when_something_changed(few, untrained, out):
    def times():
        return {name: (out / name).stat().st_mtime_ns for name in TABLES}

    before = times()
    segment_folder(few, untrained, out)
    assert times() == before
    (out / "counts.csv").write_text((out / "counts.csv").read_text().replace("a.tif", "A.tif"))
    segment_folder(few, untrained, out)
    assert not times().items() & before.items()
    assert count_rows(out)[1][0] == "a.tif"
    before = times()
    segment_folder(few, untrained, out, replace(ONE_JOB, segment=SegmentOptions(block=64)))
    assert not times().items() & before.items()  # which the report tells


def test_an_output_of_a_folder_is_another_one_when_a_file_in_it_is(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_text("1")
    (tmp_path / "a" / "two").write_text("2")
    states = [tree_state(tmp_path / "a")]
    os.utime(tmp_path / "a" / "b" / "one", ns=(1, 1))
    states.append(tree_state(tmp_path / "a"))
    (tmp_path / "a" / "b" / "one").rename(tmp_path / "a" / "b" / "three")
    states.append(tree_state(tmp_path / "a"))
    (tmp_path / "a" / "empty").mkdir()
    states.append(tree_state(tmp_path / "a"))
    assert len(set(states)) == 4
    assert {size for size, _ in states} == {2}
    assert tree_state(tmp_path / "a") == states[-1]
    assert all(0 <= stamp < 2**63 for _, stamp in states)


TRICKY = st.text(st.sampled_from(["\\", "u", "d", "c", "8", "f", "x", "5", "\udcff", "\udc85", "é"]))


@given(TRICKY | st.text(st.characters(categories=["L", "N", "P", "S", "Cs"])))
def test_an_escaped_name_is_text_and_gives_back_the_name(name):
    escape(name).encode()
    assert unescape(escape(name)) == name


def test_names_that_look_equal_when_escaped_stay_two(few, untrained, tmp_path):
    for name in (b"\xff.tif", rb"\udcff.tif"):
        shutil.copy(few / "a.tif", os.path.join(os.fsencode(few), name))  # noqa: PTH118 - bytes
    rows = segment_folder(few, untrained, tmp_path / "out")
    assert len(rows) == len({row.image for row in rows}) == 5
    assert len(count_rows(tmp_path / "out")) == 6


@pytest.mark.parametrize("number", [22, 84])  # EINVAL, EILSEQ
def test_a_name_that_the_drive_refuses_is_one_failed_row(number, few, untrained, tmp_path, monkeypatch):
    really = biounet.files.atomic.atomic_path

    @contextmanager
    def refuse(final):
        with really(final) as temporary:
            if Path(final).name.startswith("b_"):
                raise OSError(number, os.strerror(number))
            yield temporary

    for module in ("atomic", "write"):
        monkeypatch.setattr(f"biounet.files.{module}.atomic_path", refuse)
    rows = segment_folder(few, untrained, tmp_path / "out")
    assert [row.status == "failed" for row in rows] == [False, True, False]
    assert "rename the image" in rows[1].message


def test_a_full_disk_leaves_the_old_result_whole(few, untrained, out, monkeypatch):
    before = result_files(out)
    for number in range(1, 7):
        tifffile.imwrite(few / "a.tif", discs((40, 48), 4, 9)[0])
        with monkeypatch.context() as disk:
            fail_at_write(number, patch=disk.setattr)
            with pytest.raises(MachineError):
                segment_folder(few / "a.tif", untrained, out)
        now = result_files(out)
        assert now.keys() == before.keys()
        if number <= 4:  # the content of three files, and the first that takes its place
            assert now == before


def test_files_that_belong_together_appear_together(tmp_path):
    (tmp_path / "b").write_text("old")
    seen: set[str] = set()

    def write(then: Callable[[], object]) -> None:
        with atomic_group():
            for name in ("a", "b"):
                biounet.files.atomic.write_text(tmp_path / name, "new")
            then()

    with pytest.raises(ZeroDivisionError):
        write(lambda: 1 / 0)
    assert all_files(tmp_path) == {"b": b"old"}
    write(lambda: seen.update((tmp_path / name).read_text() for name in "b"))
    assert seen == {"old"}
    assert all_files(tmp_path) == {"a": b"new", "b": b"new"}


def test_what_is_waited_for_is_said(untrained, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("biounet.files.locks._WARN_AFTER", 0.2)
    code = "import sys; from pathlib import Path; from biounet.files import Locks\n"
    code += f"locks = Locks(Path({str(tmp_path)!r})); locks.try_lock('x.tif'); locks.try_lock('\\0counts')\n"
    code += "print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        peer.stdout.readline()
        with Locks(tmp_path) as locks:
            Timer(1.0, peer.stdin.close).start()
            locks.lock("x.tif")
            with locks.exclusive("counts"):
                pass
    assert any("x.tif is being worked on by another process" in message for message in caplog.messages)


def test_the_settings_of_a_folder_are_those_of_its_records(untrained, out):
    settings = hash_settings(output_settings(untrained, ONE_JOB))
    assert {record.settings for record in Manifest(out).records()} == {settings}
    assert {path.name for path in out.iterdir() if path.is_file()} >= OUR_OWN
