"""Time series and stacks from the shell to the files: counts over time, tracks, projections, and what is refused."""

import json

import numpy as np
import pytest
import tifffile

import biounet as package
from biounet.synthetic import FieldSettings, MovieSettings, make_movie
from support.commands import read_rows

FIELD = FieldSettings(shape=(128, 128), coverage=0.12, elongation=1.2, diameter_spread=0.1)
CALIBRATION = {"imagej": True, "resolution": (2.0, 2.0)}


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    return make_movie(5, MovieSettings(FIELD, frames=4, step=0.08))[0]


@pytest.fixture
def movie(tmp_path, series):
    metadata = {"axes": "TYX", "unit": "um", "finterval": 30.0}
    tifffile.imwrite(tmp_path / "movie.tif", series, **CALIBRATION, metadata=metadata)
    return tmp_path / "movie.tif"


def test_lab_scientist_counts_over_time(biounet, tmp_path, movie, series):
    """Each frame is as an image of its own; ids are unique over all of them, and tracks go on."""
    (tmp_path / "still.tif").write_bytes(movie.read_bytes())
    code, shown, errors = biounet("segment", "movie.tif", "--frames", "all", "-o", "out", "--jobs", 1)
    assert (code, errors) == (0, "")
    labels, cells = tifffile.imread("out/movie_labels.tif"), read_rows(tmp_path / "out" / "movie_objects.csv")
    model = package.load("nuclei")
    first = 0
    for t, frame in enumerate(series):
        alone = model.segment(frame, spacing=0.5)
        np.testing.assert_array_equal(labels[t], np.where(alone.labels, alone.labels + first, 0))
        rows = [row for row in cells if int(row["t"]) == t]
        assert [int(row["label"]) for row in rows] == [*range(first + 1, first + alone.count + 1)]
        np.testing.assert_allclose([float(row["area_um2"]) for row in rows], alone.table["area_um2"])
        first += alone.count
    counts = read_rows(tmp_path / "out" / "counts.csv")
    assert [(row["image"], int(row["t"])) for row in counts] == [("movie.tif", t) for t in range(4)]
    assert sum(int(row["count"]) for row in counts) == first == len(cells)
    tracks = {row["track"] for row in cells}
    assert {row["tracks"] for row in counts} == {str(len(tracks))}
    assert len(tracks) < first / 3
    with tifffile.TiffFile("out/movie_labels.tif") as tif:
        assert (tif.series[0].axes, tif.imagej_metadata["unit"], tif.imagej_metadata["finterval"]) == ("TYX", "um", 30)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "objects of 4 frames together" in page
    assert "<span>frames <b>all</b></span>" in page
    assert "<title>nuclei: 1 image</title>" in page
    assert f"{first} objects in 4 frames of 1 of 1 images" in shown


def test_batch_operator_resumes_and_verifies_time_series(biounet, tmp_path, movie, series):
    tifffile.imwrite(tmp_path / "image.tif", series[0], **CALIBRATION)
    code, _, _ = biounet("segment", "movie.tif", "--frames", "1:3", "-o", "out", "--json")
    assert code == 0
    before = (tmp_path / "out" / "manifest.jsonl").read_bytes()
    code, shown, _ = biounet("segment", "movie.tif", "--frames", "1:3", "-o", "out", "--json")
    row = json.loads(shown)
    assert [frame["t"] for frame in row["frames"]] == [1, 2]
    assert row["count"] == sum(frame["count"] for frame in row["frames"])
    assert (tmp_path / "out" / "manifest.jsonl").read_bytes() == before
    assert biounet("verify", "out")[:2] == (0, "movie.tif: same\n")
    table = tmp_path / "out" / "counts.csv"
    table.write_text(table.read_text().replace("movie.tif,ok", "movie.tif,empty", 1))
    code, shown, _ = biounet("verify", "out")
    assert (code, "movie.tif, t = 1: status empty, recorded ok" in shown) == (3, True)
    code, _, errors = biounet("segment", "movie.tif", "image.tif", "--frames", "0:2", "-o", "out2")
    assert (code, len(errors.splitlines())) == (3, 1)
    assert "image.tif: frames 0:2: this is not a time series" in errors
    assert [row["t"] for row in read_rows(tmp_path / "out2" / "counts.csv")] == ["", "0", "1"]


def test_objects_that_are_not_followed_are_said_to_be_unlinked(biounet, tmp_path):
    apart = [make_movie(seed, MovieSettings(FIELD, frames=1))[0][0] for seed in range(3)]
    tifffile.imwrite(tmp_path / "wild.tif", np.stack(apart), **CALIBRATION, metadata={"axes": "TYX", "unit": "um"})
    code, shown, _ = biounet("segment", "wild.tif", "--frames", "all", "-o", "out")
    assert (code, "objects are not linked over time: only" in shown) == (0, True)
    rows = read_rows(tmp_path / "out" / "counts.csv")
    assert "objects are not linked over time" in rows[0]["message"]
    assert "tracks" not in rows[0]
    assert {row["track"] for row in read_rows(tmp_path / "out" / "wild_objects.csv")} == {""}


def test_a_stack_is_projected_with_its_measured_channels(biounet, tmp_path, series):
    stack = np.stack([series[0] // 4, series[0], series[0] // 2])
    tifffile.imwrite(tmp_path / "stack.tif", stack, **CALIBRATION, metadata={"axes": "ZYX", "unit": "um"})
    tifffile.imwrite(tmp_path / "plane.tif", series[0], **CALIBRATION, metadata={"axes": "YX", "unit": "um"})
    assert biounet("segment", "plane.tif", "-o", "out", "--no-overlay")[0] == 0
    for how in ("max", "focus"):
        assert biounet("segment", "stack.tif", "--project", how, "-o", how, "--no-overlay")[0] == 0
        expected = tifffile.imread(tmp_path / "out" / "plane_labels.tif")
        np.testing.assert_array_equal(tifffile.imread(tmp_path / how / "stack_labels.tif"), expected)
        assert biounet("verify", how)[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["movie.tif", "--frames", "0:9"], 4, "no frames 0:9: there are 4, from 0 to 3"),
        (["movie.tif", "--frames", "4"], 4, "no frame 4: there are 4, from 0 to 3"),
        (["movie.tif", "--frames", "2:1"], 2, "frames '2:1': all, a number from 0, or start:stop"),
        (["movie.tif"], 4, "4 times (axes TYX, shape 4 x 128 x 128) (hint: choose one with --plane; segment counts"),
        (["image.tif", "--frames", "all"], 4, "frames all: this is not a time series (axes YX"),
        (["image.tif", "--project", "max"], 4, "project 'max': this is not a stack (axes YX"),
        (["movie.tif", "--project", "max", "-m", "nuclei3d"], 2, "project 'max' makes images, and this model is for"),
        (["movie.tif", "--project", "max", "--plane", "1"], 2, "plane 1 is one of the planes"),
        (["movie.tif", "--project", "most"], 2, "'most' is not one of 'max', 'mean', 'focus'"),
    ],
)
def test_what_is_refused_in_one_line(biounet, tmp_path, movie, series, options, code, said):
    tifffile.imwrite(tmp_path / "image.tif", series[0])
    found, _, errors = biounet("segment", *options, "-o", "out")
    assert (found, len(errors.splitlines())) == (code, 1)
    assert said in errors
