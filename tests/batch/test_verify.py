"""Results are replayed and compared; a preview says what would be done; both from the shell."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, read_run, segment_batch, verify
from biounet.core import Grid, Volume
from biounet.files import find_images
from biounet.network import save_model
from biounet.segmentation import SegmentOptions, expected_bytes
from support.images import discs


@pytest.fixture
def done(few, untrained, tmp_path, monkeypatch):
    """The folder ``out`` of a batch of three images and one that failed, and the model that made it."""
    monkeypatch.chdir(tmp_path)
    (few / "z.tif").write_bytes(b"")
    save_model(untrained, "m.safetensors")
    segment_batch(find_images(["in"]), untrained, tmp_path / "out", BatchOptions(jobs=1))
    return tmp_path / "out"


@pytest.fixture
def biounet(biounet):
    """Run a command; return exit code, the lines of stdout, and stderr."""

    def run(*arguments):
        code, out, err = biounet(*arguments)
        return code, out.splitlines(), err

    return run


def test_a_batch_is_what_its_inputs_give(done, biounet):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    code, lines, err = biounet("verify", "out", "-m", "m.safetensors")
    assert (code, err) == (0, "")
    assert lines == ["a.tif: same", "b.tif: same", "deep/c.tif: same", "z.tif: same"]
    assert before == {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}


def test_a_ring_of_other_lengths_is_replayed(done, biounet, untrained, tmp_path):
    options = BatchOptions(segment=SegmentOptions(ring="0.5,2um"), jobs=1)
    segment_batch(find_images(["in"]), untrained, tmp_path / "wide", options)
    assert read_run(tmp_path / "wide").options.segment.ring == "0.5,2um"
    assert read_run(done).options.segment.ring is None
    assert biounet("verify", "wide", "-m", "m.safetensors")[0] == 0


def test_what_differs_or_is_missing_is_named(done, biounet, few):
    (done / "a_objects.csv").write_text("label\n")
    (done / "b_labels.tif").unlink()
    tifffile.imwrite(few / "deep" / "c.tif", discs((40, 48), 4, 9)[0])
    tifffile.imwrite(few / "z.tif", discs((40, 48), 4, 9)[0])
    code, lines, _ = biounet("verify", "out", "-m", "m.safetensors")
    assert code == 4
    assert lines == [
        "a.tif: differs: a_objects.csv was changed",
        "b.tif: missing: b_labels.tif",
        "deep/c.tif: differs: its input",
        "z.tif: differs: its input",
    ]


def test_images_that_were_moved_are_found_again(done, biounet, few):
    few.rename(few.with_name("moved"))
    (few.with_name("moved") / "b.tif").unlink()
    code, lines, _ = biounet("verify", "out", "-m", "m.safetensors", "--images", "moved", "--json")
    found = {row["image"]: row["status"] for row in map(json.loads, lines)}
    assert found == {"a.tif": "same", "b.tif": "missing", "deep/c.tif": "same", "z.tif": "same"}
    assert code == 3


def test_another_result_is_not_the_same(done, biounet, untrained, few):
    """What stands on record is made up, and the files are as on record: the replay finds it out."""
    import hashlib

    table = done / "a_objects.csv"
    old, made_up = hashlib.sha256(table.read_bytes()).hexdigest(), b"label\n1\n"
    table.write_bytes(made_up)
    manifest = done / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace(old, hashlib.sha256(made_up).hexdigest()))
    assert biounet("verify", "out", "-m", "m.safetensors")[1][0] == "a.tif: differs: a_objects.csv"


def test_made_up_figures_are_not_those_of_the_image(done, biounet):
    lines = [json.loads(line) for line in (done / "manifest.jsonl").read_text().splitlines()]
    lines[0]["figures"]["count_in_frame"] += 1
    (done / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert biounet("verify", "out", "-m", "m.safetensors")[1][0] == f"{lines[0]['image']}: differs: figures"


def drop_row(out):
    lines = (out / "counts.csv").read_text().splitlines(keepends=True)
    (out / "counts.csv").write_text("".join([*lines[:2], *lines[3:]]))


def edit_row(out):
    lines = [line.split(",") for line in (out / "counts.csv").read_text().splitlines()]
    lines[1][2] = "7"
    (out / "counts.csv").write_text("".join(f"{','.join(line)}\n" for line in lines))


def make_up_row(out):
    with (out / "counts.csv").open("a") as file:
        file.write("x.tif,ok,3,1.0,\n")


def drop_line(out):
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text("".join([lines[0], *lines[2:]]))


def edit_line(out):
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    lines[0] |= {"count": 7, "sizes": None}
    (out / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def edit_run(out):
    raw = json.loads((out / "run.json").read_text())
    raw["manifest"]["not_in_tables"] = ["b.tif"]
    (out / "run.json").write_text(json.dumps(raw))


def add_line(out):
    line = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    line |= {"image": "new.tif", "outputs": {"new_labels.tif": "0"}, "states": []}
    with (out / "manifest.jsonl").open("a") as file:
        file.write(f"{json.dumps(line)}\n")


NOT_AS_IT_WAS = {
    "a row is gone": (drop_row, ["counts.csv: differs: no rows of b.tif"]),
    "a row was edited": (edit_row, ["counts.csv: differs: a.tif: count 7, recorded"]),
    "a row was made up": (make_up_row, ["counts.csv: differs: x.tif is not on record"]),
    "the table is gone": (lambda out: (out / "counts.csv").unlink(), ["counts.csv: missing"]),
    "the table is none": (lambda out: (out / "counts.csv").write_bytes(b"\xff\0"), ["counts.csv: differs: it is no"]),
    "the report is gone": (lambda out: (out / "report.html").unlink(), ["report.html: missing"]),
    "the report was edited": (lambda out: (out / "report.html").write_text("x"), ["report.html: differs"]),
    "a line is gone": (drop_line, ["manifest.jsonl: missing", "counts.csv: differs: b.tif is not on record"]),
    "the manifest is gone": (
        lambda out: (out / "manifest.jsonl").unlink(),
        ["manifest.jsonl: missing: ", "counts.csv: differs: "],
    ),
    "a line was edited": (
        edit_line,
        ["a.tif: differs: status and count", "manifest.jsonl: ", "counts.csv: differs: a.tif: count 1, recorded 7"],
    ),
    "a line was added": (add_line, ["run.json: differs: nothing about new.tif"]),
    "the run was edited": (edit_run, ["counts.csv: differs: b.tif is not on record"]),
}


@pytest.mark.parametrize("name", NOT_AS_IT_WAS)
def test_tables_manifest_and_run_are_compared_with_each_other(name, done, biounet):
    change, expected = NOT_AS_IT_WAS[name]
    change(done)
    code, lines, _ = biounet("verify", "out", "-m", "m.safetensors", "--quiet")
    assert code in (3, 4)
    for begin in expected:
        assert any(line.startswith(begin) for line in lines), lines


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_that_are_no_text_collisions_and_links_are_as_they_were(few, untrained, biounet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(untrained, "m.safetensors")
    (few / "a.tif").rename(few / os.fsdecode(b"\xff.tif"))
    shutil.copy(few / "b.tif", few / "b.ome.tif")
    (few / "link.tif").symlink_to("nowhere")
    assert biounet("segment", "in", "-m", "m.safetensors", "-o", "out", "--quiet")[0] == 3
    for images in ([], ["--images", "in"]):
        code, lines, _ = biounet("verify", "out", "-m", "m.safetensors", *images)
        assert (code, {line.split(": ")[1] for line in lines}, len(lines)) == (0, {"same"}, 5)


def test_a_run_of_an_earlier_version_that_lists_its_images_is_read(done, biounet):
    lines = map(json.loads, (done / "manifest.jsonl").read_text().splitlines())
    names = ("image", "status", "count", "message", "figures", "frames", "outputs")
    raw = json.loads((done / "run.json").read_text())
    del raw["manifest"]
    raw["images"] = [{name: line[name] for name in names} for line in lines]
    (done / "run.json").write_text(json.dumps(raw))
    assert [row.image for row in read_run(done).rows] == ["a.tif", "b.tif", "deep/c.tif", "z.tif"]
    assert biounet("verify", "out", "-m", "m.safetensors")[0] == 0
    raw["images"][0]["count"] = 99
    (done / "run.json").write_text(json.dumps(raw))
    assert (
        "run.json: differs: a.tif: count not as in manifest.jsonl" in biounet("verify", "out", "-m", "m.safetensors")[1]
    )


def test_verify_needs_the_same_model_and_the_record_of_a_run(done, biounet):
    assert "is not built in" in biounet("verify", "out")[2]
    code, _, err = biounet("verify", "out", "-m", "nuclei")
    assert (code, "that of this run" in err) == (5, True)
    for text in ("{", "[]", '{"model": 3}'):
        (done / "run.json").write_text(text)
        code, _, err = biounet("verify", "out", "-m", "m.safetensors")
        assert (code, "not the record of a run" in err) == (4, True)
    (done / "run.json").unlink()
    code, _, err = biounet("verify", "out", "-m", "m.safetensors")
    assert (code, "come to its end" in err) == (5, True)


@pytest.mark.parametrize("command", [("verify",), ("sample",), ("correct", "hand.csv")])
def test_what_is_no_folder_of_results_is_told(biounet, tmp_path, command):
    (tmp_path / "images").mkdir()
    name, *others = command
    code, _, err = biounet(name, "images", *others)
    assert (code, err.splitlines()) == (
        5,
        [
            "ERROR images/run.json: no such file (hint: name a folder of results; 'biounet segment' writes this file"
            " when it has come to its end)"
        ],
    )
    code, _, err = biounet(name, "imagse", *others)
    assert (code, "imagse: no such folder" in err, "'biounet segment' wrote" in err) == (5, True, True)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(few, untrained, biounet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(untrained, "m.safetensors")
    (few / "z.tif").write_bytes(b"")
    code, lines, err = biounet("segment", "in", "-m", "m.safetensors", "--dry-run")
    assert code == 3
    assert err == "ERROR z.tif: empty file\n"
    assert lines[0].split() == ["image", "axes", "shape", "pixel", "size", "memory", "outputs", "notes"]
    assert [line.split()[0] for line in lines[1:]] == ["a.tif", "b.tif", "deep/c.tif"]
    assert "1 x 40 x 48  0.5 x 0.5 µm" in lines[1]
    assert "deep/c_objects.csv, deep/c_overlay.png, deep/c_labels.tif" in lines[3]
    _, lines, _ = biounet("segment", "in", "-m", "m.safetensors", "--dry-run", "--export", "roi,geojson")
    assert "deep/c_labels.tif, deep/c_rois.zip, deep/c_outlines.geojson" in lines[3]
    code, lines, _ = biounet("segment", "in", "-m", "m.safetensors", "--dry-run", "--json")
    assert [json.loads(line)["failed"] for line in lines] == [False, False, False, True]
    assert sorted(os.listdir(tmp_path)) == ["in", "m.safetensors"]  # noqa: PTH208


def test_cells_that_a_spreadsheet_would_run_get_an_apostrophe(untrained, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("=cmd().tif", "-1.tif", "plain.tif"):
        tifffile.imwrite(tmp_path / "in" / name, discs((40, 48), 4, 0)[0])
    images = find_images([tmp_path / "in"])
    names = {}
    for excel in (False, True):
        segment_batch(images, untrained, tmp_path / "out", BatchOptions(excel=excel, overwrite=excel))
        lines = (tmp_path / "out" / "counts.csv").read_text().splitlines()[1:]
        names[excel] = [line.split(",")[0] for line in lines]
    assert sorted(names[False]) == ["-1.tif", "=cmd().tif", "plain.tif"]
    assert sorted(names[True]) == ["'-1.tif", "'=cmd().tif", "plain.tif"]


def test_smaller_blocks_and_smaller_images_take_less_memory(untrained):
    def expected(edge: int, block: int | None) -> int:
        blank = np.broadcast_to(np.zeros((), np.uint16), (1, edge, edge))
        volume = Volume(blank, Grid((edge, edge)))
        return expected_bytes(volume, (1.0, 1.0), untrained, SegmentOptions(block=block), "cpu")

    figures = [expected(500, None), expected(4000, 256), expected(4000, 1024), expected(4000, None)]
    assert figures == sorted(figures)
    assert figures[0] < figures[1] < figures[-1]
    assert figures[0] > 2 * 500 * 500


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/-2"])
def test_a_shard_is_counted_from_one(text, biounet):
    code, _, err = biounet("segment", "nowhere.tif", "--shard", text)
    assert (code, err.startswith(f"ERROR --shard {text}: expected i/n")) == (2, True)


def test_a_run_whose_report_is_a_single_file(few, untrained, tmp_path):
    segment_batch(find_images([few]), untrained, tmp_path / "out", BatchOptions(jobs=1, single_file=True))
    assert "data:image/webp" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert {result.status for result in verify(tmp_path / "out", untrained)} == {"same"}
