"""Label images of any program that are read region by region, with the ids that `read_object_labels` gives them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, Region, canonical_region, canonical_transform, stored_region
from biounet.files.annotations import check_label_axes, check_not_jpeg, open_label_file, select_labels
from biounet.files.axes import ReadOptions
from biounet.files.dataset_index.alignment import compare_alignment, other_order
from biounet.files.formats.raw import format_shape, translate_errors
from biounet.files.lazy.stored_array import ArrayView, LazyView
from biounet.files.read import resolve_grid

_LARGEST = np.iinfo(np.int32).max
_HINT = "save it as OME-Zarr or as a tiled TIFF, which are read region by region"


@dataclass(frozen=True)
class LazyLabelFile:
    """A label image of which only regions are in memory; a `LazyLabels`.

    Attributes
    ----------
    grid
        Of the labels, in the order of voxels in which they are read.
    order
        Grids of the image and of the file, where the file stores the voxels of the image in another order.
    """

    path: Path
    grid: Grid
    view: LazyView
    order: tuple[Grid, Grid] | None = None

    @property
    def chunk(self) -> tuple[int, ...]:
        """Voxels that are stored together along each axis."""
        if self.order is None:
            return self.view.chunks
        of_image, of_file = map(canonical_transform, self.order)
        canonical = [self.view.chunks[axis] for axis in of_file.axes]
        return tuple(canonical[of_image.axes.index(axis)] for axis in range(self.grid.dims))

    def read(self, region: Region) -> NDArray[np.int32]:
        """Return the ids of a region ``([z,] y, x)``.

        Raises
        ------
        InputError
            If a chunk of it is damaged, or an id is negative or too large.
        """
        values = _read(self.path, self.view, self._stored(region))
        if self.order is not None:
            of_image, of_file = map(canonical_transform, self.order)
            values = of_image.undo(of_file.apply(values))
        return np.ascontiguousarray(values, np.int32)

    def has_labels(self, region: Region) -> bool:
        """Whether the file stores any of a region, or background is not what it stands for where it does not."""
        return _constant(self.path, self.view, self._stored(region)) != 0

    def _stored(self, region: Region) -> Region:
        if self.order is None:
            return region
        of_image, of_file = self.order
        return stored_region(canonical_region(region, of_image), of_file)


@translate_errors
def _read(path: Path, view: LazyView, region: Region) -> NDArray[Any]:
    values = view.read(region)
    if values.dtype == np.bool_ or not values.size:
        return values
    if (low := values.min()) < 0:
        raise InputError(f"holds the value {low}", path=path, hint="0 is background, and objects have positive ids")
    if (high := values.max()) > _LARGEST:
        raise InputError(f"label {high} does not fit in 32 bits", path=path)
    return values


@translate_errors
def _constant(path: Path, view: LazyView, region: Region) -> Any | None:  # noqa: ANN401 - a number
    return view.constant_value(region)


@translate_errors
def open_label_image(path: Path, options: ReadOptions | None = None) -> LazyLabelFile:
    """Open a label image of any program without reading its pixels.

    Raises
    ------
    InputError
        As of `read_object_labels`, which also reads what has to be read as a whole.
    """
    check_not_jpeg(path)
    raw = open_label_file(path, sys.maxsize)
    if raw.regions is None or raw.dtype.kind == "f" or raw.alpha:
        raise InputError("labels stored such that they have to be read as a whole", path=path, hint=_HINT)
    options = options or ReadOptions()
    values, axes = select_labels(raw, cast("NDArray[Any]", ArrayView.of(raw.regions)), options, path)
    check_label_axes(axes, raw, path)
    view = cast(LazyView, values)
    grid, _ = resolve_grid(view.shape, raw, path, ReadOptions(dims=view.ndim, spacing=options.spacing))
    return LazyLabelFile(path, grid, view)


def lay_file_on_grid(labels: LazyLabelFile, grid: Grid, what: str = "its image") -> LazyLabelFile:
    """Return labels in the order of voxels of another grid, as `lay_on_grid` does.

    Raise `InputError` if they have another shape or, as their headers say, lie elsewhere.
    """
    order = other_order(grid, labels.grid)
    own = labels.grid
    if order is None and own.shape != grid.shape:
        raise InputError(f"is {format_shape(own.shape)}, {what} {format_shape(grid.shape)}", path=labels.path)
    difference, _ = compare_alignment(grid, own)
    if difference and grid.affine is not None and own.affine is not None:
        raise InputError(f"does not lie where {what} does: {difference}", path=labels.path)
    return LazyLabelFile(labels.path, grid, labels.view, order)
