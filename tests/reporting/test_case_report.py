"""The page of a volume with lesions: what it says is what the table says, and it loads nothing."""

import csv
import re

import numpy as np
import pytest

from biounet.core import Grid, Volume
from biounet.measurement import measure_lesions
from biounet.reporting import OutputOptions, write_outputs
from biounet.segmentation import Segmentation

AFFINE = ((-1.0, 0, 0, 10.0), (0, -1.0, 0, 10.0), (0, 0, 2.0, 0.0))
REGIONS = {"whole": (1, 2), "core <b>": (2,)}
NAMES = {1: "whole", 2: "core <b>"}


def make_result(grid, notes=()):
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:8, 4:16, 4:20] = 1
    labels[3:6, 6:12, 6:14] = 2
    labels[9:11, 26:30, 26:31] = 1
    table = measure_lesions(labels, REGIONS, grid)
    volume = Volume(np.where(labels, 200, 90).astype(np.uint8)[None], grid)
    return Segmentation(labels, 2, table, volume, notes, class_names=NAMES)


@pytest.fixture
def case(tmp_path):
    """Write the outputs of a volume, and return its page and its table."""

    def write(grid, notes=()):
        write_outputs(make_result(grid, notes), tmp_path, "case", OutputOptions(model="tumour (0123)"))
        with (tmp_path / "case_objects.csv").open(encoding="utf-8") as file:
            return (tmp_path / "case_report.html").read_text(encoding="utf-8"), list(csv.DictReader(file))

    return write


def rows(page, heading):
    """Return the cells of the table below a heading."""
    part = page.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    return [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", part)]


def test_volumes_and_diameters_are_those_of_the_table(case):
    page, table = case(Grid((12, 32, 32), (2.0, 1.0, 1.0), "mm", AFFINE), ("a note & more",))
    whole = [row for row in table if row["class"] == "whole"]
    head, first, core = rows(page, "Volumes")
    assert head == ["region", "volume (mL)", "lesions", "longest diameter (mm)"]
    assert first == [
        "whole",
        f"{float(whole[0]['volume_ml']):.2f}",
        "2",
        f"{float(whole[1]['longest_diameter_mm']):.1f}",
    ]
    assert core[0] == "core &lt;b&gt;"
    lesions = rows(page, "Lesions: whole")
    assert [row[0] for row in lesions[1:]] == ["1", "2"]
    assert lesions[2][1] == f"{float(whole[2]['volume_ml']):.3g}"
    x, y, z = (float(whole[1][f"centroid_{axis}_ras_mm"]) for axis in "xyz")
    assert lesions[1][-1] == f"{'R' if x >= 0 else 'L'} {abs(x):.0f}, {'A' if y >= 0 else 'P'} {abs(y):.0f}, S {z:.0f}"
    assert "<li>a note &amp; more</li>" in page
    assert "model tumour (0123)" in page


def test_without_a_voxel_size_nothing_is_in_millilitres(case):
    page, table = case(Grid((12, 32, 32)))
    assert rows(page, "Volumes")[:2] == [["region", "volume (voxels)", "lesions"], ["whole", table[0]["voxels"], "2"]]
    assert rows(page, "Lesions: whole")[0] == ["lesion", "volume (voxels)"]
    assert "voxel size unknown" in page


def test_it_loads_nothing_and_shows_the_colours_that_are_there(case):
    page, _ = case(Grid((12, 32, 32), (2.0, 1.0, 1.0), "mm", AFFINE))
    assert not re.search(r"https?:|url\(|<script", page)
    assert "default-src &#x27;none&#x27;" in page
    assert page.count('<rect width="12"') == 2
    assert len(page) < 700_000


def test_objects_have_no_such_page(tmp_path):
    from biounet.measurement import measure_objects

    labels = np.ones((4, 5, 6), np.int32)
    volume = Volume(np.ones((1, *labels.shape), np.uint8), Grid(labels.shape))
    table = measure_objects(labels, volume.array, volume.grid, np.ones(1), ("a",))
    paths = write_outputs(Segmentation(labels, 1, table, volume), tmp_path, "x")
    assert [path.name for path in paths] == ["x_objects.csv", "x_overlay.png", "x_labels.tif"]
