"""A table that was written in parts is the table that is written at once."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biounet.core import InputError, MachineError
from biounet.reporting import (
    excel_remark,
    join_table_parts,
    part_path,
    table_parts,
    write_joined_table,
    write_partitioned_table,
    write_table,
    write_table_part,
)


def table_of(rows, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=rows) * 10.0 ** rng.integers(-20, 20, rows)
    values[::7] = np.nan
    return {
        "label": np.arange(1, rows + 1),
        "area_um2": values,
        "mean": rng.normal(size=rows).astype(np.float32),
        "touches_border": rng.integers(0, 2, rows).astype(np.bool_),
        "pixels": rng.integers(0, 9, rows).astype(np.uint32),
        "well": np.array([None if n % 5 else f"=A,{n}" for n in range(rows)], object),
    }


def split(columns, folder, count, seed=0):
    """Write the rows in parts of which each has labels of all the table or, every third, none."""
    folder.mkdir()
    owner = np.random.default_rng(seed).integers(0, count, len(columns["label"]))
    owner[owner % 3 == 2] = 0
    for part in range(count):
        write_table_part(folder, part, {name: column[owner == part] for name, column in columns.items()})
    return [part_path(folder, part) for part in reversed(range(count))]


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(table_parts, "_WINDOW", 100)
    monkeypatch.setattr(table_parts, "_GROUP", 10)
    monkeypatch.setattr(table_parts, "_MOST_OPEN", 2)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 900), st.integers(1, 9), st.booleans(), st.integers(0, 9))
def test_a_joined_table_has_the_bytes_of_a_whole_one(tmp_path_factory, rows, count, excel, seed):
    folder, columns = tmp_path_factory.mktemp("t"), table_of(rows, seed)
    parts = split(columns, folder / "parts", count, seed)
    write_table(folder / "whole.csv", columns, excel=excel)
    write_joined_table(folder / "joined.csv", parts, rows, excel=excel)
    assert (folder / "joined.csv").read_bytes() == (folder / "whole.csv").read_bytes()


def test_a_partitioned_table_holds_the_same_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(table_parts, "PARTITION_ROWS", 130)
    columns = table_of(500)
    parts = split(columns, tmp_path / "parts", 5)
    for _ in range(2):  # an earlier one is replaced
        write_partitioned_table(tmp_path / "a_objects.parquet", parts, 500, {"image": "a"})
    files = sorted((tmp_path / "a_objects.parquet").iterdir())
    assert [pq.read_metadata(file).num_rows for file in files] == [130, 130, 130, 110]
    assert [file.name for file in files][:2] == ["part-00000.parquet", "part-00001.parquet"]
    table = pq.read_table(tmp_path / "a_objects.parquet")
    assert table.schema.field("area_um2").metadata == {b"unit": b"um2"}
    np.testing.assert_array_equal(table["area_um2"].to_numpy(), columns["area_um2"])
    assert table["label"].to_pylist() == [*range(1, 501)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_objects.parquet", "parts"]


def test_an_image_without_objects_has_a_table_with_its_columns(tmp_path):
    columns = table_of(0)
    parts = split(columns, tmp_path / "parts", 2)
    write_table(tmp_path / "whole.csv", columns)
    write_joined_table(tmp_path / "joined.csv", parts, 0)
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    write_partitioned_table(tmp_path / "a", parts, 0, {})
    assert pq.read_table(tmp_path / "a").column_names == list(columns)


def test_rows_that_are_missing_or_damaged_are_named(tmp_path):
    columns = table_of(300)
    parts = split(columns, tmp_path / "parts", 4)
    with pytest.raises(InputError, match="no row of object 1 "):
        [*join_table_parts(parts[1:], 300)]
    with pytest.raises(InputError, match="two rows of one object"):
        [*join_table_parts([*parts, parts[-1]], 300)]
    with pytest.raises(InputError, match="holds labels above 299"):
        [*join_table_parts(parts, 299)]
    with pytest.raises(ValueError, match="do not ascend"):
        write_table_part(tmp_path, 1, {"label": np.array([2, 2])})
    write_table_part(tmp_path / "parts", 0, {"label": columns["label"]})
    with pytest.raises(InputError, match="has other columns than"):
        [*join_table_parts(parts, 300)]
    parts[-1].write_bytes(parts[-1].read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-00000000.parquet: a damaged part of a table"):
        [*join_table_parts(parts, 300)]
    parts[-1].unlink()
    with pytest.raises(InputError, match="no such file"):
        write_joined_table(tmp_path / "a.csv", parts, 300)
    with pytest.raises(MachineError, match="make the folder first"):
        write_table_part(tmp_path / "no", 1, columns)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_equal_rows_are_equal_bytes(tmp_path):
    for folder in ("a", "b"):
        split(table_of(200), tmp_path / folder, 3)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_table_that_excel_cuts_is_told():
    assert excel_remark(1_048_575) == ""
    assert "first 1048575 rows" in excel_remark(1_048_576)


def test_parts_may_be_more_than_the_files_that_a_process_may_open(tmp_path):
    resource = pytest.importorskip("resource")
    columns = table_of(2000)
    parts = split(columns, tmp_path / "parts", 300)
    write_table(tmp_path / "whole.csv", columns)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        write_joined_table(tmp_path / "joined.csv", parts, 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (tmp_path / "joined.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
