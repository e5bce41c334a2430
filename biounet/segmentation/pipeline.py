"""The chain for one image, read as the table of contents: normalise, predict, label, stitch, measure."""

from __future__ import annotations

import math
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    AS_STORED,
    CANONICAL,
    PROBABILITY_MAX,
    DataSettings,
    Grid,
    InputError,
    LabelSettings,
    ModelError,
    ResultKind,
    SettingsError,
    Volume,
    canonical_transform,
    canonical_volume,
    is_integer,
    is_number,
    region_label,
)
from biounet.labelling import BlockObjects, Objects, label_block, label_classes, label_objects, reach, stitch
from biounet.measurement import (
    Columns,
    TrainingData,
    measure_classes,
    measure_columns,
    measure_lesions,
    min_lesion_voxels,
    quality_warnings,
)
from biounet.network import Card, Predictor
from biounet.preprocessing import (
    ScaledImage,
    Zoom,
    body_box,
    find_bodies,
    image_statistics,
    resample_planes,
    rescale,
    scale_intensities,
    working_zoom,
)
from biounet.tiling import Block, block_lattice, run_blocks

if TYPE_CHECKING:
    import pandas as pd

Maps = NDArray[np.uint16]

_SMALLEST_BLOCK = 1
_LARGEST_ZOOM = 50.0  # factor beyond which a diameter is a mistake


@dataclass(frozen=True)
class SegmentOptions:
    """How an image is worked through; only `diameter` and `label` can change the result.

    Attributes
    ----------
    block
        Edge of a block in voxels of the working grid; None: 2048 in images, 256 in volumes. A block of the size of the
        image costs least time, smaller ones less memory.
    executor
        Where blocks run; None: in this thread.
    diameter
        Typical diameter of the objects in pixels of the image. The image is resampled so that they appear as large as
        the objects that the model was trained on.
    label
        Thresholds instead of those on the model's card.
    stop
        When it is set, the next block is not begun and `Stopped` is raised.

    Raises
    ------
    SettingsError
        If a value cannot be one for any image.
    """

    block: int | None = None
    executor: Executor | None = None
    diameter: float | None = None
    label: LabelSettings | None = None
    stop: Event | None = None

    def __post_init__(self) -> None:
        if self.block is not None and not (is_integer(self.block) and self.block >= _SMALLEST_BLOCK):
            raise SettingsError(f"block {self.block!r}: a whole number, {_SMALLEST_BLOCK} or more")
        if self.diameter is not None and not (is_number(self.diameter) and 0 < self.diameter < math.inf):
            raise SettingsError(f"diameter {self.diameter!r}: a positive number")


@dataclass(frozen=True)
class Segmentation:
    """What was found in one image.

    Attributes
    ----------
    labels
        On the source grid, integers: objects 1..N, or classes.
    count
        Number of objects, or of lesions in a volume; None for classes of which none is the one to count.
    columns
        The table: one row per object, or per class.
    volume
        The image.
    notes
        Remarks that a user should see.
    seconds
        Time that each stage took.
    kind
        What the values of `labels` are: a model of strokes gives objects, though its annotations are classes.
    """

    labels: NDArray[Any]
    count: int | None
    columns: Columns
    volume: Volume
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    kind: ResultKind = "objects"

    @property
    def table(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; units are in the names of the columns."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self.columns)


def segment(volume: Volume, predictor: Predictor, card: Card, options: SegmentOptions | None = None) -> Segmentation:
    """Segment one image.

    Parameters
    ----------
    volume
        The image.
    predictor, card
        The model.
    options
        Blocks, and what the user knows better than the card.

    Raises
    ------
    InputError
        If the image does not fit the model: other channels, other dimensions, an unknown pixel size where the model
        needs one.
    """
    options = options or SegmentOptions()
    check_model_fits(volume, card)
    settings = options.label or card.label
    clock = _Clock()
    way, turned = canonical_transform(volume.grid), canonical_volume(volume)
    zoom = model_zoom(turned, card, options.diameter)
    body = body_box(turned.array, card.recipe.normalise, card.recipe.data)
    scaled = scale_intensities(turned.array, card.recipe.normalise)
    image = rescale(scaled.image[(slice(None), *body)], zoom)
    scaled = replace(scaled, image=image)
    clock.lap("normalise")
    if card.recipe.data.kind == "classes":
        maps = predict_image(image, predictor, options)
        labels: NDArray[Any] = np.zeros(turned.grid.shape, np.uint8)
        labels[body] = label_regions(maps, labels[body].shape, card.recipe.data, settings)
        if scaled.acquired is not None:
            labels[~scaled.acquired] = 0
        labels = np.ascontiguousarray(way.undo(labels))
        clock.lap("predict_and_label")
        columns, count = _measure_regions(labels, card.recipe.data, volume.grid)
    else:
        objects = _find_objects(scaled, turned, predictor, card, settings, options)
        clock.lap("predict_and_label")
        labels, count = np.ascontiguousarray(way.undo(objects.labels)), len(objects.count)
        columns = measure_columns(labels, volume.array, volume.grid, objects.confidence, card.inputs)
    clock.lap("measure")
    known = TrainingData(card.training_ranges, card.textures, card.validation.get("doubtful_below"))
    remarks = quality_warnings(image_statistics(turned, scaled), columns, known, math.prod(zoom) ** (1 / len(zoom)))
    clock.lap("quality")
    remarks += [*_remarks_on_orientation(volume.grid, card), *_remarks_on_surroundings(turned, card)]
    kind: ResultKind = "classes" if card.recipe.data.kind == "classes" else "objects"
    return Segmentation(labels, count, columns, volume, (*volume.remarks, *remarks), clock.laps, kind)


def _remarks_on_orientation(grid: Grid, card: Card) -> list[str]:
    """Return remarks where nobody knows whether image and model lie in one orientation, and it matters."""
    if card.recipe.data.dims == 2 or card.recipe.augment.mirror:  # turned and mirrored at will while it learned
        return []
    if grid.axcodes is None:
        known = card.orientation == CANONICAL
        return [f"orientation unknown: worked on as stored, by a model of volumes in {CANONICAL}"] if known else []
    if card.orientation == AS_STORED:
        return [f"brought to {CANONICAL}, by a model of images that did not say how they are oriented"]
    if card.orientation is None and grid.axcodes != CANONICAL:
        assumed = f"the model's card does not say in which orientation it works, and {CANONICAL} is assumed"
        return [f"brought from {grid.axcodes} to {CANONICAL}: {assumed}"]
    return []


def _remarks_on_surroundings(volume: Volume, card: Card) -> list[str]:
    """Return a remark where the body was alone in all training images and is not here."""
    if not card.surroundings_removed or find_bodies(volume.array) is not None:
        return []
    return ["the background is not constant: the model learned from images whose surroundings were removed"]


def check_model_fits(volume: Volume, card: Card) -> None:
    """Refuse an image that the model was not made for."""
    if volume.grid.dims != card.recipe.data.dims:
        cause = f"a {volume.grid.dims}D image, but the model '{card.recipe.name}' is for {card.recipe.data.dims}D"
        raise InputError(cause, path=volume.source, hint="choose a plane, or another model")
    if volume.channels != len(card.inputs):
        expected = f"{len(card.inputs)} ({', '.join(card.inputs)})"
        cause = f"{volume.channels} channels, the model '{card.recipe.name}' expects {expected}"
        raise InputError(cause, path=volume.source, hint="choose one with --channel")


def model_zoom(volume: Volume, card: Card, diameter: float | None) -> Zoom:
    """Return the factor along each axis from the grid of an image in the canonical order to the model's own."""
    if diameter is None:
        return working_zoom(volume.grid, card.recipe.data, volume.source)
    if card.object_size_px is None:
        raise ModelError(f"the card of '{card.recipe.name}' has no object size to bring a diameter of {diameter} to")
    factor = card.object_size_px / diameter
    if not 1 / _LARGEST_ZOOM <= factor <= _LARGEST_ZOOM:
        cause = f"a diameter of {diameter:g} px, and objects of this model are {card.object_size_px:.3g} px wide"
        raise SettingsError(cause, hint="--diameter is that of the objects, in pixels of the image")
    return (factor,) * volume.grid.dims


def _find_objects(
    scaled: ScaledImage,
    volume: Volume,
    predictor: Predictor,
    card: Card,
    settings: LabelSettings,
    options: SegmentOptions,
) -> Objects:
    shape = volume.grid.shape
    area = float(np.prod(volume.grid.steps_um)) if volume.grid.steps_um is not None else None
    parts = card.recipe.data.kind == "instances"
    image = scaled.image

    def surfaces(maps: Maps, part: tuple[slice, ...]) -> tuple[Maps, Maps | None, Maps | None]:
        """Return foreground, contour and distance; a model of scribbles knows only what is not background."""
        foreground = maps[0] if parts else PROBABILITY_MAX - maps[0]
        if scaled.acquired is not None:
            foreground = np.where(scaled.acquired[part], foreground, 0)
        return (foreground, maps[1], maps[2]) if parts else (foreground, None, None)

    if image.shape[1:] != shape:
        maps = np.stack(list(resample_planes(predict_image(image, predictor, options), shape)), 1).reshape(-1, *shape)
        return label_objects(*surfaces(maps, (slice(None),)), settings, voxel_um=area)
    margin = reach(has_distance=parts)
    padded = pad_to_stride(image, predictor.network.stride)

    def work(block: Block) -> BlockObjects:
        maps = predict_block(padded, block, margin, predictor)
        return label_block(*surfaces(maps, block.grown(margin)), settings, block=block)

    halo = tuple(reach + margin for reach in predictor.network.reach)
    blocks = block_lattice(shape, block_size(options, len(shape)), halo, predictor.network.stride)
    return stitch(list(run_blocks(work, blocks, options.executor, options.stop)), shape, settings, voxel_um=area)


def label_regions(maps: Maps, shape: tuple[int, ...], data: DataSettings, settings: LabelSettings) -> NDArray[np.uint8]:
    """Turn probabilities of classes or regions into a label image on the source grid.

    Plane by plane, since the probabilities of all classes on the grid of a scanner are the largest array of all.

    Parameters
    ----------
    maps
        ``(k, [z,] y, x)`` on the working grid.
    shape
        Of the source grid, ``([z,] y, x)``.
    data, settings
        Say what the maps mean and from which probability a voxel belongs to a region.

    Returns
    -------
    Values as in the annotations: 0 background, 1.. classes.
    """
    regions = data.overlapping
    thresholds = (settings.foreground,) * len(regions) if regions else None
    labels = np.stack([label_classes(plane, thresholds) for plane in resample_planes(maps, shape)])
    if regions:
        values = np.array([0, *(region_label(regions, name) or 0 for name in regions)], np.uint8)
        labels = values[labels]
    return labels.reshape(shape)


def _measure_regions(labels: NDArray[np.uint8], data: DataSettings, grid: Grid) -> tuple[Columns, int | None]:
    """Return the table of an image's classes, or of a volume's regions and their lesions, and how many are counted.

    Lesions are counted where it is clear which ones are meant: those of the outermost region, or of the only class.
    """
    if grid.dims == 2:
        return measure_classes(labels, data.foreground, grid), None
    columns = measure_lesions(labels, data.label_values, grid, min_lesion_voxels(data.min_lesion_mm3, grid))
    counted = columns["lesion"][columns["class"] == next(iter(data.label_values))].max(initial=0)
    return columns, int(counted) if data.regions or len(data.label_values) == 1 else None


def block_size(options: SegmentOptions, dims: int) -> int:
    """Return the edge of a block in voxels."""
    return options.block or {2: 2048, 3: 256}[dims]


def predict_image(image: NDArray[np.float32], predictor: Predictor, options: SegmentOptions | None = None) -> Maps:
    """Predict a whole image, block by block.

    Parameters
    ----------
    image
        Normalised, on the working grid, shape ``(c, [z,] y, x)``.

    Returns
    -------
    Probabilities ``0 … 65535``, shape ``(k, [z,] y, x)``.
    """
    options = options or SegmentOptions()
    network, shape = predictor.network, image.shape[1:]
    padded = pad_to_stride(image, network.stride)
    blocks = block_lattice(shape, block_size(options, len(shape)), network.reach, network.stride)

    def work(block: Block) -> Maps:
        return predict_block(padded, block, 0, predictor)

    results = run_blocks(work, blocks, options.executor, options.stop)
    if len(blocks) == 1:
        return next(results)
    maps: Maps | None = None
    for block, part in zip(blocks, results, strict=True):
        maps = np.empty((len(part), *shape), np.uint16) if maps is None else maps
        maps[(slice(None), *block.core)] = part
    return maps  # type: ignore[return-value]


def predict_block(padded: NDArray[np.float32], block: Block, margin: int, predictor: Predictor) -> Maps:
    """Predict the core of a block and `margin` voxels around it.

    Parameters
    ----------
    padded
        The image from `pad_to_stride`.
    block
        Of a lattice whose halo is at least the network's reach plus `margin`.
    """
    outer = tuple(
        slice(part.start, min(-(-part.stop // stride) * stride, size))
        for part, size, stride in zip(block.outer, padded.shape[1:], predictor.network.stride, strict=True)
    )
    maps = predictor(padded[(slice(None), *outer)])
    return maps[(slice(None), *block.within_outer(block.grown(margin)))]


def pad_to_stride(image: NDArray[np.float32], strides: tuple[int, ...]) -> NDArray[np.float32]:
    """Mirror the image at the end of each axis up to a multiple of the network's stride."""
    missing = [(0, -size % stride) for size, stride in zip(image.shape[1:], strides, strict=True)]
    return np.pad(image, [(0, 0), *missing], mode="symmetric") if any(after for _, after in missing) else image


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self.last
        self.last = now
