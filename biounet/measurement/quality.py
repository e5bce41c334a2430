"""What a user should look at before believing a result: each remark with the figure that raised it.

How an image looks is compared with how the images looked that the model was trained on, which its card has. No remark
is made about what a training image had as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.measurement.objects import Columns
from biounet.preprocessing import ImageStatistics, Texture, TrainingRanges, texture_features

_MARGIN = {"brightness": 0.7, "diameter": 0.5}  # factor by which a figure may leave the range
_PURE_NOISE = 7.0  # times its deviation that the percentiles 1 and 99.8 of Gaussian noise lie apart, 5.2, and a margin
_HOT = 1e-4  # share of the pixels from which a user should know
_SATURATED, _AT_BORDER, _UNSURE = 0.01, 0.5, 0.3  # shares of pixels, and of objects, from which a user should know
_SCAN_MARGIN = 0.7  # factor by which a length may leave the range of scans
_ORDER = {"core": "the middle is brighter by", "skew": "skewness"}  # what tells the order of a contrast
_ORDER_MARGIN = 0.25  # standard deviations by which those may leave it
_FEW = 5  # objects that are too few for a share


class TrainingData(NamedTuple):
    """What the card of a model says of its training images.

    Attributes
    ----------
    seen
        Ranges from `biounet.preprocessing.training_ranges`; empty where the card does not say.
    textures
        From `biounet.preprocessing.distinct_textures`.
    doubtful
        Confidence below which most objects are wrong; None where the card does not say.
    """

    seen: TrainingRanges
    textures: Sequence[Texture] = ()
    doubtful: float | None = None


def quality_warnings(looks: ImageStatistics, columns: Columns, known: TrainingData, zoom: float = 1.0) -> list[str]:
    """Return remarks on an image and what was found in it.

    Parameters
    ----------
    looks
        From `biounet.preprocessing.image_statistics`.
    columns
        The table of its objects.
    known
        From the card.
    zoom
        Pixels of the grid that the network works on for a pixel of the image.
    """
    sizes = _diameters(columns)
    if len(sizes) >= _FEW:
        looks = looks | {"diameter": float(np.median(sizes)) * zoom}
    return [
        *_unlike_texture(looks, known),
        *_unlike(looks, known.seen),
        *_of_scan(looks, known.seen),
        *_of_pixels(looks, known.seen),
        *_of_objects(columns, known),
    ]


def _unlike_texture(looks: ImageStatistics, known: TrainingData) -> Iterator[str]:
    """Say in which way an image looks different from the training image that is most like it, where it does."""
    texture = texture_features(looks)
    if texture is None or not known.textures or "unlikeness" not in known.seen:
        return
    apart = np.array(texture) - np.array(known.textures)
    nearest = apart[np.linalg.norm(apart, axis=1).argmin()]
    if np.linalg.norm(nearest) <= known.seen["unlikeness"][1]:
        return
    edge, structure, detail = nearest
    softer = max(edge, detail)
    if softer > 0 and softer >= structure:
        word = "blurred"
    elif structure >= max(-softer, -min(edge, detail)):
        word = "coarse"
    else:
        word = "fine or noisy" if structure <= min(edge, detail) else "sharp or noisy"
    now, then = (np.exp(values) for values in (np.array(texture), np.array(texture) - nearest))
    yield (
        f"{word}: edges of {now[0]:.1f} pixels, structures of {now[1]:.1f}, detail of {now[2]:.1f};"
        f" the training image most like it has {then[0]:.1f}, {then[1]:.1f} and {then[2]:.1f}"
    )


def _unlike(looks: ImageStatistics, seen: TrainingRanges) -> Iterator[str]:
    """Give what lies far outside of the training images' range."""
    words = {
        "brightness": ("mostly dark: mean {:.2f}", "mostly bright: mean {:.2f}"),
        "diameter": ("small objects: {:.1f} pixels across", "large objects: {:.1f} pixels across"),
    }
    for name, (below, above) in words.items():
        value = looks.get(name)
        if value is None or name not in seen:
            continue
        low, high = seen[name]
        text = below if value < low * _MARGIN[name] else above if value > high / _MARGIN[name] else None
        if text is not None:
            yield f"{text.format(value)}, trained on {low:.3g} to {high:.3g}"


def _of_scan(looks: ImageStatistics, seen: TrainingRanges) -> Iterator[str]:
    """Give what a radiologist would compare, where it lies far outside of the training scans' range."""
    ways = {"x": "from left to right", "y": "from back to front", "z": "from foot to head"}
    for axis, way in ways.items():
        for name, what in ((f"voxel_{axis}", "voxels of {:.3g} mm"), (f"view_{axis}", "a field of view of {:.0f} mm")):
            if name in looks and name in seen and not _within(looks[name], seen[name]):
                low, high = seen[name]
                yield f"{what.format(looks[name])} {way}, trained on {low:.3g} to {high:.3g}"
    for name in sorted(looks.keys() & seen.keys()):
        kind, _, channel = name.partition("_")
        low, high = seen[name]
        if kind in _ORDER and not low - _ORDER_MARGIN <= looks[name] <= high + _ORDER_MARGIN:
            about = f"{_ORDER[kind]} {looks[name]:.2f}, trained on {low:.2f} to {high:.2f}"
            yield f"another order of contrast in channel {channel}: {about}"


def _within(value: float, ends: tuple[float, float]) -> bool:
    return ends[0] * _SCAN_MARGIN <= value <= ends[1] / _SCAN_MARGIN


def _of_pixels(looks: ImageStatistics, seen: TrainingRanges) -> Iterator[str]:
    least = min(_PURE_NOISE, seen.get("contrast", (np.inf, np.inf))[0])
    if looks.get("contrast", np.inf) < least:
        yield f"blank: what is bright stands out from the noise by {looks['contrast']:.1f} deviations only"
    if looks.get("saturated", 0) >= max(_SATURATED, _above(seen, "saturated")):
        yield f"saturated: {looks['saturated']:.1%} of the pixels have the highest value, {looks['top']:.0f}"
    if looks.get("hot", 0) >= max(_HOT, _above(seen, "hot")):
        yield f"hot pixels: {looks['hot']:.2%} of the pixels stand out alone, and were brought down to their neighbours"


def _above(seen: TrainingRanges, name: str) -> float:
    """Return a share just above the highest that a training image has."""
    return seen.get(name, (0.0, 0.0))[1] * 1.01


def _of_objects(columns: Columns, known: TrainingData) -> Iterator[str]:
    if "class" in columns or len(columns["label"]) < _FEW:
        return
    share = float(np.mean(columns["touches_border"]))
    if share > max(_AT_BORDER, _above(known.seen, "at_border")):
        yield f"{share:.0%} of the objects touch the border"
    share = 0.0 if known.doubtful is None else float(np.mean(columns["confidence"] < known.doubtful))
    if share > max(_UNSURE, _above(known.seen, "unsure")):
        yield f"{share:.0%} of the objects have a confidence below {known.doubtful:.2f}, as wrong ones have"


def _diameters(columns: Columns) -> NDArray[np.float64]:
    """Return diameters of circles or balls of the size of each object, in pixels of the image."""
    if "area_px" in columns:
        return np.asarray(2 * np.sqrt(columns["area_px"] / np.pi))
    if "volume_px" in columns:
        return np.asarray(2 * np.cbrt(columns["volume_px"] * 3 / (4 * np.pi)))
    return np.empty(0)
