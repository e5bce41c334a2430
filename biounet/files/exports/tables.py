"""Tables of objects as Parquet and as AnnData, with the units of their columns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.files.exports.labelled_image import LabelledImage

_UNIT = re.compile(r"_(?P<unit>px|um|um2|um3|mm|mm2|mm3|ml)$")
_OF_CHANNELS = re.compile(
    r"^(intensity|ring|background)_(?!area_px$|volume_px$)"
)  # whose names end in that of a channel
_IDENTITY = ("label", "instance_id", "region", "t", "lesion", "track", "parent_track", "parent")
_FLAGS = ("touches_border", "crosses")
_MIDDLE = 0.5  # of the first pixel, from the corner of the image


def column_unit(name: str) -> str:
    """Return the unit of a column, as its name ends: ``um2`` of ``area_um2``, and nothing of ``solidity``."""
    found = _UNIT.search(name)
    return found["unit"] if found and not _OF_CHANNELS.match(name) else ""


def write_parquet(image: LabelledImage, path: Path) -> None:
    """Write the table as Parquet, with the names and types of its columns, and the unit in the metadata of each."""
    write_parquet_columns(image.columns, path, {"image": image.title, "model": image.model})


def write_parquet_columns(columns: Mapping[str, NDArray[Any]], path: Path, metadata: Mapping[str, str]) -> None:
    """Write columns as Parquet, with their names and types, and the unit in the metadata of each.

    `metadata` is that of the whole table. NaN and None are null.
    """
    import pyarrow as pa  # slow to import
    import pyarrow.parquet as pq

    arrays = {name: pa.array(column, from_pandas=True) for name, column in columns.items()}
    fields = [
        pa.field(name, array.type, metadata={"unit": unit} if (unit := column_unit(name)) else None)
        for name, array in arrays.items()
    ]
    schema = pa.schema(fields, metadata=dict(metadata))
    with path.open("wb") as file:  # by its name, pyarrow opens no path that is no text
        pq.write_table(pa.table(list(arrays.values()), schema=schema), file)


def write_h5ad(image: LabelledImage, path: Path) -> None:
    """Write the table as AnnData: numbers in X, their units in ``var``, all else in ``obs``.

    A row is an object, a class, or a lesion (regions, which contain lesions, have none). Rows that have a label carry
    the attributes by which SpatialData joins them with the labels of the OME-Zarr. ``obsm["spatial"]`` holds x, y and
    of a volume z in pixels from the corner of the image, as SpatialData counts them: the centre of the first pixel is
    .5. On calibrated grids ``obsm["spatial_um"]`` (or ``_mm``) holds the same in its unit.
    """
    with warnings.catch_warnings():
        # Of its dependencies, on import
        warnings.simplefilter("ignore")
        import anndata  # slow to import
        import pandas as pd

    columns = _observations(image)
    rows = len(next(iter(columns.values()), ()))
    features = {name: column for name, column in columns.items() if _is_feature(name, column)}
    others = {name: column for name, column in columns.items() if name not in features and name != "label"}
    obs = pd.DataFrame(others, index=pd.Index(_row_names(image, columns, rows), dtype=object))
    uns: dict[str, Any] = {"image": image.title, "model": image.model}
    if "label" in columns:
        obs.insert(0, "region", pd.Categorical([image.element] * rows))
        obs.insert(1, "instance_id", columns["label"].astype(np.int64))
        if rows:  # SpatialData refuses attributes of a region that has no row
            uns["spatialdata_attrs"] = {"region": image.element, "region_key": "region", "instance_key": "instance_id"}
    table = anndata.AnnData(
        np.stack(list(features.values()), axis=1).astype(np.float64) if features else np.zeros((rows, 0)),
        obs=obs,
        var=pd.DataFrame({"unit": [column_unit(name) for name in features]}, index=pd.Index(features, dtype=object)),
        obsm=_positions(image, columns),
        uns=uns,
    )
    table.write_h5ad(path, compression="gzip")


def _observations(image: LabelledImage) -> dict[str, NDArray[Any]]:
    """Return the columns of the rows that are observations: of regions and their lesions, only the lesions."""
    columns = dict(image.columns)
    if "lesion" not in columns:
        return columns
    is_lesion = columns["lesion"] > 0
    return {name: column[is_lesion] for name, column in columns.items()}


def _is_feature(name: str, column: NDArray[Any]) -> bool:
    return column.dtype.kind in "iuf" and name not in (*_IDENTITY, *_FLAGS)


def _row_names(image: LabelledImage, columns: dict[str, NDArray[Any]], rows: int) -> list[str]:
    """Return a name for each row that no other row of another image has."""
    if "lesion" in columns:
        return [
            f"{image.title}_{name}_{lesion}" for name, lesion in zip(columns["class"], columns["lesion"], strict=True)
        ]
    return [f"{image.title}_{label}" for label in columns.get("label", np.arange(rows)).tolist()]


def _positions(image: LabelledImage, columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    axes = "xyz"[: image.grid.dims]
    if f"centroid_{axes[0]}_px" not in columns:
        return {}
    pixels = np.stack([columns[f"centroid_{axis}_px"] for axis in axes], axis=1).astype(np.float64) + _MIDDLE
    if image.grid.spacing is None:
        return {"spatial": pixels}
    return {"spatial": pixels, f"spatial_{image.grid.unit}": pixels * image.grid.spacing[::-1]}
