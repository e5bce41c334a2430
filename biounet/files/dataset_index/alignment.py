"""Whether what was drawn or found lies where its image does, by any of the matrices that headers have."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, canonical_grid, canonical_transform, grid_mismatch
from biounet.files.axes import ReadOptions
from biounet.files.formats.nifti import parse_header
from biounet.files.formats.nifti_affines import matrices_of
from biounet.files.formats.raw import RawImage
from biounet.files.read import calibrate, open_raw

_SEEN = ("pixel size", "voxel size", "pixels are", "orientation")  # begins remarks that a figure's unit shows


def places_of(grid: Grid) -> dict[str, Grid]:
    """Return where the voxels of a NIfTI volume are by each matrix of its header that can be used, by its name."""
    if grid.header is None or grid.affine is None:
        return {}
    matrices = [matrix for matrix in matrices_of(parse_header(grid.header)) if matrix.fault is None]
    placed = {matrix.name: matrix.grid for matrix in matrices if len(matrix.shape) == 3}
    return {name: replace(found, shape=grid.shape) for name, found in placed.items()}


def compare_places(image: Grid, label: Grid) -> tuple[str, str]:
    """Say how far a label image lies from its image, and what is to be said where it does not.

    A header has two matrices, programs read one of them each, and labels are written under the one that was read: an
    annotation is in its place if any matrix of its header says the same as any of its image's, be it that axes are
    exchanged and flipped, which `in_order_of` undoes.

    Returns
    -------
    The difference, empty where there is none; and a remark where it is so for another matrix than the one in use.
    """
    if image.affine is None or label.affine is None or not (difference := grid_mismatch(image, label)):
        return grid_mismatch(image, label), ""
    for name, place in (places_of(image) or {"affine": image}).items():
        for own in (label, *places_of(label).values()):
            if not grid_mismatch(place, own):
                return "", f"lies where the {name} of its image says, not by the matrix in use: {difference}"
    if (same := _in_two_orders(image, label)) is not None:
        return "", f"is stored as {same[1].axcodes}, and was brought to {same[0].axcodes}, the order of its image"
    return difference, ""


def _in_two_orders(image: Grid, label: Grid) -> tuple[Grid, Grid] | None:
    """Return the places of an image and of its labels by which they have the same voxels in two orders."""
    for place, own in product((image, *places_of(image).values()), (label, *places_of(label).values())):
        if place.axcodes != own.axcodes and not grid_mismatch(canonical_grid(place), canonical_grid(own)):
            return place, own
    return None


def grid_of_labels(path: Path, shape: tuple[int, ...], given: ReadOptions | None = None) -> Grid:
    """Return where the voxels of a label image ``([z,] y, x)`` are, as its file says."""
    options = ReadOptions(dims=len(shape), spacing=given.spacing if given is not None else None)
    return calibrate(shape, open_raw(path), path, options)[0]


def in_order_of(labels: NDArray[Any], path: Path, image: Grid | None) -> NDArray[Any]:
    """Return labels in the order in which the voxels of their image are stored.

    Programs that save labels may exchange and flip axes, and say so in the affine: the voxels are the same ones, and
    no value changes. Labels that do not lie where the image does stay as they are.

    Parameters
    ----------
    labels, path
        A label image as stored, ``([z,] y, x)``, and its file.
    image
        The grid of the image; None: labels stay as they are.
    """
    if image is None or image.affine is None or labels.ndim != len(image.shape):
        return labels
    raw = open_raw(path)
    if raw.affine is None or raw.fault is not None:
        return labels
    own = grid_of_labels(path, labels.shape)
    if own.affine is None or not grid_mismatch(image, own) or (same := _in_two_orders(image, own)) is None:
        return labels
    if any(
        not grid_mismatch(place, mine)
        for place in places_of(image).values()
        for mine in (own, *places_of(own).values())
    ):
        return labels  # in its place as it is stored, by another matrix
    return np.ascontiguousarray(canonical_transform(same[0]).undo(canonical_transform(same[1]).apply(labels)))


def grids_of_pair(
    truth: Path, predicted: Path, shape: tuple[int, ...], given: ReadOptions | None
) -> tuple[Grid | None, tuple[str, ...]]:
    """Return where the voxels of an annotation and of a result are, and remarks on it.

    Returns
    -------
    The grid, None for an image, whose surfaces nobody asks for; and what the headers contradict themselves in.

    Raises
    ------
    InputError
        If the annotation lies elsewhere than the result.
    """
    if len(shape) == 2:
        return None, ()
    options = ReadOptions(dims=3, spacing=given.spacing if given is not None else None)
    raw = open_raw(truth)
    true, _ = calibrate(stored_shape(raw, shape), raw, truth, options)
    found, notes = calibrate(shape, open_raw(predicted), predicted, options)
    difference, remark = compare_places(found, true)
    if true.affine is not None and found.affine is not None and difference:
        raise InputError(f"does not lie where the result {predicted} does: {difference}", path=truth)
    said = [f"{predicted}: {note}" for note in notes if not note.startswith(_SEEN)]
    said += [f"{truth}: {remark}"] if remark else []
    return found if found.calibrated else true, tuple(said)


def stored_shape(raw: RawImage, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in which labels are stored that were brought to another order; else the one they have."""
    stored = raw.shape[-len(shape) :]
    return stored if raw.affine is not None and sorted(stored) == sorted(shape) else shape
