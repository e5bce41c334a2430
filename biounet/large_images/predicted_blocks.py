"""The basins of a super-block: its region is read and scaled once, then predicted and labelled block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import ArrayImage, Grid, LabelSettings, LazyImage, Region, Volume
from biounet.labelling import BlockObjects, foreground_threshold, label_block, required_halo
from biounet.network import Predictor
from biounet.preprocessing import MIRROR_REACH, IntensityScale, Resampling, resample_part, rescale_region, scale_region
from biounet.segmentation import block_edge, object_maps, pad_to_stride, predict_block
from biounet.tiling import Block, block_lattice, relative_region, run_blocks

_Values = tuple[Any, ...]  # one for each channel

_CELL = {2: 256, 3: 64}  # edge of the parts of a block that are looked at one by one, whether there is anything in them


@dataclass(frozen=True)
class _Seen:
    """What is read of the image for some blocks.

    Attributes
    ----------
    image
        On the working grid, `region` of it, whose end is padded as the network needs it.
    acquired
        Which voxels were acquired of the part `labelled` of the image; None: all.
    """

    image: NDArray[np.float32]
    region: Region
    acquired: NDArray[np.bool_] | None = None
    labelled: Region = ()


@dataclass(frozen=True)
class BlockLabeller:
    """How the blocks of an image in the canonical orientation are labelled.

    Attributes
    ----------
    scale
        Of the whole image.
    settings
        On the grid of the image.
    has_distance
        Whether the model predicts contour and distance.
    way
        From the grid of the image to the working grid, on which it is predicted.
    edge
        Of a block; None: the default.
    """

    image: LazyImage
    scale: IntensityScale
    predictor: Predictor
    settings: LabelSettings
    has_distance: bool
    way: Resampling
    edge: int | None = None
    _backgrounds: dict[_Values, bool] = field(default_factory=dict, compare=False, repr=False)

    @property
    def margin(self) -> int:
        """Voxels around a block that labelling needs."""
        return required_halo(has_distance=self.has_distance)

    def blocks(self, core: Region) -> list[Block]:
        """Cut what is no background of a region of the image into blocks without a halo."""
        sizes = tuple(part.stop - part.start for part in core)
        parts = (part.core for part in block_lattice(sizes, block_edge(self.edge, len(sizes))))
        cores = (tuple(_shift(part, at.start) for part, at in zip(one, core, strict=True)) for one in parts)
        left = (_box_of_cells(one, self.is_background) for one in cores if not self.is_background(one))
        return [Block(one, one, self.image.grid.shape) for one in left if one is not None]

    def is_background(self, core: Region) -> bool:
        """Whether the image stores nothing that could change the labels of a region, and there are no objects in it."""
        if self.is_unacquired(core):
            return True
        seen = self._predicted(Block(core, core, self.image.grid.shape)).outer
        seen = self.way.needed(seen, filtered=True) if self.way.changes else seen
        values = self.image.constant_value(seen)
        if values is None or not self._is_scaled_alike(values, seen):
            return False
        if values not in self._backgrounds:
            self._backgrounds[values] = self._has_no_foreground(values)
        return self._backgrounds[values]

    def _is_scaled_alike(self, values: _Values, region: Region) -> bool:
        """Whether a region of these values is scaled as one anywhere: in no body, and filled with nothing around it."""
        pixel = np.array(values, self.image.dtype)[:, None, None, None]
        pixels = [(each, each.prepare(pixel)) for each in self.scale.channels]
        if any(each.body.backgrounds and not each.body.backgrounds[0].covers(one).all() for each, one in pixels):
            return False
        if not any(each.unacquired and (one == each.unacquired[0]).any() for each, one in pixels):
            return True
        sizes = self.image.grid.shape[-2:]
        around = (
            slice(max(part.start - MIRROR_REACH, 0), min(part.stop + MIRROR_REACH, size))
            for part, size in zip(region[-2:], sizes, strict=True)
        )
        return self.image.constant_value((*region[:-2], *around)) == values

    def is_unacquired(self, core: Region) -> bool:
        """Whether the image stores nothing of a region, which was not acquired: there are no objects in it."""
        if not self.scale.has_unacquired:
            return False
        values = self.image.constant_value(core)
        if values is None:
            return False
        pixel = np.array(values, self.image.dtype)[:, None, None, None]
        return all(bool((each.prepare(pixel) == each.unacquired[0]).all()) for each in self.scale.channels)

    def acquired_box(self, core: Region) -> Region | None:
        """Return a box that holds what was acquired of a region, of images with areas that were not; None without."""
        if not self.scale.has_unacquired or self.is_unacquired(core):
            return None
        return _box_of_cells(core, self.is_unacquired)

    def label(self, core: Region, stop: Event | None = None) -> Iterator[BlockObjects]:
        """Yield the basins of each block of a region that may have any."""
        blocks = self.blocks(core)
        if blocks:
            yield from run_blocks(partial(self._label_block, self._read(blocks)), blocks, stop=stop)

    def _predicted(self, block: Block) -> Block:
        """Return the part of the working grid from which the maps of a block and its margin are taken, and its halo."""
        network = self.predictor.network
        core = self.way.back().needed(block.grown(self.margin))
        outer = _outer(core, network.receptive_radius, network.stride, self.way.new)
        if self.predictor.pipeline is not None:
            outer = _of_length(outer, self._seen_lengths, network.stride, self.way.new)
        return Block(core, outer, self.way.new)

    @cached_property
    def _seen_lengths(self) -> tuple[int, ...]:
        """Lengths of what the network sees of a block, the same for all blocks of an image.

        A GPU chooses by the shapes how it computes, and super-blocks have to agree to the bit where they overlap.
        """
        network, shape = self.predictor.network, self.image.grid.shape
        edge = block_edge(self.edge, len(shape)) + 2 * self.margin
        core = self.way.back().needed(tuple(slice(0, min(edge, size)) for size in shape))
        return tuple(
            -(-(part.stop - part.start + 2 * reach + 2 * stride) // stride) * stride
            for part, reach, stride in zip(core, network.receptive_radius, network.stride, strict=True)
        )

    def _read(self, blocks: list[Block]) -> _Seen:
        """Read and scale what is seen of some blocks."""
        strides = self.predictor.network.stride
        region = tuple(
            slice(part.start, min(-(-part.stop // stride) * stride, size))
            for part, stride, size in zip(
                _around([self._predicted(block).outer for block in blocks]), strides, self.way.new, strict=True
            )
        )
        if not self.way.changes:
            scaled = scale_region(self.image, self.scale, region)
            return _Seen(pad_to_stride(scaled.image, strides), region, scaled.acquired, region)
        image = pad_to_stride(rescale_region(self.image, self.scale, self.way, region), strides)
        if not self.scale.has_unacquired:
            return _Seen(image, region)
        labelled = _around([block.grown(self.margin) for block in blocks])
        return _Seen(image, region, scale_region(self.image, self.scale, labelled, fill=False).acquired, labelled)

    def _label_block(self, seen: _Seen, block: Block) -> BlockObjects:
        grown, origin = block.grown(self.margin), tuple(part.start for part in seen.region)
        maps = predict_block(seen.image, self.predictor, self._predicted(block), origin=origin)
        if self.way.changes:
            planes = [*resample_part(maps, self.way.back(), grown)]
            maps = np.stack(planes, 1).reshape(-1, *(part.stop - part.start for part in grown))
        acquired = None if seen.acquired is None else seen.acquired[relative_region(grown, seen.labelled)]
        parts = object_maps(maps, acquired, has_distance=self.has_distance)
        return label_block(*parts, self.settings, block=block)

    def _has_no_foreground(self, values: _Values) -> bool:
        """Whether there is no foreground anywhere in an image of constant values.

        An image of any size is the same around each voxel, as far as the network sees, as one of this size: its end has
        the same phase in the network's pooling. Resampling leaves a constant image as it is, and its maps do not
        exceed their extremes by it.
        """
        network = self.predictor.network
        shape = tuple(
            min(length, (2 * math.ceil(reach / stride) + 2) * stride + length % stride)
            for length, reach, stride in zip(self.way.new, network.receptive_radius, network.stride, strict=True)
        )
        array = np.stack([np.full(shape, value, self.image.dtype) for value in values])
        blank = ArrayImage.of(Volume(array, Grid(shape)))
        scaled = scale_region(blank, self.scale, tuple(slice(0, n) for n in shape))
        maps = self.predictor(pad_to_stride(scaled.image, network.stride))
        maps = maps[(slice(None), *(slice(0, n) for n in shape))]
        foreground, *_ = object_maps(maps, scaled.acquired, has_distance=self.has_distance)
        return bool((foreground < foreground_threshold(self.settings.foreground)).all())


def _outer(core: Region, halo: tuple[int, ...], strides: tuple[int, ...], shape: tuple[int, ...]) -> Region:
    """Return a region and its halo, which begins at a multiple of the stride, cropped at the edge of the image."""
    return tuple(
        slice(max(part.start - margin, 0) // stride * stride, min(part.stop + margin, length))
        for part, margin, stride, length in zip(core, halo, strides, shape, strict=True)
    )


def _around(regions: list[Region]) -> Region:
    """Return the smallest region that holds others."""
    axes = zip(*regions, strict=True)
    return tuple(slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in axes)


def _of_length(region: Region, lengths: tuple[int, ...], strides: tuple[int, ...], shape: tuple[int, ...]) -> Region:
    """Return regions of the same lengths that hold `region`, or all of the image where that is shorter."""
    longer = []
    for part, length, stride, size in zip(region, lengths, strides, shape, strict=True):
        first = max(min(part.start, -(-size // stride) * stride - length), 0)
        longer.append(slice(first, min(first + length, size)))
    return tuple(longer)


def _shift(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _box_of_cells(core: Region, is_left_out: Callable[[Region], bool]) -> Region | None:
    """Return the smallest box of whole cells of a region that holds all that is not left out; None without any."""
    cells = block_lattice(tuple(part.stop - part.start for part in core), _CELL[len(core)])
    regions = (tuple(_shift(part, at.start) for part, at in zip(cell.core, core, strict=True)) for cell in cells)
    kept = [region for region in regions if not is_left_out(region)]
    return _around(kept) if kept else None
