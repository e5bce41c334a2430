"""Statistics of an image, and their ranges over the images that a model was trained on.

They are taken from the normalised image, so that exposure and number type do not matter. Scans in mm have statistics of
their own: by those of microscopy, every MRI is blurred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, Volume
from biounet.preprocessing.resampling import resize_labels
from biounet.preprocessing.scaled_regions import ScaledImage

ImageStatistics = dict[str, float]
TrainingRanges = Mapping[str, tuple[float, float]]
Texture = tuple[float, float, float]

_SAMPLE = 2**14  # voxels that are used: more would not change the statistics
_LAGS = (1, 2, 4, 8, 16, 32, 64)  # voxels over which intensities are compared
_MIN_WIDTH = 16  # voxels that an image must exceed to have a texture
_EDGE_PERCENTILE = 99.5  # of differences between neighbours, which only edges reach
_TAIL, _MAD = 2.81, 0.6745  # the same percentile, and the median, of the absolute value of a standard normal variable
_MIN_SIGNAL = 0.1  # share of a difference that is left at least when noise is subtracted
_TEXTURE = ("edge", "structure", "detail")  # statistics that are compared together
_TEXTURE_STEP = 0.05  # to which logarithms of textures are rounded: less than any relevant difference
_ALIKE = 0.2  # distance of logarithms that makes no difference: a fifth
_NEAREST_QUANTILE = 0.95  # of the distances between images of one kind and their nearest neighbours
_QUANTILE = 0.975  # at either end of other statistics of images of one kind
# Standard deviations of few images are too small by chance; of logarithms, but for shares.
_MIN_DEVIATION = {"unlikeness": 0.5, "at_border": 0.1, "unsure": 0.1}
_DEFAULT_MIN_DEVIATION = 0.3
_SHARES = ("at_border", "unsure")  # of objects
_FULL_SCALES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)  # highest values of cameras and scanners


def image_statistics(volume: Volume, scaled: ScaledImage) -> ImageStatistics:
    """Return statistics of a canonical volume and its intensities on the working grid, without undefined ones.

    Of a scan in mm: ``voxel_`` and ``view_`` with an axis, the voxel size and field of view along it; ``core_`` with
    the number of a channel, how much brighter its centre is than its periphery, in standard deviations, and ``skew_``,
    the third moment of its intensities, both of which change their sign between contrasts such as T1 and T2.

    Of any other image: ``edge``, the distance in pixels along x over which the strongest edges rise; ``structure``, the
    distance over which intensities stay similar; ``detail``, the steepest slope over the strongest curvature;
    ``brightness``, the mean between the percentiles 1 and 99.8, which are 0 and 1; ``contrast``, their difference in
    standard deviations of the noise; ``hot`` and ``saturated``, shares of the pixels, the latter of those at the value
    ``top``.
    """
    if volume.grid.dims == 3 and volume.grid.unit == "mm":
        return _scan_statistics(volume.grid, scaled.image)
    image, acquired = scaled.image, scaled.acquired
    statistics = {"hot": scaled.hot, **_saturation(volume.array if acquired is None else volume.array[:, acquired])}
    width = image.shape[-1]
    if width <= _MIN_WIDTH:
        return statistics
    step = max(1, image.size // _SAMPLE)
    rows = image.reshape(-1, width)[::step].astype(np.float32)
    if acquired is not None:
        shown = resize_labels(acquired.astype(np.int32), image.shape[1:]) > 0
        rows[~np.broadcast_to(shown, image.shape).reshape(-1, width)[::step]] = np.nan
    return statistics | _levels(rows) | _texture(rows)


def _levels(rows: NDArray[np.float32]) -> ImageStatistics:
    values, differences = _acquired(rows), np.abs(_acquired(np.diff(rows)))
    if not differences.size:
        return {}
    low, high = np.percentile(values, (1, 99.8))
    if high <= low:
        return {}
    statistics = {"brightness": float((values.mean() - low) / (high - low))}
    noise = float(np.median(differences)) / _MAD / math.sqrt(2)
    return statistics | ({"contrast": float((high - low) / noise)} if noise else {})


def _texture(rows: NDArray[np.float32]) -> ImageStatistics:
    """Return the three lengths of `image_statistics`, of which the first two are corrected for white noise."""
    values, curvatures = _acquired(rows), np.abs(_acquired(np.diff(rows, 2)))
    if not curvatures.size:
        return {}
    noise = float(np.median(curvatures)) / _MAD / math.sqrt(3)  # of a difference; best estimated by second differences
    variances, tails = {}, {}
    for lag in (lag for lag in _LAGS if rows.shape[1] > lag + _LAGS[2]):
        differences = _acquired(rows[:, lag:] - rows[:, :-lag])
        if differences.size:
            variances[lag] = max(float(np.mean(np.square(differences))) - noise**2, 0.0)
            tail = float(np.percentile(np.abs(differences), _EDGE_PERCENTILE))
            tails[lag] = math.sqrt(max(tail**2 - (_TAIL * noise) ** 2, (_MIN_SIGNAL * tail) ** 2))
            if lag == 1:
                slope = tail
    curvature, variance = float(np.percentile(curvatures, _EDGE_PERCENTILE)), float(values.var()) - noise**2 / 2
    if not tails.get(1) or not curvature or variance <= 0:
        return {}
    return {
        "edge": max(tails.values()) / tails[1],
        "structure": _lag_at(variances, variance / 2),
        "detail": slope / curvature,
    }


def _lag_at(variances: dict[int, float], level: float) -> float:
    """Return the lag at which the mean squared difference reaches a level, by a power law between measured lags."""
    lags = list(variances)
    if variances[lags[0]] >= level:
        return lags[0] * math.sqrt(level / variances[lags[0]])
    for first, second in pairwise(lags):
        low, high = max(variances[first], 1e-9 * level), variances[second]
        if high >= level:
            return float(first * (second / first) ** (math.log(level / low) / math.log(high / low)))
    return float(lags[-1])


def _acquired(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values that depend only on pixels that were acquired; all others are NaN."""
    return values[~np.isnan(values)]


def _saturation(raw: NDArray[Any]) -> ImageStatistics:
    """Return the share of pixels at the full scale of a camera, and that value as ``top``."""
    if raw.dtype.kind in "iu" and raw.size and (top := raw.max()) in _FULL_SCALES and raw.min() < top:
        return {"saturated": float(np.count_nonzero(raw == top)) / raw.size, "top": float(top)}
    return {}


def _scan_statistics(grid: Grid, image: NDArray[np.float32]) -> ImageStatistics:
    statistics: ImageStatistics = {}
    for axis, step, size in zip("zyx", grid.steps, grid.shape, strict=True):
        statistics |= {f"voxel_{axis}": step, f"view_{axis}": step * size}
    for number, channel in enumerate(image):
        body = channel != 0  # the value of a removed background
        values = channel[body]
        if values.size < 2 or values.std() == 0:
            continue
        positions = np.stack(np.nonzero(body)).astype(np.float32)
        centre = positions.mean(1, keepdims=True)
        distance = np.square((positions - centre) / np.maximum(positions.std(1, keepdims=True), 1)).sum(0)
        central = distance < np.median(distance)
        scores = (values - values.mean()) / values.std()
        statistics[f"core_{number}"] = float(scores[central].mean() - scores[~central].mean())
        statistics[f"skew_{number}"] = float(np.mean(scores**3))
    return statistics


def distinct_textures(statistics: Iterable[ImageStatistics]) -> tuple[Texture, ...]:
    """Return the texture features of images, without those that are undefined and without duplicates."""
    textures = {texture_features(image) for image in statistics}
    return tuple(sorted(texture for texture in textures if texture is not None))


def texture_features(statistics: ImageStatistics) -> Texture | None:
    """Return the logarithms of edge, structure and detail, rounded; None where these are undefined."""
    if not statistics.keys() >= set(_TEXTURE):
        return None
    steps = (round(math.log(statistics[name]) / _TEXTURE_STEP) for name in _TEXTURE)
    edge, structure, detail = (round(step * _TEXTURE_STEP, 2) for step in steps)
    return edge, structure, detail


def training_ranges(statistics: Iterable[ImageStatistics]) -> dict[str, tuple[float, float]]:
    """Return the range of each statistic over the training images, wider the fewer there are.

    All training images lie in it. On either side it is extended by the difference between the prediction interval of
    Student's t for another image and that of infinitely many; of a single image there is no range. ``unlikeness`` is
    the distance of a texture from the nearest other one.
    """
    values: dict[str, list[float]] = {"unlikeness": []}
    textures = []
    for image in statistics:
        if texture_features(image):
            textures.append([math.log(image[name]) for name in _TEXTURE])
        for name, value in image.items():
            if name not in (*_TEXTURE, "top"):
                values.setdefault(name, []).append(value)
    if len(textures) > 1:
        distances = [np.linalg.norm(np.array(textures) - texture, axis=1) for texture in textures]
        values["unlikeness"] = [float(np.sort(each)[1]) for each in distances]
    return {name: _prediction_range(name, np.array(each)) for name, each in values.items() if len(each) > 1}


def _prediction_range(name: str, values: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.stats import norm, t  # slow to import

    signed = name.startswith(("core", "skew")) or name in _SHARES
    values = values if signed else np.log(np.maximum(values, 1e-6))
    deviation = max(float(values.std(ddof=1)), _MIN_DEVIATION.get(name, _DEFAULT_MIN_DEVIATION))
    quantile = _NEAREST_QUANTILE if name == "unlikeness" else _QUANTILE
    factor = float(t.ppf(quantile, len(values) - 1)) * math.sqrt(1 + 1 / len(values))
    extension = (factor - float(norm.ppf(quantile))) * deviation
    if name == "unlikeness":  # not from its maximum, which is that of the one image that is like no other
        least = _ALIKE * math.exp(min(extension, 50))
        return 0.0, max(least, math.exp(min(float(values.mean()) + factor * deviation, 50)))
    low, high = float(values.min()) - extension, float(values.max()) + extension
    return (low, high) if signed else (math.exp(max(low, -50)), math.exp(min(high, 50)))
