"""What channels hold in each object, in the ring around it, and where no object is.

Columns are ``intensity_mean_<channel>``, ``intensity_max_<channel>``, ``intensity_sum_<channel>`` and
``intensity_sd_<channel>``, the standard deviation of the voxels of an object (``intensity_std`` of scikit-image). With
a ring also ``ring_area_px`` (of a volume ``ring_volume_px``), the same four with ``ring_`` instead of ``intensity_``,
and ``background_<channel>``, the median of all voxels of the image that belong to no object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, find_label_runs
from biounet.measurement import moments
from biounet.measurement.rings import Ring, ring_labels
from biounet.measurement.table import Columns
from biounet.preprocessing import percentiles


class Regions(NamedTuple):
    """Where objects or their rings are: runs from `biounet.core.find_label_runs`, and the number of voxels of each."""

    runs: NDArray[np.int64]
    size: NDArray[np.int64]


def intensity_columns(channels: Mapping[str, NDArray[Any]], objects: Regions) -> Columns:
    """Return mean, maximum, sum and standard deviation of channels ``([z,] y, x)``, by their names, in each object."""
    columns: Columns = {}
    for name, channel in channels.items():
        columns |= {f"intensity_{figure}_{name}": values for figure, values in _summarise(channel, objects).items()}
    return columns


def mean_intensities(channel: NDArray[Any], regions: Regions) -> NDArray[Any]:
    """Return the mean of a channel ``([z,] y, x)`` in each region."""
    return _summarise(channel, regions)["mean"]


def surroundings_columns(
    channels: Mapping[str, NDArray[Any]], volume: NDArray[np.int32], n: int, grid: Grid, ring: Ring
) -> Columns:
    """Return size and intensities of the ring around each of n objects, and the median of the voxels of no object.

    What an object without a ring would have, and the background of an image without any, is NaN.

    Parameters
    ----------
    volume
        Labels ``(z, y, x)``: 0 is background, objects are 1..n.
    """
    rings = find_label_runs(ring_labels(volume.reshape(grid.shape), grid, ring).reshape(volume.shape))
    size = np.bincount(rings[:, 2], rings[:, 1] - rings[:, 0], minlength=n + 1)[1:].astype(np.int64)
    columns: Columns = {f"ring_{'area' if grid.dims == 2 else 'volume'}_px": size}
    background = (volume == 0).reshape(-1)
    for name, channel in channels.items():
        figures = _summarise(channel, Regions(rings, size))
        columns |= {f"ring_{key}_{name}": np.where(size > 0, values, np.nan) for key, values in figures.items()}
        columns[f"background_{name}"] = np.full(n, _median(channel.reshape(-1)[background]))
    return columns


def _summarise(channel: NDArray[Any], regions: Regions) -> Columns:
    values, size = _compiled_type(channel).reshape(-1), regions.size
    kind = np.int64 if values.dtype.kind in "iu" else np.float64
    total, peak, squares = np.zeros(len(size), kind), np.zeros(len(size), kind), np.zeros(len(size))
    moments.sum_intensity(values, regions.runs, total, peak, squares)
    some = np.maximum(size, 1)
    return {"mean": total / some, "max": peak, "sum": total, "sd": np.sqrt(squares / some)}


def _median(values: NDArray[Any]) -> float:
    if not values.size or (values.dtype.kind == "f" and np.isnan(values).any()):
        return np.nan
    return percentiles(values.view(np.uint8) if values.dtype == np.bool_ else values, (50.0,))[0]


def _compiled_type(channel: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous channel of a type that numba supports and whose sums fit into 64 bits."""
    kind, width = channel.dtype.kind, channel.dtype.itemsize
    if kind == "b":
        return np.ascontiguousarray(channel).view(np.uint8)
    if kind in "iu" and width == 8:
        peak = max(abs(int(channel.min())), abs(int(channel.max())))
        return np.ascontiguousarray(channel, np.int64 if peak * channel.size < 2**63 else np.float64)
    if kind == "f" and width not in (4, 8):
        return np.ascontiguousarray(channel, np.float32 if width == 2 else np.float64)
    return np.ascontiguousarray(channel, channel.dtype.newbyteorder("="))
