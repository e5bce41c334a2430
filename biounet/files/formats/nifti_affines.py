"""Voxel sizes and the two affines of a NIfTI header, sform and qform, which may contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, Note, NoteCode
from biounet.files.formats.raw import RawImage

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_MM = {1: 1000.0, 2: 1.0, 3: 1e-3}  # by code of the unit
_UNIT_CODES = 7
_TOLERANCE = 1e-3  # of angles and of lengths, relative
_MIN_LENGTH, _MAX_LENGTH = 1e-6, 1e9  # in a header that is not damaged
_RESAMPLE = "resample it to a rectangular grid first"
_STATE_SIZE = "state the voxel size with --spacing, in mm"
_FRAMES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI152", 5: "template"}
_MAX_OFFSET = 0.05  # of a voxel, between the first voxels of two affines that agree
_MAX_ROTATION = 1.2e-3  # radian: the rounding of a quaternion in 32 bits, near half a turn
_NO_ORIENTATION = Note(
    "orientation unknown: the header has neither a sform nor a qform, and voxels are taken in the stored order",
    NoteCode.ORIENTATION_UNKNOWN,
)


@dataclass(frozen=True)
class HeaderAffine:
    """One of the two affines of a header, ``"sform"`` or ``"qform"``, with its frame of reference.

    `affine` is three rows of four numbers in mm, NaN where it is damaged; `shape` counts voxels, x first.
    """

    name: str
    frame: str
    affine: NDArray[np.float64]
    shape: tuple[int, ...]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Voxel size along each axis in mm."""
        return np.asarray(np.linalg.norm(self.affine[:, : len(self.shape)], axis=0))

    @property
    def geometry_error(self) -> tuple[str, str] | None:
        """Cause and hint if the affine cannot be used."""
        if not (np.abs(self.affine) < _MAX_LENGTH).all() or not (self.lengths > _MIN_LENGTH).all():
            return "the affine of the header is damaged", _STATE_SIZE
        directions = self.affine[:, : len(self.shape)] / self.lengths
        if np.linalg.matrix_rank(directions, tol=1e-6) < len(self.shape):
            return "the affine of the header is singular", _STATE_SIZE
        cosines = np.abs(directions.T @ directions - np.eye(len(self.shape)))
        if cosines.max() > _TOLERANCE:
            angle = np.degrees(np.arccos(cosines.max()))
            return f"sheared: the axes of its voxels meet at {angle:.4g} degrees", _RESAMPLE
        return None

    @property
    def grid(self) -> Grid:
        """The grid of the volume by this affine."""
        spacing = tuple(self.lengths[::-1].tolist())
        return Grid(self.shape[::-1], spacing, "mm", tuple(map(tuple, self.affine.tolist())))

    def __str__(self) -> str:
        sizes = " x ".join(f"{n:.4g}" for n in self.lengths)
        origin = ", ".join(f"{n:.4g}" for n in self.affine[:, 3])
        return f"{self.name}: {self.frame}, {self.grid.axcodes}, voxels of {sizes} mm from ({origin})"


def header_affines(header: Nifti1Header) -> list[HeaderAffine]:
    """Return the affines that have a code, the sform first."""
    count = min(int(header["dim"][0]), 3)
    shape = tuple(int(length) for length in header["dim"][1 : count + 1])
    factor = _MM.get(_unit_code(header), 1.0)
    found = []
    for name, read in (("sform", header.get_sform), ("qform", lambda: _qform(header, count))):
        if (code := int(header[f"{name}_code"])) > 0:
            affine = np.asarray(read()[:3], float) * factor
            found.append(HeaderAffine(name, _FRAMES.get(code, f"code {code}"), affine, shape))
    return found


def _qform(header: Nifti1Header, count: int) -> NDArray[np.float64]:
    header = header.copy()
    header["pixdim"][count + 1 : 4] = 1  # of axes that the volume does not have
    if header["pixdim"][0] != -1:
        header["pixdim"][0] = 1  # as the standard says of other values
    try:
        return np.asarray(header.get_qform())
    except ValueError:  # a quaternion of more than unit length
        return np.full((4, 4), np.nan)


def _unit_code(header: Nifti1Header) -> int:
    return int(header["xyzt_units"]) & _UNIT_CODES


def add_geometry(raw: RawImage, header: Nifti1Header) -> RawImage:
    """Add voxel size and affine, or what is wrong with them."""
    count = min(int(header["dim"][0]), 3)
    stated = np.asarray(header["pixdim"][1 : count + 1], float)
    coded = header["sform_code"] > 0 or header["qform_code"] > 0
    if not coded and _unit_code(header) not in _MM:
        text = "voxel size unknown: the header has neither an affine nor a unit"
        return replace(raw, notes=(Note(text, NoteCode.VOXEL_SIZE_UNKNOWN), _NO_ORIENTATION))
    if not ((stated > _MIN_LENGTH) & (stated < _MAX_LENGTH)).all():
        shown = " x ".join(f"{size:g}" for size in stated)
        return replace(raw, geometry_error=(f"the header gives a voxel size of {shown}", _STATE_SIZE))
    sizes = stated * _MM.get(_unit_code(header), 1.0)  # by convention in mm
    if not coded:
        return replace(raw, spacing=dict(zip("XYZ", sizes.tolist(), strict=False)), notes=(_NO_ORIENTATION,))
    used, notes = _choose_affine(header_affines(header), sizes)
    if used.geometry_error is not None:
        return replace(raw, geometry_error=used.geometry_error)
    return replace(
        raw,
        spacing=dict(zip("XYZ", used.lengths.tolist(), strict=False)),
        affine=tuple(map(tuple, used.affine.tolist())),
        frame=used.frame,
        notes=notes,
    )


def _choose_affine(affines: list[HeaderAffine], sizes: NDArray[np.float64]) -> tuple[HeaderAffine, tuple[str, ...]]:
    """Return the affine to use, and notes where the header contradicts itself.

    The sform has precedence, as in nibabel, but not if only the qform can be used, nor if the voxels of the sform are
    all 1 mm long where the header gives other `sizes`, in mm, x first: such programs write directions only.
    """
    first, last = affines[0], affines[-1]
    if first is last:
        return first, () if first.geometry_error else _size_notes(first, sizes)
    if first.geometry_error is not None:
        text = f"the sform of the header is not used: {first.geometry_error[0]}; placed by the {last}"
        note = Note(text, NoteCode.HEADER_DAMAGED)
        return (first, ()) if last.geometry_error is not None else (last, (note,))
    if last.geometry_error is not None:
        note = Note("the qform of the header is damaged, the sform is used", NoteCode.HEADER_DAMAGED)
        return first, (note, *_size_notes(first, sizes))
    if (distance := _distance_mm(first, last)) is None:
        return first, _size_notes(first, sizes)
    nominal = np.allclose(first.lengths, 1, rtol=_TOLERANCE) and not np.allclose(sizes, 1, rtol=_TOLERANCE)
    used, other = (last, first) if nominal else (first, last)
    same = first.grid.axcodes == last.grid.axcodes
    relation = "differ" if same else "disagree on the orientation and differ"
    text = f"sform and qform {relation} by up to {distance:.3g} mm; used is the {used}; not the {other}"
    return used, (Note(text, NoteCode.VOXEL_SIZE_CONFLICT if same else NoteCode.ORIENTATION_CONFLICT),)


def _size_notes(used: HeaderAffine, sizes: NDArray[np.float64]) -> tuple[str, ...]:
    if np.allclose(used.lengths, sizes, rtol=_TOLERANCE):
        return ()
    stated, own = (" x ".join(f"{size:.4g}" for size in each) for each in (sizes, used.lengths))
    text = f"the header gives voxels of {stated} mm, its affine, which is used, of {own} mm"
    return (Note(text, NoteCode.VOXEL_SIZE_CONFLICT),)


def _distance_mm(one: HeaderAffine, other: HeaderAffine) -> float | None:
    """Return the largest distance of a voxel by two affines in mm; None where it is the rounding of a quaternion."""
    padding = (0,) * (3 - len(one.shape))
    corners = np.array([(*corner, *padding, 1) for corner in product(*((0, n - 1) for n in one.shape))])
    distances = np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1)
    offset = _MAX_OFFSET * float(min(one.lengths.min(), other.lengths.min()))
    diagonal = float(np.linalg.norm(one.lengths * one.shape))
    if distances[0] <= offset and distances.max() <= offset + _MAX_ROTATION * diagonal:
        return None
    return float(distances.max())
