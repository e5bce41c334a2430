"""The options about objects on the command line: what they drop stands in ``counts.csv``."""

from __future__ import annotations

import json

import tifffile

from biounet.core import sample_folder
from support.commands import read_rows

IMAGE = sample_folder() / "images" / "nuclei.tif"


def test_small_and_cut_cells_are_dropped_and_counted(biounet, tmp_path):
    code, _, err = biounet("segment", IMAGE, "--min-size", "20um2", "--exclude-border", "-o", "out")
    assert (code, err) == (0, "")
    (row,) = read_rows(tmp_path / "out" / "counts.csv")
    cells = read_rows(tmp_path / "out" / "nuclei_objects.csv")
    assert int(row["count"]) == len(cells) > 0
    assert int(row["dropped_min_size"]) > 0
    assert int(row["dropped_exclude_border"]) > 0
    assert "dropped_max_size" not in row
    assert min(float(cell["area_um2"]) for cell in cells) >= 20
    assert {cell["touches_border"] for cell in cells} == {"0"}
    assert biounet("verify", "out")[0] == 0
    code, _, err = biounet("segment", IMAGE, "--min-size", "30um2", "--exclude-border", "-o", "out")
    assert code == 2
    assert "--overwrite" in err


def test_a_size_in_um_fails_for_images_without_pixel_size_and_the_others_are_done(biounet, tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", tifffile.imread(IMAGE)[:64, :64])
    code, _, err = biounet("segment", tmp_path / "plain.tif", IMAGE, "--max-size", "60um2", "-o", "out", "--no-overlay")
    assert code == 3
    assert err.startswith(
        "ERROR plain.tif: a size of 60 µm², but the pixel size is unknown (hint: give it with --spacing"
    )
    rows = {row["image"]: row for row in read_rows(tmp_path / "out" / "counts.csv")}
    assert rows["plain.tif"]["dropped_max_size"] == ""
    assert int(rows["nuclei.tif"]["dropped_max_size"]) > 0


def test_a_size_that_is_none_is_one_line(biounet):
    code, _, err = biounet("segment", IMAGE, "--min-size", "3kg")
    assert code == 2
    assert err == (
        "ERROR min_size '3kg' is not the size of an object "
        "(hint: in pixels or with a unit: 30px, 20um2; in volumes 200um3, 5mm3)\n"
    )


def test_json_has_the_columns_of_the_table(biounet, tmp_path):
    code, out, _ = biounet("segment", IMAGE, "--exclude-border", "--json", "--no-overlay", "-o", "out")
    (row,) = read_rows(tmp_path / "out" / "counts.csv")
    figures = json.loads(out)["figures"]
    assert code == 0
    assert figures["dropped_exclude_border"] == int(row["dropped_exclude_border"])
    assert row.keys() - {"image", "status", "count", "seconds", "message"} == figures.keys()
