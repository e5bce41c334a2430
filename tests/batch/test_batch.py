"""Many images: one row each, and what fails stays alone."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from biounet.batch import BatchOptions, Row, batch_exit_code, segment_batch
from biounet.core import LabelSettings, MachineError
from biounet.files import ReaderPool, find_images, stem_of
from biounet.segmentation import SegmentOptions
from support.images import discs


@pytest.fixture
def mixed(cell_folder: Path, tmp_path: Path) -> Path:
    """Folder of two good images, one of them deeper, and three bad ones."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(cell_folder / "images" / "field0.tif", folder / "a.tif")
    shutil.copy(cell_folder / "images" / "field1.tif", folder / "deep" / "a.tif")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "page.tif").write_text("<html>not an image</html>")
    tifffile.imwrite(folder / "rgb.tif", np.zeros((30, 30, 3), np.uint8), photometric="rgb")
    return folder


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "counts.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_input_has_a_row_and_bad_ones_have_no_count(segmenter, mixed, tmp_path):
    out = tmp_path / "out"
    rows = segment_batch(find_images([mixed]), segmenter.model, out)
    table = _rows(out)
    assert [row["image"] for row in table] == ["a.tif", "deep/a.tif", "empty.tif", "page.tif", "rgb.tif"]
    assert [row["status"] == "failed" for row in table] == [False, False, True, True, True]
    assert [row["count"] == "" for row in table] == [False, False, True, True, True]
    assert "empty file" in table[2]["message"]
    assert "html" in table[3]["message"]
    assert "3 channels" in table[4]["message"]
    assert batch_exit_code(rows) == 3
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert made == sorted(
        [f"{stem}_{end}" for stem in ("a", "deep/a") for end in ("labels.tif", "objects.csv", "overlay.png")]
        + [f"report_files/{stem}_{end}" for stem in ("a", "deep/a") for end in ("thumb.webp", "view.webp", "view.js")]
        + [".claims", "counts.csv", "manifest.jsonl", "report.html", "run.json"]
    )


def test_tables_labels_and_counts_agree(segmenter, cell_folder, tmp_path):
    rows = segment_batch(find_images([cell_folder / "images"]), segmenter.model, tmp_path)
    for row in rows:
        stem = Path(row.image).stem
        labels = tifffile.imread(tmp_path / f"{stem}_labels.tif")
        with (tmp_path / f"{stem}_objects.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert row.count == len(table) == labels.max() == len(np.unique(labels)) - 1
        areas = np.bincount(labels.ravel())[1:]
        assert [float(line["area_um2"]) for line in table] == pytest.approx(areas * 0.25)


def _results(folder: Path) -> dict[str, bytes]:
    """Return outputs that do not state times."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*_*") if p.is_file()}


def test_the_number_of_jobs_and_a_rerun_change_no_byte(segmenter, cell_folder, tmp_path):
    images = find_images([cell_folder / "images"])
    for name, jobs in (("one", 1), ("three", 3), ("one", 2)):
        segment_batch(images, segmenter.model, tmp_path / name, BatchOptions(jobs=jobs))
    assert _results(tmp_path / "one") == _results(tmp_path / "three")
    assert len(_results(tmp_path / "one")) == 36


def test_the_run_is_recorded(segmenter, mixed, tmp_path):
    segment_batch(find_images([mixed]), segmenter.model, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["model"]["sha256"] == segmenter.model.sha256
    assert record["settings"]["segment"]["label"] == segmenter.card.label.model_dump(by_alias=True)
    assert record["images"] == 5
    first = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[0])["details"]
    assert first["shape"] == [1, 96, 96]
    assert first["spacing"] == [0.5, 0.5]
    assert set(first["seconds"]) == {"normalise", "predict_and_label", "search", "measure", "quality"}
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Areas of objects" in report
    assert segmenter.model.sha256[:12] in report


def test_the_hash_on_record_is_that_of_the_model_file(segmenter, tmp_path):
    import hashlib

    segmenter.save(tmp_path / "m.safetensors")
    assert hashlib.sha256((tmp_path / "m.safetensors").read_bytes()).hexdigest() == segmenter.model.sha256


@pytest.mark.parametrize("odd", [False, True])
def test_an_image_without_cells_is_empty_or_flagged_and_no_error(segmenter, tmp_path, odd):
    tifffile.imwrite(tmp_path / "flat.tif", np.full((64, 64), 100, np.uint16) if odd else discs((64, 64), 6, 1)[0])
    chain = SegmentOptions(label=LabelSettings(min_size=4000))
    found = find_images([tmp_path / "flat.tif"])
    rows = segment_batch(found, segmenter.model, tmp_path / "out", BatchOptions(segment=chain))
    status = "flagged" if odd else "empty"
    assert (rows[0].status, rows[0].count, batch_exit_code(rows)) == (status, 0, 0), rows[0].message
    assert ("constant" in rows[0].message) == odd
    assert (tmp_path / "out" / "flat_objects.csv").read_text().startswith("label,")
    assert tifffile.imread(tmp_path / "out" / "flat_labels.tif").max() == 0


@pytest.mark.parametrize("odd", [False, True])
def test_an_image_is_flagged_for_warnings_and_not_for_information(segmenter, tmp_path, odd):
    """Pixels of unknown size and a channel of transparency are no reason to look at an image; a flat one is."""
    grey = np.full((64, 64), 100, np.uint8) if odd else (discs((64, 64), 6, 1)[0] // 8).astype(np.uint8)
    alpha = np.stack([grey, np.full_like(grey, 255)], -1)
    tifffile.imwrite(tmp_path / "x.tif", alpha, photometric="minisblack", planarconfig="contig", extrasamples=[2])
    chain = SegmentOptions(label=LabelSettings(min_size=4000))
    (row,) = segment_batch(
        find_images([tmp_path / "x.tif"]), segmenter.model, tmp_path / "out", BatchOptions(segment=chain)
    )
    assert "alpha" in row.message
    assert row.status == ("flagged" if odd else "empty")
    record = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    severities = {note["code"]: note["severity"] for note in record["details"]["notes"]}
    assert {code for code, severity in severities.items() if severity == "warning"} == ({"constant"} if odd else set())
    assert severities["voxel_size_unknown"] == severities["alpha_left_out"] == "information"
    with (tmp_path / "out" / "counts.csv").open(newline="") as file:
        (counted,) = csv.DictReader(file)
    assert counted["flags"] == ("constant" if odd else "")


def test_readers_that_were_started_before_serve_several_batches(segmenter, cell_folder, tmp_path):
    images = find_images([cell_folder / "images"])
    with ReaderPool(2) as readers:
        children = {reader._child.pid for reader in readers._readers}
        for name in ("one", "two"):
            rows = segment_batch(images, segmenter.model, tmp_path / name, BatchOptions(jobs=2, readers=readers))
            assert {row.status for row in rows} <= {"ok", "flagged"}
        assert {reader._child.pid for reader in readers._readers} == children
    assert "readers" not in json.loads((tmp_path / "one" / "run.json").read_text())["settings"]


def test_inputs_whose_results_would_have_one_name_fail_alone(untrained, tmp_path):
    image, _ = discs((40, 40), 2, 0)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.tif", "a.ome.tif", "A.tiff", "b.tif", "Straße.tif", "Strasse.tif"):
        tifffile.imwrite(folder / name, image, ome=False)
    rows = segment_batch(find_images([folder]), untrained, tmp_path / "out")
    assert {row.image: row.status == "failed" for row in rows} == {
        "a.tif": True, "a.ome.tif": True, "A.tiff": True, "b.tif": False, "Straße.tif": False, "Strasse.tif": False,
    }  # fmt: skip
    said = {row.image: row.message for row in rows}["a.tif"]
    assert f"those of {folder / 'a.ome.tif'}, {folder / 'A.tiff'} (hint: rename one" in said
    assert batch_exit_code(rows) == 3
    assert sorted(row["image"] for row in _rows(tmp_path / "out")) == sorted(row.image for row in rows)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_cannot_be_written_to(segmenter, cell_folder, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MachineError):
        segment_batch(find_images([cell_folder / "images"]), segmenter.model, tmp_path / "out")


def test_an_output_folder_that_is_a_file(segmenter, cell_folder, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(MachineError, match="out"):
        segment_batch(find_images([cell_folder / "images"]), segmenter.model, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_exit_codes():
    good, bad = (Row("x", status, None, 0.0, "") for status in ("ok", "failed"))
    assert [batch_exit_code(rows) for rows in ([good], [good, bad], [bad, bad])] == [0, 3, 4]


@pytest.mark.parametrize(
    ("name", "stem"), [("a.tif", "a"), ("a.b.tif", "a.b"), ("a.ome.tif", "a"), ("x/a.OME.TIFF", "a")]
)
def test_names_of_results(name, stem):
    assert stem_of(Path(name)) == stem
