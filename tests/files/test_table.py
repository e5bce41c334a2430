"""Tables of pairs as spreadsheets of any country and system write them."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from biounet.core import InputError, Recipe
from biounet.core.recipe import parse_recipe
from biounet.files import find_pairs, pair_files
from biounet.training import check_data

TABLES = {
    "comma": "image,label\ni/a.tif,l/a.tif\n",
    "semicolon": "\ufeffimage;label\r\ni/a.tif;l/a.tif\r\n",
    "blanks": "image, label\ni/a.tif, l/a.tif\n",
    "blanks in quotes": 'image , "label"\n"i/a.tif" , "l/a.tif"\n',
    "capitals": "Image,Label\ni/a.tif,l/a.tif\n",
    "tab": "image\tlabel\ni/a.tif\tl/a.tif\n",
    "backslash": "image,label\ni\\a.tif,l\\a.tif\n",
    "named separator": "sep=;\r\nimage;label\r\ni/a.tif;l/a.tif\r\n",
    "empty rows and columns": ";;\nimage;label;\ni/a.tif;l/a.tif;\n;;\n\n",
    "old Mac": "image,label\ri/a.tif,l/a.tif\r",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name in ("i", "l"):
        (folder / name).mkdir()
    labels = np.zeros((32, 40), np.uint8)
    labels[4:12, 4:12], labels[20:28, 20:28] = 1, 2
    tifffile.imwrite(folder / "i/a.tif", labels * 50 + np.arange(40, dtype=np.uint8))
    tifffile.imwrite(folder / "l/a.tif", labels)
    return folder


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_spreadsheets(folder, name, encoding):
    table = folder / f"{name}.csv"
    table.write_text(TABLES[name].removeprefix("\ufeff" if encoding == "utf-16" else ""), encoding, newline="")
    report = check_data(table, None, Recipe())
    assert report.problems == ()
    assert [row.objects for row in report.rows] == [2]


def test_the_code_page_of_windows(folder):
    (folder / "i/grün.tif").write_bytes((folder / "i/a.tif").read_bytes())
    table = folder / "windows.csv"
    table.write_text("image;label\ni\\grün.tif;l\\a.tif\n", "cp1252")
    assert find_pairs(table)[0].image == folder / "i/grün.tif"


words = st.text(st.sampled_from("aBü7_- "), min_size=1, max_size=6).map(str.strip).filter(bool)


@settings(max_examples=60)
@given(
    names=st.lists(words, min_size=1, max_size=3, unique_by=str.casefold),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    blank=st.sampled_from(["", " "]),
    header=st.sampled_from([["image", "label"], ["IMAGE", "Label"]]),
    slash=st.sampled_from("/\\"),
)
def test_every_dialect_gives_the_same_pairs(tmp_path_factory, names, separator, end, blank, header, slash):
    folder = tmp_path_factory.mktemp("any")
    for part in "il":
        (folder / part).mkdir()
        for name in names:
            (folder / part / f"{name}.tif").touch()
    lines = [header, *([f"{part}{slash}{name}.tif" for part in "il"] for name in names)]
    text = end.join(f"{separator}{blank}".join(line) for line in lines) + end
    (folder / "t.csv").write_text(text, "utf-8", newline="")
    pairs, unpaired = pair_files(folder / "t.csv")
    assert unpaired.problems == ()
    expected = [(folder / "i" / f"{name}.tif", folder / "l" / f"{name}.tif") for name in names]
    assert [(pair.image, pair.label) for pair in pairs] == expected
    (folder / "l" / f"{names[0]}.tif").unlink()
    (problem,) = pair_files(folder / "t.csv")[1].problems
    assert str(problem) == f"{folder / 'l' / names[0]}.tif does not exist"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture;mask\na;b\n", "columns image and label; its first line has: picture;mask"),
        ("picture,mask\na,b\n", "its first line has: picture, mask"),
        ("", "its first line has: nothing"),
        ("image,label\na.tif\n", "line 2 lacks an image or a label"),
        ("image;label\n\na.tif;\n", "line 3 lacks an image or a label"),
        ("image,label\nC:\\data\\a.tif,l/a.tif\n", "of Windows"),
        (
            "image,mask\na.tif,b.tif\n",
            "its first line has: image, mask (hint: call the column of the annotation 'label', not 'mask'",
        ),
        ("image,image,label\na.tif,b.tif,c.tif\n", "two columns are called image"),
        ("image,label\na.tif,b.tif\n\na.tif,c.tif\n", "line 4 names a.tif again, as line 2 does"),
        ("image,label\na.tif,b.tif\na.tif,b.tif\n", "line 3 names a.tif again, as line 2 does"),
        ("PK\3\4 a\0b", "save it as CSV"),
    ],
)
def test_errors_of_tables_name_what_differs(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        find_pairs(tmp_path / "t.csv")
    assert message in str(caught.value)


def test_channels_in_any_capitals(folder):
    (folder / "c.csv").write_text("Case;T1C;Flair;LABEL\n1;i/a.tif;i/a.tif;l/a.tif\n")
    recipe = parse_recipe({"data": {"channels": ["t1c", "flair"]}})
    assert len(find_pairs(folder / "c.csv", None, recipe.data.channels)[0].files()) == 2


def test_names_that_a_mac_spells_in_two_characters(folder):
    for name in ("ä.tif", "o\u0308.tif"):
        (folder / "i" / name).write_bytes((folder / "i/a.tif").read_bytes())
    (folder / "mac.csv").write_text("image,label\ni/a\u0308.tif,l/a.tif\ni/ö.tif,l/a.tif\n", "utf-8")
    assert [pair.image.name for pair in find_pairs(folder / "mac.csv")] == ["ä.tif", "o\u0308.tif"]


def test_a_path_of_another_machine_is_reported_once(folder):
    (folder / "other.csv").write_text("image,label\nC:\\i\\a.tif,C:\\l\\a.tif\ni/a.tif,l/a.tif\n")
    report = check_data(folder / "other.csv", None, Recipe())
    assert len(report.problems) == 2
    assert all("a path of Windows, on another machine" in problem for problem in report.problems)
    assert len(report.rows) == 1
