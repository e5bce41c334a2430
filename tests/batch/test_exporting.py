"""Results in the formats of other programs: written once, beside the labels, and never left of an earlier result."""

import errno
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import roifile
import tifffile
import zarr
from shapely.geometry import shape

import biounet as public
from biounet.batch import exporting
from biounet.files import export_format_names, mapped_labels, temporary_prefix
from biounet.files.exports import formats
from biounet.files.exports.formats import FORMATS
from biounet.model_export import MODEL_FORMATS
from biounet.network import save_model
from support.commands import read_rows
from support.images import discs
from support.qupath import features_for_qupath


@pytest.fixture
def run(tmp_path, untrained, biounet):
    """A folder ``out`` with the results of two images of ``in``, one in a folder of its own."""
    save_model(untrained, tmp_path / "m.safetensors")
    for number, name in enumerate(("a.tif", "sub/b.tif")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _ = discs((40, 48), 4, number)
        tifffile.imwrite(path, image, imagej=True, resolution=(2, 2), metadata={"unit": "um", "axes": "YX"})
    assert segment(biounet)[0] == 0
    return tmp_path / "out"


def segment(biounet, *options):
    return biounet("segment", "in", "-o", "out", "-m", "m.safetensors", "--quiet", "--jobs", 1, *options)


def test_the_table_of_each_image_is_exported_as_it_stands(run, biounet):
    code, out, _ = biounet("export", "out", "--format", "parquet")
    assert (code, out) == (0, "2 files exported; see out/\n")
    for name in ("a", "sub/b"):
        table = pq.read_table(run / f"{name}_objects.parquet").to_pydict()
        rows = read_rows(run / f"{name}_objects.csv")
        assert list(table) == list(rows[0])
        assert table["label"] == [int(row["label"]) for row in rows]
        assert table["area_um2"] == [float(row["area_um2"]) for row in rows]


def test_outlines_for_imagej_are_those_of_the_objects(run, biounet):
    assert biounet("export", "out", "--format", "roi")[0] == 0
    for name in ("a", "sub/b"):
        rows = read_rows(run / f"{name}_objects.csv")
        rois = roifile.roiread(run / f"{name}_rois.zip")
        assert len(rois) == len(rows) > 0
        assert [roi.properties["label"] for roi in rois] == [int(row["label"]) for row in rows]


def test_objects_in_qupath_are_those_of_the_table_also_of_labels_on_the_disk(run, biounet, monkeypatch):
    assert biounet("export", "out", "-f", "geojson,geojson-points")[1].startswith("4 files exported")
    for name in ("a", "sub/b"):
        text = (run / f"{name}_outlines.geojson").read_text()
        rows = read_rows(run / f"{name}_objects.csv")
        for row, feature in zip(rows, features_for_qupath(text), strict=True):
            measured = feature["properties"]["measurements"]
            assert measured == {column: float(value) for column, value in row.items() if value}
            assert shape(feature["geometry"]).area == measured["area_px"]
        assert len(features_for_qupath((run / f"{name}_points.geojson").read_text())) == len(rows)
        (run / f"{name}_outlines.geojson").unlink()
        monkeypatch.setattr(mapped_labels, "_LARGE", 0)
        assert biounet("export", "out", "-f", "geojson")[0] == 0
        assert (run / f"{name}_outlines.geojson").read_text() == text


def test_what_is_there_is_not_written_again(run, biounet):
    biounet("export", "out", "-f", "parquet")
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    (run / "a_objects.parquet").unlink()
    code, out, _ = biounet("export", "out", "-f", "parquet")
    assert (code, out) == (0, "1 file exported, 1 already there; see out/\n")
    path = run / "sub" / "b_objects.parquet"
    assert path.stat().st_mtime_ns == times[path]


def test_segment_exports_as_well_and_a_rerun_adds_what_is_missing(run, biounet):
    assert segment(biounet, "--export", "parquet")[0] == 0
    before = (run / "a_objects.parquet").read_bytes()
    (run / "a_objects.parquet").unlink()
    assert segment(biounet, "--export", "parquet")[0] == 0
    assert (run / "a_objects.parquet").read_bytes() == before


def test_an_export_of_an_earlier_result_goes_with_it(run, biounet):
    biounet("export", "out", "-f", "parquet")
    image, _ = discs((40, 48), 2, 9)
    tifffile.imwrite(run.parent / "in" / "a.tif", image)
    assert segment(biounet)[0] == 0
    assert not (run / "a_objects.parquet").exists()
    assert (run / "sub" / "b_objects.parquet").exists()
    assert segment(biounet, "--export", "parquet")[0] == 0
    assert pq.read_table(run / "a_objects.parquet").num_rows == len(read_rows(run / "a_objects.csv"))


def test_a_file_of_somebody_else_is_kept(run, biounet):
    mine = run / "a_objects.parquet"
    mine.write_bytes(b"mine")
    code, out, _ = biounet("export", "out", "-f", "parquet", "--json")
    assert code == 3
    rows = {row["image"]: row for row in map(json.loads, out.splitlines())}
    assert rows["sub/b.tif"]["status"] == "written"
    assert rows["a.tif"]["message"] == (
        "a_objects.parquet is there and was not written by biounet, or changed since"
        " (hint: move it elsewhere, or replace it with --overwrite)"
    )
    assert mine.read_bytes() == b"mine"
    assert biounet("export", "out", "-f", "parquet", "--overwrite")[0] == 0
    assert mine.read_bytes() != b"mine"


def test_labels_that_somebody_changed_are_not_passed_off_as_the_result(run, biounet):
    path = run / "a_labels.tif"
    biounet("export", "out", "-f", "geojson")
    tifffile.imwrite(path, np.ones_like(tifffile.imread(path)))
    for name in ("parquet", "geojson"):  # which is there, and no longer of these labels
        code, _, err = biounet("export", "out", "-f", name)
        assert code == 3
        assert f"ERROR a.tif as {name}: a_labels.tif is no longer as biounet wrote it" in err
    path.unlink()
    code, _, err = biounet("export", "out", "-f", "parquet")
    assert "ERROR a.tif as parquet: a_labels.tif is no longer there" in err
    assert biounet("export", "out", "-f", "geojson")[:2] == (0, "0 files exported, 2 already there; see out/\n")


def test_a_name_that_is_too_long_for_one_export_fails_alone(tmp_path, run, biounet):
    (tmp_path / "in" / "a.tif").rename(tmp_path / "in" / f"{'a' * 240}.tif")
    assert segment(biounet)[0] == 0
    code, _, err = biounet("export", "out", "-f", "parquet")
    assert code == 3
    assert err.endswith(" as parquet: cannot write: File name too long (hint: choose a shorter name)\n")
    assert (run / "sub" / "b_objects.parquet").exists()


def test_what_a_killed_export_left_goes_with_the_next_one(run, biounet):
    left = [run / f"{temporary_prefix(run / name)}1-1.part" for name in ("a_objects.parquet", "a.ome.zarr")]
    left.append(run / f"{temporary_prefix(run / 'a.ome.zarr')}1-1.old.part")
    left[0].write_bytes(b"half")
    for folder in left[1:]:
        (folder / "labels").mkdir(parents=True)
    other = run / ".notes.part"
    other.write_text("mine")
    assert biounet("export", "out", "-f", "parquet,ome-zarr")[0] == 0
    assert not any(path.exists() for path in left)
    assert other.exists()


def test_a_full_disk_is_one_line_with_a_hint_whichever_library_writes(run, monkeypatch, biounet):
    texts = {"h5ad": "Unable to create file (errno = 28, error\nmessage = 'no')", "ome-zarr": "", "roi": ""}

    def fail(text):
        raise OSError(text) if text else OSError(errno.ENOSPC, "No space left on device")

    for name, text in texts.items():
        full = [replace(one, write=lambda *_, text=text: fail(text)) for one in FORMATS if one.name == name]
        monkeypatch.setattr(exporting, "export_formats", lambda _, full=full: full)
        code, _, err = biounet("export", "out", "-f", name)
        assert code == 5
        assert err.endswith("cannot write: No space left on device (hint: free some space, or choose another folder)\n")
        assert err.count("\n") == 1


def test_verify_tells_of_exports_that_are_missing_or_changed(run, biounet):
    biounet("export", "out", "-f", "parquet")
    (run / "a_objects.parquet").write_bytes(b"")
    (run / "sub" / "b_objects.parquet").unlink()
    code, out, _ = biounet("verify", "out", "-m", "m.safetensors", "--json")
    said = {row["image"]: (row["status"], row["message"]) for row in map(json.loads, out.splitlines())}
    assert code == 3
    assert said["a_objects.parquet"] == ("differs", "it was changed")
    assert said["sub/b_objects.parquet"] == ("missing", "it is not there")
    assert said["a.tif"] == ("same", "")


def test_an_unknown_format_is_an_error_before_the_work(tmp_path, biounet):
    for command in (("export", "out", "-f", "shapefile"), ("segment", "in", "--export", "shapefile")):
        code, out, err = biounet(*command)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("ERROR no export format is called 'shapefile' (hint: there are ")


def test_names_of_formats_are_found_whatever_their_capitals_and_near_ones_are_named(run, biounet):
    assert biounet("export", "out", "-f", "Parquet")[0] == 0
    assert "(hint: did you mean 'geojson'?)" in biounet("export", "out", "-f", "geojsn")[2]


def test_the_help_lists_all_formats(biounet):
    words = set(re.findall(r"[a-z][a-z0-9-]+", re.sub(r"-\s+", "-", biounet("export", "--help")[1])))
    assert {*export_format_names(), *MODEL_FORMATS} <= words


def test_a_folder_without_results_is_an_error(tmp_path, biounet):
    (tmp_path / "empty").mkdir()
    code, _, err = biounet("export", "empty", "-f", "parquet")
    assert code == 5
    assert "no such file" in err


def test_tables_made_harmless_for_spreadsheets_are_exported_as_measured(tmp_path, untrained, biounet):
    save_model(untrained, tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    image, _ = discs((40, 48), 3, 1)
    tifffile.imwrite(tmp_path / "in" / "a.tif", np.stack([image, image]), metadata={"axes": "CYX"})
    options = ("--channels", "DAPI,=GFP", "--channel", "DAPI", "--measure", "all", "--excel", "--export", "parquet")
    assert segment(biounet, *options)[0] == 0
    names = pq.read_table(tmp_path / "out" / "a_objects.parquet").column_names
    assert [name for name in names if "GFP" in name and "'" in name] == []


def test_python_exports_the_same_bytes(run, biounet):
    paths = public.export(run, "parquet")
    assert sorted(path.relative_to(run).as_posix() for path in paths) == ["a_objects.parquet", "sub/b_objects.parquet"]
    before = {path: path.read_bytes() for path in paths}
    assert biounet("export", "out", "-f", "parquet", "--overwrite")[0] == 0
    assert before == {path: path.read_bytes() for path in paths}


def test_records_that_lead_out_of_the_folder_are_ignored(run, biounet):
    biounet("export", "out", "-f", "parquet")
    outside = run.parent / "outside.parquet"
    outside.write_bytes((run / "a_objects.parquet").read_bytes())
    lines = (run / "exports.jsonl").read_text().splitlines()
    entry = json.loads(lines[0]) | {"path": "../outside.parquet"}
    (run / "exports.jsonl").write_text("\n".join([*lines, json.dumps(entry), "{", "[]", '{"path": 1}']) + "\n")
    image, _ = discs((40, 48), 2, 9)
    tifffile.imwrite(run.parent / "in" / "a.tif", image)
    assert segment(biounet)[0] == 0
    assert outside.exists()


def test_a_result_in_python_is_saved_in_other_formats_too(tmp_path, untrained):
    save_model(untrained, tmp_path / "m.safetensors")
    image, _ = discs((40, 48), 4, 1)
    result = public.load(tmp_path / "m.safetensors")(image)[0]
    paths = result.save(tmp_path / "out", "a", export="parquet")
    assert paths[-1] == tmp_path / "out" / "a_objects.parquet"
    assert pq.read_table(paths[-1]).to_pydict()["label"] == result.table["label"].tolist()


def test_the_image_is_exported_with_its_labels_and_labels_alone_once_it_is_gone(run, biounet):
    assert biounet("export", "out", "-f", "ome-zarr")[0] == 0
    assert (run / "sub" / "b.ome.zarr" / "labels" / "cells" / "zarr.json").exists()
    (run.parent / "in" / "a.tif").unlink()
    assert biounet("export", "out", "-f", "ome-zarr")[1] == "0 files exported, 2 already there; see out/\n"
    shutil.rmtree(run / "a.ome.zarr")
    assert biounet("export", "out", "-f", "ome-zarr")[0] == 0
    store = zarr.open_group(run / "a.ome.zarr", mode="r")
    np.testing.assert_array_equal(store["0"][:], tifffile.imread(run / "a_labels.tif"))
    assert "source" not in store.attrs["ome"]["image-label"]


def test_results_are_exported_without_loading_torch(run):
    program = "import sys, biounet.batch as b; b.export_run(__import__('pathlib').Path('out'), ['geojson', 'roi'])"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print('torch' in sys.modules)"],
        cwd=run.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_a_failure_in_the_tables_of_all_images_leaves_the_other_formats(run, biounet, monkeypatch):
    def fail(images, folder):
        raise ValueError("no such cell")

    broken = [replace(one, merge=fail) if one.merge else one for one in formats.FORMATS]
    monkeypatch.setattr(formats, "FORMATS", tuple(broken))
    rows = public_rows(biounet("export", "out", "-f", "cellprofiler,parquet", "--json"))
    assert {row["status"] for row in rows if row["format"] == "parquet"} == {"written"}
    failed = [row for row in rows if row["status"] == "failed"]
    assert failed
    assert all(row["format"] == "cellprofiler" and "no such cell" in row["message"] for row in failed)


def public_rows(done):
    return [json.loads(line) for line in done[1].splitlines()]
