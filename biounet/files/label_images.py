"""Label images of any program: what their values are, and whether they lie on their image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, Volume
from biounet.files.annotations import check_not_jpeg, read_labels
from biounet.files.axes import ReadOptions
from biounet.files.dataset_index.alignment import compare_alignment, read_label_grid, reorder_labels
from biounet.files.formats.opening import open_raw
from biounet.files.formats.raw import format_shape, translate_errors
from biounet.files.read import read_volume


def read_object_labels(path: Path, options: ReadOptions | None = None) -> NDArray[np.int32]:
    """Return the ids of objects in a label image of any program, ``([z,] y, x)``, as `read_labels` does.

    Negative values, and a JPEG, are an `InputError` as well.
    """
    check_not_jpeg(path)
    labels = read_labels(path, options)
    if labels.min() < 0:
        hint = "0 is background, and objects have positive ids"
        raise InputError(f"holds the value {labels.min()}", path=path, hint=hint)
    return labels


@translate_errors
def read_label_volume(path: Path, dims: int | None = None) -> Volume:
    """Return a label image of biounet with its grid and, of a time series, all frames.

    Parameters
    ----------
    dims
        Number of spatial axes, for volumes of one plane; None: those that the file has.
    """
    raw = open_raw(path)
    sizes = dict(zip(raw.axes, raw.shape, strict=True))
    dims = dims or (3 if sizes.get("Z", 1) > 1 else 2)
    return read_volume(path, ReadOptions(dims=dims, frames="all" if "T" in sizes else None))


def lay_on_grid(labels: NDArray[np.int32], path: Path, grid: Grid, what: str = "its image") -> NDArray[np.int32]:
    """Return labels in the order of voxels of another grid, by the affines of both; `what` is for the message.

    Raise `InputError` if they have another shape or, as their headers say, lie elsewhere.
    """
    labels = reorder_labels(labels, path, grid)
    check_shape(labels, grid, path, what)
    own = read_label_grid(path, labels.shape)
    difference, _ = compare_alignment(grid, own)
    if difference and grid.affine is not None and own.affine is not None:
        raise InputError(f"does not lie where {what} does: {difference}", path=path)
    return labels


def check_shape(labels: NDArray[Any], grid: Grid, path: str | Path, what: str = "its image") -> None:
    """Raise an `InputError` unless labels have the shape of a grid."""
    if labels.shape != grid.shape:
        is_transposed = labels.ndim == len(grid.shape) and labels.shape == grid.shape[::-1]
        hint = "the axes are exchanged" if is_transposed else "both must have the same pixels"
        cause = f"is {format_shape(labels.shape)}, {what} {format_shape(grid.shape)}"
        raise InputError(cause, path=path, hint=hint)
