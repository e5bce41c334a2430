"""Probabilities of a block to the objects of a block, such that the result does not depend on the blocks.

Every foreground voxel points to its highest neighbour (8 in an image, 26 in a volume) on the predicted surface, and the
pointers are followed to a summit. A voxel's pointer depends on its neighbours alone, so a block needs no more than a
ring around its core, however large the cells: a path that leaves the core ends at a voxel of the ring, an *exit*,
and `stitch` finds in the neighbouring block where it goes on. Voxels that share a summit are a *basin*; where
two basins touch, the height of their border, the *saddle*, tells `stitch` whether they are one cell.

All maps are uint16, 0..65535 for 0..1, and all arithmetic is on integers, so that sums and comparisons are exact in
any order. Ties go to the lower voxel in scan order. Heights are compared as they are: a step along z counts as much as
one along x, since a steepest slope in µm would not change which voxels are summits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from biounet.core import PROBABILITY_MAX, LabelSettings
from biounet.labelling import ascent, surfaces
from biounet.tiling import Block, Region

Map = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]

SURE = 8
"""Log-odds of the foreground that count as certain, a probability of 0.9997.

The mean of the log-odds tells objects that match the truth from others better than the mean probability, which is above
0.95 for most of both: benchmarks/confidence.py. Chosen on training images, where 7 to 11 do equally well.
"""

SHAPE_RADIUS = 24
"""Voxels at which the surface made of the foreground's shape is cut off, so that it stays local."""


@dataclass(frozen=True)
class BlockObjects:
    """The basins of one block. Voxels are named by their place in the whole image, in scan order.

    Attributes
    ----------
    block
        Where the basins lie.
    runs
        (r, 2) int64: begin and end, in the core in scan order, of each run of foreground voxels along x.
    labels
        (v,) int32: basin 0..n-1 of each foreground voxel, run after run.
    root
        (n,) int64: the voxel at which the paths of each basin end.
    leaves
        (n,) bool: whether that voxel lies in the ring, so that the path goes on in another block.
    height
        (n,) int64: the surface at the root.
    count, certainty
        (n,) int64: voxels of each basin in the core, and the sum of their certainty, 0..65535 each.
    first
        (n,) int64: the first voxel of each basin in the core; undefined where `count` is 0.
    edges
        (e, 2) int64: pairs of basins that touch. Each touching pair of voxels is counted in the block whose core
        holds the one that comes first in scan order.
    passes
        (e, 3) int64: of the passes of each pair, which are the minima of two touching voxels, the highest, their sum,
        and how many there are.
    gates
        (g, 2) int64: voxels of the core beside another core, and the basin of each.
    """

    block: Block
    runs: Ints
    labels: npt.NDArray[np.int32]
    root: Ints
    leaves: npt.NDArray[np.bool_]
    height: Ints
    count: Ints
    certainty: Ints
    first: Ints
    edges: Ints
    passes: Ints
    gates: Ints


def reach(has_distance: bool) -> int:
    """Return how many voxels around its core a block must bring, as far as the image goes."""
    ring, smoothing = 1, 1
    return ring + smoothing + (0 if has_distance else SHAPE_RADIUS)


def label_block(
    foreground: Map, contour: Map | None, distance: Map | None, settings: LabelSettings, *, block: Block
) -> BlockObjects:
    """Find the basins of one block on the surface distance - contour, smoothed by one voxel.

    Parameters
    ----------
    foreground, contour, distance
        Maps ``([z,] y, x)`` of the core and `reach` voxels around it, ``block.grown(reach(...))``. Without a contour
        nothing is lowered. Without a distance the shape of the foreground takes its place: the distance to the
        background, cut off at `SHAPE_RADIUS` voxels.
    settings
        `foreground` and `contour` are used here, the rest by `stitch`.
    block
        Where the core lies.

    Raises
    ------
    ValueError
        If a map has another shape than the block and its surroundings.
    """
    margin = reach(has_distance=distance is not None)
    wide, ring = block.grown(margin), block.grown(1)
    for values in (foreground, contour, distance):
        _check_shape(values, wide)
    threshold = _threshold(settings.foreground)
    if distance is None:
        distance = _shape_distance(foreground >= threshold)
    volume = (1, *distance.shape) if distance.ndim == 2 else distance.shape
    surface = np.ascontiguousarray(distance).reshape(volume)
    weight = round(settings.contour * 256)
    if contour is not None and weight > 0:
        surface = surfaces.lower(surface, np.ascontiguousarray(contour).reshape(volume), np.int32(weight))
    surface = surfaces.smooth(surface)
    keep = tuple(slice(r.start - w.start, r.stop - w.start) for r, w in zip(ring, wide, strict=True))
    return label_surface(foreground[keep], surface.reshape(distance.shape)[keep], threshold, block=block)


def label_surface(foreground: Map, surface: Map, threshold: int, *, block: Block) -> BlockObjects:
    """Find the basins of one block on a given surface.

    Parameters
    ----------
    foreground, surface
        Maps ``([z,] y, x)`` of the core and 1 voxel around it, ``block.grown(1)``.
    threshold
        Value of `foreground`, above 0, from which a voxel belongs to a basin.
    block
        Where the core lies.

    Raises
    ------
    ValueError
        If a map has another shape than the block and its ring.
    """
    for values in (foreground, surface):
        _check_shape(values, block.grown(1))
    inside, frame = _frame(block)
    if math.prod(frame[0]) > np.iinfo(np.int32).max:
        raise ValueError(f"a block of {inside} voxels is too large for 32-bit places; use a lattice of smaller ones")
    runs, labels, root, leaves, height, sums, edges, gates = ascent.find_basins(
        np.ascontiguousarray(foreground).reshape(inside),
        np.ascontiguousarray(surface).reshape(inside),
        np.uint16(threshold),
        _certainties(),
        _steps(*frame[:2]),
        frame,
    )
    return BlockObjects(
        block=block,
        runs=runs,
        labels=labels,
        root=root,
        leaves=leaves,
        height=height,
        count=sums[0],
        certainty=sums[1],
        first=sums[2],
        edges=edges[:, :2],
        passes=edges[:, 2:],
        gates=gates,
    )


def label_components(mask: npt.NDArray[np.bool_], *, block: Block) -> BlockObjects:
    """Find the connected components of a mask in one block, as basins that always join.

    Parameters
    ----------
    mask
        Of the core and 1 voxel around it, ``block.grown(1)``. Voxels that touch at a corner are connected.
    block
        Where the core lies.
    """
    return label_surface(
        mask.astype(np.uint16) * np.uint16(PROBABILITY_MAX),
        np.full(mask.shape, PROBABILITY_MAX, np.uint16),
        PROBABILITY_MAX,
        block=block,
    )


def label_classes(probabilities: Map, thresholds: tuple[float, ...] | None = None) -> npt.NDArray[np.uint8]:
    """Turn the probabilities of classes into a label image.

    Parameters
    ----------
    probabilities
        ``(k, [z,] y, x)``. Without thresholds: channel 0 is the background and the most probable class wins, the
        lower one of a tie.
    thresholds
        One for each channel, which then is a region: a voxel gets the number 1..k of the last region that it belongs
        to. Regions that contain each other are therefore listed from the outermost to the innermost.

    Returns
    -------
    ``([z,] y, x)`` with 0 for background.
    """
    if thresholds is None:
        winner: npt.NDArray[np.uint8] = np.argmax(probabilities, axis=0).astype(np.uint8)
        return winner
    classes = np.zeros(probabilities.shape[1:], np.uint8)
    for number, (region, threshold) in enumerate(zip(probabilities, thresholds, strict=True), start=1):
        classes[region >= _threshold(threshold)] = number
    return classes


def _threshold(probability: float) -> int:
    """Return the lowest value of a map that is at least a probability, and above 0."""
    return max(math.ceil(probability * PROBABILITY_MAX), 1)


@cache
def _certainties() -> Map:
    """Return for each value of a foreground map how certain it is: 0 up to a probability of 0.5, ONE from `SURE` on."""
    probability = np.arange(PROBABILITY_MAX + 1) / PROBABILITY_MAX
    with np.errstate(divide="ignore"):
        odds = np.log(probability) - np.log(1 - probability)
    certainties: Map = np.rint(np.clip(odds / SURE, 0, 1) * PROBABILITY_MAX).astype(np.uint16)
    return certainties


def _check_shape(values: npt.NDArray[Any] | None, region: Region) -> None:
    expected = tuple(part.stop - part.start for part in region)
    if values is not None and values.shape != expected:
        raise ValueError(f"a map of {values.shape} voxels, but the block and its ring have {expected}")


def _shape_distance(mask: npt.NDArray[np.bool_]) -> Map:
    """Return the distance to the background, cut off at `SHAPE_RADIUS`: the same in every block, to the bit."""
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, PROBABILITY_MAX, np.uint16)
    distance = np.minimum(ndimage.distance_transform_edt(mask), SHAPE_RADIUS)
    surface: Map = np.rint(distance * (PROBABILITY_MAX / SHAPE_RADIUS)).astype(np.uint16)
    return surface


Place = tuple[int, int, int]


def _frame(block: Block) -> tuple[Place, tuple[Place, Place, Place, Place, Place]]:
    """Return the shape of the maps, and where the core lies in the padded array and in the image: all (z, y, x).

    An image is a volume of one slice that has no ring above and below.
    """
    flat = len(block.shape) == 2

    def volume(values: Iterable[int], of_image: int) -> Place:
        z, y, x = (of_image, *values) if flat else tuple(values)
        return z, y, x

    ring = block.grown(1)
    inside = volume((part.stop - part.start for part in ring), 1)
    padded = volume((part.stop - part.start + 2 for part in block.core), 1)
    margin = volume((1 for _ in block.core), 0)
    origin = volume((1 - part.start + around.start for part, around in zip(block.core, ring, strict=True)), 0)
    start = volume((part.start for part in block.core), 0)
    return inside, (padded, margin, origin, start, volume(block.shape, 1))


def _steps(padded: Place, margin: Place) -> npt.NDArray[np.int32]:
    """Return the steps in the flat padded array to all neighbours and to the voxel itself, in scan order."""
    _, height, width = padded
    slices = range(-margin[0], margin[0] + 1)
    return np.array(
        [(z * height + y) * width + x for z in slices for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=np.int32
    )
