"""Whether what was drawn or found lies where its image does, by any of the matrices that headers have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from biounet.errors import InputError
from biounet.files.axes import ReadOptions
from biounet.files.matrices import matrices_of
from biounet.files.nifti import parse_header
from biounet.files.read import calibrate, open_raw
from biounet.volume import Grid, apart

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
    annotation is in its place if any matrix of its header says the same as any of its image's.

    Returns
    -------
    The difference, empty where there is none; and a remark where it is so for another matrix than the one in use.
    """
    if image.affine is None or label.affine is None or not (difference := apart(image, label)):
        return apart(image, label), ""
    for name, place in (places_of(image) or {"affine": image}).items():
        for own in (label, *places_of(label).values()):
            if not apart(place, own):
                return "", f"lies where the {name} of its image says, not by the matrix in use: {difference}"
    return difference, ""


def place_of_pair(
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
    (true, _), (found, notes) = (calibrate(shape, open_raw(path), path, options) for path in (truth, predicted))
    difference, remark = compare_places(found, true)
    if true.affine is not None and found.affine is not None and difference:
        raise InputError(f"does not lie where the result {predicted} does: {difference}", path=truth)
    said = [f"{predicted}: {note}" for note in notes if not note.startswith(_SEEN)]
    said += [f"{truth}: {remark}"] if remark else []
    return found if found.calibrated else true, tuple(said)
