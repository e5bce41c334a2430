"""Figures of a whole image, from the table of its objects: further columns of ``counts.csv``."""

from __future__ import annotations

import numpy as np

from biounet.core import Figure
from biounet.measurement.table import Table

_DIGITS = 6  # significant ones: more say nothing about a median of sizes


def image_figures(table: Table) -> dict[str, Figure]:
    """Return the median size and the mean confidence of the counted objects of an image.

    Returns
    -------
    ``median_<size>``, such as ``median_area_um2``, in a unit of length where the table has one, else in pixels; and
    ``mean_confidence``, where objects have one. None where there is no object, and nothing for classes of an image.
    """
    if table.kind == "classes":
        return {}
    counted, columns = table.counted, table.columns
    figures = {f"median_{table.size_column}": _round(np.median, columns[table.size_column][counted])}
    if "confidence" in columns:
        figures["mean_confidence"] = _round(np.mean, columns["confidence"][counted].astype(np.float64))
    return figures


def _round(statistic, values) -> Figure:  # type: ignore[no-untyped-def]  # noqa: ANN001 - a function of NumPy
    return float(f"{float(statistic(values)):.{_DIGITS}g}") if len(values) else None
