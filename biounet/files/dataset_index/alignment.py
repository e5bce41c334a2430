"""Whether labels lie on their image, by any of the matrices that NIfTI headers have."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, NoteCode, canonical_grid, canonical_transform, drop_notes, grid_mismatch
from biounet.files.axes import ReadOptions
from biounet.files.formats.dicom.segmentation import is_segmentation
from biounet.files.formats.nifti import parse_header
from biounet.files.formats.nifti_affines import header_affines
from biounet.files.formats.opening import open_raw
from biounet.files.formats.raw import RawImage
from biounet.files.read import resolve_grid

# Notes that the unit of the figures shows
_SIZE_NOTES = {NoteCode.VOXEL_SIZE_UNKNOWN, NoteCode.NOT_SQUARE, NoteCode.ORIENTATION_UNKNOWN}


def _header_grids(grid: Grid) -> dict[str, Grid]:
    """Return the grid of a NIfTI volume by each usable matrix of its header, ``"sform"`` and ``"qform"``."""
    if grid.header is None or grid.affine is None:
        return {}
    matrices = [matrix for matrix in header_affines(parse_header(grid.header)) if matrix.geometry_error is None]
    return {matrix.name: replace(matrix.grid, shape=grid.shape) for matrix in matrices if len(matrix.shape) == 3}


def _matching_matrix(image: Grid, label: Grid) -> str | None:
    """Return the matrix of an image by which any matrix of a label image gives the same grid; None if none does."""
    image_grids = _header_grids(image) or {"affine": image}
    label_grids = (label, *_header_grids(label).values())
    pairs = product(image_grids.items(), label_grids)
    return next((name for (name, grid), other in pairs if not grid_mismatch(grid, other)), None)


def _reordered_grids(image: Grid, label: Grid) -> tuple[Grid, Grid] | None:
    """Return the grids of an image and its labels by which these are the same voxels in another order."""
    for grid, other in product((image, *_header_grids(image).values()), (label, *_header_grids(label).values())):
        if grid.axcodes != other.axcodes and not grid_mismatch(canonical_grid(grid), canonical_grid(other)):
            return grid, other
    return None


def compare_alignment(image: Grid, label: Grid) -> tuple[str, str]:
    """Return how far a label image lies from its image, empty if it does not; and a remark on how they agree.

    A header has up to two matrices. Programs read one of them, and write labels with that one. So labels lie on the
    image if any matrix of theirs gives the same grid as any of the image's. Axes may be exchanged and flipped, which
    `reorder_labels` undoes.
    """
    difference = grid_mismatch(image, label)
    if image.affine is None or label.affine is None or not difference:
        return difference, ""
    if (name := _matching_matrix(image, label)) is not None:
        return "", f"lies where the {name} of its image says, not by the matrix in use: {difference}"
    if (grids := _reordered_grids(image, label)) is not None:
        image, label = grids
        return "", f"is stored as {label.axcodes}, and was brought to {image.axcodes}, the order of its image"
    return difference, ""


def read_label_grid(path: Path, shape: tuple[int, ...], options: ReadOptions | None = None) -> Grid:
    """Return the grid of a label image of shape ``([z,] y, x)``, as its file says."""
    return _calibrate(path, open_raw(path), shape, options)[0]


def _calibrate(
    path: Path, raw: RawImage, shape: tuple[int, ...], options: ReadOptions | None = None
) -> tuple[Grid, tuple[str, ...]]:
    spacing = None if options is None else options.spacing
    return resolve_grid(shape, raw, path, ReadOptions(dims=len(shape), spacing=spacing))


def reorder_labels(labels: NDArray[Any], path: Path, image: Grid | None) -> NDArray[Any]:
    """Return labels ``([z,] y, x)`` in the voxel order of the grid of their image.

    Programs that save labels may exchange and flip axes, and say so in the affine: the voxels are the same, and no
    value changes. Labels that do not lie on the image stay as they are.
    """
    if image is None or image.affine is None or labels.ndim != len(image.shape):
        return labels
    raw = open_raw(path)
    if raw.affine is None or raw.geometry_error is not None:
        return labels
    if (grids := other_order(image, _calibrate(path, raw, labels.shape)[0])) is None:
        return labels
    to_image, to_label = map(canonical_transform, grids)
    return np.ascontiguousarray(to_image.undo(to_label.apply(labels)))


def other_order(image: Grid, label: Grid) -> tuple[Grid, Grid] | None:
    """Return the grids by which labels have the voxels of their image in another order; None if they do not."""
    if label.affine is None or image.affine is None or len(label.shape) != len(image.shape):
        return None
    if not grid_mismatch(image, label) or _matching_matrix(image, label) is not None:
        return None
    return _reordered_grids(image, label)


def check_alignment(
    truth: Path, predicted: Path, shape: tuple[int, ...], options: ReadOptions | None
) -> tuple[Grid | None, tuple[str, ...]]:
    """Return the grid of an annotation and a result, and remarks on what their headers contradict themselves in.

    The grid is None for a 2D image, whose surfaces are not compared.

    Raises
    ------
    InputError
        If the annotation does not lie on the result.
    """
    if len(shape) == 2:
        return None, ()
    if is_segmentation(truth):  # it was laid on the grid of the result when it was read
        return read_label_grid(predicted, shape, options), ()
    raw = open_raw(truth)
    true_grid, _ = _calibrate(truth, raw, stored_shape(raw, shape), options)
    grid, notes = _calibrate(predicted, open_raw(predicted), shape, options)
    difference, remark = compare_alignment(grid, true_grid)
    if true_grid.affine is not None and grid.affine is not None and difference:
        raise InputError(f"does not lie where the result {predicted} does: {difference}", path=truth)
    remarks = [f"{predicted}: {note}" for note in drop_notes(notes, _SIZE_NOTES)]
    remarks += [f"{truth}: {remark}"] if remark else []
    return grid if grid.calibrated else true_grid, tuple(remarks)


def stored_shape(raw: RawImage, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in the file of labels that were brought to another order; else the one they have."""
    stored = raw.shape[-len(shape) :]
    return stored if raw.affine is not None and sorted(stored) == sorted(shape) else shape
