"""Figures of a whole image, from the table of its objects: further columns of ``counts.csv``."""

from __future__ import annotations

import math

import numpy as np

from biounet.core import Figure
from biounet.measurement.table import Table

_DIGITS = 6  # significant ones: more say nothing about a median of sizes


def image_figures(table: Table) -> dict[str, Figure]:
    """Return the median size, mean confidence and mean intensities of the counted objects of an image.

    Returns
    -------
    ``median_<size>``, such as ``median_area_um2``, in a unit of length where the table has one, else in pixels; and
    ``mean_confidence``, where objects have one; and where channels are measured with their background, of each
    ``mean_intensity_<channel>``, the mean over the objects of their mean intensity, and ``background_<channel>``. None
    where there is no object, and nothing for classes of an image.
    """
    if table.kind == "classes":
        return {}
    counted, columns = table.counted, table.columns
    figures = {f"median_{table.size_column}": _round(np.median, columns[table.size_column][counted])}
    if "confidence" in columns:
        figures["mean_confidence"] = _round(np.mean, columns["confidence"][counted].astype(np.float64))
    for column in columns:
        if column.startswith("background_"):
            channel = column.removeprefix("background_")
            figures[f"mean_intensity_{channel}"] = _round(np.mean, columns[f"intensity_mean_{channel}"][counted])
            figures[column] = _round(np.mean, columns[column][counted])
    return figures


def _round(statistic, values) -> Figure:  # type: ignore[no-untyped-def]  # noqa: ANN001 - a function of NumPy
    value = float(statistic(values)) if len(values) else math.nan
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
