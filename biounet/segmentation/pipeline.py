"""The chain for one image, read as the table of contents: normalise, predict, label, stitch, measure."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    DataSettings,
    Figure,
    Grid,
    LabelSettings,
    Note,
    NoteCode,
    Volume,
    canonical_transform,
    canonical_volume,
    note_code,
    region_label,
    working_time,
)
from biounet.labelling import (
    BlockObjects,
    ObjectFilter,
    Objects,
    label_block,
    label_classes,
    label_objects,
    required_halo,
    select_objects,
    stitch,
)
from biounet.measurement import (
    FrameCounts,
    TableSummary,
    TrainingReference,
    frame_notes,
    label_statistics,
    looks_like_training,
    quality_warnings,
    table_statistics,
)
from biounet.network import Card, Predictor
from biounet.preprocessing import (
    ImageStatistics,
    ScaledImage,
    Zoom,
    body_box,
    image_statistics,
    resample_planes,
    rescale,
    resize_labels,
    scale_intensities,
)
from biounet.segmentation.frames import segment_frames
from biounet.segmentation.model_fit import (
    background_notes,
    check_model_fits,
    model_zoom,
    note_on_unsought_diameter,
    orientation_notes,
    resolve_diameter,
    sized_reference,
    training_reference,
)
from biounet.segmentation.options import SegmentOptions
from biounet.segmentation.prediction import (
    Maps,
    object_maps,
    pad_to_stride,
    predict_block,
    predict_image,
    prediction_blocks,
)
from biounet.segmentation.result import Segmentation
from biounet.segmentation.scale_search import (
    Look,
    best_zoom,
    count_instability,
    densest_window,
    is_closer,
    zooms_to_try,
)
from biounet.segmentation.tables import measure_borders, measure_image_objects, measure_regions, table_figures
from biounet.tiling import Block, run_blocks

_MAX_INSTABILITY = 0.1  # of a count between sizes
LARGEST_SEARCHED = 2**26  # voxels: of larger images the maps would not fit in memory at any other size


@dataclass(frozen=True)
class _Job:
    """A model and how to use it."""

    predictor: Predictor
    card: Card
    options: SegmentOptions
    executor: Executor | None
    stop: Event | None

    @property
    def data(self) -> DataSettings:
        return self.card.recipe.data

    @property
    def has_distance(self) -> bool:
        return self.data.kind == "instances"

    @property
    def training(self) -> TrainingReference:
        return training_reference(self.card)

    @property
    def object_size(self) -> float:
        """Typical diameter of the objects of the training; `resolve_diameter` refuses a search without it."""
        return math.nan if self.card.object_size_px is None else self.card.object_size_px

    @property
    def sized_training(self) -> TrainingReference:
        return sized_reference(self.card)

    def label(self, grid: Grid, zoom: Zoom | None = None) -> LabelSettings:
        """Return the settings on a grid."""
        return self.options.on_grid(self.card.label, grid, zoom)

    def predict(self, image: NDArray[np.float32]) -> Maps:
        return predict_image(image, self.predictor, self.options.block, executor=self.executor, stop=self.stop)


def segment(
    volume: Volume,
    predictor: Predictor,
    card: Card,
    options: SegmentOptions | None = None,
    *,
    executor: Executor | None = None,
    stop: Event | None = None,
) -> Segmentation:
    """Segment one image, or each frame of a time series.

    Parameters
    ----------
    predictor, card
        The model.
    executor, stop
        As in `biounet.tiling.run_blocks`; they do not change the result.

    Raises
    ------
    InputError
        If the image does not fit the model: other channels, other dimensions, an unknown pixel size where the model
        needs one.
    Stopped
        If `stop` was set.
    """
    if volume.times:
        one = partial(segment, predictor=predictor, card=card, options=options, executor=executor, stop=stop)
        return segment_frames(volume, one)
    options = options or SegmentOptions()
    options = replace(options, diameter=resolve_diameter(options.diameter, card))
    job, clock = _Job(predictor, card, options, executor, stop), _Stopwatch()
    check_model_fits(volume, card)
    options.check_model(job.data)
    image = _prepare(volume, job)
    clock.lap("normalise")
    found = _segment_at(image, job, clock)
    if options.diameter != "auto":
        return found.result
    if math.prod(volume.grid.shape) > LARGEST_SEARCHED:
        return _describe_large(found, job)
    looks = _try_zooms(found, image, job)
    zoom = best_zoom(looks)
    clock.lap("search")
    if zoom == 1:
        return found.result
    other = _segment_at(image.at(zoom), job, clock)
    return _describe_zoom(other.result, found.result, zoom, count_instability(looks, zoom), card)


@dataclass(frozen=True)
class _Prepared:
    """A volume, the same in the canonical orientation, the box of the body in it, and the intensities there, zoomed."""

    volume: Volume
    canonical: Volume
    body: tuple[slice, ...]
    zoom: Zoom
    scaled: ScaledImage

    def at(self, zoom: float) -> _Prepared:
        zooms = (zoom,) * len(self.zoom)
        return replace(self, zoom=zooms, scaled=replace(self.scaled, image=rescale(self.scaled.image, zooms)))


class _Found(NamedTuple):
    result: Segmentation
    statistics: ImageStatistics


def _prepare(volume: Volume, job: _Job) -> _Prepared:
    canonical, normalise = canonical_volume(volume), job.card.recipe.normalise
    zoom = model_zoom(canonical, job.card, job.options.diameter)
    body = body_box(canonical.array, normalise, job.data)
    scaled = scale_intensities(canonical.array, normalise)
    scaled = replace(scaled, image=rescale(scaled.image[(slice(None), *body)], zoom))
    return _Prepared(volume, canonical, body, zoom, scaled)


def _segment_at(image: _Prepared, job: _Job, clock: _Stopwatch) -> _Found:
    """Segment an image at its zoom."""
    volume, grid, card, scaled, zoom = image.volume, image.canonical.grid, job.card, image.scaled, image.zoom
    clock.lap("normalise")
    labels: NDArray[Any]
    figures: dict[str, Figure] = {}
    counts: FrameCounts | None = None
    if job.data.kind == "classes":
        labels, confidence = _segment_classes(scaled, image.body, grid, job), None
    else:
        objects, dropped = _select_objects(_segment_objects(scaled, zoom, grid, job), grid, job.options)
        figures |= {f"dropped_{name}": count for name, count in dropped.items()}
        labels, confidence = objects.labels, objects.confidence
    labels = np.ascontiguousarray(canonical_transform(volume.grid).undo(labels))
    clock.lap("predict_and_label")
    if confidence is None:
        table, count = measure_regions(labels, job.data, volume, card)
    else:
        table, count = measure_image_objects(labels, confidence, volume, card, job.options.ring), len(confidence)
        table, counts = measure_borders(table, scaled.acquired, volume.grid)
    summary = TableSummary.of(table, job.training.low_confidence, counts)
    clock.lap("measure")
    statistics, mean_zoom = image_statistics(image.canonical, scaled), math.prod(zoom) ** (1 / len(zoom))
    warnings = quality_warnings(statistics, summary, job.training, mean_zoom)
    clock.lap("quality")
    known = (*orientation_notes(volume.grid, card), *background_notes(image.canonical, card))
    notes = (*volume.remarks, *warnings, *(frame_notes(counts) if counts else ()), *known)
    figures |= table_figures(summary, volume.grid, job.options)
    result = Segmentation(labels, count, table, volume, notes, clock.laps, figures, _class_names(job.data))
    return _Found(result, statistics | table_statistics(summary, job.training, mean_zoom))


def _try_zooms(found: _Found, image: _Prepared, job: _Job) -> list[Look]:
    """Return what an image that was segmented as it is looks like, and at other zooms where it looks unfamiliar."""
    training, dims, one_um = job.sized_training, image.canonical.grid.dims, _voxel_um(image.canonical.grid)
    confidence = found.result.columns["confidence"]
    first = _look(1.0, found.statistics, confidence, training)
    if first.is_familiar:
        return [first]
    labels = canonical_transform(image.volume.grid).apply(found.result.labels)
    window = densest_window(labels)
    first = replace(first, count=int(np.count_nonzero(np.unique(labels[window]))))
    acquired = None if image.scaled.acquired is None else image.scaled.acquired[window]
    part = replace(image.scaled, image=image.scaled.image[(slice(None), *window)], acquired=acquired)
    looks = [first]
    for zoom in zooms_to_try(first, part.image.shape[1:], training.ranges["diameter"][0]):
        scaled = replace(part, image=rescale(part.image, (zoom,) * dims))
        maps, mask = job.predict(scaled.image), None
        if acquired is not None:
            mask = resize_labels(acquired.astype(np.int32), maps.shape[1:]) > 0
        voxel_um = None if one_um is None else one_um / zoom**dims
        objects = label_objects(
            *object_maps(maps, mask, has_distance=job.has_distance), job.card.label, voxel_um=voxel_um
        )
        statistics = image_statistics(image.canonical, scaled)
        statistics |= label_statistics(objects.labels, objects.confidence, training.low_confidence)
        look = _look(zoom, statistics, objects.confidence, training)
        is_likely = is_closer(look.diameter, zoom, job.object_size)
        looks.append(replace(look, is_familiar=look.is_familiar and is_likely))
    return looks


def _look(
    zoom: float, statistics: ImageStatistics, confidence: NDArray[np.floating[Any]], training: TrainingReference
) -> Look:
    mean = float(np.mean(confidence)) if len(confidence) else 0.0
    is_familiar = looks_like_training(statistics, training)
    return Look(zoom, is_familiar, mean, statistics.get("diameter"), len(confidence))


def _describe_large(found: _Found, job: _Job) -> Segmentation:
    """Say that other sizes were not tried, of an image that looks unlike the training and is too large for that."""
    if looks_like_training(found.statistics, job.sized_training):
        return found.result
    return replace(found.result, notes=(*found.result.notes, note_on_unsought_diameter()))


def _describe_zoom(
    result: Segmentation, as_it_was: Segmentation, zoom: float, instability: float, card: Card
) -> Segmentation:
    """Say that another size was found; what is too small for the model is not seen better when it is enlarged."""
    diameter = (card.object_size_px or math.nan) / zoom
    text = f"it looks more like the training at {zoom:g} times its size, and was segmented as with --diameter"
    notes = [Note(f"{text} {diameter:.3g}", NoteCode.DIAMETER_FOUND, figure=diameter)]
    if instability > _MAX_INSTABILITY:
        text = f"the count depends on that size: at half and at twice it, it differs by {instability:.0%} or more"
        notes.append(Note(text, NoteCode.COUNT_UNSTABLE, figure=instability))
    small = [each for each in as_it_was.notes if zoom > 1 and note_code(each) == NoteCode.OBJECT_SIZE]
    others = [each for each in result.notes if not (small and note_code(each) == NoteCode.OBJECT_SIZE)]
    figures = result.figures | {"diameter_px": round(diameter, 2)}
    return replace(result, notes=(*others, *small, *notes), figures=figures)


def _class_names(data: DataSettings) -> dict[int, str]:
    """Return the name of each value of a label image; of regions within each other, that of the innermost."""
    if data.kind != "classes":
        return {}
    values = {name: region_label(data.label_values, name) for name in data.label_values}
    return {value: name for name, value in values.items() if value is not None}


def _segment_classes(scaled: ScaledImage, body: tuple[slice, ...], grid: Grid, job: _Job) -> NDArray[np.uint8]:
    """Label the box `body` of a grid, which `scaled` holds, and leave the rest background."""
    labels = np.zeros(grid.shape, np.uint8)
    labels[body] = label_regions(job.predict(scaled.image), labels[body].shape, job.data, job.label(grid))
    if scaled.acquired is not None:
        labels[~scaled.acquired] = 0
    return labels


def _segment_objects(scaled: ScaledImage, zoom: Zoom, grid: Grid, job: _Job) -> Objects:
    """Label the objects of a grid: block by block where it is the working grid, else once all maps are resampled."""
    voxel_um, settings = _voxel_um(grid), job.label(grid, zoom)
    if scaled.image.shape[1:] != grid.shape:
        planes = list(resample_planes(job.predict(scaled.image), grid.shape))
        maps = np.stack(planes, 1).reshape(-1, *grid.shape)
        return label_objects(
            *object_maps(maps, scaled.acquired, has_distance=job.has_distance), settings, voxel_um=voxel_um
        )
    margin = required_halo(has_distance=job.has_distance)
    padded = pad_to_stride(scaled.image, job.predictor.network.stride)

    # What a GPU computes of a voxel may differ a little from block to block, and blocks have to agree where they
    # overlap: each voxel is predicted once.
    predicted = job.predict(scaled.image) if job.predictor.pipeline is not None else None

    def label(block: Block) -> BlockObjects:
        region = block.grown(margin)
        if predicted is None:
            maps = predict_block(padded, job.predictor, block, margin)
        else:
            maps = predicted[(slice(None), *region)]
        acquired = None if scaled.acquired is None else scaled.acquired[region]
        return label_block(*object_maps(maps, acquired, has_distance=job.has_distance), settings, block=block)

    blocks = prediction_blocks(grid.shape, job.predictor, job.options.block, margin)
    return stitch(list(run_blocks(label, blocks, job.executor, job.stop)), grid.shape, settings, voxel_um=voxel_um)


def _voxel_um(grid: Grid) -> float | None:
    """Return the area (µm²) or volume (µm³) of a voxel; None where it is unknown."""
    return None if grid.steps_um is None else math.prod(grid.steps_um)


def _select_objects(objects: Objects, grid: Grid, options: SegmentOptions) -> tuple[Objects, dict[str, int]]:
    """Drop the objects that users do not want; return the others and how many each option dropped."""
    largest = None if options.largest is None else options.largest.as_largest(grid)
    kept, dropped = select_objects(objects, ObjectFilter(largest, options.min_confidence, options.exclude_border))
    return kept, dropped if options.smallest is None else {"min_size": objects.too_small, **dropped}


def label_regions(maps: Maps, shape: tuple[int, ...], data: DataSettings, settings: LabelSettings) -> NDArray[np.uint8]:
    """Turn probabilities of classes or regions into a label image on the source grid, of values as in the annotations.

    Plane by plane, since the probabilities of all classes on the source grid would be the largest array of all.

    Parameters
    ----------
    maps
        ``(k, [z,] y, x)`` on the working grid.
    shape
        Of the source grid, ``([z,] y, x)``.
    """
    regions = data.overlapping
    thresholds = (settings.foreground,) * len(regions) if regions else None
    labels = np.stack([label_classes(plane, thresholds) for plane in resample_planes(maps, shape)])
    if regions:
        values = np.array([0, *(region_label(regions, name) or 0 for name in regions)], np.uint8)
        labels = values[labels]
    return labels.reshape(shape)


class _Stopwatch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = working_time()

    def lap(self, name: str) -> None:
        now = working_time()
        self.laps[name], self._last = self.laps.get(name, 0.0) + now - self._last, now
