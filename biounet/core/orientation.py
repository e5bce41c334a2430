"""The canonical orientation of volumes, and the way back to the stored one.

A network tells left from right by the axes of the array alone, so each volume with an affine is brought to the order
closest to RAS, without interpolation, which labels undo exactly. An image without an affine stays as stored.
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
"""Directions of x, y and z of the volumes that models work on."""

AS_STORED: Literal["as stored"] = "as stored"
"""The orientation on the card of a model whose training images have no affine."""


@dataclass(frozen=True)
class Orientation:
    """A permutation and flips of the spatial axes of arrays, the last ones."""

    axes: tuple[int, ...]  # of the stored array, in canonical order
    flipped: tuple[bool, ...]  # whether each of them is then reversed

    @property
    def changes(self) -> bool:
        """Whether any axis is moved or reversed."""
        return any(self.flipped) or self.axes != tuple(range(len(self.axes)))

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored array ``(…, [z,] y, x)`` in the canonical order."""
        ahead = array.ndim - len(self.axes)
        return self._flip(array.transpose(*range(ahead), *(ahead + axis for axis in self.axes)))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a canonical array in the stored order, such that ``undo(apply(a))`` is ``a``."""
        ahead = array.ndim - len(self.axes)
        inverse = (ahead + self.axes.index(axis) for axis in range(len(self.axes)))
        return self._flip(array).transpose(*range(ahead), *inverse)

    def _flip(self, array: NDArray[Any]) -> NDArray[Any]:
        steps: tuple[Any, ...] = tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return array[(..., *steps)]


def canonical_transform(grid: Grid) -> Orientation:
    """Return the transform of arrays to the canonical order; the identity where `axcodes` is None."""
    if grid.axcodes is None:
        return Orientation(tuple(range(grid.dims)), (False,) * grid.dims)
    # Codes start with x, arrays end with it: inferior-superior becomes the first axis, left-right the last.
    order = [grid.axcodes.index(code) for pair in reversed(WORLD_AXES) for code in pair if code in grid.axcodes]
    negative = "".join(pair[0] for pair in WORLD_AXES)
    return Orientation(tuple(grid.dims - 1 - at for at in order), tuple(grid.axcodes[at] in negative for at in order))


def canonical_grid(grid: Grid) -> Grid:
    """Return the grid in the canonical order, without the header of the stored one."""
    transform = canonical_transform(grid)
    if not transform.changes:
        return grid
    spacing = None if grid.spacing is None else tuple(grid.spacing[axis] for axis in transform.axes)
    codes = "".join(pair[1] for pair in WORLD_AXES if {*pair} & {*(grid.axcodes or "")})
    affine = None
    if grid.affine is not None:
        columns, origin = np.array(grid.affine)[:, :3], np.array(grid.affine)[:, 3]
        order = [*range(3)]
        for to, (axis, flip) in enumerate(zip(transform.axes, transform.flipped, strict=True)):
            at = grid.dims - 1 - axis
            if flip:
                origin = origin + columns[:, at] * (grid.shape[axis] - 1)
                columns[:, at] *= -1
            order[grid.dims - 1 - to] = at
        affine = tuple(map(tuple, np.column_stack([columns[:, order], origin]).tolist()))
    shape = tuple(grid.shape[axis] for axis in transform.axes)
    return replace(grid, shape=shape, spacing=spacing, affine=affine, header=None, axcodes=codes)


def canonical_volume(volume: Volume) -> Volume:
    """Return an image in the canonical order, copied, since the last bits of sums depend on the order in memory.

    Without the channels to measure, which is done on the grid of the source.
    """
    transform = canonical_transform(volume.grid)
    if not transform.changes:
        return volume
    array, grid = np.ascontiguousarray(transform.apply(volume.array)), canonical_grid(volume.grid)
    return replace(volume, array=array, grid=grid, measured={})


def stated_orientation(grids: Iterable[Grid]) -> Literal["RAS", "as stored"]:
    """Return the orientation on the card of a model that was trained on these grids."""
    return CANONICAL if any(grid.axcodes is not None for grid in grids) else AS_STORED


def describe_orientations(grids: Iterable[Grid]) -> str:
    """Return the orientations of images and of the volumes that models work on, in words."""
    counts = Counter(grid.axcodes for grid in grids)
    if set(counts) == {None}:
        return "unknown: worked on as stored"
    stored = ", ".join(f"{number} {codes or 'unknown'}" for codes, number in counts.most_common())
    return f"{CANONICAL} (x to the right, y to anterior, z to superior); stored as {stored}"
