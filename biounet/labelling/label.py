"""Probabilities of a block become its basins, such that the result does not depend on the blocks.

Each foreground voxel points to its highest neighbour (of 8 in an image, 26 in a volume), and pointers are followed to a
peak; voxels that share one are a *basin*. A block needs only a ring of one voxel around its core, however large the
cells: `stitch` looks up in the neighbouring block where a path that ends in the ring continues. All maps are uint16,
0..65535 for 0..1, and all arithmetic is on integers, exact in any order. Ties go to the lower voxel in scan order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from biounet.core import PROBABILITY_MAX, LabelSettings
from biounet.labelling import ascent
from biounet.tiling import Block, relative_region

Map = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]

CERTAIN_LOG_ODDS = 8
"""Log-odds of the foreground from which a voxel is certain, a probability of 0.9997.

The mean of the log-odds separates objects that match the truth from others better than the mean probability, which is
above 0.95 for most of both: benchmarks/confidence.py. Chosen on training images, where 7 to 11 do equally well.
"""

SHAPE_RADIUS = 24
"""Voxels at which the distance transform of the foreground is cut off, so that it stays local."""


@dataclass(frozen=True)
class BlockObjects:
    """The basins of one block; fields in the order of `ascent.find_basins`. Voxels are flat indices in the whole image.

    Attributes
    ----------
    runs
        (r, 2) int64: begin and end of each run of foreground voxels along x, as flat indices in the core.
    basins
        (v,) int32: basin 0..n-1 of each foreground voxel, run after run.
    root
        (n,) int64: the voxel at which the paths of each basin end.
    exits_block
        (n,) bool: whether the root lies in the ring, so that the path continues in another block.
    height
        (n,) int64: the surface at the root.
    count, certainty
        (n,) int64: voxels of each basin in the core, and the sum of their certainty, 0..65535 each.
    first
        (n,) int64: the first voxel of each basin in the core; undefined where `count` is 0.
    edges
        (e, 2) int64: pairs of basins that touch; a pair of voxels counts in the block whose core holds the first.
    border_minima
        (e, 3) int64: the lower heights of the pairs of voxels along each border: the highest, their sum and number.
    face_voxels
        (f, 2) int64: voxels of the core next to another core, and the basin of each.
    """

    block: Block
    runs: Ints
    basins: npt.NDArray[np.int32]
    root: Ints
    exits_block: npt.NDArray[np.bool_]
    height: Ints
    count: Ints
    certainty: Ints
    first: Ints
    edges: Ints
    border_minima: Ints
    face_voxels: Ints


def required_halo(has_distance: bool) -> int:
    """Return the number of voxels around the core that `label_block` needs, inside the image."""
    ring, smoothing = 1, 1
    return ring + smoothing + (0 if has_distance else SHAPE_RADIUS)


def label_block(
    foreground: Map, contour: Map | None, distance: Map | None, settings: LabelSettings, *, block: Block
) -> BlockObjects:
    """Find the basins of one block on the surface distance - contour, smoothed by one voxel.

    Parameters
    ----------
    foreground, contour, distance
        Maps ``([z,] y, x)`` of the core and its halo, ``block.grown(required_halo(...))``. Without a distance, the
        distance to the background takes its place, cut off at `SHAPE_RADIUS` voxels.
    settings
        `foreground` and `contour` are used here, the rest by `stitch`.

    Raises
    ------
    ValueError
        If a map does not have the shape of the core and its halo.
    """
    margin = required_halo(has_distance=distance is not None)
    wide = block.grown(margin)
    expected = tuple(part.stop - part.start for part in wide)
    for values in (foreground, contour, distance):
        if values is not None and values.shape != expected:
            raise ValueError(f"a map of {values.shape} voxels, but the block and its ring have {expected}")
    threshold = foreground_threshold(settings.foreground)
    if distance is None:
        distance = _shape_distance(foreground >= threshold)
    volume = (1, *distance.shape) if distance.ndim == 2 else distance.shape
    surface = np.ascontiguousarray(distance).reshape(volume)
    weight = round(settings.contour * 256)
    if contour is not None and weight > 0:
        surface = ascent.subtract_contour(surface, np.ascontiguousarray(contour).reshape(volume), weight)
    surface = ascent.smooth(surface).reshape(distance.shape)
    ring = relative_region(block.grown(1), wide)
    return label_surface(foreground[ring], surface[ring], threshold, block=block)


def label_surface(foreground: Map, surface: Map, threshold: int, *, block: Block) -> BlockObjects:
    """Find the basins of a block on a surface, where `foreground` is at least `threshold`; maps of `block.grown(1)`."""
    shape, frame = _padded_frame(block)
    if math.prod(frame[0]) > np.iinfo(np.int32).max:
        raise ValueError(f"a block of {shape} voxels is too large for 32-bit indices; use a lattice of smaller ones")
    inside, height = (np.ascontiguousarray(values).reshape(shape) for values in (foreground, surface))
    steps = _neighbour_offsets(*frame[:2])
    basins = ascent.find_basins(inside, height, threshold, _certainties(), steps, frame)
    return BlockObjects(block, *basins)


def label_classes(probabilities: Map, thresholds: tuple[float, ...] | None = None) -> npt.NDArray[np.uint8]:
    """Turn the probabilities of classes into a label image.

    Parameters
    ----------
    probabilities
        ``(k, [z,] y, x)``. Without thresholds, channel 0 is the background and the most probable class is chosen, the
        lower one of a tie.
    thresholds
        One for each channel, which then is a region, listed from the outermost to the innermost: a voxel gets the
        number 1..k of the last region that it belongs to.

    Returns
    -------
    ``([z,] y, x)`` with 0 for background.
    """
    if thresholds is None:
        return np.asarray(np.argmax(probabilities, axis=0), np.uint8)
    classes = np.zeros(probabilities.shape[1:], np.uint8)
    for number, (region, threshold) in enumerate(zip(probabilities, thresholds, strict=True), start=1):
        classes[region >= foreground_threshold(threshold)] = number
    return classes


def foreground_threshold(probability: float) -> int:
    """Return the lowest value of a map that is at least a probability, and above 0."""
    return max(math.ceil(probability * PROBABILITY_MAX), 1)


@cache
def _certainties() -> Map:
    """Return the certainty of each value of a foreground map, 0..65535; 0 up to a probability of 0.5."""
    probability = np.arange(PROBABILITY_MAX + 1) / PROBABILITY_MAX
    with np.errstate(divide="ignore"):
        odds = np.log(probability) - np.log(1 - probability)
    return np.asarray(np.rint(np.clip(odds / CERTAIN_LOG_ODDS, 0, 1) * PROBABILITY_MAX), np.uint16)


def _shape_distance(mask: npt.NDArray[np.bool_]) -> Map:
    """Return the distance to the background, cut off at `SHAPE_RADIUS`, the same in every block."""
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, PROBABILITY_MAX, np.uint16)
    distance = np.minimum(ndimage.distance_transform_edt(mask), SHAPE_RADIUS)
    return np.asarray(np.rint(distance * (PROBABILITY_MAX / SHAPE_RADIUS)), np.uint16)


_Index = tuple[int, ...]  # or a shape, (z, y, x)


def _padded_frame(block: Block) -> tuple[_Index, tuple[_Index, ...]]:
    """Return the shape of the maps, and the `frame` of `ascent.find_basins`."""
    # An image is a volume of one slice that has no ring above and below.
    axes = [(1, 1, 0, 0, 0, 1)] if len(block.shape) == 2 else []
    for core, ring, length in zip(block.core, block.grown(1), block.shape, strict=True):
        size, origin = core.stop - core.start, 1 - core.start + ring.start
        axes.append((ring.stop - ring.start, size + 2, 1, origin, core.start, length))
    shape, *frame = zip(*axes, strict=True)
    return shape, tuple(frame)


def _neighbour_offsets(padded: _Index, margin: _Index) -> npt.NDArray[np.int32]:
    """Return the offsets in the flat padded array to all neighbours and to the voxel itself, in scan order."""
    _, height, width = padded
    slices = range(-margin[0], margin[0] + 1)
    return np.array(
        [(z * height + y) * width + x for z in slices for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=np.int32
    )
