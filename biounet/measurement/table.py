r"""Tables of measurements, and the CSV files they are written to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.measurement.borders import Boxes

Columns = dict[str, NDArray[Any]]
"""Arrays of one length by the names of their columns."""

TableKind = Literal["objects", "classes", "lesions"]
"""What a row is about: an object; a class or region; a region or one of its lesions."""

_MANY_ROWS = 20_000  # from which pyarrow, which takes 0.1 s to import, is faster than Python
_EXPONENT_FROM, _EXPONENT_BELOW = 1e16, 1e-4  # Python writes larger and smaller numbers with an exponent


SIZE_COLUMNS = ("area_um2", "area_mm2", "volume_um3", "volume_mm3", "area_px", "volume_px", "voxels", "pixels")
"""Columns of sizes; a table has one or two of them, and those with a unit of length come first."""


@dataclass(frozen=True)
class Table:
    """What was measured in one image; `boxes` are those of its objects, where they are known."""

    kind: TableKind
    columns: Columns
    boxes: Boxes | None = None

    def with_columns(self, columns: Columns) -> Table:
        """Return the table with further columns, and others in place of those of the same names."""
        return replace(self, columns=self.columns | columns)

    @property
    def size_column(self) -> str:
        """The column of areas or volumes, in a unit of length where there is one."""
        return next(name for name in SIZE_COLUMNS if name in self.columns)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which rows (n,) are counted: all objects, or the lesions of the first region."""
        columns = self.columns
        if self.kind == "objects":
            return np.ones(len(columns["label"]), np.bool_)
        if self.kind == "classes":
            return np.zeros(len(columns["label"]), np.bool_)
        return np.asarray((columns["lesion"] > 0) & (columns["class"] == columns["class"][0]))


def table_kind(names: Iterable[str]) -> TableKind:
    """Return the kind of a table that was read from a file, by the names of its columns."""
    names = set(names)
    return "lesions" if "lesion" in names else "classes" if "class" in names else "objects"


def columns_from_csv(path: Path) -> Columns:
    """Read a table that `columns_to_csv` wrote: integers, floats (NaN where a cell is empty) and texts.

    Raise `InputError` if it is no table or not there.
    """
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    options = csv.ConvertOptions(strings_can_be_null=False, true_values=[], false_values=[])
    parse = csv.ParseOptions(newlines_in_values=True)
    try:
        table = csv.read_csv(path, parse_options=parse, convert_options=options)
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except pa.ArrowInvalid as error:
        raise InputError(f"not a table: {str(error).splitlines()[0]}", path=path) from error
    columns = {name: _as_column(table[name]) for name in table.column_names}
    del table
    pa.default_memory_pool().release_unused()  # else it keeps what reading took: 100 MB for 200 000 rows
    return columns


def columns_from_parquet(folder: Path) -> Columns:
    """Read a table that is a folder of Parquet files, with the values that it would have as CSV.

    Raise `InputError` if it is no table or not there.
    """
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise InputError("no Parquet files in it", path=folder)
    try:
        table = pa.concat_tables([pq.ParquetFile(part).read() for part in parts])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"not a table: {str(error).splitlines()[0]}", path=folder) from error
    columns = {name: _as_column(table[name]) for name in table.column_names}
    is_text = {name for name, column in columns.items() if column.dtype == object}
    return {
        name: np.where(column == None, "", column) if name in is_text else column  # noqa: E711 - of each cell
        for name, column in columns.items()
    }


def _as_column(column: Any) -> NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa

    if pa.types.is_null(column.type):  # no row, or no value
        return np.full(len(column), np.nan)
    values = column.to_numpy()
    return np.asarray(values.astype(object) if values.dtype.kind in "OU" else values)


def columns_to_csv(columns: Columns) -> str:
    r"""Write columns as CSV with a header and lines that end in ``\n``.

    Floats have the fewest digits that read back as the same number, booleans are 0 and 1, None and NaN are empty cells.
    Strings are quoted where necessary.
    """
    # For a million rows of 19 numbers this takes 6 s, str() of each cell 17, the csv module 23, and pandas 30; pyarrow
    # alone takes 4 and spells 2.0 as 2 and 1e-05 as 0.00001.
    header = ",".join(_quote(name) for name in columns) + "\n"
    rows = len(next(iter(columns.values()), ()))
    if rows >= _MANY_ROWS and all(column.dtype.kind in "biuf" for column in columns.values()):
        return header + _rows_by_pyarrow(columns)
    cells = [_cells(column) for column in columns.values()]
    if len(cells) == 1:
        cells = [[cell or '""' for cell in cells[0]]]  # an empty line would not be a row
    lines = map(",".join, zip(*cells, strict=True))
    return header + "".join(f"{line}\n" for line in lines)


def _cells(column: NDArray[Any]) -> list[str]:
    kind = column.dtype.kind
    if kind in "iu":
        return [str(value) for value in column.tolist()]
    if kind == "b":
        return ["1" if value else "0" for value in column.tolist()]
    if kind == "f":
        # A float32 has 8 digits, a Python float would show 17; str() of numpy has other rules for exponents.
        values = column.tolist() if column.dtype == np.float64 else [float(str(value)) for value in column]
        return [str(value) if value == value else "" for value in values]
    return ["" if value is None else _quote(str(value)) for value in column.tolist()]


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _rows_by_pyarrow(columns: Columns) -> str:
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    table = pa.table([_as_text(column) for column in columns.values()], names=list(columns))
    buffer = pa.BufferOutputStream()
    csv.write_csv(table, buffer, csv.WriteOptions(include_header=False, quoting_style="none"))
    return str(buffer.getvalue().to_pybytes().decode())


def _as_text(column: NDArray[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return a column for pyarrow, floats as text in Python's spelling: 2.0 and 1e-05 instead of 2 and 0.00001.

    The digits are the same, since both write the shortest that read back.
    """
    import pyarrow as pa  # slow to import
    from pyarrow import compute

    if column.dtype == np.bool_:
        return pa.array(column.view(np.uint8))
    if column.dtype.kind != "f":
        return pa.array(column)
    if column.dtype.itemsize not in (4, 8):
        return pa.array([text or None for text in _cells(column)], pa.string())
    size = np.abs(column)
    whole = (size < _EXPONENT_FROM) & (column == np.floor(column))
    texts = compute.cast(pa.array(column, from_pandas=True), pa.string())
    if whole.any():
        texts = compute.if_else(pa.array(whole), compute.binary_join_element_wise(texts, ".0", ""), texts)
    other = (size >= _EXPONENT_FROM) | ((size < _EXPONENT_BELOW) & (size > 0))
    other |= compute.match_substring(texts, "e").fill_null(False).to_numpy(zero_copy_only=False)
    if not other.any():
        return texts
    return compute.replace_with_mask(texts, pa.array(other), pa.array(_cells(column[other]), pa.string()))
