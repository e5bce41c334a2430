"""The orientation that volumes are worked on in, and the way back to the order that their voxels are stored in.

Files store the voxels of one head in 48 orders. A network knows left from right and top from front by the axes of the
array alone: each volume with an affine is brought to the order closest to RAS, in which x leads to the patient's right,
y to anterior and z to superior. Axes are exchanged and flipped, nothing is interpolated, and labels go back bit for
bit. An image without an affine, such as a TIFF, stays as it is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from biounet.core.volume import WORLD_AXES, Grid, Volume

CANONICAL: Literal["RAS"] = "RAS"
"""Where x, y and z of a volume lead on the grid that models work on."""

AS_STORED: Literal["as stored"] = "as stored"
"""What a card says instead where no training image states its orientation."""


@dataclass(frozen=True)
class Orientation:
    """A permutation and flips of the spatial axes of arrays, which come last.

    Attributes
    ----------
    axes
        Which axis of the stored array becomes the first, second, … one.
    flipped
        Whether that axis is then reversed.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    @property
    def changes(self) -> bool:
        """Whether any axis moves or is reversed."""
        return any(self.flipped) or self.axes != tuple(range(len(self.axes)))

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored array ``(…, [z,] y, x)`` in the canonical order."""
        ahead = array.ndim - len(self.axes)
        return self._flip(array.transpose(*range(ahead), *(ahead + axis for axis in self.axes)))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an array in the canonical order as it would be stored: ``undo(apply(a))`` is ``a``."""
        ahead = array.ndim - len(self.axes)
        back = (ahead + self.axes.index(axis) for axis in range(len(self.axes)))
        return self._flip(array).transpose(*range(ahead), *back)

    def _flip(self, array: NDArray[Any]) -> NDArray[Any]:
        ends: tuple[Any, ...] = tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return array[(..., *ends)]


def canonical_transform(grid: Grid) -> Orientation:
    """Return what brings arrays on a grid to the canonical order: nothing where it does not say where its axes lead."""
    if grid.axcodes is None:
        return Orientation(tuple(range(grid.dims)), (False,) * grid.dims)
    # Codes count x first, arrays last: superior and inferior become the first axis, right and left the last.
    found = [grid.axcodes.index(code) for pair in reversed(WORLD_AXES) for code in pair if code in grid.axcodes]
    falling = "".join(pair[0] for pair in WORLD_AXES)
    return Orientation(tuple(grid.dims - 1 - at for at in found), tuple(grid.axcodes[at] in falling for at in found))


def canonical_grid(grid: Grid) -> Grid:
    """Return where the voxels are in the canonical order; without the header, which holds for the stored one."""
    way = canonical_transform(grid)
    if not way.changes:
        return grid
    spacing = None if grid.spacing is None else tuple(grid.spacing[axis] for axis in way.axes)
    affine, codes = None, canonical_codes(grid)
    if grid.affine is not None:
        columns, origin = np.array(grid.affine)[:, :3], np.array(grid.affine)[:, 3]
        order = [*range(3)]
        for to, (axis, flip) in enumerate(zip(way.axes, way.flipped, strict=True)):
            at = grid.dims - 1 - axis
            if flip:
                origin = origin + columns[:, at] * (grid.shape[axis] - 1)
                columns[:, at] *= -1
            order[grid.dims - 1 - to] = at
        affine = tuple(map(tuple, np.column_stack([columns[:, order], origin]).tolist()))
    shape = tuple(grid.shape[axis] for axis in way.axes)
    return replace(grid, shape=shape, spacing=spacing, affine=affine, header=None, axcodes=codes)


def canonical_codes(grid: Grid) -> str | None:
    """Return where the axes of a grid lead in the canonical order: ``"RAS"`` of a volume that says where they do."""
    codes = grid.axcodes
    return None if codes is None else "".join(pair[1] for pair in WORLD_AXES if pair[0] in codes or pair[1] in codes)


def canonical_volume(volume: Volume) -> Volume:
    """Return an image in the canonical order, in memory of its own where that is another than the stored one.

    Sums over an array depend in their last bits on the order in memory: so the results of all 48 orders are the same.
    """
    way = canonical_transform(volume.grid)
    if not way.changes:
        return volume
    return replace(volume, array=np.ascontiguousarray(way.apply(volume.array)), grid=canonical_grid(volume.grid))


def stated_orientation(grids: Iterable[Grid]) -> Literal["RAS", "as stored"]:
    """Return what the card of a model says that was trained on images with these grids."""
    return CANONICAL if any(grid.axcodes is not None for grid in grids) else AS_STORED


def describe_orientations(grids: Iterable[Grid]) -> str:
    """Return how images are stored and what they are brought to, in words."""
    counts = Counter(grid.axcodes for grid in grids)
    if set(counts) == {None}:
        return "unknown: worked on as stored"
    stored = ", ".join(f"{number} {codes or 'unknown'}" for codes, number in counts.most_common())
    return f"{CANONICAL} (x to the right, y to anterior, z to superior); stored as {stored}"
