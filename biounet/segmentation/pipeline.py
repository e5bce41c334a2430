"""The chain for one image, read as the table of contents: normalise, predict, label, stitch, measure."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import (
    AS_STORED,
    CANONICAL,
    PROBABILITY_MAX,
    DataSettings,
    Figure,
    Grid,
    InputError,
    LabelSettings,
    ModelError,
    Note,
    NoteCode,
    ResultKind,
    SettingsError,
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
    Columns,
    Table,
    TrainingReference,
    acquired_part,
    as_ring,
    border_weights,
    frame_figures,
    frame_notes,
    image_figures,
    label_statistics,
    looks_like_training,
    measure_classes,
    measure_lesions,
    measure_objects,
    min_lesion_voxels,
    quality_warnings,
    table_statistics,
)
from biounet.network import Card, Predictor
from biounet.preprocessing import (
    ImageStatistics,
    ScaledImage,
    Zoom,
    body_box,
    body_masks,
    image_statistics,
    resample_planes,
    rescale,
    resize_labels,
    scale_intensities,
    working_zoom,
)
from biounet.segmentation.frames import Frame, segment_frames
from biounet.segmentation.options import Diameter, SegmentOptions
from biounet.segmentation.prediction import Maps, pad_to_stride, predict_block, predict_image, prediction_blocks
from biounet.segmentation.scale_search import (
    Look,
    best_zoom,
    count_instability,
    densest_window,
    is_closer,
    zooms_to_try,
)
from biounet.tiling import Block, run_blocks

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_ZOOM = 50.0  # factor beyond which a diameter is a mistake
_ALIKE = 2.0  # factor between diameters that look alike to a model whose card has no range
_MAX_INSTABILITY = 0.1  # of a count between sizes
LARGEST_SEARCHED = 2**26  # voxels: of larger images the maps would not fit in memory at any other size


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Attributes
    ----------
    labels
        On the source grid, integers: objects 1..N, or classes.
    count
        Number of objects, or of lesions in a volume; None where it is not clear which class to count.
    measurements
        One row per object, or per class.
    notes
        Warnings for the user.
    seconds
        Time of each stage.
    figures
        Further figures of the image by their names, for ``counts.csv``.
    class_names
        Of the values of `labels`, where these are classes or regions.
    frames
        Of a time series, whose `labels` and `measurements` are those of all frames, as by
        `biounet.segmentation.segment_frames`; empty for an image.
    """

    labels: NDArray[Any]
    count: int | None
    measurements: Table
    volume: Volume
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)
    frames: tuple[Frame, ...] = ()

    @property
    def counts(self) -> tuple[int | None, ...]:
        """The count of each frame; that of an image alone."""
        return tuple(frame.count for frame in self.frames) or (self.count,)

    @property
    def kind(self) -> ResultKind:
        """What the values of `labels` are; a model trained on scribbles finds objects."""
        return "objects" if self.measurements.kind == "objects" else "classes"

    @property
    def columns(self) -> Columns:
        """The columns of the table."""
        return self.measurements.columns

    @property
    def table(self) -> pd.DataFrame:
        """The table as a pandas DataFrame; units are in the names of the columns."""
        import pandas as pd  # slow to import

        return pd.DataFrame(self.columns)


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
    def training(self) -> TrainingReference:
        card = self.card
        return TrainingReference(card.training_ranges, card.textures, card.validation.get("doubtful_below"))

    def label(self, grid: Grid, zoom: Zoom | None = None) -> LabelSettings:
        """Return the settings on a grid; the smallest object of those of the model is one on the working grid."""
        label = self.options.label or self.card.label
        if zoom is not None and label.min_size_unit == "px":
            label = label.model_copy(update={"min_size": label.min_size / math.prod(zoom)})
        return replace(self.options, label=None).label_settings(label, grid)

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
    if options.diameter != "auto" or math.prod(volume.grid.shape) > LARGEST_SEARCHED:
        return found.result
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
    frame: list[Note] = []
    if job.data.kind == "classes":
        labels, confidence = _segment_classes(scaled, image.body, grid, job), None
    else:
        objects, dropped = _select_objects(_segment_objects(scaled, zoom, grid, job), grid, job.options)
        figures |= {f"dropped_{name}": count for name, count in dropped.items()}
        labels, confidence = objects.labels, objects.confidence
    labels = np.ascontiguousarray(canonical_transform(volume.grid).undo(labels))
    clock.lap("predict_and_label")
    if confidence is None:
        table, count = _measure_regions(labels, job.data, volume, card)
    else:
        table, count = _measure_objects(labels, confidence, volume, card, job.options.ring), len(confidence)
        table, in_frame, frame = _measure_borders(table, scaled.acquired, volume.grid, job.options)
        figures |= in_frame
    clock.lap("measure")
    statistics, mean_zoom = image_statistics(image.canonical, scaled), math.prod(zoom) ** (1 / len(zoom))
    warnings = quality_warnings(statistics, table, job.training, mean_zoom)
    clock.lap("quality")
    known = (*_orientation_notes(volume.grid, card), *_background_notes(image.canonical, card))
    notes = (*volume.remarks, *warnings, *frame, *known)
    figures |= image_figures(table)
    result = Segmentation(labels, count, table, volume, notes, clock.laps, figures, _class_names(job.data))
    return _Found(result, statistics | table_statistics(table, job.training, mean_zoom))


def _try_zooms(found: _Found, image: _Prepared, job: _Job) -> list[Look]:
    """Return what an image that was segmented as it is looks like, and at other zooms where it looks unfamiliar."""
    training, dims, one_um = job.training, image.canonical.grid.dims, _voxel_um(image.canonical.grid)
    if "diameter" not in training.ranges:
        size = job.card.object_size_px or 1.0
        training = training._replace(ranges={**training.ranges, "diameter": (size / _ALIKE, size * _ALIKE)})
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
        objects = label_objects(*_label_inputs(maps, mask, job), job.card.label, voxel_um=voxel_um)
        statistics = image_statistics(image.canonical, scaled)
        statistics |= label_statistics(objects.labels, objects.confidence, training.low_confidence)
        look = _look(zoom, statistics, objects.confidence, training)
        is_likely = is_closer(look.diameter, zoom, job.card.object_size_px or 1.0)
        looks.append(replace(look, is_familiar=look.is_familiar and is_likely))
    return looks


def _look(
    zoom: float, statistics: ImageStatistics, confidence: NDArray[np.floating[Any]], training: TrainingReference
) -> Look:
    mean = float(np.mean(confidence)) if len(confidence) else 0.0
    is_familiar = looks_like_training(statistics, training)
    return Look(zoom, is_familiar, mean, statistics.get("diameter"), len(confidence))


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


def _orientation_notes(grid: Grid, card: Card) -> list[Note]:
    """Return a note where it matters, and is unknown, whether image and model have the same orientation."""
    if card.recipe.data.dims == 2 or card.recipe.augment.mirror:  # trained on all orientations
        return []
    if grid.axcodes is None:
        note = f"orientation unknown: worked on as stored, by a model of volumes in {CANONICAL}"
        return [Note(note, NoteCode.ORIENTATION)] if card.orientation == CANONICAL else []
    if card.orientation == AS_STORED:
        note = f"brought to {CANONICAL}, by a model of images that did not say how they are oriented"
        return [Note(note, NoteCode.ORIENTATION)]
    if card.orientation is None and grid.axcodes != CANONICAL:
        assumed = f"the model's card does not say in which orientation it works, and {CANONICAL} is assumed"
        return [Note(f"brought from {grid.axcodes} to {CANONICAL}: {assumed}", NoteCode.ORIENTATION)]
    return []


def _background_notes(volume: Volume, card: Card) -> list[Note]:
    """Return a note where the surroundings were removed in all training images and are not in this one."""
    if not card.surroundings_removed or body_masks(volume.array) is not None:
        return []
    note = "the background is not constant: the model learned from images whose surroundings were removed"
    return [Note(note, NoteCode.SURROUNDINGS)]


def check_model_fits(volume: Volume, card: Card) -> None:
    """Raise `InputError` if an image has other dimensions or channels than the model."""
    if volume.grid.dims != card.recipe.data.dims:
        cause = f"a {volume.grid.dims}D image, but the model '{card.recipe.name}' is for {card.recipe.data.dims}D"
        raise InputError(cause, path=volume.source, hint="choose a plane, or another model")
    if volume.channels != len(card.inputs):
        expected = f"{len(card.inputs)} ({', '.join(card.inputs)})"
        cause = f"{volume.channels} channels, the model '{card.recipe.name}' expects {expected}"
        names = f": {', '.join(volume.channel_names)}" if volume.channel_names else ""
        raise InputError(cause, path=volume.source, hint=f"choose one with --channel{names}")


def resolve_diameter(diameter: Diameter | None, card: Card) -> Diameter:
    """Return the diameter, or what one that is left to the model, None, means with this one.

    Raises
    ------
    ModelError
        If the card has no object size to bring a diameter to.
    """
    if diameter not in (None, "native") and card.object_size_px is None:
        cause = f"the card of '{card.recipe.name}' states no size of objects, which --diameter {diameter} needs"
        raise ModelError(cause, hint="leave --diameter out")
    if diameter is not None:
        return diameter
    data = card.recipe.data
    decided = data.pixel_size_um is not None or bool(data.voxel_size)
    searched = data.dims == 2 and card.object_size_px is not None and "diameter" in card.training_ranges
    return "auto" if searched and not decided else "native"


def model_zoom(volume: Volume, card: Card, diameter: Diameter | None) -> Zoom:
    """Return the factor along each axis from the grid of an image in the canonical order to that of the model.

    With ``"auto"`` it is that of the first attempt, 1.

    Raises
    ------
    InputError, ModelError, SettingsError
        If the image has no pixel size and the model needs one; if the card has no object size to bring `diameter` to;
        if the diameter is out of range.
    """
    diameter, size = resolve_diameter(diameter, card), card.object_size_px
    if diameter == "native" or size is None:
        return working_zoom(volume.grid, card.recipe.data, volume.source)
    if diameter == "auto":
        return (1.0,) * volume.grid.dims
    factor = size / diameter
    if not 1 / _LARGEST_ZOOM <= factor <= _LARGEST_ZOOM:
        cause = f"a diameter of {diameter:g} px, and objects of this model are {size:.3g} px wide"
        raise SettingsError(cause, hint="--diameter is that of the objects, in pixels of the image")
    return (factor,) * volume.grid.dims


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
        return label_objects(*_label_inputs(maps, scaled.acquired, job), settings, voxel_um=voxel_um)
    margin = required_halo(has_distance=job.data.kind == "instances")
    padded = pad_to_stride(scaled.image, job.predictor.network.stride)

    def label(block: Block) -> BlockObjects:
        maps, region = predict_block(padded, job.predictor, block, margin), block.grown(margin)
        acquired = None if scaled.acquired is None else scaled.acquired[region]
        return label_block(*_label_inputs(maps, acquired, job), settings, block=block)

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


def _label_inputs(maps: Maps, acquired: NDArray[np.bool_] | None, job: _Job) -> tuple[Maps, Maps | None, Maps | None]:
    """Return foreground, contour and distance; a model of scribbles predicts only the background."""
    has_distance = job.data.kind == "instances"
    foreground = maps[0] if has_distance else PROBABILITY_MAX - maps[0]
    if acquired is not None:
        foreground = np.where(acquired, foreground, 0)
    return (foreground, maps[1], maps[2]) if has_distance else (foreground, None, None)


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


def _measure_objects(
    labels: NDArray[Any], confidence: NDArray[np.floating[Any]], volume: Volume, card: Card, ring: str | None
) -> Table:
    """Return the table of objects, with the ring around each and the background where there are channels to measure."""
    if not volume.measured:
        return measure_objects(labels, volume.array, volume.grid, confidence, card.inputs)
    channels = _channels_to_measure(volume, card)
    return measure_objects(labels, [*channels.values()], volume.grid, confidence, [*channels], as_ring(ring))


def _measure_borders(
    table: Table, acquired: NDArray[np.bool_] | None, grid: Grid, options: SegmentOptions
) -> tuple[Table, dict[str, Figure], list[Note]]:
    """Return the table with border weights in the part that was acquired, figures of the counting frame, and notes."""
    boxes = table.boxes
    if boxes is None:
        return table, {}, []
    if acquired is not None:
        acquired = canonical_transform(grid).undo(acquired)
        part = acquired_part(boxes, grid, acquired)
        weights = np.full(len(boxes.low), np.nan) if part is None else border_weights(*part)
        table = replace(table, columns=table.columns | {"border_weight": weights})
    figures = frame_figures(boxes, grid, acquired, complete=not options.exclude_border)
    return table, figures, frame_notes(boxes, grid, acquired)


def _channels_to_measure(volume: Volume, card: Card) -> dict[str, NDArray[Any]]:
    """Return all channels by their names if there are further ones to measure."""
    if not volume.measured:
        return {}
    return dict(zip(volume.channel_names or card.inputs, volume.array, strict=True)) | {**volume.measured}


def _measure_regions(
    labels: NDArray[np.uint8], data: DataSettings, volume: Volume, card: Card
) -> tuple[Table, int | None]:
    """Return the table of classes of an image, or of regions and lesions of a volume, and the count.

    Lesions are counted where it is clear which ones are meant: those of the outermost region, or of the only class.
    """
    grid, channels = volume.grid, _channels_to_measure(volume, card)
    if grid.dims == 2:
        return measure_classes(labels, data.foreground, grid, channels), None
    smallest = min_lesion_voxels(data.min_lesion_mm3, grid)
    table = measure_lesions(labels, data.label_values, grid, smallest, channels)
    return table, int(table.counted.sum()) if data.regions or len(data.label_values) == 1 else None


class _Stopwatch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = working_time()

    def lap(self, name: str) -> None:
        now = working_time()
        self.laps[name], self._last = self.laps.get(name, 0.0) + now - self._last, now
