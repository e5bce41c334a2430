"""The basins of a super-block: its region is read and scaled once, then predicted and labelled block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import Any

import numpy as np

from biounet.core import ArrayImage, Grid, LabelSettings, LazyImage, Region, Volume
from biounet.labelling import BlockObjects, foreground_threshold, label_block, required_halo
from biounet.network import Predictor
from biounet.preprocessing import IntensityScale, ScaledImage, scale_region
from biounet.segmentation import block_edge, object_maps, pad_to_stride, predict_block
from biounet.tiling import Block, block_lattice, relative_region, run_blocks

_Values = tuple[Any, ...]  # one for each channel


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
    edge
        Of a block; None: the default.
    """

    image: LazyImage
    scale: IntensityScale
    predictor: Predictor
    settings: LabelSettings
    has_distance: bool
    edge: int | None = None
    _backgrounds: dict[_Values, bool] = field(default_factory=dict, compare=False, repr=False)

    @property
    def margin(self) -> int:
        """Voxels around a block that labelling needs."""
        return required_halo(has_distance=self.has_distance)

    def blocks(self, core: Region) -> list[Block]:
        """Cut a region of the image into blocks, each with a halo of what the network sees."""
        network, shape = self.predictor.network, self.image.grid.shape
        halo = tuple(reach + self.margin for reach in network.receptive_radius)
        sizes = tuple(part.stop - part.start for part in core)
        parts = (part.core for part in block_lattice(sizes, block_edge(self.edge, len(shape))))
        cores = (tuple(_shift(part, at.start) for part, at in zip(one, core, strict=True)) for one in parts)
        return [Block(one, _outer(one, halo, network.stride, shape), shape) for one in cores]

    def is_background(self, core: Region) -> bool:
        """Whether the image stores nothing that could change the labels of a region, and there are no objects in it."""
        halo = tuple(reach + self.margin for reach in self.predictor.network.receptive_radius)
        outer = _outer(core, halo, self.predictor.network.stride, self.image.grid.shape)
        values = self.image.constant_value(outer)
        if values is None:
            return False
        if values not in self._backgrounds:
            self._backgrounds[values] = self._has_no_foreground(values)
        return self._backgrounds[values]

    def label(self, core: Region, stop: Event | None = None) -> Iterator[BlockObjects]:
        """Yield the basins of each block of a region that may have any."""
        blocks, strides = self.blocks(core), self.predictor.network.stride
        ends = (max(block.outer[axis].stop for block in blocks) for axis in range(len(core)))
        region = tuple(
            slice(first.start, min(-(-end // stride) * stride, length))
            for first, end, stride, length in zip(blocks[0].outer, ends, strides, self.image.grid.shape, strict=True)
        )
        scaled = scale_region(self.image, self.scale, region)
        scaled = replace(scaled, image=pad_to_stride(scaled.image, strides))
        left = [block for block in blocks if not self.is_background(block.core)]
        yield from run_blocks(partial(self._label_block, scaled, region), left, stop=stop)

    def _label_block(self, scaled: ScaledImage, region: Region, block: Block) -> BlockObjects:
        origin = tuple(part.start for part in region)
        maps = predict_block(scaled.image, self.predictor, block, self.margin, origin)
        acquired = None
        if scaled.acquired is not None:
            acquired = scaled.acquired[relative_region(block.grown(self.margin), region)]
        parts = object_maps(maps, acquired, has_distance=self.has_distance)
        return label_block(*parts, self.settings, block=block)

    def _has_no_foreground(self, values: _Values) -> bool:
        """Whether there is no foreground anywhere in an image of constant values.

        An image of any size is the same around each voxel, as far as the network sees, as one of this size: its end has
        the same phase in the network's pooling.
        """
        network = self.predictor.network
        shape = tuple(
            min(length, (2 * math.ceil(reach / stride) + 2) * stride + length % stride)
            for length, reach, stride in zip(
                self.image.grid.shape, network.receptive_radius, network.stride, strict=True
            )
        )
        dtype = self.image.dtype
        array = np.stack([np.full(shape, value, dtype) for value in values])
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


def _shift(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)
