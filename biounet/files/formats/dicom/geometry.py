"""Where the slices of a series lie: sorted along their normal, at equal distances, one at each place.

Positions and directions of slices decide; thickness and spacing that a header states are not used, since scanners
write there what they like. What is no rectangular grid is an error that says what there is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from biounet.core import InputError, list_some
from biounet.files.formats.dicom.headers import DicomFile, Frame

T = TypeVar("T")

LPS_TO_RAS = np.array([[-1.0], [-1.0], [1.0]])
"""Factors of the rows of an affine, by which LPS becomes RAS, and RAS becomes LPS."""

_DIRECTION = 1e-3  # between components of directions that are the same, and of cosines of right angles
_SAME_PLACE = 1e-2  # of a pixel, between slices at one place
_EVEN = 0.01  # relative, between distances of slices: the rounding of positions, as highdicom allows
_RATIO = 1e-4  # relative, between equal pixel sizes
_PLANES = ("sagittal", "coronal", "axial")  # by the axis that is normal to them
_SHOWN = 4
_RESAMPLE = "convert it with a program that resamples, such as dcm2niix, or leave these slices out"


@dataclass(frozen=True)
class Stack:
    """Frames of one volume in their order along `normal`, and the affine of voxels ``(x, y, z)`` to LPS in mm.

    The y axis runs from the last row to the first, as dcm2niix stores it.
    """

    frames: tuple[Frame, ...]
    affine: NDArray[np.float64]  # (3, 4)


def make_stack(frames: Sequence[Frame], files: Sequence[DicomFile], path: Path) -> Stack:
    """Sort the frames of a volume and return them with their affine; `path` is for errors.

    Raises
    ------
    InputError
        If they do not lie on one rectangular grid: other sizes or directions, gaps, duplicates, a tilted gantry.
    """
    _check_matrix(files, path)
    rows, columns = (_direction(frames, path, part) for part in (slice(0, 3), slice(3, 6)))
    normal = np.cross(rows, columns)
    spacing = _pixel_size(frames, path)
    positions = np.array([frame.position for frame in frames])
    distances = positions @ normal
    order = np.argsort(distances, kind="stable")
    ordered = [frames[number] for number in order]
    _check_distances(distances[order], ordered, min(spacing), path)
    step = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
    _check_line(positions[order], normal, step, min(spacing), path)
    last_row = positions[order[0]] + columns * spacing[0] * (files[0].shape[0] - 1)
    affine = np.column_stack([rows * spacing[1], -columns * spacing[0], step, last_row])
    return Stack(tuple(ordered), affine)


def group_by_place(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the frames of each place along the normal of the first one, whose direction the others share."""
    orientation = np.array(frames[0].orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    tolerance = _SAME_PLACE * min(frames[0].spacing or (1.0,))
    distances = np.array([np.dot(frame.position or (0, 0, 0), normal) for frame in frames])
    groups: list[list[Frame]] = []
    last = -np.inf
    for number in np.argsort(distances, kind="stable"):
        if distances[number] - last > tolerance:
            groups.append([])
        groups[-1].append(frames[number])
        last = distances[number]
    return groups


def check_directions(frames: Sequence[Frame], path: Path) -> None:
    """Raise `InputError` if slices have different directions, such as those of a localiser."""
    groups: list[tuple[NDArray[np.float64], list[Frame]]] = []
    for frame in frames:
        orientation = np.array(frame.orientation)
        group = next((group for first, group in groups if np.abs(first - orientation).max() < _DIRECTION), None)
        if group is None:
            groups.append((orientation, [frame]))
        else:
            group.append(frame)
    if len(groups) > 1:
        parts = [f"{len(group)} {_plane(first)}" for first, group in groups]
        cause = f"slices of {len(groups)} directions in one series: {list_some(parts, _SHOWN)}"
        raise InputError(cause, path=path, hint="keep the slices of one direction in a folder of their own")


def _plane(orientation: NDArray[np.float64]) -> str:
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    name = _PLANES[int(normal.argmax())]
    return name if normal.max() > 1 - _DIRECTION else f"oblique {name}"


def _check_matrix(files: Sequence[DicomFile], path: Path) -> None:
    shapes = Counter(file.shape for file in files)
    if len(shapes) > 1:
        parts = [f"{count} of {rows} x {columns}" for (rows, columns), count in shapes.most_common()]
        hint = "keep the slices of one size in a folder of their own"
        raise InputError(f"slices of different sizes in one series: {list_some(parts, _SHOWN)}", path=path, hint=hint)


def _direction(frames: Sequence[Frame], path: Path, part: slice) -> NDArray[np.float64]:
    """Return the direction of rows or of columns; the mean, since scanners round each."""
    orientations = np.array([frame.orientation for frame in frames])
    row, column = orientations[:, :3].mean(axis=0), orientations[:, 3:].mean(axis=0)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > _DIRECTION or abs(row @ column) > _DIRECTION:
        raise InputError("the directions of its rows and columns are damaged", path=path, hint=_RESAMPLE)
    vector = orientations[:, part].mean(axis=0)
    return np.asarray(vector / np.linalg.norm(vector))


def _pixel_size(frames: Sequence[Frame], path: Path) -> tuple[float, float]:
    sizes = _unique(frame.spacing for frame in frames)
    first = sizes[0]
    if first is None or min(first) <= 0:
        raise InputError("its header has no pixel size", path=path, hint="export it again from the scanner")
    if any(size is None or np.abs(np.divide(size, first) - 1).max() > _RATIO for size in sizes):
        parts = ["unknown" if size is None else f"{size[0]:g} x {size[1]:g} mm" for size in sizes]
        raise InputError(f"slices of different pixel sizes in one series: {list_some(parts, _SHOWN)}", path=path)
    return first[0], first[1]


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))


def _check_distances(distances: NDArray[np.float64], frames: Sequence[Frame], pixel: float, path: Path) -> None:
    """Check that sorted slices have equal distances, and that there is one at each place."""
    steps = np.diff(distances)
    if twice := np.flatnonzero(steps <= _SAME_PLACE * pixel).tolist():
        one, other = frames[twice[0]], frames[twice[0] + 1]
        what = f"{len(twice)} slice{'s are' if len(twice) > 1 else ' is'}"
        cause = f"{what} there twice, such as {_name(one, path)} and {_name(other, path)}"
        raise InputError(cause, path=path, hint="remove the copies")
    usual = float(np.median(steps))
    if gaps := np.flatnonzero(steps > (1.5 * usual)).tolist():
        missing = sum(round(steps[gap] / usual) - 1 for gap in gaps)
        places = [f"{_name(frames[gap], path)} and {_name(frames[gap + 1], path)}" for gap in gaps]
        what = f"{missing} slice{'s are' if missing > 1 else ' is'} missing"
        cause = f"{what}: {len(frames)} are there, {usual:.4g} mm apart, with gaps between {list_some(places, 2)}"
        raise InputError(cause, path=path, hint="export the series again, and copy all of its files")
    if np.abs(steps - usual).max() > _EVEN * usual:
        cause = f"slices at uneven distances, {steps.min():.4g} to {steps.max():.4g} mm"
        raise InputError(cause, path=path, hint=_RESAMPLE)


def _check_line(
    positions: NDArray[np.float64], normal: NDArray[np.float64], step: NDArray[np.float64], pixel: float, path: Path
) -> None:
    """Check that slices are stacked along their normal."""
    lateral = step - normal * (step @ normal)
    angle = np.degrees(np.arctan2(np.linalg.norm(lateral), abs(step @ normal)))
    if np.linalg.norm(lateral) > _DIRECTION * np.linalg.norm(step):
        cause = f"a tilted gantry: its slices are sheared by {angle:.3g} degrees"
        raise InputError(cause, path=path, hint="convert it with a program that resamples, such as dcm2niix")
    line = positions[0] + np.arange(len(positions))[:, None] * step
    if (offset := float(np.linalg.norm(positions - line, axis=1).max())) > 0.1 * pixel + _EVEN * np.linalg.norm(step):
        raise InputError(f"its slices are not in one line: up to {offset:.3g} mm beside it", path=path, hint=_RESAMPLE)


def _name(frame: Frame, path: Path) -> str:
    """Return how a message names a slice: its file, and the frame where a file has several."""
    file = frame.file
    name = file.relative_to(path).as_posix() if path.is_dir() and file.is_relative_to(path) else file.name
    return f"{name} ({frame.number + 1})" if frame.number else name


def split_by_traits(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Return the volumes in one series by what distinguishes them, such as ``b=1000``; one, ``""``, if none is.

    A trait distinguishes volumes if the frames of each of its values cover all places.
    """
    places = group_by_place(frames)
    if len(places) == len(frames):
        return {"": [*frames]}
    parts: dict[str, list[Frame]] = {"": [*frames]}
    for trait in _unique(name for frame in frames for name, _ in frame.traits):
        refined: dict[str, list[Frame]] = {}
        for name, part in parts.items():
            refined |= _refine(name, part, trait, len(places))
        parts = refined
    return parts


def _refine(name: str, frames: list[Frame], trait: str, places: int) -> dict[str, list[Frame]]:
    """Split a part by a trait, if it has several frames at a place and each value of the trait covers all places."""
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[dict(frame.traits).get(trait, "none")].append(frame)
    covers = all(len(group_by_place(group)) == places for group in groups.values())
    if len(frames) == places or len(groups) == 1 or not covers:
        return {name: frames}
    return {f"{name} {trait}={value}".strip(): group for value, group in groups.items()}
