"""How an image looks, in figures, and which figures the images have that a model was trained on.

They are taken from the normalised image, so that exposure and number type do not matter. Scans in mm have figures of
their own: what a microscopist calls blurred is an MRI.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.core import Grid, Volume
from biounet.preprocessing.normalisation import ScaledImage, rescale_labels

ImageStatistics = dict[str, float]
TrainingRanges = Mapping[str, tuple[float, float]]
Texture = tuple[float, float, float]

_SAMPLE = 2**14  # voxels that are looked at: more would not change what is said
_LAGS = (1, 2, 4, 8, 16, 32, 64)  # voxels over which intensities are compared
_NARROW = 16  # voxels across, below which nothing can be told
_EDGES = 99.5  # percentile of differences between neighbours that only edges reach
_TAIL, _MIDDLE = 2.81, 0.6745  # the same percentile, and the 50th, of the size of normal deviates
_LEAST = 0.1  # share of a difference that is left of it at the least when noise is taken off
TEXTURE = ("edge", "structure", "detail")  # figures that are compared together
_STEP = 0.05  # of logarithms, to which textures are kept: finer than any that differ
_ALIKE = 0.2  # distance of logarithms that makes no difference: a fifth
_ALONE = 0.95  # quantile of how far images of one kind are from the most similar one
_BEYOND = 0.975  # quantile at either end of what images of one kind do
_SPREAD = {"unlikeness": 0.5}  # least standard deviations of logarithms: those of few images are too small by chance
_LITTLE = 0.3
_FULL_SCALES = (2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)  # highest values of cameras and scanners


def is_scan(grid: Grid) -> bool:
    """Whether a volume is one of radiology, whose voxels are in mm."""
    return grid.dims == 3 and grid.unit == "mm"


def image_statistics(volume: Volume, scaled: ScaledImage) -> ImageStatistics:
    """Return how an image looks.

    Parameters
    ----------
    volume
        As read, in the canonical orientation.
    scaled
        Its intensities on one scale; the image on the grid that the network works on.

    Returns
    -------
    Of a scan, what `_looks_of_scan` says. Of any other image ``edge``: the way in pixels along x over which the highest
    edges rise; ``structure``: over which intensities stay alike; ``detail``: the steepest slope over the strongest
    bend; ``brightness``: mean as a share of the way from the percentile 1 to 99.8; ``contrast``: that way in deviations
    of the noise; ``hot`` and ``saturated``: shares of the pixels, the latter those at the
    value ``top``. Without what cannot be told, as in an image that is
    narrow or constant.
    """
    if is_scan(volume.grid):
        return _looks_of_scan(volume.grid, scaled.image)
    raw = volume.array if scaled.acquired is None else volume.array[:, scaled.acquired]
    looks = {"hot": scaled.hot, **_saturated(raw)}
    image, there = scaled.image, scaled.acquired
    if there is not None and there.shape != image.shape[1:]:
        there = rescale_labels(there.astype(np.int32), image.shape[1:]) > 0
    width = image.shape[-1]
    if width <= _NARROW:
        return looks
    rows = image.reshape(-1, width)
    every = max(1, rows.size // _SAMPLE)
    rows = rows[::every].astype(np.float32)
    known = None if there is None else np.broadcast_to(there, image.shape).reshape(-1, width)[::every]
    return looks | _levels(rows, known) | _texture(rows, known)


def _levels(rows: NDArray[np.float32], known: NDArray[np.bool_] | None) -> ImageStatistics:
    values, near = rows if known is None else rows[known], np.abs(_apart(rows, known, 1))
    if not near.size:
        return {}
    low, high = np.percentile(values, (1, 99.8))
    if high <= low:
        return {}
    deviation = float(np.median(near)) / _MIDDLE / math.sqrt(2)
    return {
        "brightness": float((values.mean() - low) / (high - low)),
        **({"contrast": float((high - low) / deviation)} if deviation else {}),
    }


def _texture(rows: NDArray[np.float32], known: NDArray[np.bool_] | None) -> ImageStatistics:
    """Return the three lengths of `image_statistics`, without what white noise adds to the first two."""
    values = rows if known is None else rows[known]
    bends = np.abs(_bends(rows, known))
    if not bends.size:
        return {}
    noise = float(np.median(bends)) / _MIDDLE / math.sqrt(3)  # of a difference, which second differences tell best
    squares, tails = {}, {}
    for lag in (lag for lag in _LAGS if rows.shape[1] > lag + _LAGS[2]):
        apart = _apart(rows, known, lag)
        if apart.size:
            squares[lag] = max(float(np.mean(np.square(apart))) - noise**2, 0.0)
            tail = float(np.percentile(np.abs(apart), _EDGES))
            tails[lag] = math.sqrt(max(tail**2 - (_TAIL * noise) ** 2, (_LEAST * tail) ** 2))
            if lag == 1:
                slope = tail
    bend, variance = float(np.percentile(bends, _EDGES)), float(values.var()) - noise**2 / 2
    if not tails.get(1) or not bend or variance <= 0:
        return {}
    return {
        "edge": max(tails.values()) / tails[1],
        "structure": _crossing(squares, variance / 2),
        "detail": slope / bend,
    }


def _crossing(squares: dict[int, float], level: float) -> float:
    """Return the lag at which mean squared differences reach a level, a power law between those known."""
    lags = list(squares)
    if squares[lags[0]] >= level:
        return lags[0] * math.sqrt(level / squares[lags[0]])
    for one, other in pairwise(lags):
        low, high = max(squares[one], 1e-9 * level), squares[other]
        if high >= level:
            return float(one * (other / one) ** (math.log(level / low) / math.log(high / low)))
    return float(lags[-1])


def _apart(rows: NDArray[np.float32], known: NDArray[np.bool_] | None, lag: int) -> NDArray[np.float32]:
    apart: NDArray[np.float32] = rows[:, lag:] - rows[:, :-lag]
    return apart if known is None else apart[known[:, lag:] & known[:, :-lag]]


def _bends(rows: NDArray[np.float32], known: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    bends = np.diff(rows, 2, axis=1)
    return bends if known is None else bends[known[:, 2:] & known[:, 1:-1] & known[:, :-2]]


def _saturated(raw: NDArray[Any]) -> ImageStatistics:
    """Return the share of pixels at the highest value that a camera knows, and that value as ``top``."""
    if not np.issubdtype(raw.dtype, np.integer) or not raw.size:
        return {}
    top = raw.max()
    if top not in _FULL_SCALES or raw.min() == top:
        return {}
    return {"saturated": float(np.count_nonzero(raw == top)) / raw.size, "top": float(top)}


def _looks_of_scan(grid: Grid, image: NDArray[np.float32]) -> ImageStatistics:
    """Return the voxel size and the field of view of a scan in mm, and the order of its contrast.

    ``voxel`` and ``view`` are followed by the axis in the canonical orientation. ``core`` and the number of a channel:
    how much brighter its middle is than what lies around, in standard deviations; ``skew``: the third moment of its
    intensities. Both change their sign where dark tissue is bright, as in T1 and T2.
    """
    looks: ImageStatistics = {}
    for axis, step, size in zip("zyx", grid.steps, grid.shape, strict=True):
        looks |= {f"voxel_{axis}": step, f"view_{axis}": step * size}
    for number, channel in enumerate(image):
        inside = channel != 0  # which the surroundings of a body are
        values = channel[inside]
        if values.size < 2 or values.std() == 0:
            continue
        places = np.stack(np.nonzero(inside)).astype(np.float32)
        middle = places.mean(1, keepdims=True)
        far = np.square((places - middle) / np.maximum(places.std(1, keepdims=True), 1)).sum(0)
        central = far < np.median(far)
        scores = (values - values.mean()) / values.std()
        looks[f"core_{number}"] = float(scores[central].mean() - scores[~central].mean())
        looks[f"skew_{number}"] = float(np.mean(scores**3))
    return looks


def distinct_textures(looks: Iterable[ImageStatistics]) -> tuple[Texture, ...]:
    """Return the logarithms of what is compared together, of each image; those that do not differ are one."""
    kept = {texture_features(one) for one in looks}
    return tuple(sorted(texture for texture in kept if texture is not None))


def texture_features(looks: ImageStatistics) -> Texture | None:
    """Return the logarithms of what is compared together; None where it cannot be told."""
    if not looks.keys() >= set(TEXTURE):
        return None
    edge, structure, detail = (round(round(math.log(looks[name]) / _STEP) * _STEP, 2) for name in TEXTURE)
    return edge, structure, detail


def training_ranges(looks: Iterable[ImageStatistics]) -> dict[str, tuple[float, float]]:
    """Return the range of each figure over the training images, wider the fewer there are.

    All of the training images lie in it. To either side it goes on by as much as the prediction interval of Student's t
    for another image goes beyond that of infinitely many: of one image, nothing is known. ``unlikeness`` is the
    distance of a texture from the most similar one.
    """
    looks = list(looks)
    values: dict[str, list[float]] = {"unlikeness": _gaps(looks)}
    for one in looks:
        for name, value in one.items():
            if name not in (*TEXTURE, "top"):
                values.setdefault(name, []).append(value)
    return {name: _range(name, np.array(known)) for name, known in values.items() if len(known) > 1}


def _gaps(looks: Iterable[ImageStatistics]) -> list[float]:
    """Return the distance of each texture from the most similar other one."""
    textures = np.array(
        [[math.log(one[name]) for name in TEXTURE] for one in looks if texture_features(one) is not None]
    )
    return [float(np.sort(np.linalg.norm(textures - texture, axis=1))[1]) for texture in textures if len(textures) > 1]


def _range(name: str, known: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.stats import norm, t  # slow to import

    signed = name.startswith(("core", "skew"))
    values = known if signed else np.log(np.maximum(known, 1e-6))
    spread = max(float(values.std(ddof=1)), _SPREAD.get(name, _LITTLE))
    quantile = _ALONE if name == "unlikeness" else _BEYOND
    reach = float(t.ppf(quantile, len(values) - 1)) * math.sqrt(1 + 1 / len(values))
    if name == "unlikeness":  # the largest of many is that of the one that is like no other
        least = _ALIKE * math.exp(min((reach - float(norm.ppf(_ALONE))) * spread, 50))
        return 0.0, max(least, math.exp(min(float(values.mean()) + reach * spread, 50)))
    wider = (reach - float(norm.ppf(_BEYOND))) * spread
    low, high = float(values.min()) - wider, float(values.max()) + wider
    return (low, high) if signed else (math.exp(max(low, -50)), math.exp(min(high, 50)))
