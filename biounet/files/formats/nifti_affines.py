"""The two matrices of a NIfTI header, sform and qform, which may say different things about where the voxels are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

CONFLICT = "sform and qform"
"""How the remark begins that a header contradicts itself."""

_MM = {1: 1000.0, 3: 1e-3}  # of the codes of other units
_UNIT_CODES = 7
_TOLERANCE = 1e-3  # of angles and of lengths, relative
SMALLEST, LARGEST = 1e-6, 1e9  # of lengths in a header that is not damaged
_RESAMPLE = "resample it to a rectangular grid first"
STATE = "state the voxel size with --spacing, in mm"
_FRAMES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI152", 5: "template"}
_APART = 0.05  # of a voxel: the first one may lie so far from where the other matrix says
_ANGLE = 1.2e-3  # radian that a quaternion in 32 bits may be off, near half a turn


@dataclass(frozen=True)
class Matrix:
    """One of the two matrices of a header that say where the voxels are.

    Attributes
    ----------
    name, code
        ``"sform"`` or ``"qform"``, and the code of the frame that it leads to.
    affine
        Three rows of four numbers in mm; NaN where it is damaged.
    shape
        Number of voxels along the axes of the volume, x first.
    """

    name: str
    code: int
    affine: NDArray[np.float64]
    shape: tuple[int, ...]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Distance of voxels along each axis in mm."""
        return np.asarray(np.linalg.norm(self.affine[:, : len(self.shape)], axis=0))

    @property
    def fault(self) -> tuple[str, str] | None:
        """What is wrong with it, and what to do."""
        return _fault(self.affine, self.lengths, self.name)

    @property
    def frame(self) -> str:
        """The frame that places are given in, by its code in the NIfTI standard."""
        return _FRAMES.get(self.code, f"code {self.code}")

    @property
    def grid(self) -> Grid:
        """Where the voxels are, if this one is right."""
        spacing = tuple(self.lengths[::-1].tolist())
        return Grid(self.shape[::-1], spacing, "mm", tuple(map(tuple, self.affine.tolist())))

    def __str__(self) -> str:
        sizes, origin = (" x ".join(f"{n:.4g}" for n in self.lengths), ", ".join(f"{n:.4g}" for n in self.affine[:, 3]))
        return f"{self.name}: {self.frame}, {self.grid.axcodes}, voxels of {sizes} mm from ({origin})"


def unit_of(header: Nifti1Header) -> tuple[int, float]:
    """Return the code of the unit of a header's lengths, and its mm; mm is what everybody means who says nothing."""
    code = int(header["xyzt_units"]) & _UNIT_CODES
    return code, _MM.get(code, 1.0)


def matrices_of(header: Nifti1Header) -> list[Matrix]:
    """Return the matrices that have a code, the sform first."""
    count = min(int(header["dim"][0]), 3)
    shape = tuple(int(length) for length in header["dim"][1 : count + 1])
    _, factor = unit_of(header)
    found = []
    if (code := int(header["sform_code"])) > 0:
        found.append(Matrix("sform", code, np.asarray(header.get_sform()[:3], float) * factor, shape))
    if (code := int(header["qform_code"])) > 0:
        found.append(Matrix("qform", code, _qform(header, count) * factor, shape))
    return found


def _qform(header: Nifti1Header, count: int) -> NDArray[np.float64]:
    header = header.copy()
    header["pixdim"][count + 1 : 4] = 1  # of axes that the volume does not have
    if header["pixdim"][0] != -1:
        header["pixdim"][0] = 1  # as the standard says of other values
    try:
        return np.asarray(header.get_qform()[:3], float)
    except ValueError:  # a quaternion of more than unit length
        return np.full((3, 4), np.nan)


def choose(matrices: list[Matrix], sizes: NDArray[np.float64]) -> tuple[Matrix, tuple[str, ...]]:
    """Return the matrix to use, and remarks where the header contradicts itself.

    The sform counts, as in nibabel. But not one that has a fault the qform does not have, nor one whose voxels are all
    1 mm long where the header gives others: who wrote it knew directions only.

    Parameters
    ----------
    matrices
        One or two.
    sizes
        Voxel sizes that the header gives beside them, in mm, x first; those of a qform are always these.
    """
    first, last = matrices[0], matrices[-1]
    if first is last:
        return first, () if first.fault else _unlike_sizes(first, sizes)
    if first.fault is not None:
        remark = f"the sform of the header is not used: {first.fault[0]}; placed by the {last}"
        return (first, ()) if last.fault is not None else (last, (remark,))
    if last.fault is not None:
        return first, ("the qform of the header is damaged, the sform is used", *_unlike_sizes(first, sizes))
    if (away := _apart_mm(first, last)) is None:
        return first, _unlike_sizes(first, sizes)
    nominal = np.allclose(first.lengths, 1, rtol=_TOLERANCE) and not np.allclose(sizes, 1, rtol=_TOLERANCE)
    used, other = (last, first) if nominal else (first, last)
    about = "differ" if first.grid.axcodes == last.grid.axcodes else "disagree on the orientation and differ"
    return used, (f"{CONFLICT} {about} by up to {away:.3g} mm; used is the {used}; not the {other}",)


def _unlike_sizes(used: Matrix, sizes: NDArray[np.float64]) -> tuple[str, ...]:
    if np.allclose(used.lengths, sizes, rtol=_TOLERANCE):
        return ()
    stated, own = (" x ".join(f"{size:.4g}" for size in each) for each in (sizes, used.lengths))
    return (f"the header gives voxels of {stated} mm, its affine, which is used, of {own} mm",)


def _apart_mm(one: Matrix, other: Matrix) -> float | None:
    """Return how far two matrices are apart at most, in mm; None where that is the rounding of a quaternion."""
    ends = np.array(
        [(*corner, *(0,) * (3 - len(one.shape)), 1) for corner in product(*((0, n - 1) for n in one.shape))]
    )
    away = np.linalg.norm(ends @ (one.affine - other.affine).T, axis=1)
    small = _APART * float(min(one.lengths.min(), other.lengths.min()))
    across = float(np.linalg.norm(one.lengths * one.shape))
    return float(away.max()) if away[0] > small or away.max() > small + _ANGLE * across else None


def _fault(affine: NDArray[np.float64], lengths: NDArray[np.float64], name: str) -> tuple[str, str] | None:
    """Return what is wrong with an affine, and what to do."""
    if not (np.abs(affine) < LARGEST).all() or not (lengths > SMALLEST).all():
        return "the affine of the header is damaged", STATE
    directions = affine[:, : len(lengths)] / lengths
    cosines = np.abs(directions.T @ directions - np.eye(len(lengths)))
    if np.linalg.matrix_rank(directions, tol=1e-6) < len(lengths):
        return "the affine of the header is singular", STATE
    if cosines.max() > _TOLERANCE:
        angle = np.degrees(np.arccos(cosines.max()))
        return f"sheared: the axes of its voxels meet at {angle:.4g} degrees", _RESAMPLE
    return None
