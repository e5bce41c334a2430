"""Outlines of objects drawn on an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biounet.core import compiled
from biounet.preprocessing import offset_from_minimum

Limits = tuple[float, float]
"""Intensities that become black and white."""

MAX_SIDE = 2048
"""Longest side of an overlay in pixels; larger images are reduced by an integer factor."""

_PERCENTILES = (1.0, 99.8)  # that become black and white: a few bright specks must not darken everything else
_SAMPLE = 1 << 14  # pixels for percentiles: enough for a display, 0.3 ms instead of 60 for 2048 x 2048
_HUES = 377  # colours before they repeat; a Fibonacci number, so the last ones and the first ones differ in hue as well
_GOLDEN = 0.6180339887498949


class Canvas(NamedTuple):
    """A picture without outlines, RGB ``(y, x, 3)``, and the label of each of its pixels, int32 ``(y, x)``.

    `bright` says which colours are seen on it.
    """

    picture: NDArray[np.uint8]
    labels: NDArray[np.int32]
    bright: bool


def draw_overlay(
    array: NDArray[Any],
    labels: NDArray[Any],
    *,
    fill: float = 0.0,
    limits: Limits | None = None,
    bright: bool | None = None,
) -> NDArray[np.uint8]:
    """Draw the outlines of objects, or of classes, on an image.

    An outline is one pixel wide and lies inside its object, so touching objects have one each, in different colours.
    Colours are light on a dark image and dark on a bright one.

    Parameters
    ----------
    array
        Intensities, shape ``(c, y, x)``. Three channels are shown as red, green and blue; of any other number, only the
        first.
    labels
        Label image or class map on the same grid, shape ``(y, x)``; 0 and below is background.
    fill
        Opacity, 0 to 1, of the colour inside the outlines; about 0.35 suits classes.
    limits
        Intensities that become black and white; None: two percentiles of the image.
    bright
        Whether to use the colours for a bright image; None: if the image is bright. The slices of a volume share it, so
        that a class has the same colour in all of them.

    Returns
    -------
    RGB, shape ``(y, x, 3)``, with sides of at most `MAX_SIDE` pixels.

    Raises
    ------
    ValueError
        If `labels` do not lie on the grid of `array`, or `fill` is not an opacity.
    """
    if not 0 <= fill <= 1:
        raise ValueError(f"fill is an opacity between 0 and 1, not {fill}")
    return draw_outlines(prepare_canvas(array, labels, limits=limits, bright=bright), fill)


def draw_outlines(canvas: Canvas, fill: float = 0.0) -> NDArray[np.uint8]:
    """Return the picture of a canvas with the outlines of its labels; `fill` as in `draw_overlay`."""
    picture = canvas.picture.copy()
    _draw_outlines(picture, canvas.labels, palette(bright=canvas.bright), np.float32(fill))
    return picture


def prepare_canvas(
    array: NDArray[Any], labels: NDArray[Any], *, limits: Limits | None = None, bright: bool | None = None
) -> Canvas:
    """Return the canvas of an image, with sides of at most `MAX_SIDE` pixels; parameters as in `draw_overlay`."""
    if array.shape[1:] != labels.shape or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels {labels.shape} do not lie on the grid of an image {array.shape}")
    shown, limits = _remove_offset(array if array.shape[0] == 3 else array[:1], limits)
    channels, labels = _compiled_type(shown), np.ascontiguousarray(labels, np.int32)
    factor = -(-max(labels.shape) // MAX_SIDE)
    if factor > 1:
        channels, labels = _downscale(channels, factor), pick_labels(labels, factor)
    return canvas_of_reduced(channels, labels, limits=limits, bright=bright, shared=array.dtype == np.uint8)


def canvas_of_reduced(
    channels: NDArray[Any],
    labels: NDArray[np.int32],
    *,
    limits: Limits | None = None,
    bright: bool | None = None,
    shared: bool = False,
) -> Canvas:
    """Return the canvas of one or three channels (c, y, x) of the size at which they are shown.

    `shared` if the channels are a colour picture, whose hues are kept.
    """
    channel_limits = [limits] * len(channels) if limits is not None else _contrast_limits(channels, shared=shared)
    picture: NDArray[np.uint8] = _stretch(channels, *_scales(channel_limits))
    if bright is None:
        bright = float(np.median(_sample(picture[:, :, 1]))) > 127
    return Canvas(picture, labels, bright)


@lru_cache
def palette(*, bright: bool = False) -> NDArray[np.uint8]:
    """Return the colours of labels 1, 2, 3, …, RGB, shape ``(n, 3)``; they repeat after the last.

    Consecutive hues differ by the golden angle, so that labels with close numbers, which are mostly neighbours, have
    distant hues. Three alternating levels of lightness distinguish consecutive numbers with colour vision deficiency;
    numbers that differ by three may look alike.

    Parameters
    ----------
    bright
        Whether the colours are for a bright background.
    """
    number = np.arange(_HUES)
    lightness = np.array([0.60, 0.50, 0.40] if bright else [0.76, 0.88, 0.66])[number % 3]
    angle = 2 * np.pi * (0.14 + number * _GOLDEN)
    return _oklch_to_rgb(lightness, np.full(_HUES, 0.19), angle)


def _oklch_to_rgb(lightness: NDArray[Any], chroma: NDArray[Any], angle: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert OKLCH to RGB (B. Ottosson, "A perceptual color space for image processing", 2020)."""
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.clip(np.stack([red, green, blue], axis=-1), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    rgb: NDArray[np.uint8] = np.round(255 * encoded).astype(np.uint8)
    return rgb


def _remove_offset(channels: NDArray[Any], limits: Limits | None) -> tuple[NDArray[Any], Limits | None]:
    """Subtract black from channels and limits where float32 would lose digits."""
    if channels.dtype.itemsize <= 2 or channels.dtype == np.float32:
        return channels, limits
    if limits is None:
        channels = offset_from_minimum(channels)
    black = float(channels.min()) if limits is None else limits[0]
    above = np.empty(channels.shape, np.float32)
    np.subtract(channels, black, out=above, dtype=np.float64, casting="unsafe")
    return above, None if limits is None else (0.0, limits[1] - black)


def _compiled_type(channels: NDArray[Any]) -> NDArray[Any]:
    """Return channels as one of three types, so that there are few versions to compile."""
    dtype = channels.dtype if channels.dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
    return np.ascontiguousarray(channels, dtype)


def _sample(channel: NDArray[Any]) -> NDArray[Any]:
    """Return pixels on a lattice: all, or about `_SAMPLE`."""
    step = int(np.ceil(np.sqrt(channel.size / _SAMPLE)))
    return channel[::step, ::step] if min(channel.shape) > step else channel.reshape(-1)[::step]


def _contrast_limits(channels: NDArray[Any], *, shared: bool) -> list[Limits]:
    """Return the limits of each channel; colour pictures share them, which keeps their hues."""
    samples = [_sample(channel) for channel in channels]
    if shared:
        samples = [np.stack(samples)] * len(samples)
    return [contrast_limits(sample) for sample in samples]


def _scales(limits: Sequence[Limits]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return black of each channel, and the factor that stretches it to 255."""
    scales = [255 / (high - low) if high > low else 0.0 for low, high in limits]
    return np.array([low for low, _ in limits], np.float32), np.array(scales, np.float32)


def contrast_limits(values: NDArray[Any]) -> Limits:
    """Return the percentiles that become black and white."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, _PERCENTILES)
    if low == high:  # a few bright pixels on a constant background
        low, high = finite.min(), finite.max()
    return float(low), float(high)


@compiled
def _stretch(channels, low, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return RGB (y, x, 3) of one or three channels (c, y, x); NaN becomes black."""
    count, height, width = channels.shape
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(count):
                level = (np.float32(channels[c, y, x]) - low[c]) * scale[c] + np.float32(0.5)
                out[y, x, c] = np.uint8(min(level, np.float32(255))) if level > 0 else np.uint8(0)
            if count == 1:
                out[y, x, 1] = out[y, x, 2] = out[y, x, 0]
    return out


@compiled
def _draw_outlines(picture, labels, colours, fill):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Colour pixels with a 4-neighbour of another label, or at the edge of the image; blend the others by `fill`.

    For 2048 x 2048 pixels this takes 14 ms, `skimage.segmentation.find_boundaries` of the padded labels 134.
    """
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label <= 0:
                continue
            inner = 0 < y < height - 1 and 0 < x < width - 1
            inner = inner and labels[y - 1, x] == label and labels[y + 1, x] == label
            inner = inner and labels[y, x - 1] == label and labels[y, x + 1] == label
            opacity = fill if inner else np.float32(1)
            if opacity == 0:
                continue
            colour = colours[(label - 1) % len(colours)]
            for c in range(3):
                blend = picture[y, x, c] * (np.float32(1) - opacity) + colour[c] * opacity
                picture[y, x, c] = np.uint8(blend + np.float32(0.5))


@compiled
def _downscale(channels, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return means of squares of factor x factor pixels (c, y, x), of fewer at the far edges.

    For 4096 x 4096 pixels this takes 43 ms, `skimage.measure.block_reduce`, which pads the edges with 0, 151.
    """
    count, height, width = channels.shape
    rows, columns = -(-height // factor), -(-width // factor)
    out = np.zeros((count, rows, columns), np.float32)
    for c in range(count):
        for y in range(height):
            line = out[c, y // factor]
            for x in range(width):
                line[x // factor] += np.float32(channels[c, y, x])
        for row in range(rows):
            block_height = min(factor, height - row * factor)
            for column in range(columns):
                out[c, row, column] /= block_height * min(factor, width - column * factor)
    return out


def reduce_channels(channels: NDArray[Any], factor: int, black: float | None = None) -> NDArray[np.float32]:
    """Return means of squares of factor x factor pixels (c, y, x), as `prepare_canvas` takes them.

    `black` is the lowest intensity of the whole image, where float32 would lose digits.
    """
    if black is not None:
        above = np.empty(channels.shape, np.float32)
        np.subtract(channels, black, out=above, dtype=np.float64, casting="unsafe")
        channels = above
    reduced: NDArray[np.float32] = _downscale(_compiled_type(channels), factor)
    return reduced


def pick_labels(labels: NDArray[np.int32], factor: int) -> NDArray[np.int32]:
    """Return the label at the centre of each square of factor x factor pixels."""
    rows, columns = (np.minimum(np.arange(0, n, factor) + factor // 2, n - 1) for n in labels.shape)
    return np.ascontiguousarray(labels[rows[:, None], columns])
