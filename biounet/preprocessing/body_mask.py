"""The body mask of a volume whose background was removed, as by skull stripping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import DataSettings, LazyImage, NormaliseSettings, Region
from biounet.preprocessing.channel_groups import ChannelGroup
from biounet.preprocessing.exact_moments import Moments
from biounet.preprocessing.image_parts import Part, PartReader, Search, array_image, read_stack, stack_shape
from biounet.tiling import relative_region

MIN_BACKGROUND_SHARE = 0.05  # of the voxels, from which a single value along the edges of the volume is no coincidence
BACKGROUND_MAJORITY = 0.5  # share of the neighbours along these edges that have it
BACKGROUND_NOISE = 1e-4  # standard deviations of the image within which voxels have one value: 0 after interpolation
_MAX_PADDINGS = 3  # borders around one another that each have a value of their own


@dataclass(frozen=True)
class Background:
    """Values from `low` to `high` within a box ``(z, y, x)``, around which there is another background or nothing."""

    box: Region
    low: float
    high: float

    def covers(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which voxels of the box are background."""
        return np.asarray((values >= self.low) & (values <= self.high))


@dataclass(frozen=True)
class Body:
    """What is left of an image when its backgrounds are removed, each within the one before.

    Attributes
    ----------
    backgrounds
        None of them where the image still has its background.
    box
        Bounding box ``(z, y, x)`` of what is left; None where nothing is.
    """

    backgrounds: tuple[Background, ...] = ()
    box: Region | None = None

    def mask(self, values: NDArray[Any], region: Region) -> NDArray[np.bool_]:
        """Return which voxels of a region, ``(c, z, y, x)``, belong to the body."""
        body = np.full(values.shape, not self.backgrounds)
        if self.backgrounds and self.box is not None:
            within = (slice(None), *relative_region(common_region(region, self.box), region))
            body[within] = self.within(values[within])
        return body

    def within(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which voxels inside of all boxes belong to the body."""
        body = np.ones(values.shape, bool)
        for background in self.backgrounds:
            body &= ~background.covers(values)
        return body


def common_region(one: Region, other: Region) -> Region:
    """Return the part of a region that lies in another; empty where none does."""
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    return tuple(slice(start, max(start, min(a.stop, b.stop))) for start, a, b in zip(starts, one, other, strict=True))


def search_body(image: LazyImage, group: ChannelGroup) -> Search[Body]:
    """Find what is left of some channels when their background is removed; see `body_mask`."""
    body, box = Body(), tuple(slice(0, size) for size in group.shape)
    for _ in range(1 + _MAX_PADDINGS):
        background = yield from _search_background(image, group, box)
        if background is None:
            break
        look = _BodyLook(group, body, background)
        yield look.add
        if look.background / look.voxels <= MIN_BACKGROUND_SHARE:
            break
        is_inner = bool(body.backgrounds)
        if is_inner and (look.background == look.voxels or look.lost / look.voxels <= MIN_BACKGROUND_SHARE):
            break
        body = Body((*body.backgrounds, background), look.bounding_box)
        if body.box is None:
            break
        box = body.box
    return body


def _search_background(image: LazyImage, group: ChannelGroup, box: Region) -> Search[Background | None]:
    """Find the common value of the edges of a box; None where they have none."""
    lines = _edges(image, group, box)
    value = float(np.percentile(np.concatenate([line.ravel() for line in lines]), 50, method="lower"))
    moments = Moments(value)

    def look(part: Part, tile: NDArray[Any]) -> None:
        common = Part(common_region(part.region, box), part.constant)
        if common.voxels:
            within = relative_region(common.region, part.region)
            moments.add(*common.distinct(group.of(part, tile)[(slice(None), *within)]))

    yield look
    tolerance = BACKGROUND_NOISE * moments.deviation
    background = Background(box, value - tolerance, value + tolerance)
    pairs = [background.covers(line[:, 1:]) & background.covers(line[:, :-1]) for line in lines]
    if not sum(pair.size for pair in pairs):
        return None
    alike = np.concatenate([pair.ravel() for pair in pairs]).mean()
    return background if alike > BACKGROUND_MAJORITY else None


def _edges(image: LazyImage, group: ChannelGroup, box: Region) -> list[NDArray[Any]]:
    """Return the edges of a box where its faces meet, along each axis, as ``(edges, voxels)``."""
    lines = []
    for axis in range(3 - image.grid.dims, 3):
        ends = [(part.start, part.stop - 1) if image.grid.dims == 3 or n else (0,) for n, part in enumerate(box)]
        ends[axis] = (0,)
        regions = [
            tuple(box[n] if n == axis else slice(at, at + 1) for n, at in enumerate(corner))
            for corner in product(*ends)
        ]
        edges = [group.of(Part(region), read_stack(image, region)).reshape(group.number, -1) for region in regions]
        lines.append(np.concatenate(edges))
    return lines


@dataclass
class _BodyLook:
    """Counts the background in a box, and where the body is without it."""

    group: ChannelGroup
    body: Body
    removed: Background
    background: int = 0  # voxels, of all channels
    lost: int = 0  # of the body so far
    _left: list[NDArray[np.bool_]] = field(init=False)  # in which planes, rows and columns something is left

    def __post_init__(self) -> None:
        self._left = [np.zeros(size, bool) for size in self.group.shape]

    @property
    def voxels(self) -> int:
        return self.group.number * Part(self.removed.box).voxels

    def add(self, part: Part, tile: NDArray[Any]) -> None:
        common = Part(common_region(part.region, self.removed.box), part.constant)
        if not common.voxels:
            return
        values = self.group.of(part, tile)[(slice(None), *relative_region(common.region, part.region))]
        values, times = common.distinct(values)
        covered, body = self.removed.covers(values), self.body.within(values)
        self.background += times * int(np.count_nonzero(covered))
        self.lost += times * int(np.count_nonzero(body & covered))
        left = np.logical_or.reduce(body & ~covered)
        for axis, (planes, span) in enumerate(zip(self._left, common.region, strict=True)):
            planes[span] |= np.logical_or.reduce(left, axis=tuple(other for other in range(3) if other != axis))

    @property
    def bounding_box(self) -> Region | None:
        ends = [np.flatnonzero(planes) for planes in self._left]
        if not ends[0].size:
            return None
        return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in ends)


def body_mask(image: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return the mask of the body in ``(c, [z,] y, x)`` whose background was removed; None where it was not.

    A removed background has one value, which is that along the edges where the faces of the volume meet: a body hardly
    reaches them, and the noise of a scanner's background varies. No single voxel decides: not a mark in a corner, nor a
    slice that was filled. Where the image was padded with another value, the background lies within the padding.
    """
    lazy = array_image(image)
    shape = stack_shape(lazy)
    (body,) = PartReader(lazy).run([search_body(lazy, ChannelGroup(slice(0, len(image)), shape, image.dtype))])
    if not body.backgrounds:
        return None
    whole = tuple(slice(0, size) for size in shape)
    return body.mask(image.reshape(-1, *shape), whole).reshape(image.shape)


def body_masks(image: NDArray[Any]) -> list[NDArray[np.bool_]] | None:
    """Return the body mask of each channel of ``(c, z, y, x)``; None where one still has its background."""
    masks = []
    for channel in image:
        mask = body_mask(channel[None])
        if mask is None:
            return None
        masks.append(mask[0])
    return masks


def box_of_bodies(bodies: Sequence[Body], shape: tuple[int, ...]) -> Region:
    """Return the bounding box of the bodies of all channels of an image ``([z,] y, x)``.

    All of the image where a channel has its background, or nothing is left.
    """
    boxes = [body.box[-len(shape) :] for body in bodies if body.box is not None]
    if not boxes or not all(body.backgrounds for body in bodies):
        return tuple(slice(0, size) for size in shape)
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )


def body_box(image: NDArray[Any], settings: NormaliseSettings, data: DataSettings) -> tuple[slice, ...]:
    """Return the bounding box of the body in ``(c, z, y, x)`` whose background was removed; else all of it.

    Classes and regions are predicted within the box only, in training and in prediction: a third of a brain's volume
    (as nnU-Net does, Isensee et al. 2021).
    """
    if not has_body_box(settings, data):
        return tuple(slice(0, size) for size in image.shape[1:])
    lazy = array_image(image)
    shape = stack_shape(lazy)
    groups = [ChannelGroup(slice(n, n + 1), shape, image.dtype) for n in range(len(image))]
    return box_of_bodies(PartReader(lazy).run([search_body(lazy, group) for group in groups]), image.shape[1:])


def has_body_box(settings: NormaliseSettings, data: DataSettings) -> bool:
    """Whether only the box of the body is predicted."""
    return settings.method == "zscore" and data.kind == "classes"
