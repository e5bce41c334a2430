"""Tables of objects as Parquet."""

from __future__ import annotations

from pathlib import Path

from biounet.files.exports.labelled_image import LabelledImage


def write_parquet(image: LabelledImage, path: Path) -> None:
    """Write the table as Parquet, with the names and types of its columns."""
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array(column) for name, column in image.columns.items()}), path)
