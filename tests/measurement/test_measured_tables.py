"""Tables: which rows are counted, and CSV files that read back as they were."""

import csv
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from biounet.core import Grid
from biounet.measurement import columns_to_csv, measure_classes, measure_lesions, measure_objects, table, table_kind

LABELS = np.array([[1, 0, 2], [1, 0, 0], [0, 0, 2]], np.uint8)
GRID = Grid(LABELS.shape)


def test_kind_and_counted_rows():
    objects = measure_objects(LABELS, np.empty((0, 3, 3)), GRID, None, [])
    classes = measure_classes(LABELS, ["a", "b"], GRID)
    lesions = measure_lesions(LABELS, {"whole": (1, 2), "b": (2,)}, GRID)
    absent = measure_lesions(LABELS, {"c": (3,), "b": (2,)}, GRID)
    tables = (objects, classes, lesions, absent)
    assert [found.kind for found in tables] == ["objects", "classes", "lesions", "lesions"]
    assert [table_kind(found.columns) for found in tables] == [found.kind for found in tables]
    assert [found.counted.tolist() for found in tables] == [
        [True, True],
        [False, False],
        [False, True, True, True, False, False, False],
        [False, False, False, False],
    ]


def test_csv():
    columns = {
        "name": np.array(["a,b", 'say "x"', None, "two\nlines"], object),
        "n": np.array([1, 2, 3, -4]),
        "x": np.array([0.1, np.nan, 1e300, -0.0]),
        "half": np.array([0.1, 1, 2, np.nan], np.float32),
        "is": np.array([True, False, True, False]),
    }
    assert columns_to_csv(columns) == (
        'name,n,x,half,is\n"a,b",1,0.1,0.1,1\n"say ""x""",2,,1.0,0\n,3,1e+300,2.0,1\n"two\nlines",-4,-0.0,,0\n'
    )


@given(
    hnp.arrays(np.float64, 5, elements=st.floats()),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=5, max_size=5),
)
def test_csv_round_trip(numbers, texts):
    columns = {"x, of all": numbers, "text": np.array(texts, object)}
    header, *rows = csv.reader(io.StringIO(columns_to_csv(columns), newline=""))
    assert header == list(columns)
    np.testing.assert_array_equal([float(x or "nan") for x, _ in rows], numbers)
    assert [text for _, text in rows] == texts


def test_csv_of_one_column_has_no_empty_lines():
    rows = list(csv.reader(io.StringIO(columns_to_csv({"x": np.array([1.5, np.nan])}))))
    assert rows == [["x"], ["1.5"], [""]]


def test_long_tables_are_formatted_like_short_ones(monkeypatch):
    some = np.array([0.1, 1e-7, 1 / 3, 5e-324, 1.7976931348623157e308, np.nan, 123456789.123, -2.5])
    columns = {
        "x": some,
        "half": np.nan_to_num(some).clip(-1, 1).astype(np.float32),
        "is": np.arange(8) % 3 == 0,
        "n": np.arange(8) * 2**40,
        "small": np.arange(8, dtype=np.uint16),
    }
    short = columns_to_csv(columns)
    monkeypatch.setattr(table, "_MANY_ROWS", 8)
    assert columns_to_csv(columns) == short
    text = columns | {"text": np.array(["a"] * 8, object)}
    assert columns_to_csv(text).split("\n")[0] == "x,half,is,n,small,text"


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, 4, elements=st.floats()),
    hnp.arrays(np.float32, 4, elements=st.floats(width=32)),
    hnp.arrays(np.float64, 4, elements=st.floats(-1e20, 1e20).map(np.round)),
    hnp.arrays(np.float16, 4, elements=st.floats(width=16)),
)
def test_numbers_are_formatted_alike_at_any_number_of_rows(double, single, whole, half):
    columns = {"double": double, "single": single, "whole": whole, "half": half, "is": np.arange(4) > 1}
    rows = columns_to_csv(columns).split("\n", 1)[1]
    assert table._rows_by_pyarrow(columns) == rows


def test_large_and_small_numbers_of_any_dtype():
    for dtype in (np.float16, np.float32, np.float64):
        columns = {"x": np.array([1e3, 2e-5, 0.5], dtype), "y": np.array([1e4, 6e4, 0], dtype)}
        rows = columns_to_csv(columns)
        assert rows.startswith("x,y\n1000.0,10000.0\n")
        assert rows == "x,y\n" + table._rows_by_pyarrow(columns)
    large = {"x": np.array([1e6, 1e15, 1e16], np.float32)}
    assert columns_to_csv(large).split() == ["x", "1000000.0", "1000000000000000.0", "1e+16"]


def test_a_long_table_has_one_line_per_row():
    columns = {"n": np.arange(table._MANY_ROWS + 1), "x": np.linspace(0, 1, table._MANY_ROWS + 1)}
    lines = columns_to_csv(columns).split("\n")
    assert lines[0] == "n,x"
    assert lines[1] == "0,0.0"
    assert len(lines) == table._MANY_ROWS + 3
