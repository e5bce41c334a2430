"""Fields of stained nuclei that nobody had to photograph or outline, with truth that is exact by construction.

The chain follows the light: nuclei with outline and chromatin, blurred by the optics, on out-of-focus haze, under
uneven illumination, counted by a camera. A label ends where the blurred nucleus falls to half of its maximum, which is
where a careful annotator puts the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from biounet.synthetic.nuclei import Image, NucleiSettings, draw_nuclei

_LEAST_SHARE = 0.05  # of a nucleus must lie inside the image to count as one


@dataclass(frozen=True)
class FieldSettings(NucleiSettings):
    """What a field of nuclei and its photograph look like.

    Attributes
    ----------
    shape
        Pixels, ``(y, x)``.
    background, haze, glow
        Light without nuclei, from nuclei far out of focus, and around nuclei; the typical nucleus has 1.
    debris
        Number of bright specks per million pixels.
    unevenness
        Share of the light that is lost from the brightest place of the field to its far corner.
    photons, read_noise
        Photons per pixel of the typical nucleus; noise of the camera in electrons.
    exposure, offset, bits
        Share of the camera's range that the typical nucleus takes; grey value of darkness as a share of the range;
        bits per pixel, up to 16.
    absorption
        0 for fluorescence. Above it the field is seen in transmitted light, and the typical nucleus swallows this
        optical density (base e): dark nuclei on bright ground.
    """

    shape: tuple[int, int] = (256, 256)
    background: float = 0.05
    haze: float = 0.1
    glow: float = 0.05
    debris: float = 40.0
    unevenness: float = 0.25
    photons: float = 400.0
    read_noise: float = 3.0
    exposure: float = 0.4
    offset: float = 0.02
    bits: int = 12
    absorption: float = 0.0


def make_field(seed: int, settings: FieldSettings) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Make an image of nuclei and its labels.

    Parameters
    ----------
    seed
        Of everything that is drawn; the same seed and settings give the same field.
    settings
        What the field looks like.

    Returns
    -------
    image
        Grey values, shape `settings.shape`.
    labels
        0 background and 1..N nuclei, shape `settings.shape`. Labels do not overlap and each is one connected
        (4-neighbour) component.
    """
    rng = np.random.default_rng(seed)
    margin = int(np.ceil(2 * settings.diameter))
    canvas = draw_nuclei(rng, settings, (settings.shape[0] + 2 * margin, settings.shape[1] + 2 * margin))
    inside = (slice(margin, -margin), slice(margin, -margin))
    light = _with_surroundings(canvas.light, rng, settings)[inside]
    return _photograph(light, rng, settings), _tidy(canvas.owner, inside)


def draw_field_settings(seed: int, shape: tuple[int, int] = (256, 256), transmitted: float = 0.0) -> FieldSettings:
    """Draw settings that span what microscopes show: tiny to large, sparse to crowded, dim to bright.

    Parameters
    ----------
    seed
        Of everything that is drawn.
    shape
        Of the field in pixels, ``(y, x)``.
    transmitted
        Chance of transmitted light.
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


def _with_surroundings(light: Image, rng: Generator, settings: FieldSettings) -> Image:
    """Add what is not nuclei in focus: background, haze, glow and debris; then dim towards one side."""
    from scipy.ndimage import gaussian_filter

    width = settings.diameter * rng.uniform(0.6, 1.2)
    far = np.zeros_like(light)
    _scatter(far, rng, light.size / (5 * settings.diameter) ** 2, settings.haze * 2 * np.pi * width**2)
    specks = np.zeros_like(light)
    sigma = max(0.6 * settings.blur, 0.04 * settings.diameter)
    _scatter(specks, rng, settings.debris * light.size / 1e6, 2 * np.pi * sigma**2)
    around = gaussian_filter(far + settings.glow * light, width) + gaussian_filter(specks, sigma)
    y, x = np.ogrid[: light.shape[0], : light.shape[1]]
    brightest = rng.uniform(0, 1, 2)
    away = (y / light.shape[0] - brightest[0]) ** 2 + (x / light.shape[1] - brightest[1]) ** 2
    lamp = 1 - settings.unevenness * away / away.max()
    return np.asarray((light + around + settings.background) * lamp, np.float32)


def _scatter(layer: Image, rng: Generator, mean: float, strength: float) -> None:
    """Add points, `mean` of them on average, to a layer that is blurred afterwards."""
    number = rng.poisson(mean)
    y, x = (rng.integers(0, n, number) for n in layer.shape)
    np.add.at(layer, (y, x), (strength * rng.uniform(0.2, 1.0, number)).astype(np.float32))


def _photograph(light: Image, rng: Generator, settings: FieldSettings) -> NDArray[np.uint16]:
    """Count photons, read them out with noise, and store them in the camera's range."""
    if settings.absorption > 0:
        light = np.exp(-settings.absorption * light)
    electrons = rng.poisson(settings.photons * light) + rng.normal(0, settings.read_noise, light.shape)
    full = 2**settings.bits - 1
    grey = full * (settings.offset + settings.exposure * electrons / settings.photons)
    return np.asarray(np.clip(np.rint(grey), 0, full), np.uint16)


def _tidy(owner: NDArray[np.int32], inside: tuple[slice, slice]) -> NDArray[np.int32]:
    """Cut the image out, keep the largest piece of each nucleus, and number the nuclei 1..N."""
    from scipy.ndimage import find_objects
    from scipy.ndimage import label as components

    areas = np.bincount(owner.ravel())
    labels = np.zeros_like(owner[inside])
    count = 0
    for nucleus, box in enumerate(find_objects(owner[inside]), start=1):
        if box is None:
            continue
        pieces, _ = components(owner[inside][box] == nucleus)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= _LEAST_SHARE * areas[nucleus]:
            count += 1
            labels[box][pieces == 1 + sizes.argmax()] = count
    return labels


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
