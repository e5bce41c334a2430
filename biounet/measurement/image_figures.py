"""Figures of a whole image, from the table of its objects: further columns of ``counts.csv``."""

from __future__ import annotations

import math

from biounet.core import Figure
from biounet.measurement.table import Table
from biounet.measurement.table_summary import TableSummary

_DIGITS = 6  # significant ones: more say nothing about a median of sizes


def image_figures(table: Table | TableSummary) -> dict[str, Figure]:
    """Return the median size, mean confidence and mean intensities of the counted objects of an image.

    Returns
    -------
    ``median_<size>``, such as ``median_area_um2``, in a unit of length where the table has one, else in pixels; and
    ``mean_confidence``, where objects have one; and where channels are measured with their background, of each
    ``mean_intensity_<channel>``, the mean over the objects of their mean intensity, and ``background_<channel>``. None
    where there is no object, and nothing for classes of an image.
    """
    summary = TableSummary.of(table) if isinstance(table, Table) else table
    if summary.sizes is None:
        return {}
    figures = {f"median_{summary.sizes.column}": _round(summary.sizes.median())}
    if "confidence" in summary.sums:
        figures["mean_confidence"] = _round(summary.sums["confidence"].mean)
    for column in summary.sums:
        if column.startswith("background_"):
            channel = column.removeprefix("background_")
            figures[f"mean_intensity_{channel}"] = _round(summary.sums[f"intensity_mean_{channel}"].mean)
            figures[column] = _round(summary.sums[column].mean)
    return figures


def _round(value: float) -> Figure:
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
