"""Images are drawn and counted by hand, and correct the means of their groups: from the shell, on a small plate."""

import csv
import errno
import json
import shutil

import numpy as np
import pytest
import tifffile

import biounet as package
from biounet.batch import BatchOptions, segment_batch
from biounet.core import SettingsError
from biounet.files import find_images
from biounet.measurement import read_grouping
from support.batches import shared_readers
from support.commands import read_rows
from support.images import discs

PATTERN = r"(?P<treatment>\w+)/(?P<well>[A-P]\d+)_"


@pytest.fixture(scope="module")
def done(tmp_path_factory, untrained):
    """Folders ``in`` and ``out`` of six fields in the wells A1 and B1, by treatment; one image failed."""
    folder = tmp_path_factory.mktemp("plate")
    for treatment, well in (("drug", "A1"), ("none", "B1")):
        (folder / "in" / treatment).mkdir(parents=True)
        for field in range(6):
            image, _ = discs((40, 48), 2 + field % 3, 10 * len(treatment) + field)
            tifffile.imwrite(folder / "in" / treatment / f"{well}_s{field}.tif", image)
    (folder / "in" / "none" / "B1_bad.tif").write_bytes(b"no image")
    options = BatchOptions(jobs=1, overlay=False, group=read_grouping(PATTERN), readers=shared_readers())
    segment_batch(find_images([folder / "in"]), untrained, folder / "out", options)
    return folder


@pytest.fixture
def run(done, tmp_path):
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return tmp_path / "out"


def fill_in(table, count_of, drop=()):
    """Write hand counts into a table as a spreadsheet of another country would."""
    rows = read_rows(table)
    for row in rows:
        row["hand"] = count_of(row["image"])
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in rows if row["image"] not in drop)


@pytest.fixture
def counts(run):
    return {row["image"]: int(row["count"]) for row in read_rows(run / "counts.csv") if row["count"]}


def test_a_bias_that_depends_on_the_treatment_is_corrected(run, biounet, counts):
    code, shown, err = biounet("sample", "out", "--n", 4, "--by", "treatment")
    assert (code, err) == (0, "")
    assert shown == "8 images drawn from 2 groups: fill in the column 'hand' of sample.csv, images in sample_images/\n"
    table = run.parent / "sample.csv"
    rows = read_rows(table)
    assert [*rows[0]] == ["image", "treatment", "file", "seed", "of", "hand"]
    assert {(row["treatment"], row["seed"], row["of"], row["hand"]) for row in rows} == {
        ("drug", "1", "6", ""),
        ("none", "1", "6", ""),
    }
    for row in rows:
        copy = run.parent / row["file"]
        assert copy.read_bytes() == (run.parent / "in" / row["image"]).read_bytes()
    extra = {"drug": 5, "none": 0}
    fill_in(table, lambda image: counts[image] + extra[image.split("/")[0]] + (image[-5] == "3"))
    code, shown, err = biounet("correct", "out", "sample.csv", "--json", "--half-width", 0.2)
    assert (code, err) == (0, "")
    for line in shown.splitlines():
        found = json.loads(line)
        automatic = np.mean([count for image, count in counts.items() if image.startswith(found["treatment"])])
        assert found["automatic"] == pytest.approx(automatic)
        assert (
            automatic + extra[found["treatment"]] <= found["corrected"] <= automatic + extra[found["treatment"]] + 0.5
        )
        assert found["low"] <= found["corrected"] <= found["high"]
        assert (found["images"], found["counted"]) == (6, 4)
        assert 2 <= found["needed"] <= 6
    code, shown, _ = biounet("correct", "out", "sample.csv", "-o", "means.csv")
    assert shown.splitlines()[0].split("  ")[0] == "treatment"
    assert [row["treatment"] for row in read_rows(run.parent / "means.csv")] == ["drug", "none"]


def test_python_and_the_shell_draw_the_same(run, biounet):
    assert biounet("sample", "out", "--n", 3, "--seed", 5, "--no-copies", "-q") == (0, "", "")
    drawn = package.sample("out", 3, seed=5)
    assert [row["image"] for row in read_rows(run.parent / "sample.csv")] == [*drawn.images]
    assert not (run.parent / "sample_images").exists()
    assert drawn.images != package.sample("out", 3, seed=6).images
    assert {*package.sample("out", 2, seed=5).images} < {*drawn.images}
    assert len(package.sample("out", 99).images) == 12


def test_pictures_for_counting_show_no_result(run, biounet):
    assert biounet("sample", "out", "--n", 1, "--pictures", "-q")[0] == 0
    (row,) = read_rows(run.parent / "sample.csv")
    from PIL import Image

    picture = np.asarray(Image.open(run.parent / row["file"]))
    assert picture.shape == (40, 48, 3)
    assert (picture == picture[..., :1]).all()  # grey: outlines have colours


def test_a_filled_table_is_not_replaced(run, biounet):
    assert biounet("sample", "out", "-q")[0] == 0
    code, _, err = biounet("sample", "out", "-q")
    assert code == 2
    assert "sample.csv: is there already, and may hold hand counts" in err


def test_intervals_need_nine_hand_counts_and_are_about_the_other_images(run, biounet, counts):
    table = run.parent / "sample.csv"
    package.sample(run, 9, out=table)
    fill_in(table, lambda image: counts[image])
    code, shown, _ = biounet("correct", "out", "sample.csv", "--intervals", "intervals.csv")
    assert code == 0
    assert "90% intervals in intervals.csv: they hold for images like the 9 counted by hand" in shown
    rows = read_rows(run.parent / "intervals.csv")
    assert len(rows) == 12
    for row in rows:
        assert (row["hand"] == "") == (row["count_low"] != "")
        assert row["hand"] or row["count_low"] == row["count"] == row["count_high"]
    others = package.count_intervals(run, table, of=run)
    assert [*others["count_low"]] == [*others["count"]]
    code, _, err = biounet("correct", "out", "sample.csv", "--intervals", "intervals.csv", "--coverage", 0.95)
    assert code == 2
    assert "no interval of 95% can be had from 9 hand-counted images: at least 19 are needed" in err
    assert "(hint: count more by hand, or ask for a lower coverage)" in err


def test_a_table_that_is_not_there_is_one_that_sample_writes(run, biounet):
    code, _, err = biounet("correct", "out", "sampel.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert "'biounet sample' draws images to count, and writes such a table" in err


def test_images_that_were_not_counted_are_said(run, biounet, counts):
    table = run.parent / "sample.csv"
    package.sample(run, 4, by="well", out=table, copies=None)
    blank = read_rows(table)[5]["image"]
    fill_in(table, lambda image: "" if image == blank else counts[image])
    code, _, err = biounet("correct", "out", "sample.csv")
    assert code == 0
    assert f"NOTE 1 drawn images have no hand count ({blank}): the others are a random sample only if" in err
    assert "NOTE all hand counts differ alike from the automatic ones, the interval is too narrow: A1, B1" in err


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["image,hand", "drug/A9_s1.tif,3"], "not in this run: drug/A9_s1.tif"),
        (["image,hand", "none/B1_bad.tif,3"], "these images have no count in this run: none/B1_bad.tif"),
        (["image,hand", "drug/A1_s1.tif,3", "drug/A1_s1.tif,3"], "named more than once: drug/A1_s1.tif"),
        (["image,hand", "drug/A1_s1.tif,many"], "line 2: the hand count 'many' is not a number, 0 or more"),
        (["image,hand", "drug/A1_s1.tif,-1"], "line 2: the hand count '-1' is not a number, 0 or more"),
        (["image,hand", "drug/A1_s1.tif,"], "no hand counts yet"),
        (["image,count", "drug/A1_s1.tif,3"], "expected a CSV with a column hand"),
        (["image,hand", "drug/A1_s1.tif,3"], "does not say how the images were drawn"),
        (["image,seed,of,hand", "drug/A1_s1.tif,1,12,3", "drug/A1_s2.tif,1,12,3"], "are not those that were drawn"),
        (["image,seed,of,hand", "drug/A1_s1.tif,1,11,3"], "were drawn from others than the 12 of this run"),
        (["image,seed,of,hand", "drug/A1_s1.tif,x,12,3"], "seed 'x': not a whole number"),
        (["image,seed,of,hand", f"drug/A1_s1.tif,{'9' * 5000},12,3"], "9…': not a whole number"),
        (["image,hand", "drug/A1_s1.tif,1_0"], "line 2: the hand count '1_0' is not a number, 0 or more"),
        (["image,hand", 'drug/A1_s1.tif,"4,5"'], "line 2: the hand count '4,5' is not a number, 0 or more"),
    ],
)
def test_hand_counts_that_cannot_be_used(run, biounet, lines, said):
    (run.parent / "hand.csv").write_text("\n".join(lines) + "\n")
    code, shown, err = biounet("correct", "out", "hand.csv")
    assert (code, shown, err.count("\n")) == (2, "", 1)
    assert err.startswith("ERROR hand.csv: ")
    assert said in err


@pytest.mark.parametrize("option", ["--out", "--intervals"])
@pytest.mark.parametrize("name", ["hand.csv", "out/counts.csv", "out/run.json"])
def test_a_correction_replaces_no_other_file(run, biounet, option, name):
    images = [row["image"] for row in read_rows(run / "counts.csv") if row["count"]]
    (run.parent / "hand.csv").write_text("image,hand\n" + "".join(f"{image},{n}\n" for n, image in enumerate(images)))
    before = (run.parent / name).read_bytes()
    code, _, err = biounet("correct", "out", "hand.csv", "--drawn-at-random", option, name)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{name}: is there already, and not from 'biounet correct'" in err
    assert (run.parent / name).read_bytes() == before
    for _ in range(2):  # its own tables are written again
        assert biounet("correct", "out", "hand.csv", "--drawn-at-random", option, "table.csv")[0] == 0


def test_a_coverage_is_a_share(run, biounet):
    images = [row["image"] for row in read_rows(run / "counts.csv") if row["count"]]
    (run.parent / "hand.csv").write_text("image,hand\n" + "".join(f"{image},{n}\n" for n, image in enumerate(images)))
    call = ("correct", "out", "hand.csv", "--drawn-at-random", "--intervals", "table.csv", "--coverage")
    code, _, err = biounet(*call, 2)
    assert (code, err) == (2, "ERROR --coverage 2: between 0 and 1, such as 0.9\n")
    assert not (run.parent / "table.csv").exists()


def test_images_that_were_drawn_otherwise_are_believed_when_asked(run, biounet):
    (run.parent / "hand.csv").write_text("image,hand\ndrug/A1_s1.tif,3\ndrug/A1_s2.tif,5\n")
    assert biounet("correct", "out", "hand.csv", "--drawn-at-random")[0] == 0
    code, shown, err = biounet("correct", "out", "hand.csv", "--drawn-at-random", "--by", "well")
    assert (code, err) == (0, "NOTE fewer than two hand counts, not corrected: B1\n")
    assert shown.splitlines()[2].split()[-1] == "-"


def test_unequal_shares_of_other_groups_correct_nothing(run, counts):
    table = run.parent / "sample.csv"
    package.sample(run, 3, by="well", out=table, copies=None)
    fill_in(table, lambda image: counts[image] if image.startswith("drug") else "")
    with pytest.raises(SettingsError, match="unequal shares of well were drawn"):
        package.correct(run, table, by=r"(?P<all>\w)_")


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("animal", "--by animal: this run has no such group, it has treatment, well"),
        (r"(?P<well>Q\d)", "does not match any of 12 images"),
    ],
)
def test_groups_that_are_not_there(run, biounet, by, said):
    code, _, err = biounet("sample", "out", "--by", by)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_a_full_disk_is_said_where_images_are_copied(run, biounet, monkeypatch):
    def no_space(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", no_space)
    code, _, err = biounet("sample", "out", "-q")
    assert (code, err.count("\n")) == (5, 1)
    assert "No space left on device" in err
    assert not (run.parent / "sample.csv").exists()


def test_images_that_are_gone_are_not_copied(run, biounet):
    shutil.rmtree(run.parent / "in" / "drug")
    code, _, err = biounet("sample", "out", "-q")
    assert (code, err.count("\n")) == (4, 1)
    assert "is not there any more" in err
    assert not (run.parent / "sample.csv").exists()
    assert biounet("sample", "out", "-q", "--no-copies")[0] == 0
