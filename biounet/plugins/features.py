"""The table of objects as napari takes it: columns, of which ``index`` is the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.measurement import Columns, columns_from_csv


def table_features(table: Path, class_names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Return a table with a row for each object or class, and the label as ``index``; empty where there is none.

    Lesions, and regions of several classes, have no label of their own. `class_names` are those of labels 1, 2, ….
    """
    if not table.is_file():
        return {}
    columns = columns_from_csv(table)
    if "lesion" in columns:
        columns = _rows(columns, columns.pop("lesion") == 0)
    if "label" not in columns:
        numbers = {name: number for number, name in enumerate(class_names, 1)}
        columns["label"] = np.array([numbers.get(name, 0) for name in columns.get("class", ())], np.int64)
        columns = _rows(columns, columns["label"] > 0)
    return {"index": columns["label"], **{name: column for name, column in columns.items() if name != "label"}}


def _rows(columns: Columns, chosen: NDArray[np.bool_]) -> Columns:
    return {name: column[chosen] for name, column in columns.items()}
