"""Quality warnings: what a user should look at before trusting a result, each with the figure that raised it.

The statistics of an image are compared with those of the training images, from the model's card. What a training image
had raises no warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import Note, NoteCode
from biounet.measurement.table import Table
from biounet.measurement.table_summary import TableSummary
from biounet.preprocessing import ImageStatistics, Texture, TrainingRanges, texture_features

_DIRECTIONS = {"x": "from left to right", "y": "from back to front", "z": "from foot to head"}
_SCAN_LENGTHS = (
    ("voxel", "voxels of {:.3g} mm", NoteCode.VOXEL_SIZE),
    ("view", "a field of view of {:.0f} mm", NoteCode.FIELD_OF_VIEW),
)
# Statistic, factor by which it may leave the training range, words for values below and above, code
_RANGE_CHECKS: tuple[tuple[str, float, str, str, NoteCode], ...] = (
    ("brightness", 0.7, "mostly dark: mean {:.2f}", "mostly bright: mean {:.2f}", NoteCode.BRIGHTNESS),
    (
        "diameter",
        0.5,
        "small objects: {:.1f} pixels across",
        "large objects: {:.1f} pixels across",
        NoteCode.OBJECT_SIZE,
    ),
    *(
        (f"{kind}_{axis}", 0.7, f"{words} {direction}", f"{words} {direction}", code)
        for axis, direction in _DIRECTIONS.items()
        for kind, words, code in _SCAN_LENGTHS
    ),
)
_CONTRAST_MARGIN = 0.25  # standard deviations by which the order of a contrast may leave the training range
_CONTRAST_WORDS = {"core": "the middle is brighter by", "skew": "skewness"}  # statistics of the order of a contrast
_PURE_NOISE = 7.0  # distance of the percentiles 1 and 99.8 of Gaussian noise in its deviations, 5.2, and a margin
_HOT, _SATURATED = 1e-4, 0.01  # shares of the pixels that raise a warning
_AT_BORDER, _UNSURE = 0.5, 0.3  # shares of the objects that raise a warning
_VOLUME = 3  # dimensions
_MIN_OBJECTS = 5  # for a share or a median
_SMALLEST = 10.0  # pixels: of smaller nuclei a third is missed (benchmarks/RESULTS.md), of larger ones one in twenty
_OF_MAGNIFICATION = {
    NoteCode.BLURRED,
    NoteCode.COARSE,
    NoteCode.NOISY,
    NoteCode.OBJECT_SIZE,
    NoteCode.LOW_CONFIDENCE,
}


class TrainingReference(NamedTuple):
    """What the card of a model says about its training images.

    Attributes
    ----------
    ranges
        From `biounet.preprocessing.training_ranges`; empty where the card has none.
    textures
        From `biounet.preprocessing.distinct_textures`.
    low_confidence
        Confidence below which most objects are wrong; None where the card has none.
    """

    ranges: TrainingRanges
    textures: Sequence[Texture] = ()
    low_confidence: float | None = None


def quality_warnings(
    statistics: ImageStatistics, table: Table | TableSummary, training: TrainingReference, zoom: float = 1.0
) -> list[Note]:
    """Return warnings about an image and its objects.

    Parameters
    ----------
    statistics
        From `biounet.preprocessing.image_statistics`.
    table
        The measurements of the image, or their summary.
    training
        From the card.
    zoom
        Pixels of the network's working grid per pixel of the image.
    """
    statistics = statistics | table_statistics(table, training, zoom)
    return [
        *_texture_warnings(statistics, training),
        *_range_warnings(statistics, training.ranges),
        *_pixel_warnings(statistics, training.ranges),
        *_object_warnings(statistics, training),
    ]


def table_statistics(table: Table | TableSummary, training: TrainingReference, zoom: float = 1.0) -> ImageStatistics:
    """Return the `object_statistics` of a table or of its summary; `zoom` as in `quality_warnings`."""
    summary = TableSummary.of(table, training.low_confidence) if isinstance(table, Table) else table
    if summary.kind != "objects" or summary.sizes is None:
        return {}
    dims = 3 if summary.sizes.column.startswith("volume") else 2
    found = object_statistics(summary, dims, zoom)
    if dims == _VOLUME and "at_border" not in training.ranges:
        found.pop("at_border", None)  # in a stack of few planes most objects touch the first or the last one
    return found


def object_statistics(summary: TableSummary, dims: int, zoom: float = 1.0) -> ImageStatistics:
    """Return statistics of the objects found in an image; none of a few objects, which say nothing about others.

    ``diameter``, the median in pixels of the working grid; ``at_border`` and ``unsure``, the shares of objects that
    touch the border of the image and that have a low confidence.
    """
    sizes, n = summary.sizes, summary.rows
    if n < _MIN_OBJECTS or sizes is None:
        return {}
    diameters = ball_diameters(sizes.voxels[sizes.middle()], dims) * zoom
    statistics = {"diameter": float(np.mean(diameters)), "at_border": summary.at_border / n}
    return statistics | ({} if summary.low_confidence is None else {"unsure": summary.unsure / n})


def label_statistics(
    labels: NDArray[np.integer[Any]], confidence: NDArray[Any], low_confidence: float | None
) -> ImageStatistics:
    """Return the `object_statistics` of a label image ``([z,] y, x)`` on the working grid with ids 1..N."""
    sizes = np.bincount(labels.ravel(), minlength=len(confidence) + 1)[1:]
    at_border = np.zeros(len(confidence) + 1, bool)
    for axis in range(labels.ndim):
        for end in (0, -1):
            at_border[labels.take(end, axis)] = True
    columns = {"label": np.arange(1, len(sizes) + 1), "area_px": sizes}
    columns |= {"touches_border": at_border[1:], "confidence": confidence}
    return object_statistics(TableSummary.of(Table("objects", columns), low_confidence), labels.ndim)


def ball_diameters(sizes: NDArray[Any], dims: int) -> NDArray[np.float64]:
    """Return the diameters of circles or balls of so many pixels or voxels."""
    return np.asarray(2 * np.sqrt(sizes / np.pi) if dims == 2 else 2 * np.cbrt(sizes * 3 / (4 * np.pi)))


def looks_like_training(statistics: ImageStatistics, training: TrainingReference) -> bool:
    """Whether texture, size and confidence of objects, which depend on the magnification, are like those of training.

    `statistics` are those of the image and those of `object_statistics`.
    """
    warnings = chain(
        _texture_warnings(statistics, training),
        _range_warnings(statistics, training.ranges),
        _object_warnings(statistics, training),
    )
    return not any(note.code in _OF_MAGNIFICATION for note in warnings)


def _texture_warnings(statistics: ImageStatistics, training: TrainingReference) -> Iterator[Note]:
    """Warn of a texture unlike that of the most similar training image, and describe the difference."""
    texture = texture_features(statistics)
    if texture is None or not training.textures or "unlikeness" not in training.ranges:
        return
    differences = np.array(texture) - np.array(training.textures)
    nearest = differences[np.linalg.norm(differences, axis=1).argmin()]
    if np.linalg.norm(nearest) <= training.ranges["unlikeness"][1]:
        return
    edge, structure, detail = nearest
    softer = max(edge, detail)
    now, then = np.exp(texture), np.exp(np.array(texture) - nearest)
    if softer > 0 and softer >= structure:
        word, code, figure = "blurred", NoteCode.BLURRED, now[0] if edge >= detail else now[2]
    elif structure >= max(-softer, -min(edge, detail)):
        word, code, figure = "coarse", NoteCode.COARSE, now[1]
    else:
        word = "fine or noisy" if structure <= min(edge, detail) else "sharp or noisy"
        code, figure = NoteCode.NOISY, now[1] if structure <= min(edge, detail) else min(now[0], now[2])
    text = (
        f"{word}: edges of {now[0]:.1f} pixels, structures of {now[1]:.1f}, detail of {now[2]:.1f};"
        f" the training image most like it has {then[0]:.1f}, {then[1]:.1f} and {then[2]:.1f}"
    )
    yield Note(text, code, figure=float(figure))


def _range_warnings(statistics: ImageStatistics, ranges: TrainingRanges) -> Iterator[Note]:
    """Warn of figures far outside the training range."""
    for name, margin, below, above, code in _RANGE_CHECKS:
        if name not in statistics or name not in ranges:
            continue
        value, (low, high) = statistics[name], ranges[name]
        lowest = min(low, max(low * margin, _SMALLEST)) if name == "diameter" else low * margin
        words = below if value < lowest else above if value > high / margin else None
        if words is not None:
            yield Note(f"{words.format(value)}, trained on {low:.3g} to {high:.3g}", code, figure=value)
    for name in sorted(statistics.keys() & ranges.keys()):
        kind, _, channel = name.partition("_")
        low, high = ranges[name]
        if kind in _CONTRAST_WORDS and not low - _CONTRAST_MARGIN <= statistics[name] <= high + _CONTRAST_MARGIN:
            value = statistics[name]
            about = f"{_CONTRAST_WORDS[kind]} {value:.2f}, trained on {low:.2f} to {high:.2f}"
            yield Note(f"another order of contrast in channel {channel}: {about}", NoteCode.CONTRAST, figure=value)


def _pixel_warnings(statistics: ImageStatistics, ranges: TrainingRanges) -> Iterator[Note]:
    contrast = statistics.get("contrast", np.inf)
    if contrast < min(_PURE_NOISE, ranges.get("contrast", (np.inf, np.inf))[0]):
        text = f"blank: what is bright stands out from the noise by {contrast:.1f} deviations only"
        yield Note(text, NoteCode.BLANK, figure=contrast)
    saturated, hot = statistics.get("saturated", 0), statistics.get("hot", 0)
    if saturated >= max(_SATURATED, _above(ranges, "saturated")):
        text = f"saturated: {saturated:.1%} of the pixels have the highest value, {statistics['top']:.0f}"
        yield Note(text, NoteCode.SATURATED, figure=saturated)
    if hot >= max(_HOT, _above(ranges, "hot")):
        text = f"hot pixels: {hot:.2%} of the pixels stand out alone, and were brought down to their neighbours"
        yield Note(text, NoteCode.HOT_PIXELS, figure=hot)


def _above(ranges: TrainingRanges, name: str) -> float:
    """Return a share just above the highest one of the training images."""
    return ranges.get(name, (0.0, 0.0))[1] * 1.01


def _object_warnings(statistics: ImageStatistics, training: TrainingReference) -> Iterator[Note]:
    share = statistics.get("at_border", 0.0)
    if share > max(_AT_BORDER, _above(training.ranges, "at_border")):
        yield Note(f"{share:.0%} of the objects touch the border", NoteCode.AT_BORDER, figure=share)
    low = training.low_confidence
    share = statistics.get("unsure", 0.0)
    if share > max(_UNSURE, _above(training.ranges, "unsure")):
        text = f"{share:.0%} of the objects have a confidence below {low:.2f}, as wrong ones have"
        yield Note(text, NoteCode.LOW_CONFIDENCE, figure=share)
