"""Pictures of an image that is larger than memory: it is reduced region by region, and the rest is as of others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, LazyImage, Region, available_cores, raise_if_stopped
from biounet.files import LabelStore, write_picture
from biounet.measurement import Columns, Table
from biounet.reporting.outputs import OVERLAY_SUFFIX, OutputOptions, make_folder
from biounet.reporting.overlays import (
    MAX_SIDE,
    Canvas,
    canvas_of_reduced,
    draw_outlines,
    pick_labels,
    prepare_canvas,
    reduce_channels,
)
from biounet.reporting.table_parts import join_table_parts
from biounet.reporting.view_files import DATA_SUFFIX, VIEW_SUFFIXES, view_data, write_view_file
from biounet.reporting.volume_overlays import compose_volume
from biounet.tiling import run_blocks

MOST_VIEWED = 100_000
"""Objects up to which the report's viewer gets the labels: of more, each has but a few pixels of the picture."""

_REGION = 2**24  # voxels that are read at a time, at most
_ENOUGH = 2**22  # voxels from which larger regions are not read faster; those of one chunk take three times as long
_VOLUME = 2**24  # voxels of a volume that is drawn


def large_picture_paths(parent: Path, stem: str, count: int, options: OutputOptions) -> list[Path]:
    """Return the pictures of an image with so many objects, in the order in which they are written."""
    suffixes = VIEW_SUFFIXES if options.view_folder is not None and count <= MOST_VIEWED else ()
    views = [] if options.view_folder is None else [options.view_folder / f"{stem}{suffix}" for suffix in suffixes]
    return [*views, parent / f"{stem}{OVERLAY_SUFFIX}"] if options.overlay else views


def write_large_pictures(
    paths: list[Path], image: LazyImage, labels: LabelStore, parts: list[Path], count: int, stop: Event
) -> None:
    """Write the pictures of an image, each of them atomically.

    Parameters
    ----------
    paths
        From `large_picture_paths`.
    parts
        Of its table, as of `write_table_part`.
    """
    if not paths:
        return
    canvas = compose_large(image, labels, stop)
    overlay = draw_outlines(canvas)
    for path in paths:
        make_folder(path.parent)
        if path.name.endswith(VIEW_SUFFIXES):
            needs_data = path.name.endswith(DATA_SUFFIX)
            write_view_file(path, canvas, overlay, _view_data(canvas, image.grid, parts, count) if needs_data else "")
        else:
            write_picture(path, overlay)


def _view_data(canvas: Canvas, grid: Grid, parts: list[Path], count: int) -> str:
    rows = list(join_table_parts(parts, count))
    columns: Columns = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
    return view_data(canvas, Table("objects", columns), grid if grid.dims == 2 else None, {})


def compose_large(image: LazyImage, labels: LabelStore, stop: Event) -> Canvas:
    """Return the picture of an image without outlines, and its labels: in 2D, exactly that of the image in memory.

    A volume is drawn at the first level of its labels that is small enough, with means of its intensities.
    """
    if image.grid.dims == 3:
        return _compose_volume(image, labels, stop)
    height, width = image.grid.shape
    factor = -(-max(height, width) // MAX_SIDE)
    if factor == 1:
        whole = (slice(0, height), slice(0, width))
        return prepare_canvas(_shown(image, whole), labels.read(whole))
    offset = _lowest(image, factor, stop) if image.dtype.itemsize > 2 and image.dtype != np.float32 else None
    shape = (-(-height // factor), -(-width // factor))
    reduced = np.zeros((3 if image.channels == 3 else 1, *shape), np.float32)
    small = np.zeros(shape, np.int32)

    def draw(region: Region) -> None:
        target = tuple(slice(part.start // factor, -(-part.stop // factor)) for part in region)
        seen = _shown(image, _alike(image, region, (factor, factor)))
        reduced[(slice(None), *target)] = reduce_channels(seen, factor, offset)
        if labels.has_labels(region):
            small[target] = pick_labels(labels.read(region), factor)

    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in run_blocks(draw, _regions(image, (factor, factor)), pool, stop):
            pass
    return canvas_of_reduced(reduced, small, shared=image.dtype == np.uint8)


def _alike(image: LazyImage, region: Region, factors: tuple[int, ...]) -> Region:
    """Return the first box of a region that consists of boxes with the same mean, as nothing of it is stored; else it.

    To draw an empty field of 320 000 x 320 000 pixels took four minutes otherwise.
    """
    is_whole = all((part.stop - part.start) % factor == 0 for part, factor in zip(region, factors, strict=True))
    if not is_whole or image.constant_value(region) is None:
        return region
    return tuple(slice(part.start, part.start + factor) for part, factor in zip(region, factors, strict=True))


def _shown(image: LazyImage, region: Region) -> NDArray[Any]:
    """Return the channels of a region that are shown; those that the file does not store are not read."""
    number = 3 if image.channels == 3 else 1
    values = image.constant_value(region)
    if values is None:
        return image.read(region)[:number]
    shape = [part.stop - part.start for part in region]
    return np.stack([np.full(shape, value, image.dtype) for value in values[:number]])


def _lowest(image: LazyImage, factor: int, stop: Event) -> float:
    """Return the lowest intensity that is shown, which is black where float32 would lose digits."""
    lowest = math.inf
    for region in _regions(image, (factor, factor)):
        raise_if_stopped(stop)
        array = _shown(image, _alike(image, region, (1, 1)))
        array = array[np.isfinite(array)] if image.dtype.kind == "f" else array
        lowest = min(lowest, array.min().item() if array.size else math.inf)
    return lowest if math.isfinite(lowest) else 0.0


def _regions(image: LazyImage, factors: tuple[int, ...]) -> Iterator[Region]:
    """Yield regions that cover an image: whole chunks and multiples of the factors, as nearly as memory allows."""
    shape = image.grid.shape
    sides = [math.lcm(chunk, factor) for chunk, factor in zip(image.chunks, factors, strict=True)]
    if math.prod(min(side, length) for side, length in zip(sides, shape, strict=True)) > _REGION:
        side = max(1, int((_REGION / image.channels) ** (1 / len(shape))))
        sides = [max(1, side // factor) * factor for factor in factors]
    more = max(1, int((_ENOUGH / math.prod(sides)) ** (1 / len(sides))))
    sides = [side * more for side in sides]
    yield from (
        tuple(slice(at, min(at + side, length)) for at, side, length in zip(corner, sides, shape, strict=True))
        for corner in product(*(range(0, length, side) for length, side in zip(shape, sides, strict=True)))
    )


def _compose_volume(image: LazyImage, labels: LabelStore, stop: Event) -> Canvas:
    number = next((n for n, one in enumerate(labels.levels) if math.prod(one.shape) <= _VOLUME), len(labels.levels) - 1)
    level = labels.levels[number]
    every = -(-math.prod(level.shape) // _VOLUME)  # planes: levels are not smaller along z alone
    factors = (every * level.factors[0], *level.factors[1:])
    shape = (-(-level.shape[0] // every), *level.shape[1:])
    small, array = _middle_planes(labels, number, every, stop), np.zeros((1, *shape), np.float32)
    for region in _regions(image, factors):
        raise_if_stopped(stop)
        target = tuple(
            slice(part.start // factor, -(-part.stop // factor)) for part, factor in zip(region, factors, strict=True)
        )
        array[(slice(None), *target)] = _means(_shown(image, _alike(image, region, factors))[:1], factors)
    return compose_volume(array, small, _level_grid(image.grid, factors), factors=factors)


def _middle_planes(labels: LabelStore, number: int, every: int, stop: Event) -> NDArray[np.int32]:
    """Return the middle one of each so many planes of a level; they are read by whole chunks, each once."""
    level = labels.levels[number]
    depth, rest = level.shape[0], tuple(slice(0, length) for length in level.shape[1:])
    planes = np.minimum(np.arange(0, depth, every) + every // 2, depth - 1)
    picked = np.zeros((len(planes), *level.shape[1:]), np.int32)
    for start in range(0, depth, level.chunk[0]):
        raise_if_stopped(stop)
        slab = slice(start, min(start + level.chunk[0], depth))
        inside = (planes >= slab.start) & (planes < slab.stop)
        if inside.any():
            picked[inside] = labels.read((slab, *rest), number)[planes[inside] - start]
    return picked


def _means(channels: NDArray[Any], factors: tuple[int, ...]) -> NDArray[np.float32]:
    """Return means of boxes of voxels (c, z, y, x), of smaller ones at the far ends."""
    sums = channels.astype(np.float64)
    for axis, factor in enumerate(factors, start=1):
        starts = np.arange(0, sums.shape[axis], factor)
        counts = np.diff(np.append(starts, sums.shape[axis]))
        shape = [-1 if other == axis else 1 for other in range(sums.ndim)]
        sums = np.add.reduceat(sums, starts, axis) / counts.reshape(shape)
    return sums.astype(np.float32)


def _level_grid(grid: Grid, factors: tuple[int, ...]) -> Grid:
    """Return the grid of an image that is reduced by these factors; of an affine, only its directions are kept."""
    shape = tuple(-(-length // factor) for length, factor in zip(grid.shape, factors, strict=True))
    spacing = None if grid.spacing is None else tuple(map(float.__mul__, grid.spacing, map(float, factors)))
    return replace(grid, shape=shape, spacing=spacing, affine=None, header=None, axcodes=grid.axcodes)
