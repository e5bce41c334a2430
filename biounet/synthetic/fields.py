"""Synthetic 2D images of stained nuclei with exact labels.

The steps follow the light: blurred nuclei over haze, under uneven illumination, detected by a camera. A label ends
where the blurred nucleus falls to half of its maximum, where a careful annotator draws the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from biounet.synthetic.nuclei import Image, NucleiSettings, draw_nuclei, label_largest_pieces

_MIN_FRACTION_INSIDE = 0.05  # of a nucleus at the border of the image; less is not labelled


@dataclass(frozen=True)
class FieldSettings(NucleiSettings):
    """Appearance of a field of nuclei and of the image of it."""

    shape: tuple[int, int] = (256, 256)  # pixels, (y, x)
    background: float = 0.05  # light without nuclei, relative to a typical nucleus
    haze: float = 0.1  # light from nuclei far out of focus
    glow: float = 0.05  # light around nuclei
    debris: float = 40.0  # bright specks per million pixels
    unevenness: float = 0.25  # fraction of the light lost from the brightest point of the field to its far corner
    photons: float = 400.0  # per pixel of a typical nucleus
    read_noise: float = 3.0  # of the camera, in electrons
    exposure: float = 0.4  # intensity of a typical nucleus, as a fraction of the camera's range
    offset: float = 0.02  # dark level, likewise
    bits: int = 12  # per pixel, up to 16
    absorption: float = 0.0  # optical density (base e) of a typical nucleus in transmitted light; 0 for fluorescence


def make_field(seed: int, settings: FieldSettings) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Make grey values of nuclei and their labels, both of shape `settings.shape`; the seed decides everything.

    Labels are 0 for background and 1..N, each one connected (4-neighbour) component.
    """
    rng = np.random.default_rng(seed)
    margin = int(np.ceil(2 * settings.diameter))
    canvas = draw_nuclei(rng, settings, (settings.shape[0] + 2 * margin, settings.shape[1] + 2 * margin))
    inside = (slice(margin, -margin), slice(margin, -margin))
    light = add_background(canvas.light, rng, settings)[inside]
    min_areas = _MIN_FRACTION_INSIDE * np.bincount(canvas.nuclei.ravel())
    return photograph(light, rng, settings), label_largest_pieces(canvas.nuclei[inside], min_areas)


def draw_field_settings(seed: int, shape: tuple[int, int] = (256, 256), transmitted: float = 0.0) -> FieldSettings:
    """Draw settings that span what microscopes show: tiny to large, sparse to crowded, dim to bright.

    `transmitted` is the probability of transmitted light.
    """
    rng = np.random.default_rng(seed)
    diameter = _log_uniform(rng, 7, 55)
    return FieldSettings(
        shape=shape,
        diameter=diameter,
        diameter_spread=rng.uniform(0.08, 0.35),
        elongation=rng.uniform(1.05, 1.8),
        roughness=rng.uniform(0.0, 0.1),
        bend=rng.uniform(0.0, 0.3),
        coverage=_log_uniform(rng, 0.02, 0.5),
        clustering=rng.uniform(0.0, 0.9),
        overlap=rng.uniform(0.0, 0.12),
        stacked=rng.uniform(0.0, 0.6),
        dome=rng.uniform(0.0, 0.6),
        texture=rng.uniform(0.05, 0.4),
        spots=rng.uniform(-0.5, 0.9),
        brightness_spread=rng.uniform(0.1, 0.7),
        blur=min(_log_uniform(rng, 0.5, 2.5), diameter / 8),
        defocus=rng.uniform(0.0, 0.12),
        background=_log_uniform(rng, 0.01, 0.4),
        haze=_log_uniform(rng, 0.01, 0.5),
        glow=_log_uniform(rng, 0.01, 0.2),
        debris=_log_uniform(rng, 1, 300),
        unevenness=rng.uniform(0.0, 0.6),
        photons=_log_uniform(rng, 25, 5000),
        read_noise=rng.uniform(1.0, 6.0),
        exposure=rng.uniform(0.1, 0.7),
        offset=rng.uniform(0.0, 0.06),
        bits=int(rng.choice((8, 12, 16))),
        absorption=rng.uniform(0.2, 1.2) if rng.random() < transmitted else 0.0,
    )


def add_background(light: Image, rng: Generator, settings: FieldSettings) -> Image:
    """Return the light with background, haze, glow and debris, under uneven illumination."""
    width = settings.diameter * rng.uniform(0.6, 1.2)
    haze = np.zeros_like(light)
    _add_points(haze, rng, light.size / (5 * settings.diameter) ** 2, settings.haze * 2 * np.pi * width**2)
    debris = np.zeros_like(light)
    sigma = max(0.6 * settings.blur, 0.04 * settings.diameter)
    _add_points(debris, rng, settings.debris * light.size / 1e6, 2 * np.pi * sigma**2)
    diffuse = gaussian_filter(haze + settings.glow * light, width) + gaussian_filter(debris, sigma)
    y, x = np.ogrid[: light.shape[0], : light.shape[1]]
    brightest = rng.uniform(0, 1, 2)
    distance = (y / light.shape[0] - brightest[0]) ** 2 + (x / light.shape[1] - brightest[1]) ** 2
    illumination = 1 - settings.unevenness * distance / distance.max()
    return np.asarray((light + diffuse + settings.background) * illumination, np.float32)


def _add_points(image: Image, rng: Generator, mean: float, intensity: float) -> None:
    """Add points to an image, `mean` of them on average."""
    number = rng.poisson(mean)
    y, x = (rng.integers(0, n, number) for n in image.shape)
    np.add.at(image, (y, x), (intensity * rng.uniform(0.2, 1.0, number)).astype(np.float32))


def photograph(light: Image, rng: Generator, settings: FieldSettings) -> NDArray[np.uint16]:
    """Return the image of a camera with shot noise and read noise."""
    if settings.absorption > 0:
        light = np.exp(-settings.absorption * light)
    electrons = rng.poisson(settings.photons * light) + rng.normal(0, settings.read_noise, light.shape)
    white = 2**settings.bits - 1
    grey = white * (settings.offset + settings.exposure * electrons / settings.photons)
    return np.asarray(np.clip(np.rint(grey), 0, white), np.uint16)


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
