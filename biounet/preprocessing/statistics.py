"""Statistics of an image, and their ranges over the images that a model was trained on.

They are taken from the normalised image, so that exposure and number type do not matter. Scans in mm have statistics of
their own: by those of microscopy, every MRI is blurred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, LazyImage, Region, Volume
from biounet.preprocessing.intensity_scale import IntensityScale
from biounet.preprocessing.resampling import Resampling, Zoom, nearest_voxels, resize_labels
from biounet.preprocessing.scaled_regions import ScaledImage, rescale_region, scale_region

ImageStatistics = dict[str, float]
TrainingRanges = Mapping[str, tuple[float, float]]
Texture = tuple[float, float, float]

_SAMPLE = 2**14  # voxels that are used: more would not change the statistics
_LARGE = 2**24  # voxels of a channel beyond which so many are few rows, all of which may miss the objects
_MIN_ROWS = 16  # of such an image
_LARGE_SCAN = 2**28  # voxels of a scan in mm beyond which only some along each axis are used
_PIECE = 2**14  # voxels of a row that are resampled at a time
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
    image, acquired = scaled.image, scaled.acquired
    if _is_scan(volume.grid):
        step = _scan_step(image.shape[1:])
        return _scan_statistics(volume.grid, image[:, ::step, ::step, ::step])
    width = image.shape[-1]
    at = _sampled_rows(image.shape)
    rows = image.reshape(-1, width)[at].astype(np.float32)
    if acquired is not None:
        shown = resize_labels(acquired.astype(np.int32), image.shape[1:]) > 0
        rows[~np.broadcast_to(shown, image.shape).reshape(-1, width)[at]] = np.nan
    return _pixel_statistics(scaled) | _row_statistics(rows)


def sampled_statistics(image: LazyImage, scale: IntensityScale, zoom: Zoom | None = None) -> ImageStatistics:
    """Return the `image_statistics` of an image that is not in memory, to the last bit.

    Only the rows from which they are taken are read: of an image of more than 2^24 voxels, 16 or some more. A scan in
    mm is held in memory; of one of more than 2^28 voxels, those that are used of it.

    Parameters
    ----------
    image
        In the canonical orientation.
    scale
        From `find_scale`.
    zoom
        To the working grid; None: the image is on it.

    Raises
    ------
    InputError
        If a part of the image is damaged.
    """
    shape = tuple(part.stop - part.start for part in scale.body_box)
    way = Resampling.zoomed(shape, zoom or (1.0,) * len(shape))
    shape = way.new
    if _is_scan(image.grid):
        step = _scan_step(shape)
        planes = [_read_plane(image, scale, way, z)[:, :, ::step, ::step] for z in range(0, shape[0], step)]
        return _scan_statistics(image.grid, np.concatenate(planes, 1))
    at = _sampled_rows((image.channels, *shape))
    rows = np.empty((len(at), shape[-1]), np.float32)
    channels, *axes = np.unravel_index(at, (image.channels, *shape[:-1]))
    places = np.stack(axes, 1)
    for place in np.unique(places, axis=0):
        region = *(slice(int(start), int(start) + 1) for start in place), slice(0, shape[-1])
        values, acquired = _read_row(image, scale, way, region)
        here = np.flatnonzero((places == place).all(1))
        rows[here] = values.reshape(-1, shape[-1])[channels[here]]
        if acquired is not None:
            rows[here] = np.where(acquired, rows[here], np.nan)
    pixels = ScaledImage(rows, None, scale.hot, scale.saturated, scale.top)
    return _pixel_statistics(pixels) | _row_statistics(rows)


def _is_scan(grid: Grid) -> bool:
    """Whether an image is a scan of a body, which has statistics of its own."""
    return grid.dims == 3 and grid.unit == "mm"


def _scan_step(shape: tuple[int, ...]) -> int:
    """Return of how many voxels along each axis of a scan one is used."""
    step = 1
    while math.prod(-(-size // step) for size in shape) > _LARGE_SCAN:
        step += 1
    return step


def _read_plane(image: LazyImage, scale: IntensityScale, way: Resampling, z: int) -> NDArray[np.float32]:
    """Return a plane of the body ``(c, 1, y, x)`` on the working grid."""
    return rescale_region(image, scale, way, (slice(z, z + 1), *(slice(0, size) for size in way.new[1:])))


def _read_row(
    image: LazyImage, scale: IntensityScale, way: Resampling, region: Region
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Return a row of all channels on the working grid, and which of its voxels were acquired; None: all."""
    if not way.changes:
        part = scale_region(image, scale, region, fill=False)
        return part.image, None if part.acquired is None else part.acquired.reshape(-1)
    *others, row = region
    pieces = (slice(start, min(start + _PIECE, row.stop)) for start in range(0, row.stop, _PIECE))
    values = np.concatenate([rescale_region(image, scale, way, (*others, piece)) for piece in pieces], -1)
    if not scale.has_unacquired:
        return values, None
    pairs = zip(way.old, way.new, region, strict=True)
    nearest = [nearest_voxels(old, new)[part] for old, new, part in pairs]
    around = tuple(slice(int(at[0]), int(at[-1]) + 1) for at in nearest)
    acquired = scale_region(image, scale, around, fill=False).acquired
    return values, None if acquired is None else acquired.reshape(-1)[nearest[-1] - nearest[-1][0]]


def _sampled_rows(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return which rows of an image ``(c, [z,] y, x)``, counted over all channels and planes, are used; maybe none."""
    rows, step = math.prod(shape[:-1]), max(1, math.prod(shape) // _SAMPLE)
    if math.prod(shape[1:]) > _LARGE:
        step = max(1, min(step, rows // _MIN_ROWS))
    return np.arange(0, rows if shape[-1] > _MIN_WIDTH else 0, step)


def _pixel_statistics(scaled: ScaledImage) -> ImageStatistics:
    statistics = {"hot": scaled.hot}
    if scaled.saturated is not None and scaled.top is not None:
        statistics |= {"saturated": scaled.saturated, "top": float(scaled.top)}
    return statistics


def _row_statistics(rows: NDArray[np.float32]) -> ImageStatistics:
    return _levels(rows) | _texture(rows) if len(rows) else {}


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
