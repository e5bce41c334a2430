"""Counts summed up by wells and treatments: small tables whose figures can be seen."""

import math

import pytest

from biounet.core import SettingsError
from biounet.measurement.groups import ImageCount, groups_of_names, summarise_groups


def table(columns):
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]


def test_wells_of_two_fields():
    images = {"A2_s1.tif": 4, "A2_s2.tif": 6, "A10_s1.tif": 9}
    names, groups = groups_of_names(images, r"(?P<well>[A-P]\d+)_")
    rows = table(summarise_groups(names, groups, [ImageCount(name, n, 0.5) for name, n in images.items()]))
    assert [(row["well"], row["units"], row["images"], row["count"], row["mean"]) for row in rows] == [
        ("A2", 1, 2, 10, 5.0),
        ("A10", 1, 1, 9, 9.0),
    ]
    assert rows[0]["sd"] == pytest.approx(math.sqrt(2))
    assert rows[0]["sem"] == pytest.approx(1)
    assert [row["density_per_mm2"] for row in rows] == [10, 18]
    assert math.isnan(rows[1]["sd"])


def test_the_mean_of_a_treatment_is_over_wells_not_over_fields():
    images = {"drug/A1_1": 0, "drug/A1_2": 0, "drug/A1_3": 0, "drug/B1_1": 8, "none/A2_1": 5}
    names, groups = groups_of_names(images, r"(?P<treatment>\w+)/(?P<well>[A-P]\d+)")
    rows = table(summarise_groups(names, groups, [ImageCount(name, n) for name, n in images.items()]))
    drug = rows[0]
    assert (drug["treatment"], drug["well"], drug["units"], drug["images"]) == ("drug", "", 2, 4)
    assert (drug["mean"], drug["sd"], drug["sem"]) == (4.0, pytest.approx(math.sqrt(32)), pytest.approx(4))
    assert math.isnan(drug["density_per_mm2"])
    assert [(row["treatment"], row["well"]) for row in rows] == [
        ("drug", ""),
        ("none", ""),
        ("drug", "A1"),
        ("drug", "B1"),
        ("none", "A2"),
    ]


def test_an_image_that_failed_is_in_no_figure():
    names, groups = groups_of_names(["A1_1", "A1_2"], "(?P<well>[A-P][0-9]+)")
    (row,) = table(summarise_groups(names, groups, [ImageCount("A1_2", 3)]))
    assert (row["images"], row["count"]) == (1, 3)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?P<well>[A-H", "no regular expression"),
        (r"[A-H]\d+", "no named group"),
        (r"(?P<well>Q\d+)", "none of the images matches"),
        (r"(?P<well>A\d+)", "1 images do not match: b.tif"),
    ],
)
def test_patterns_that_cannot_be_used(pattern, said):
    with pytest.raises(SettingsError, match="--group") as caught:
        groups_of_names(["A1.tif", "b.tif"], pattern)
    assert said in str(caught.value)
