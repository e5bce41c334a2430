"""What is summed up of the objects in a part of an image, and the columns of a table that follow from it.

All sums are integers that do not depend on where a part begins, or run over the voxels of an object in scan order, and
columns are computed from them row by row. So an object has the same row, to the last bit, whatever part it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, InputError, find_label_runs
from biounet.measurement import moments, surface_area
from biounet.measurement.borders import Boxes
from biounet.measurement.intensities import IntensitySums
from biounet.measurement.moments import CoordinateSums
from biounet.measurement.rings import Ring, ring_labels
from biounet.measurement.table import Columns

Ints = NDArray[np.int64]

_VOLUME = 3  # dimensions
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Part:
    """Part of an image with objects to measure.

    Attributes
    ----------
    labels
        ``(z, y, x)``, contiguous; the objects to measure are 1..n, and what else lies near them has higher labels.
    all_runs
        (r, 3), from `biounet.core.find_label_runs`, of all labels.
    objects
        Number n of those to measure.
    channels
        Channels to measure by their names, `summable` and of the shape of `labels`.
    start
        Index in the image ``(z, y, x)`` of the first voxel.
    core
        Planes and rows of `labels` that are summed, where others around them only show what is near; empty: all.
    ids
        (m,) labels in the image of 1..m, where parts of one object are compared.
    """

    labels: NDArray[np.int32]
    all_runs: Ints
    objects: int
    channels: Mapping[str, NDArray[Any]]
    start: tuple[int, ...] = (0, 0, 0)
    core: tuple[slice, ...] = ()
    ids: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @cached_property
    def runs(self) -> Ints:
        """Runs of the objects to measure in the core."""
        return self._own(self.all_runs)

    def ring_runs(self, grid: Grid, ring: Ring) -> Ints:
        """Return the runs of the rings of the objects to measure in the core."""
        shape = self.labels.shape[3 - grid.dims :]
        rings = ring_labels(self.labels.reshape(shape), grid, ring).reshape(self.labels.shape)
        return self._own(find_label_runs(rings))

    def _own(self, runs: Ints) -> Ints:
        own = runs[:, 2] <= self.objects
        if self.core:
            z, y = np.divmod(runs[:, 0] // self.labels.shape[2], self.labels.shape[1])
            for place, part in zip((z, y), self.core, strict=True):
                own &= (place >= part.start) & (place < part.stop)
        return runs if own.all() else runs[own]


@dataclass(frozen=True)
class ObjectSums:
    """Sums over the voxels of n objects.

    Attributes
    ----------
    coordinates
        In the image.
    outline
        Of an image the half links of `moments.count_links`, of a volume the exits of `surface_area.count_exits`.
    hulls
        (n,) of an image, from `moments.convex_areas`.
    neighbours
        (n,) of a volume, from `surface_area.count_neighbours`.
    intensities, rings
        Of each channel, by its name; without a ring, nothing around the objects was summed.
    """

    coordinates: CoordinateSums
    outline: Ints
    hulls: Ints | None = None
    neighbours: Ints | None = None
    intensities: Mapping[str, IntensitySums] = field(default_factory=dict)
    rings: Mapping[str, IntensitySums] | None = None
    ring_size: Ints | None = None

    @property
    def boxes(self) -> Boxes:
        """Of the objects, along ``(z, y, x)``."""
        return Boxes(self.coordinates.low, self.coordinates.high)


def sum_part(part: Part, grid: Grid, ring: Ring | None) -> ObjectSums:
    """Sum up the objects of a part that holds all their voxels and, in a volume or with a ring, what is near them."""
    n, coordinates = part.objects, _coordinates(part)
    found = ObjectSums(
        coordinates,
        _outline(part, grid),
        intensities={name: IntensitySums.of(values, part.runs, n) for name, values in part.channels.items()},
    )
    if grid.dims == 2:
        low, high = coordinates.low[:, 1] - part.start[1], coordinates.high[:, 1] - part.start[1]
        found = replace(found, hulls=moments.convex_areas(part.runs, part.labels.shape[2], low, high))
    else:
        pairs = surface_area.touching_pairs(part.labels, part.all_runs, n)
        found = replace(found, neighbours=surface_area.count_neighbours(pairs, n))
    if ring is None:
        return found
    around = part.ring_runs(grid, ring)
    rings = {name: IntensitySums.of(values, around, n) for name, values in part.channels.items()}
    return replace(found, rings=rings, ring_size=_count_voxels(around, n))


def sum_strips(
    strips: Callable[[], Iterator[Part]], rows: tuple[int, int], grid: Grid, ring: Ring | None
) -> ObjectSums:
    """Sum up one object from strips of its box, which follow each other in scan order and are never all in memory.

    Parameters
    ----------
    strips
        Called twice where there are channels, since deviations follow the mean.
    rows
        Lowest and highest y of the object in the image.
    """
    coordinates: CoordinateSums | None = None
    outline, size, touching = np.zeros((1, 3 if grid.dims == 2 else 13), np.int64), np.zeros(1, np.int64), [_NONE]
    extents = moments.row_extents(*(np.array([row]) for row in rows))
    inside: dict[str, IntensitySums] = {}
    around: dict[str, IntensitySums] = {}
    for part in strips():
        rings = part.ring_runs(grid, ring) if ring is not None else part.runs[:0]
        size += _count_voxels(rings, 1)
        for name, values in part.channels.items():
            is_integer = values.dtype.kind in "iu"
            inside.setdefault(name, IntensitySums.empty(1, integers=is_integer)).add(values, part.runs)
            around.setdefault(name, IntensitySums.empty(1, integers=is_integer)).add(values, rings)
        if not len(part.runs):
            continue
        found = _coordinates(part)
        coordinates = found if coordinates is None else moments.join_coordinates(coordinates, found)
        outline += _outline(part, grid)
        if grid.dims == _VOLUME:
            touching.append(_touching(part))
        else:
            _extend_rows(extents, part, rows[0])
    if coordinates is None:
        raise InputError("an object without any voxel")
    for part in strips() if inside else ():
        for name, values in part.channels.items():
            inside[name].add_squares(values, part.runs)
            if ring is not None:
                around[name].add_squares(values, part.ring_runs(grid, ring))
    hulls = moments.hull_areas(extents) if grid.dims == 2 else None
    neighbours = np.array([len(np.unique(np.concatenate(touching)))])
    return ObjectSums(
        coordinates,
        outline,
        hulls,
        neighbours,
        inside,
        None if ring is None else around,
        None if ring is None else size,
    )


def _coordinates(part: Part) -> CoordinateSums:
    sums = moments.sum_coordinates(part.runs, part.labels.shape, part.objects)
    return sums._replace(low=sums.low + part.start, high=sums.high + part.start, origin=sums.origin + part.start)


def _outline(part: Part, grid: Grid) -> Ints:
    if grid.dims == _VOLUME:
        return surface_area.count_exits(part.labels, part.runs, part.objects, np.array(grid.steps))
    rows = part.core[1] if part.core else slice(0, part.labels.shape[1])
    return np.asarray(moments.count_links(part.labels[0], part.objects, rows.start, rows.stop))


def _extend_rows(extents: moments.RowExtents, part: Part, low: int) -> None:
    _, y, x = part.start
    moments.extend_rows(extents, part.runs, part.labels.shape[2], np.array([low - y]), x)


def _touching(part: Part) -> Ints:
    """Return the labels in the image of what touches the only object of a part."""
    pairs = surface_area.touching_pairs(part.labels, part.all_runs, 1)
    return part.ids[pairs[:, 1] - 1]


def _count_voxels(runs: Ints, n: int) -> Ints:
    return np.bincount(runs[:, 2], runs[:, 1] - runs[:, 0], minlength=n + 1)[1:].astype(np.int64)


def shape_columns(sums: ObjectSums, grid: Grid) -> Columns:
    """Return the columns of positions and shapes."""
    return _centroids(sums.coordinates, grid) | (_planar_shapes if grid.dims == 2 else _solid_shapes)(sums, grid)


def channel_columns(sums: ObjectSums, grid: Grid, background: Mapping[str, float]) -> Columns:
    """Return the columns of intensities and, with rings, of these and of the background; NaN where it is not known."""
    columns: Columns = {}
    for name, inside in sums.intensities.items():
        columns |= inside.columns(f"intensity_{{}}_{name}")
    if sums.rings is None or sums.ring_size is None:
        return columns
    columns[f"ring_{'area' if grid.dims == 2 else 'volume'}_px"] = sums.ring_size
    for name, around in sums.rings.items():
        columns |= around.ring_columns(f"ring_{{}}_{name}")
        columns[f"background_{name}"] = np.full(len(around.size), background.get(name, np.nan))
    return columns


def size_columns(name: str, size: Ints, grid: Grid) -> Columns:
    """Return areas or volumes in pixels and, on a calibrated grid, in its unit; `name` is ``area`` or ``volume``."""
    physical = {f"{name}_{unit}{grid.dims}": size * math.prod(steps) for unit, steps in _scales(grid)[1:]}
    return {f"{name}_px": size, **physical}


def _scales(grid: Grid) -> list[tuple[str, NDArray[np.float64]]]:
    """Return pixels and, on a calibrated grid, its unit: the name, and the size of a voxel along each axis."""
    scales = [("px", np.ones(grid.dims))]
    return scales if grid.unit is None else [*scales, (grid.unit, np.array(grid.steps))]


def _centroids(sums: CoordinateSums, grid: Grid) -> Columns:
    axes = "zyx"[3 - grid.dims :]
    centroid = (sums.origin + sums.first / sums.size[:, None])[:, 3 - grid.dims :]
    scales = _scales(grid)
    return {f"centroid_{axis}_{unit}": centroid[:, i] * step[i] for unit, step in scales for i, axis in enumerate(axes)}


def _planar_shapes(sums: ObjectSums, grid: Grid) -> Columns:
    """Return areas, perimeters, ellipses and solidity."""
    size = sums.coordinates.size
    columns = size_columns("area", size, grid) | _perimeters(sums.outline, grid) | _ellipses(sums.coordinates, grid)
    return columns | {"solidity": size / (sums.hulls if sums.hulls is not None else size)}


def _perimeters(links: Ints, grid: Grid) -> Columns:
    """Return the length of outlines from the counts of `moments.count_links`."""
    columns: Columns = {}
    for unit, (dy, dx) in _scales(grid):
        # No matrix product: its sums depend on which rows stand beside each other.
        columns[f"perimeter_{unit}"] = (
            links[:, 0] * (dy / 2) + links[:, 1] * (dx / 2) + links[:, 2] * (np.hypot(dy, dx) / 2)
        )
    return columns


def _ellipses(sums: CoordinateSums, grid: Grid) -> Columns:
    """Return axes and eccentricity of the ellipses with the second moments of the objects."""
    covariances = moments.covariances(sums.size, sums.first, sums.second)[:, 1:, 1:]
    columns: Columns = {}
    for unit, steps in _scales(grid):
        yy, yx, _, xx = (covariances * np.outer(steps, steps)).reshape(-1, 4).T
        mean, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
        major, minor = 4 * np.sqrt(mean + half), 4 * np.sqrt(np.maximum(mean - half, 0))
        columns |= {f"axis_major_length_{unit}": major, f"axis_minor_length_{unit}": minor}
    longest = np.where(major > 0, major, 1)
    columns["eccentricity"] = np.sqrt((longest - minor) * (longest + minor)) / longest * (major > 0)
    return columns


def _solid_shapes(sums: ObjectSums, grid: Grid) -> Columns:
    """Return volumes, surfaces, sphericity, axes and neighbours, lengths in the unit of the grid where it has one."""
    (unit, steps), (size, *_) = _scales(grid)[-1], sums.coordinates
    covariances = moments.covariances(size, sums.coordinates.first, sums.coordinates.second)
    surface = surface_area.surface_areas(sums.outline, covariances, steps)
    major, minor = surface_area.axis_lengths(covariances, steps)
    return size_columns("volume", size, grid) | {
        f"surface_area_{unit if unit == 'px' else unit + '2'}": surface,
        "sphericity": np.cbrt(36 * math.pi * (size * math.prod(steps)) ** 2) / surface,
        f"axis_major_length_{unit}": major,
        f"axis_minor_length_{unit}": minor,
        "neighbours": size if sums.neighbours is None else sums.neighbours,
    }
