"""What a user should look at before believing a result: each remark with the figure that raised it.

Figures of how an image looks are compared with those of the images that the model was trained on, which its card has;
they are taken from the normalised image, so that exposure and number type do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.measure import Columns

Looks = dict[str, float]
Ranges = Mapping[str, tuple[float, float]]

_SAMPLE = 2**15  # voxels that are looked at: more would not change what is said
_LAG = 8  # voxels over which an edge in focus is as high as it gets
_EDGES = 99.5  # percentile of differences between neighbours that only edges reach
_TAIL, _MIDDLE = 2.81, 0.6745  # the same percentile, and the 50th, of the size of normal deviates
_MARGIN = {"sharpness": 1.0, "brightness": 0.7, "diameter": 0.5}  # factor by which a figure may leave the range
_PURE_NOISE = 7.0  # times its deviation that the percentiles 1 and 99.8 of Gaussian noise lie apart, 5.2, and a margin
_FULL_SCALES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)  # highest values of cameras and scanners
_SATURATED, _AT_BORDER, _UNSURE = 0.01, 0.5, 0.3  # shares of pixels, and of objects, from which a user should know
_FEW = 5  # objects that are too few for a share


def looks_of(image: NDArray[Any]) -> Looks:
    """Return how an image looks.

    Parameters
    ----------
    image
        Normalised, shape ``(c, [z,] y, x)``.

    Returns
    -------
    ``sharpness``: how much of an edge's height lies between two neighbours along x, 0..1, without what the noise adds;
    ``brightness``: mean as a share of the way from the percentile 1 to 99.8; ``contrast``: that way in deviations of
    the noise. Without what cannot be told: in an image that is narrow or constant, or whose edges drown in noise.
    """
    rows = image.reshape(-1, image.shape[-1])
    if rows.shape[1] <= 2 * _LAG:
        return {}
    rows = rows[:: max(1, rows.size // _SAMPLE)].astype(np.float32)
    low, high = np.percentile(rows, (1, 99.8))
    near, far = np.abs(np.diff(rows, axis=1)), np.abs(rows[:, _LAG:] - rows[:, :-_LAG])
    if high <= low:
        return {}
    deviation = float(np.median(near)) / _MIDDLE  # of the difference of two pixels, by noise alone
    step, edge = (max(float(np.percentile(size, _EDGES)) ** 2 - (_TAIL * deviation) ** 2, 0.0) for size in (near, far))
    return {
        **({"sharpness": math.sqrt(step / edge)} if step and edge else {}),
        "brightness": float((rows.mean() - low) / (high - low)),
        **({"contrast": float((high - low) / (deviation / math.sqrt(2)))} if deviation else {}),
    }


def ranges_of(looks: Iterable[Looks]) -> dict[str, tuple[float, float]]:
    """Return the range of each figure over the training images, from the 2nd to the 98th percentile."""
    values: dict[str, list[float]] = {}
    for one in looks:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    ends = {name: np.percentile(known, (2, 98)) for name, known in values.items() if name in _MARGIN}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def remarks_on(
    raw: NDArray[Any],
    image: NDArray[np.float32],
    columns: Columns,
    zoom: float,
    seen: Ranges,
    doubtful: float | None = None,
) -> list[str]:
    """Return remarks on an image and what was found in it.

    Parameters
    ----------
    raw, image
        As read, and as the network saw it, both ``(c, [z,] y, x)``.
    columns
        The table of its objects.
    zoom
        Pixels of `image` for a pixel of `raw`.
    seen
        From the card: ranges over the training images; empty where it does not say.
    doubtful
        From the card: confidence below which most objects are wrong; None where it does not say.
    """
    looks = looks_of(image)
    sizes = _diameters(columns)
    if len(sizes) >= _FEW:
        looks["diameter"] = float(np.median(sizes)) * zoom
    return [*_unlike(looks, seen), *_of_pixels(raw, looks), *_of_objects(columns, doubtful)]


def _unlike(looks: Looks, seen: Ranges) -> Iterator[str]:
    """Give what lies far outside of the training images' range."""
    words = {
        "sharpness": ("blurred: sharpness {:.2f}", None),
        "brightness": ("mostly dark: mean {:.2f}", "mostly bright: mean {:.2f}"),
        "diameter": ("small objects: {:.1f} pixels across", "large objects: {:.1f} pixels across"),
    }
    for name, (low, high) in seen.items():
        value = looks.get(name)
        if value is None or name not in words:
            continue
        below, above = words[name]
        text = below if value < low * _MARGIN[name] else above if value > high / _MARGIN[name] else None
        if text is not None:
            yield f"{text.format(value)}, trained on {low:.3g} to {high:.3g}"


def _of_pixels(raw: NDArray[Any], looks: Looks) -> Iterator[str]:
    if looks.get("contrast", np.inf) < _PURE_NOISE:
        yield f"blank: what is bright stands out from the noise by {looks['contrast']:.1f} deviations only"
    top = raw.max()
    if np.issubdtype(raw.dtype, np.integer) and top in _FULL_SCALES and raw.min() < top:
        share = float(np.count_nonzero(raw == top)) / raw.size
        if share >= _SATURATED:
            yield f"saturated: {share:.1%} of the pixels have the highest value, {top}"


def _of_objects(columns: Columns, doubtful: float | None) -> Iterator[str]:
    if "class" in columns or len(columns["label"]) < _FEW:
        return
    share = float(np.mean(columns["touches_border"]))
    if share > _AT_BORDER:
        yield f"{share:.0%} of the objects touch the border"
    share = 0.0 if doubtful is None else float(np.mean(columns["confidence"] < doubtful))
    if share > _UNSURE:
        yield f"{share:.0%} of the objects have a confidence below {doubtful:.2f}, as wrong ones have"


def _diameters(columns: Columns) -> NDArray[np.float64]:
    """Return diameters of circles or balls of the size of each object, in pixels of the image."""
    if "area_px" in columns:
        return np.asarray(2 * np.sqrt(columns["area_px"] / np.pi))
    if "volume_px" in columns:
        return np.asarray(2 * np.cbrt(columns["volume_px"] * 3 / (4 * np.pi)))
    return np.empty(0)
