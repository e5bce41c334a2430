"""The table of an image that is larger than memory: written in parts, one for each super-block, and joined in order.

Objects are numbered in the order of their first voxels. So the rows of a part ascend, those of super-blocks beside each
other interleave, and a few rows of each part in turn are all that memory has to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError
from biounet.files import atomic_folder, atomic_path, write_parquet_columns
from biounet.measurement import Columns
from biounet.reporting.outputs import format_table

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MOST_CSV_ROWS = 10_000_000
"""Rows up to which a table is CSV: 1.5 GB that most programs still open; above, it is Parquet in several files."""

MOST_EXCEL_ROWS = 1_048_576
"""Rows that a sheet of Excel has, the one of names among them."""

PARTITION_ROWS = 250_000
"""Rows of each file of a partitioned table."""

TABLE_SUFFIXES = ("_objects.csv", "_objects.parquet")

_WINDOW = 1 << 15  # rows that are joined at a time
_GROUP = 1 << 10  # rows of a part that are read at a time
_MOST_OPEN = 256  # parts that are open at a time: a volume may have more side by side than files may be open


def write_table_part(folder: Path, index: int, columns: Columns) -> None:
    """Write the rows of the objects that begin in one super-block, atomically.

    Numbers are the same when they are read again, to the last bit. Equal input gives equal bytes.

    Parameters
    ----------
    folder
        Of all parts of the table.
    index
        Number of the super-block.
    columns
        Rows by ascending ``label``; there may be none.
    """
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    if (np.diff(columns["label"]) <= 0).any():
        raise ValueError(f"the labels of part {index} do not ascend")
    table = pa.table([_as_arrow(column) for column in columns.values()], names=list(columns))
    with atomic_path(part_path(folder, index)) as temporary, temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd", row_group_size=_GROUP)


def part_path(folder: Path, index: int) -> Path:
    """Return the file of the part with this number."""
    return folder / f"part-{index:08d}.parquet"


def join_table_parts(parts: Sequence[Path], rows: int) -> Iterator[Columns]:
    """Yield the rows of all parts by ascending label, some thousand at a time.

    Memory does not depend on the number of rows.

    Parameters
    ----------
    parts
        Files of `write_table_part`, in any order.
    rows
        Number of objects, whose labels are 1 to `rows`.

    Raises
    ------
    InputError
        If a part is damaged, or labels are missing or there twice.
    """
    waiting = [part for part in map(_open_part, parts) if part is not None]
    schemas = {part.schema: part.path for part in waiting}
    if len(schemas) > 1:
        one, other, *_ = schemas.values()
        raise InputError(f"has other columns than {one.name}", path=other, hint="--overwrite begins anew")
    if not rows and not waiting and parts:
        file = _open_parquet(parts[0])
        yield {name: _as_array(file.read().column(name).combine_chunks()) for name in file.schema_arrow.names}
    heapify(waiting)
    reading: list[_Reader] = []
    for low in range(1, rows + 1, _WINDOW):
        high = min(low + _WINDOW, rows + 1)
        while waiting and waiting[0].first < high:
            reading.append(_Reader(heappop(waiting)))
        pieces = [piece for n, reader in enumerate(reading) for piece in reader.take(high, stay_open=n < _MOST_OPEN)]
        reading = [reader for reader in reading if not reader.is_done]
        yield _in_order(pieces, low, high)
    if waiting or reading:
        left = waiting[0].path if waiting else reading[0].path
        raise InputError(f"holds labels above {rows}", path=left, hint="--overwrite begins anew")


def write_joined_table(
    path: Path,
    parts: Sequence[Path],
    rows: int,
    *,
    excel: bool = False,
    finish: Callable[[Columns], Columns] = lambda columns: columns,
) -> None:
    """Write the table of all parts as CSV, atomically, with the bytes that `write_table` writes of all rows.

    `finish` returns the columns that are written of some rows. Errors are those of `join_table_parts` and of
    `write_table`.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for number, columns in enumerate(map(finish, join_table_parts(parts, rows))):
            text = format_table(columns, excel=excel)
            header = format_table({name: column[:0] for name, column in columns.items()}, excel=excel)
            file.write(text[len(header) if number else 0 :])


def write_partitioned_table(
    path: Path,
    parts: Sequence[Path],
    rows: int,
    metadata: dict[str, str],
    *,
    finish: Callable[[Columns], Columns] = lambda columns: columns,
) -> None:
    """Write the table of all parts as a folder of Parquet, in label order, which appears whole or not at all.

    Its files ``part-00000.parquet``, … are like one of the export ``parquet``, with `metadata`; programs that read
    Parquet open the folder as one table. `finish` returns the columns that are written of some rows; what is masked in
    them is null.
    """
    with atomic_folder(path) as temporary:
        temporary.mkdir()
        for number, columns in enumerate(map(finish, _partitions(join_table_parts(parts, rows)))):
            write_parquet_columns(columns, temporary / f"part-{number:05d}.parquet", metadata)


def excel_remark(rows: int) -> str:
    """Return what to say of a table that Excel does not open whole; empty for others."""
    if rows < MOST_EXCEL_ROWS:
        return ""
    return f"{rows} objects: Excel shows the first {MOST_EXCEL_ROWS - 1} rows of the table"


def row_fault(path: Path, count: int) -> str:
    """Return in what the rows of a table are not those of the objects 1 to `count`, in order; empty where they are.

    Parameters
    ----------
    path
        CSV, or a folder of `write_partitioned_table`. It is read some thousand rows at a time.
    """
    import pyarrow as pa  # slow to import

    rows = 0
    try:
        for labels in _labels_of_rows(path):
            expected = np.arange(rows + 1, rows + 1 + labels.size)
            if (wrong := np.flatnonzero(labels != expected)).size:
                at = int(wrong[0])
                return f"row {rows + at + 1} is of object {labels[at]}"
            rows += labels.size
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        return f"cannot be read as a table: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return f"{rows} rows, and {count} objects" if rows != count else ""


def _labels_of_rows(path: Path) -> Iterator[NDArray[np.int64]]:
    """Yield the column ``label`` of a table in pieces."""
    import pyarrow as pa  # slow to import
    from pyarrow import csv

    if path.is_dir():
        for part in sorted(path.iterdir()):
            for batch in _open_parquet(part).iter_batches(_WINDOW, columns=["label"]):
                yield _as_array(batch.column("label")).astype(np.int64)
        return
    with path.open("rb") as file:
        if file.readline().strip().split(b",")[0].strip(b'"') != b"label":
            raise KeyError("its first column is not 'label'")
    convert = csv.ConvertOptions(column_types={"label": pa.int64()}, include_columns=["label"])
    with csv.open_csv(path, convert_options=convert) as batches:
        for batch in batches:
            yield _as_array(batch.column(0)).astype(np.int64)


def _partitions(tables: Iterator[Columns]) -> Iterator[Columns]:
    """Yield tables of a fixed number of rows."""
    held: list[Columns] = []
    count = 0
    for columns in tables:
        start, rows = 0, len(columns["label"])
        if not rows:  # of the whole table
            yield columns
        while start < rows:
            end = min(rows, start + PARTITION_ROWS - count)
            held.append({name: column[start:end] for name, column in columns.items()})
            count, start = count + end - start, end
            if count == PARTITION_ROWS:
                yield _concatenate(held)
                held, count = [], 0
    if held:
        yield _concatenate(held)


@dataclass(frozen=True, order=True)
class _Part:
    """A part by its first label."""

    first: int
    path: Path
    schema: str


def _open_part(path: Path) -> _Part | None:
    """Return a part; None if it has no row."""
    with _open_parquet(path) as file:
        metadata, names = file.metadata, file.schema_arrow.names
        if not metadata.num_rows:
            return None
        first = metadata.row_group(0).column(names.index("label")).statistics.min
        return _Part(first, path, str(file.schema_arrow))


def _open_parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise InputError("no such file", path=path) from None
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    text = str(error).splitlines()[0]
    return InputError(f"a damaged part of a table: {text}", path=path, hint="--overwrite begins anew")


class _Reader:
    """Reads a part from its first row to its last, some at a time."""

    def __init__(self, part: _Part) -> None:
        self.path = part.path
        self.is_done = False
        self._file: pq.ParquetFile | None = None
        self._groups = 0  # that were read
        self._held: Columns | None = None

    def take(self, high: int, *, stay_open: bool) -> Iterator[Columns]:
        """Yield the next rows whose labels are below `high`; `stay_open`: whether the file is left open."""
        while not self.is_done:
            if self._held is None:
                self._held = self._next(stay_open=stay_open)
                if self._held is None:
                    self.is_done = True
                    return
            held = self._held
            end = int(np.searchsorted(held["label"], high))
            if end:
                yield {name: column[:end] for name, column in held.items()}
            if end < len(held["label"]):
                self._held = {name: column[end:] for name, column in held.items()}
                return
            self._held = None

    def _next(self, *, stay_open: bool) -> Columns | None:
        import pyarrow as pa  # slow to import

        file, self._file = self._file or _open_parquet(self.path), None
        try:
            if self._groups == file.num_row_groups:
                file.close()
                return None
            rows = file.read_row_group(self._groups)
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(self.path, error) from error
        self._groups += 1
        if stay_open:
            self._file = file
        else:
            file.close()
        return {name: _as_array(rows.column(name).combine_chunks()) for name in rows.column_names}


def _as_arrow(column: NDArray[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    import pyarrow as pa  # slow to import

    return pa.array(column, pa.string() if column.dtype == object else None)


def _as_array(column: Any) -> NDArray[Any]:  # noqa: ANN401 - pyarrow has no types
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _in_order(pieces: list[Columns], low: int, high: int) -> Columns:
    """Return rows by ascending label, which must be all from `low` to below `high`."""
    columns = _concatenate(pieces) if pieces else {"label": np.zeros(0, np.int64)}
    order = np.argsort(columns["label"], kind="stable")
    labels = columns["label"][order]
    if not np.array_equal(labels, np.arange(low, high)):
        missing = np.setdiff1d(np.arange(low, high), labels)
        wrong = f"no row of object {missing[0]}" if missing.size else "two rows of one object"
        raise InputError(f"{wrong} in the parts of the table", hint="--overwrite begins anew")
    return {name: column[order] for name, column in columns.items()}


def _concatenate(pieces: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
