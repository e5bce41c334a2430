"""Intensities on one scale and images on one grid: what every image goes through, in training and in prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from biounet.errors import InputError
from biounet.recipe import NormaliseSettings
from biounet.volume import Grid


def normalise(image: NDArray[Any], settings: NormaliseSettings) -> NDArray[np.float32]:
    """Map percentiles of the whole image to 0 and 1, linearly and without clipping.

    The statistics are those of the whole image, so that no tile is treated differently from another. An image, or a
    channel, without contrast becomes 0 everywhere.

    Parameters
    ----------
    image
        Shape ``(c, …)``, any real type, finite.
    settings
        The percentiles.

    Returns
    -------
    float32, shape of `image`.
    """
    groups = image if settings.per_channel else image[None]
    bounds = [percentiles(group, (settings.low, settings.high)) for group in groups]
    out = np.empty(image.shape, np.float32)
    for target, group, (low, high) in zip(out if settings.per_channel else out[None], groups, bounds, strict=True):
        if high > low:
            np.subtract(group, np.float32(low), out=target, dtype=np.float32, casting="unsafe")
            target *= np.float32(1 / (high - low))
        else:
            target[...] = 0
    return out


def percentiles(values: NDArray[Any], shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return percentiles of all values, as ``numpy.percentile(method="linear")`` would.

    Integers of 8 and 16 bits are counted instead of sorted: 1.5 ms instead of 40 ms for 4 million pixels.
    """
    if values.dtype not in (np.uint8, np.uint16):
        return tuple(float(p) for p in np.percentile(values, shares))
    counts = np.bincount(values.ravel()).cumsum()
    ranks = [(counts[-1] - 1) * share / 100 for share in shares]
    return tuple(_at_rank(counts, rank) for rank in ranks)


def _at_rank(counts: NDArray[np.int64], rank: float) -> float:
    below = int(np.floor(rank))
    first = int(np.searchsorted(counts, below, side="right"))
    second = int(np.searchsorted(counts, min(below + 1, counts[-1] - 1), side="right"))
    return first + (second - first) * (rank - below)


def zoom_to(grid: Grid, pixel_size_um: float | None) -> float:
    """Return the factor that brings a grid to the working pixel size; 1 where the model has none.

    Raises
    ------
    InputError
        If the model works at a pixel size and the image's is unknown.
    """
    if pixel_size_um is None:
        return 1.0
    if grid.spacing is None:
        cause = f"pixel size unknown, and this model works at {pixel_size_um} µm per pixel"
        raise InputError(cause, hint="give it with --spacing")
    factor = 1e3 if grid.unit == "mm" else 1.0
    zoom = float(np.mean(grid.spacing[-2:])) * factor / pixel_size_um
    return 1.0 if abs(zoom - 1) < 0.02 else zoom


def rescale(image: NDArray[np.float32], zoom: float) -> NDArray[np.float32]:
    """Resample the spatial axes by a factor, linearly, low-passed first where the image shrinks.

    Parameters
    ----------
    image
        Shape ``(c, [z,] y, x)``.
    """
    if zoom == 1.0:
        return image
    return resize(image, tuple(max(1, round(size * zoom)) for size in image.shape[1:]))


def resize(image: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resample the spatial axes of ``(c, [z,] y, x)`` to a shape; corners of the field stay corners."""
    if image.shape[1:] == shape:
        return image.astype(np.float32, copy=False)
    from skimage.transform import resize as resample  # slow to import, and rarely needed

    return np.stack([resample(channel.astype(np.float32), shape, order=1, mode="edge") for channel in image])


def rescale_labels(labels: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Bring labels to a shape by taking the nearest voxel."""
    if labels.shape == shape:
        return labels
    for axis, (old, new) in enumerate(zip(labels.shape, shape, strict=True)):
        labels = labels.take(((np.arange(new) + 0.5) * old / new).astype(np.intp), axis=axis)
    return labels
