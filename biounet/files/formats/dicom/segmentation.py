"""DICOM SEG as labels on the grid of their image: slices without a segment are not in such files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, require_extra
from biounet.files.formats.dicom.geometry import LPS_TO_RAS
from biounet.files.formats.dicom.headers import EXTRA, looks_like_dicom, quietly, read_header
from biounet.files.formats.raw import translate_errors

_TOLERANCE = 1e-3  # in mm and of directions: grids have the rounding of NIfTI headers


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM SEG; False where it cannot be read."""
    try:
        return path.is_file() and looks_like_dicom(path) and read_header(path).is_segmentation
    except (InputError, OSError):
        return False


@translate_errors
def read_segmentation(path: Path, grid: Grid | None) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Return the numbers of segments on a grid with an affine, ``(z, y, x)`` with 0 where none is, and their names.

    Raises
    ------
    InputError
        If the segments overlap, are fractional, or do not lie on voxels of the grid; if highdicom is not installed.
    """
    require_extra(EXTRA, "highdicom", "DICOM SEG", path)
    from highdicom import VolumeGeometry
    from highdicom.seg import segread

    if grid is None or grid.affine is None or grid.dims != 3:
        raise InputError("a DICOM SEG lies on a volume that says where it is, and its image does not", path=path)
    with quietly():
        segmentation = segread(path)
        if str(segmentation.SegmentationType) == "FRACTIONAL":
            raise InputError("a DICOM SEG of probabilities, not of labels", path=path, hint="save it as binary")
        try:
            volume = segmentation.get_volume(combine_segments=True)
        except RuntimeError as error:
            if "overlap" not in str(error).lower():
                raise
            hint = "save each of the overlapping segments in a file of its own"
            raise InputError("its segments overlap", path=path, hint=hint) from None
        affine = np.vstack([np.array(grid.affine) * LPS_TO_RAS, (0, 0, 0, 1)])[:, [2, 1, 0, 3]]
        frame = volume.frame_of_reference_uid
        place = VolumeGeometry(affine, grid.shape, coordinate_system="PATIENT", frame_of_reference_uid=frame)
        try:
            labels = volume.match_geometry(place, tol=_TOLERANCE).array
        except (ValueError, RuntimeError) as error:
            cause = "does not lie on the voxels of its image"
            raise InputError(cause, path=path, hint="draw it on its image") from error
    segments = {int(one.SegmentNumber): str(one.SegmentLabel) for one in segmentation.SegmentSequence}
    return np.ascontiguousarray(labels.astype(np.int32)), segments
