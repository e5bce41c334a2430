"""Channels on the command line: one is segmented, others are measured, whether in one file or in one file each."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import biounet
from biounet.api import Segmenter
from biounet.core import Volume
from biounet.network import save_model
from support.images import discs

NAMES = ("DAPI", "GFP", "RFP")
FIELD, TRUTH = discs((40, 48), 4, 0)
PLANES = np.stack([FIELD, (FIELD // 3).astype(FIELD.dtype), np.where(TRUTH > 0, 200, 5).astype(FIELD.dtype)])


def write(path, planes, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, planes, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "um", **how})


@pytest.fixture
def run(biounet, untrained, tmp_path):
    """Segment with the small model; return exit code, stdout and stderr."""
    save_model(untrained, tmp_path / "m.safetensors")

    def segment(*arguments):
        return biounet("segment", *arguments, "-m", "m.safetensors", "-o", "out")

    return segment


def columns(path):
    with path.open(newline="") as file:
        return list(zip(*csv.reader(file), strict=True))


def tables(folder):
    """Tables of objects without the names of their files."""
    return [path.read_bytes() for path in sorted(folder.rglob("*_objects.csv"))]


@pytest.fixture
def layouts(tmp_path):
    """The same image in each of the ways to store its channels, with what is typed to segment it."""
    write(tmp_path / "hyper.tif", PLANES, axes="CYX", Labels=list(NAMES))
    write(tmp_path / "unnamed.tif", PLANES, axes="CYX")
    for number, name in enumerate(NAMES):
        write(tmp_path / f"{name}.tif", PLANES[number], axes="YX")
        write(tmp_path / "wells" / f"A01_w{number + 1}.tif", PLANES[number], axes="YX")
        write(tmp_path / "exposures" / f"A01_{name}.tif", PLANES[number], axes="YX")
    return {
        "hyperstack": ["hyper.tif"],
        "names given": ["unnamed.tif", "--channels", "DAPI,GFP,RFP"],
        "files given": [f"{name}={name}.tif" for name in NAMES],
        "numbered files": ["wells", "--channels", "DAPI,GFP,RFP"],
        "named files": ["exposures", "--channels", "DAPI,GFP,RFP"],
    }


def test_all_ways_to_store_channels_give_the_same_table(run, layouts, tmp_path):
    seen = set()
    for what, arguments in layouts.items():
        code, _, err = run(*arguments, "--channel", "DAPI", "--measure", "GFP,RFP")
        assert (code, err) == (0, ""), what
        (table,) = tables(tmp_path / "out")
        seen.add(table)
        shutil.rmtree(tmp_path / "out")
    assert len(seen) == 1
    header = seen.pop().decode().splitlines()[0].split(",")
    assert {f"intensity_mean_{name}" for name in NAMES} <= {*header}


def test_channels_of_files_are_resumed_and_verified(run, layouts, biounet):
    arguments = [*layouts["numbered files"], "--channel", "GFP", "--measure", "all"]
    run(*arguments)
    code, _, _ = run(*arguments)
    assert code == 0
    (record,) = map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())  # of the first run
    assert record["details"]["channels"] == list(NAMES)
    for moved in ([], ["--images", "wells"]):
        code, out, err = biounet("verify", "out", "-m", "m.safetensors", *moved)
        assert (code, err) == (0, "")
        assert "A01: same" in out


def test_the_report_says_which_channel_was_segmented_and_which_were_measured(run, layouts):
    run("hyper.tif", "--channel", "DAPI", "--measure", "GFP,RFP")
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert "<span>channel <b>DAPI</b></span><span>also measured <b>GFP, RFP</b></span>" in page
    assert "channels <b>" not in page


def test_other_names_for_the_same_files_are_another_result(run, layouts, tmp_path):
    choose = ["--channel", "0", "--measure", "1"]
    run("a=DAPI.tif", "b=GFP.tif", *choose)
    run("a=DAPI.tif", "c=GFP.tif", *choose)
    header = [column[0] for column in columns(next((tmp_path / "out").glob("*_objects.csv")))]
    assert "intensity_mean_c" in header
    assert "intensity_mean_b" not in header


def test_an_incomplete_image_fails_and_the_others_are_done(run, layouts, tmp_path, biounet):
    write(tmp_path / "wells" / "A02_w1.tif", PLANES[0], axes="YX")
    code, _, err = run("wells", "--channel", "w1", "--measure", "all")
    assert code == 3
    assert err == "ERROR A02: image 'A02': no file of channel 'w2'; no file of channel 'w3'\n"
    rows = columns(tmp_path / "out" / "counts.csv")
    assert dict(zip(*rows[:2], strict=True)) | {"A01": ""} == {"image": "status", "A01": "", "A02": "failed"}
    code, out, _ = biounet("verify", "out", "-m", "m.safetensors")
    assert (code, "A02: same" in out) == (0, True)


def test_a_dry_run_lists_which_files_are_which_channels(run, layouts):
    code, out, err = run("wells", "--channels", "DAPI,GFP,RFP", "--channel", "DAPI", "--measure", "RFP", "--dry-run")
    assert (code, err) == (0, "")
    assert "DAPI (A01_w1.tif); measured: RFP (A01_w3.tif); not used: GFP (A01_w2.tif)" in out
    code, out, _ = run("wells", "--channel", "w2", "--dry-run", "--json")
    assert json.loads(out)["files"] == {"w1": "A01_w1.tif", "w2": "A01_w2.tif", "w3": "A01_w3.tif"}
    code, out, _ = run("hyper.tif", "--channel", "DAPI", "--measure", "all", "--dry-run")
    assert "DAPI; measured: GFP, RFP" in out


def test_a_folder_without_options_is_segmented_as_it_is_and_one_line_says_how_to_join(run, layouts):
    for more in ((), ("--dry-run",)):
        code, out, err = run("wells", *more)
        assert code == 0
        assert [f"A01_w{n}.tif" in out for n in (1, 2, 3)] == [True] * 3
        assert err.count("\n") == 1
        assert "one image: A01_w1.tif, A01_w2.tif, A01_w3.tif" in err
        assert "--channel w1 --measure all" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "3 channels, the model 'model' expects 1 (intensity) (hint: choose one with --channel: DAPI, GFP, RFP)"),
        (["--channel", "CY5"], "no channel is called 'CY5' (hint: the channels are DAPI, GFP, RFP: give a number"),
        (["--channel", "DAPI", "--measure", "CY5"], "no channel is called 'CY5' (hint: the channels are DAPI, GFP"),
        (["--channel", "3"], "no channel 3: there are 3 (hint: the channels are DAPI, GFP, RFP, counted from 0)"),
        (["--channels", "a,b"], "3 channels, and 2 names (a, b)"),
    ],
    ids=str,
)
def test_a_channel_that_is_not_there_is_one_line(run, layouts, arguments, message):
    code, _, err = run("hyper.tif", *arguments)
    assert code == 4
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--channels", "DAPI,dapi,GFP"], "'DAPI' stands there more than once"),
        (["--channels", "DAPI,"], "an empty name"),
        (["--measure", "GFP,GFP"], "a channel stands there more than once"),
    ],
    ids=str,
)
def test_options_that_no_file_can_have_are_refused_at_once(run, layouts, arguments, message):
    code, _, err = run("hyper.tif", *arguments)
    assert code == 2
    assert message in err


def test_a_grid_that_differs_is_one_line(run, layouts, tmp_path):
    write(tmp_path / "GFP.tif", PLANES[1, :-1], axes="YX")
    code, _, err = run("DAPI=DAPI.tif", "GFP=GFP.tif", "--channel", "DAPI", "--measure", "GFP")
    assert code == 4
    assert "GFP.tif: not on the grid of DAPI.tif: 39 x 48 voxels, not 40 x 48" in err  # which of its files


def test_a_picture_of_grey_in_colours_says_so_and_is_no_reason_to_look(run, tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.dstack([FIELD] * 3), photometric="rgb")
    tifffile.imwrite(tmp_path / "y.tif", FIELD)
    code, _, err = run("x.tif", "y.tif")
    assert (code, err) == (0, "")
    rows = {row[0]: row for row in zip(*columns(tmp_path / "out" / "counts.csv"), strict=True)}
    assert "red, green and blue are equal: read as grey" in rows["x.tif"][-1]
    assert rows["x.tif"][1:3] == rows["y.tif"][1:3]


def test_python_reads_what_the_command_line_reads(untrained, layouts, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    segmenter = Segmenter(untrained)
    expected = segmenter.segment("hyper.tif", channel="DAPI", measure="all", spacing=0.5)
    files = [f"{name}.tif" for name in NAMES]
    given = {
        "files": (files, {"channels": NAMES}),
        "a file for each name": (dict(zip(NAMES, files, strict=True)), {}),
        "an array for each name": (dict(zip(NAMES, PLANES, strict=True)), {}),
        "an array": (PLANES, {"channels": NAMES}),
        "an array with axes": (PLANES.transpose(1, 2, 0), {"channels": NAMES, "axes": "YXC"}),
        "a volume": (Volume(PLANES, expected.volume.grid), {"channels": NAMES}),
    }
    for what, (image, options) in given.items():
        result = segmenter.segment(image, channel="DAPI", measure=["GFP", "RFP"], spacing=0.5, **options)
        assert result.volume.channel_names == ("DAPI",), what
        assert list(result.volume.measured) == ["GFP", "RFP"], what
        assert result.table.equals(expected.table), what


def test_channels_of_a_mapping_must_have_names_that_are_there(untrained, layouts, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    segmenter = Segmenter(untrained)
    mapping = dict(zip(NAMES, PLANES, strict=True))
    with pytest.raises(ValueError, match="the channels are DAPI, GFP, RFP"):
        segmenter.segment(mapping, channel="CY5")
    with pytest.raises(ValueError, match="not on the grid"):
        segmenter.segment(mapping | {"GFP": PLANES[1, 1:]}, channel="DAPI")
    with pytest.raises(ValueError, match="leave channels= out"):
        segmenter.segment(mapping, channels=NAMES)


def test_files_of_channels_are_joined_in_python_as_on_the_command_line(run, untrained, layouts, tmp_path):
    for number in (1, 2, 3):
        write(tmp_path / "wells" / f"A02_w{number}.tif", PLANES[number - 1], axes="YX")
    options = {"channels": NAMES, "channel": "DAPI", "measure": "all"}
    run("wells", "--channels", "DAPI,GFP,RFP", "--channel", "DAPI", "--measure", "all")
    results = Segmenter(untrained)("wells", **options)
    assert [result.name for result in results] == ["A01", "A02"]
    results.save("called")
    biounet.segment_folder("wells", "segmented", "m.safetensors", **options)
    assert len(tables(tmp_path / "out")) == 2
    assert tables(tmp_path / "called") == tables(tmp_path / "segmented") == tables(tmp_path / "out")
