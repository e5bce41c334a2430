"""Counts summed up by wells and treatments: small tables whose figures can be seen."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from biounet.core import SettingsError
from biounet.measurement import ImageCount, decode_grouping, read_grouping, summarise_groups

NO = math.nan


def summary(pattern, counts, **figures):
    grouping = read_grouping(pattern, figures.pop("unit", None))
    images = [ImageCount(name, count, **figures, failed=count is None) for name, count in counts.items()]
    return summarise_groups(grouping, images)


def rows(summary):
    """Rows of groups.csv, without a name for the column of units, and None for NaN."""
    columns = summary.columns()
    cells = zip(*(column.tolist() for name, column in columns.items() if name != "unit"), strict=True)
    return [tuple(None if cell != cell else cell for cell in row) for row in cells]


def test_the_mean_of_a_treatment_is_over_wells_not_over_fields():
    counts = {"drug/A1_1": 0, "drug/A1_2": 0, "drug/A1_3": 0, "drug/B1_1": 8, "none/A2_1": 5, "none/A10_1": None}
    found = summary(r"(?P<treatment>\w+)/(?P<well>[A-P]\d+)", counts)
    assert [*found.columns()] == [
        "treatment",
        "well",
        "unit",
        "units",
        "images",
        "failed",
        "count",
        "mean",
        "sd",
        "sem",
    ]
    assert found.unit == "well"
    assert rows(found) == [
        ("drug", "", 2, 4, 0, 8, 4.0, 5.65685, 4.0),
        ("none", "", 1, 1, 1, 5, 5.0, None, None),
        ("drug", "A1", 1, 3, 0, 0, 0.0, None, None),
        ("drug", "B1", 1, 1, 0, 8, 8.0, None, None),
        ("none", "A2", 1, 1, 0, 5, 5.0, None, None),
        ("none", "A10", 0, 0, 1, 0, None, None, None),
    ]
    assert [row.values for row in found.members(found.groups[0])] == [("drug", "A1"), ("drug", "B1")]


def test_the_order_of_names_in_the_pattern_does_not_matter():
    names = {"A1_drug": 3, "B1_drug": 5}
    found = summary(r"(?P<well>[A-P]\d+)_(?P<treatment>\w+)", names)
    assert found.names == ("treatment", "well")
    assert rows(found)[0][:3] == ("drug", "", 2)


def test_wells_alone_have_a_mean_over_all_of_them():
    found = summary(r"(?P<well>[A-P]\d+)_", {"A1_s1": 4, "A1_s2": 6, "A2_s1": 9})
    assert rows(found) == [
        ("", 2, 3, 0, 19, 7.0, 2.82843, 2.0),
        ("A1", 1, 2, 0, 10, 5.0, None, None),
        ("A2", 1, 1, 0, 9, 9.0, None, None),
    ]


def test_wells_of_two_plates_are_two_wells():
    found = summary(r"(?P<plate>p\d)_(?P<well>[A-P]\d+)_(?P<drug>\w)", {"p1_A1_x": 1, "p2_A1_x": 3})
    assert (found.names, found.unit) == (("drug", "plate", "well"), "plate, well")
    assert rows(found)[0][:5] == ("x", "", "", 2, 2)


def test_without_wells_each_image_is_a_unit():
    found = summary(r"(?P<treatment>[a-z]+)", {"drug1": 2, "drug2": 4, "none1": 1})
    assert found.unit == "image"
    assert rows(found) == [
        ("drug", 2, 2, 0, 6, 3.0, 1.41421, 1.0),
        ("none", 1, 1, 0, 1, 1.0, None, None),
    ]
    assert [row.values for row in found.units] == [("drug", "drug1"), ("drug", "drug2"), ("none", "none1")]


def test_another_unit():
    found = summary(r"(?P<mouse>m\d)_(?P<drug>\w)", {"m1_x": 2, "m1_x2": 4, "m2_x": 9}, unit="mouse")
    assert rows(found)[0][:4] == ("x", "", 2, 3)


def test_time_points_are_groups_of_their_own():
    grouping = read_grouping(r"(?P<well>[A-P]\d+)")
    images = [ImageCount(name, count, time=t) for name in ("A1", "B1") for t, count in enumerate((1, 2, 4))]
    found = summarise_groups(grouping, images)
    assert found.names == ("t", "well")
    assert [row[:5] for row in rows(found)[:3]] == [("0", "", 2, 2, 0), ("1", "", 2, 2, 0), ("2", "", 2, 2, 0)]
    assert [row.mean for row in found.groups] == [1, 2, 4]


def test_density_is_that_of_the_counting_frame_and_of_no_image_without_a_pixel_size():
    found = summary(r"(?P<well>[A-P]\d+)", {"A1_1": 5, "A1_2": 7, "B1_1": 8}, in_frame=4, frame_mm=0.5)
    densities = {name: column.tolist() for name, column in found.columns().items() if name.startswith("density")}
    assert [*densities] == ["density_mean_per_mm2", "density_sd_per_mm2", "density_sem_per_mm2"]
    assert densities["density_mean_per_mm2"] == [8, 8, 8]
    assert densities["density_sd_per_mm2"][0] == 0
    grouping = read_grouping(r"(?P<well>[A-P]\d+)")
    images = [ImageCount("A1_1", 5, 4, 0.5), ImageCount("A1_2", 7, 4), ImageCount("B1", 8, 4, 0.25)]
    found = summarise_groups(grouping, images, dims=3).columns()
    assert found["density_mean_per_mm3"].tolist() == pytest.approx([NO, NO, 16], nan_ok=True)


def test_images_of_which_nothing_is_counted_have_not_failed():
    found = summarise_groups(read_grouping(r"(?P<well>[A-P]\d+)"), [ImageCount("A1", None)])
    assert rows(found)[1][1:6] == (0, 0, 0, 0, None)


def test_a_table_names_images_with_or_without_folder_and_suffix(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("Image;Well;Treatment\np/A1.tif;A1;drug\nA2;A2;none\n\n", encoding="utf-8")
    grouping = read_grouping(table)
    assert grouping.names == ("Well", "Treatment")
    assert [grouping.values(name) for name in ("p/A1.tif", "q/A2.ome.tif", "q/A1.tif")] == [
        ("A1", "drug"),
        ("A2", "none"),
        None,
    ]
    assert read_grouping(str(table), "Well").unit == ("Well",)
    with pytest.raises(SettingsError, match=r"row 'A2' is that of p/A2\.tif and of q/A2\.tif"):
        grouping.check(["p/A2.tif", "q/A2.tif"])


def test_rows_that_name_an_image_twice_agree(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("image,well\np/a.tif,A1\na.tif,A2\n")
    read_grouping(table).check(["p/a.tif", "a.tif"])  # each row has an image of its own
    with pytest.raises(SettingsError, match=r"rows 'p/a\.tif' and 'a\.tif' are both of p/a\.tif, with other groups"):
        read_grouping(table).check(["p/a.tif"])
    table.write_text("image,well\na.tif,A1\na,A1\n")
    read_grouping(table).check(["a.tif"])


@pytest.mark.parametrize("group", [r"(?P<drug>\w)/(?P<well>A\d)", "groups.csv"])
def test_a_grouping_comes_back_from_json(group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("groups.csv").write_text("image,well\na,A1\n")
    grouping = read_grouping(group)
    assert decode_grouping(json.loads(json.dumps(asdict(grouping)))) == grouping
    assert decode_grouping(None) is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?P<well>[A-H", "not a regular expression"),
        (r"[A-H]\d+", "a pattern without a named group"),
        ("wells.csv", "cannot be read"),
        ("(?P<count>[A-H])", "cannot be called 'count'"),
        ("(?P<density_sem_per_mm2>[A-H])", "cannot be called 'density_sem_per_mm2'"),
        ("(?P<density_mean_per_mm3>[A-H])", "cannot be called 'density_mean_per_mm3'"),
    ],
)
def test_groupings_that_cannot_be_used(pattern, said):
    with pytest.raises(SettingsError, match="--group") as caught:
        read_grouping(pattern)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(?P<well>Q\d+)", "does not match any of 5 images, such as A1.tif, b0.tif, b1.tif and 2 more"),
        (r"(?P<well>A\d+)", "does not match 4 images: b0.tif, b1.tif, b2.tif and 1 more"),
        (r"A(?P<well>\d*)|b", "does not match 4 images"),
        (r"(?P<drug>A?)b?(?P<well>\d)", "does not match 4 images: b0.tif"),
    ],
)
def test_images_that_belong_to_no_group(pattern, said):
    with pytest.raises(SettingsError, match="--group") as caught:
        read_grouping(pattern).check(["A1.tif", *(f"b{n}.tif" for n in range(4))])
    assert said in str(caught.value)
    assert "searched in folder and name" in str(caught.value)


def test_a_pattern_that_takes_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr("biounet.measurement.grouping._MOST_SECONDS", 1.0)
    with pytest.raises(SettingsError, match="takes too long"):
        read_grouping(r"(?P<well>(a+)+$)").check(["a" * 60 + ".tif"])
    read_grouping(r"(?P<well>(\w\d)+)").check(["A1\udcff.tif"])  # a name that is no text


def test_a_single_image_that_belongs_to_no_group(tmp_path):
    (tmp_path / "groups.csv").write_text("image,well\na,A1\n")
    with pytest.raises(SettingsError, match=r"the table has no row for the image b\.tif$"):
        read_grouping(tmp_path / "groups.csv").check(["b.tif"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image\na\n", "one with a name for each group"),
        ("name,well\na,A1\n", "expected a CSV with a column image"),
        ("image,well\na,A1\nb,\n", "line 3 has no well"),
        ("image,well\na,A1\na,A2\n", "line 3 names a again, with other groups"),
        ("image,well,well\na,A1,A1\n", "two columns are called well"),
        ("image,Count\na,3\n", "cannot be called 'Count'"),
    ],
)
def test_tables_of_groups_that_cannot_be_used(text, said, tmp_path):
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_grouping(tmp_path / "groups.csv")
    assert said in str(caught.value)
