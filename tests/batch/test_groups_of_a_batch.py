"""Means per well and treatment, from the shell: a small plate, some of whose wells fail."""

import json

import numpy as np
import pytest
import tifffile

from biounet.network import save_model
from support.commands import read_rows
from support.images import discs

PATTERN = r"(?P<treatment>\w+)/(?P<well>[A-P]\d+)_"


@pytest.fixture
def plate(tmp_path, untrained):
    """Folder ``in`` of two fields in each of the wells A1 to B3, by treatment, and the model ``m.safetensors``."""
    calibration = {"imagej": True, "resolution": (0.1, 0.1), "metadata": {"unit": "um", "axes": "YX"}}
    for number, well in enumerate(("A1", "A2", "A3", "B1", "B2", "B3")):
        folder = tmp_path / "in" / ("drug" if well[0] == "A" else "none")
        folder.mkdir(parents=True, exist_ok=True)
        for field in (1, 2):
            image, _ = discs((40, 48), 2 + number % 3, 10 * number + field)
            tifffile.imwrite(folder / f"{well}_s{field}.tif", image, **calibration)
    save_model(untrained, tmp_path / "m.safetensors")
    return tmp_path / "in"


def segment(biounet, *options):
    return biounet("segment", "in", "-o", "out", "-m", "m.safetensors", "--jobs", 1, *options)


def test_means_are_over_wells_and_come_from_the_counts(plate, biounet):
    (plate / "drug" / "A3_s2.tif").write_bytes(b"no image")
    code, _, _ = segment(biounet, "--group", PATTERN, "--quiet")
    assert code == 3
    out = plate.parent / "out"
    counts = {row["image"]: int(row["count"]) for row in read_rows(out / "counts.csv") if row["count"]}
    wells = {}
    for name, count in counts.items():
        wells.setdefault(name.split("_")[0], []).append(count)
    means = {well: sum(fields) / len(fields) for well, fields in wells.items()}
    rows = read_rows(out / "groups.csv")
    assert [(row["treatment"], row["well"], row["units"], row["images"], row["failed"]) for row in rows] == [
        ("drug", "", "3", "5", "1"),
        ("none", "", "3", "6", "0"),
        *(("drug", well, "1", "2", "0") for well in ("A1", "A2")),
        ("drug", "A3", "1", "1", "1"),
        *(("none", well, "1", "2", "0") for well in ("B1", "B2", "B3")),
    ]
    for row in rows[:2]:
        of_wells = [mean for well, mean in means.items() if well.startswith(row["treatment"])]
        assert float(row["mean"]) == pytest.approx(sum(of_wells) / 3)
    assert 'id="groups"' in (out / "report.html").read_text()


def test_groups_are_part_of_the_record_and_verified(plate, biounet):
    assert segment(biounet, "--group", PATTERN, "-q")[0] == 0
    out = plate.parent / "out"
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["group"]["names"] == ["treatment", "well"]
    assert "groups.csv" in run["tables"]
    assert biounet("verify", "out", "-m", "m.safetensors", "-q") == (0, "", "")
    (out / "groups.csv").write_text((out / "groups.csv").read_text().replace("drug,A1,", "none,A1,"))
    code, shown, _ = biounet("verify", "out", "-m", "m.safetensors", "-q")
    assert (code, shown) == (3, "groups.csv: differs: its figures are not those of counts.csv\n")


def test_groups_of_results_that_exist_are_added_changed_and_removed_without_segmenting(plate, biounet):
    assert segment(biounet, "-q")[0] == 0
    out = plate.parent / "out"
    lines = len((out / "manifest.jsonl").read_text().splitlines())
    assert not (out / "groups.csv").exists()
    (plate.parent / "wells.csv").write_text(
        "image,well\n" + "".join(f"{path.name},{path.name[:2]}\n" for path in plate.rglob("*.tif"))
    )
    assert segment(biounet, "-q", "--group", "wells.csv")[0] == 0
    assert len(read_rows(out / "groups.csv")) == 7
    assert segment(biounet, "-q", "--group", r"(?P<treatment>\w+)/")[0] == 0
    assert [(row["treatment"], row["unit"], row["units"]) for row in read_rows(out / "groups.csv")] == [
        ("drug", "image", "6"),
        ("none", "image", "6"),
    ]
    assert segment(biounet, "-q")[0] == 0
    assert not (out / "groups.csv").exists()
    assert len((out / "manifest.jsonl").read_text().splitlines()) == lines


@pytest.mark.parametrize(
    ("group", "said"),
    [
        (r"(?P<well>Q\d)", "does not match any of 12 images, such as drug/A1_s1.tif"),
        (r"drug/(?P<well>A\d)", "does not match 6 images: none/B1_s1.tif, none/B1_s2.tif, none/B2_s1.tif and 3 more"),
        ("wells.csv", "cannot be read"),
        (r"[A-P]\d", "without a named group"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_groups_that_do_not_fit_stop_before_the_first_image(plate, biounet, group, said, dry):
    code, shown, err = segment(biounet, "--group", group, *dry)
    assert (code, shown) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (plate.parent / "out").exists()


def test_a_table_of_others_is_not_replaced(plate, biounet):
    out = plate.parent / "out"
    out.mkdir()
    (out / "groups.csv").write_text("image,well\nA1_s1,A1\n")
    code, _, err = segment(biounet, "--group", PATTERN)
    assert code == 2
    assert "groups.csv is there and was not written by biounet" in err
    assert segment(biounet, "-q")[0] == 0
    assert (out / "groups.csv").read_text() == "image,well\nA1_s1,A1\n"


def test_time_points_are_groups_of_their_own(plate, biounet):
    for path in plate.rglob("*.tif"):
        frame = tifffile.imread(path)
        tifffile.imwrite(path, np.stack([frame, frame * 0, frame]), imagej=True, metadata={"axes": "TYX"})
    code, _, err = segment(biounet, "-q", "--frames", "all", "--group", PATTERN)
    assert code == 0, err
    rows = read_rows(plate.parent / "out" / "groups.csv")
    assert [(row["treatment"], row["t"], row["well"], row["images"]) for row in rows[:4]] == [
        ("drug", "0", "", "6"),
        ("drug", "1", "", "6"),
        ("drug", "2", "", "6"),
        ("none", "0", "", "6"),
    ]
    assert len(rows) == 2 * 3 + 6 * 3
    code, _, err = biounet("sample", "out", "--by", "well")
    assert (code, err.count("\n")) == (2, 1)
    assert "time series cannot be sampled" in err
