"""Folders from Python: the same files as the command writes, and the same figures."""

import json

import pytest

import biounet as package
from biounet.api import Segmenter
from biounet.core import InputError, Recipe, SettingsError


@pytest.fixture
def model(untrained, tmp_path):
    path = tmp_path / "model.safetensors"
    Segmenter(untrained).save(path)
    return path


def contents(folder):
    """What a folder of results holds, but for the files that have times in them."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in ("manifest.jsonl", "run.json", ".claims", "counts.csv", "report.html"):
        found.pop(name, None)
    return {name: data for name, data in found.items() if not name.startswith("report_files/")}


def test_a_folder_gives_the_bytes_of_the_command(biounet, few, model, tmp_path):
    knobs = ("--min-size", "9px", "--exclude-border")
    code, _, _ = biounet("segment", few, "-o", tmp_path / "command", "-m", model, *knobs)
    table = package.segment_folder(few, tmp_path / "python", model, min_size="9px", exclude_border=True)
    assert code == 0
    assert contents(tmp_path / "python") == contents(tmp_path / "command")
    runs = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("python", "command")]
    assert runs[0]["settings_sha256"] == runs[1]["settings_sha256"]
    assert table["image"].tolist() == ["a.tif", "b.tif", "deep/c.tif"]
    assert table["count"].dtype == "Int64"
    header = (tmp_path / "python" / "counts.csv").read_text().splitlines()[0]
    assert ",".join(table.columns) == header


def test_results_of_a_call_are_those_of_a_folder(few, model, tmp_path):
    package.segment_folder(few, tmp_path / "folder", package.load(model))
    package.load(model)(few).save(tmp_path / "results")
    assert contents(tmp_path / "results") == contents(tmp_path / "folder")


def test_images_that_fail_have_a_row_and_a_warning(few, model, tmp_path, caplog):
    (few / "broken.tif").write_bytes(b"II*\0 and no more")
    table = package.segment_folder([few], tmp_path / "out", model, overlay=False)
    assert table.set_index("image")["status"]["broken.tif"] == "failed"
    assert table["count"].isna().sum() == 1
    assert "1 of 4 images failed: broken.tif" in caplog.text


def test_a_path_is_that_of_a_table_of_groups(few, model, tmp_path):
    (tmp_path / "groups").write_text("image,well\na.tif,A1\nb.tif,A1\nc.tif,A2\n")
    package.segment_folder(few, tmp_path / "out", model, group=tmp_path / "groups", overlay=False)
    assert "A2" in (tmp_path / "out" / "groups.csv").read_text()


def test_what_no_folder_can_have_is_refused(few, model, tmp_path):
    for keywords, cause in [
        ({"min_sise": 3}, "no keyword is called 'min_sise' .*min_size"),
        ({"unit": "well"}, "unit without group"),
        ({"shard": (3, 2)}, "shard 3 of 2"),
        ({"min_size": "many"}, "min_size"),
    ]:
        with pytest.raises(SettingsError, match=cause):
            package.segment_folder(few, tmp_path / "out", model, **keywords)
    with pytest.raises(InputError, match="no such file"):
        package.segment_folder(few / "nowhere", tmp_path / "out", model)


def test_two_folders_are_compared(biounet, cell_folder, model, tmp_path):
    package.segment_folder(cell_folder / "images", tmp_path / "out", model, overlay=False)
    figures = package.evaluate(tmp_path / "out", str(cell_folder / "labels"))
    _, shown, _ = biounet("evaluate", tmp_path / "out", cell_folder / "labels", "--json")
    assert figures.as_dict() == json.loads(shown)
    assert package.evaluate(tmp_path / "out", cell_folder / "labels", Recipe()).ap == figures.ap
    with pytest.raises(SettingsError, match="nuclei_2d"):
        package.evaluate(tmp_path / "out", cell_folder / "labels", "nuclei_2")
