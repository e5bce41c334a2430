"""The table of objects as napari takes it: columns, of which ``index`` is the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from biounet.files import row_labels
from biounet.measurement import columns_from_csv


def table_features(table: Path, class_names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Return a table with a row for each object or class, and the label as ``index``; empty where there is none.

    Lesions, and regions of several classes, have no label of their own. `class_names` are those of labels 1, 2, ….
    """
    if not table.is_file():
        return {}
    columns = columns_from_csv(table)
    labels = row_labels(columns, dict(enumerate(class_names, 1)))
    features = {name: column for name, column in columns.items() if name not in ("label", "lesion")}
    return {name: column[labels > 0] for name, column in {"index": labels, **features}.items()}
