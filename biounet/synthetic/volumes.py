"""Synthetic stacks of stained nuclei, and heads with tumours, with exact labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from biounet.synthetic.nuclei import Image, label_largest_pieces

Axes = tuple[float, float, float]

_MIN_VOLUME = 0.1  # of a typical nucleus: nobody outlines smaller pieces
_ATTEMPTS = 30  # for each nucleus that may fit


@dataclass(frozen=True)
class StackSettings:
    """Appearance of a stack of nuclei, rough ellipsoids, and of the image of it; lengths in µm."""

    shape: tuple[int, int, int] = (32, 96, 96)  # voxels, (z, y, x)
    spacing: Axes = (1.0, 0.5, 0.5)  # of voxels
    diameter: float = 9.0  # median
    diameter_spread: float = 0.15  # standard deviation of its logarithm
    elongation: float = 1.3  # typical ratio of the longest to the shortest axis
    closeness: float = 0.95  # smallest distance of neighbours relative to the sum of their radii; below 1 they touch
    filling: float = 0.6  # fraction of the nuclei that fit which are there
    envelope: float = 0.0  # thickness of the stained envelope relative to the radius; 0 stains the whole nucleus
    roughness: float = 0.12  # amplitude of the noise of the outline, relative to the radius
    texture: float = 0.25  # amplitude of the noise of the chromatin
    brightness_spread: float = 0.25  # standard deviation of the logarithm of the brightness
    blur: Axes = (0.9, 0.3, 0.3)  # standard deviation of the point spread function
    attenuation: float = 0.01  # rate of the exponential loss of light, per µm of depth
    background: float = 0.08  # light without nuclei, relative to a typical nucleus
    haze: float = 0.2  # light from far out of focus
    photons: float = 150.0  # per voxel of a typical nucleus


def make_stack(seed: int, settings: StackSettings) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Make grey values of nuclei and their labels, both of shape `settings.shape`.

    Labels are 0 for background and 1..N, each one face-connected component.
    """
    rng = np.random.default_rng(seed)
    centres, radii = _pack_spheres(rng, settings)
    waves = _noise(rng, settings, 0.5)
    nuclei, distance = np.zeros(settings.shape, np.int32), np.full(settings.shape, 1.0, np.float32)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        _add_nucleus(nuclei, distance, (number, centre, radius), waves, rng, settings)
    min_size = _MIN_VOLUME * np.pi / 6 * settings.diameter**3 / np.prod(settings.spacing)
    labels = label_largest_pieces(nuclei, np.full(len(radii) + 1, min_size))
    brightness = np.exp(rng.normal(0, settings.brightness_spread, len(centres) + 1)).astype(np.float32)
    brightness[0] = 0
    light = brightness[np.where(labels > 0, nuclei, 0)] * _stain(distance, settings.envelope)
    light *= np.clip(1 + settings.texture * _noise(rng, settings, 0.12), 0.2, None)
    return _acquire(light, rng, settings), labels


def draw_stack_settings(seed: int, shape: tuple[int, int, int] = (32, 96, 96)) -> StackSettings:
    """Draw settings that span the sizes, crowding, noise and voxel sizes of confocal and light-sheet microscopy."""
    rng = np.random.default_rng(seed)
    lateral, ratio = rng.uniform(0.3, 0.8), rng.choice((1.0, 1.5, 2.0, 2.5, 3.5, 5.0))
    diameter = lateral * rng.uniform(9, 28)
    axial = float(min(lateral * ratio, diameter / 4))
    return StackSettings(
        shape=shape,
        spacing=(axial, lateral, lateral),
        diameter=diameter,
        diameter_spread=rng.uniform(0.08, 0.3),
        elongation=rng.uniform(1.05, 1.7),
        closeness=rng.uniform(0.8, 1.15),
        filling=rng.uniform(0.15, 1.0),
        roughness=rng.uniform(0.03, 0.2),
        texture=rng.uniform(0.05, 0.4),
        brightness_spread=rng.uniform(0.1, 0.5),
        blur=(rng.uniform(0.04, 0.16) * diameter, *(rng.uniform(0.015, 0.05) * diameter,) * 2),
        attenuation=rng.uniform(0.0, 0.5) / (shape[0] * axial),
        background=rng.uniform(0.01, 0.3),
        haze=rng.uniform(0.05, 0.6),
        photons=float(np.exp(rng.uniform(np.log(15), np.log(1000)))),
    )


def make_head(
    seed: int, shape: tuple[int, int, int] = (40, 48, 44), lesions: int = 2
) -> tuple[dict[str, Image], NDArray[np.uint8]]:
    """Make intensities of a head in two MRI contrasts, ``flair`` and ``t1c``, 0 around it, and labels of its tumours.

    Labels are as in BraTS, 0 rest, 1 necrosis, 2 oedema, 4 enhancing rim, in nested layers; small tumours have no
    necrosis.
    """
    rng = np.random.default_rng(seed)
    settings = StackSettings(shape=shape, spacing=(1.0, 1.0, 1.0), diameter=min(shape) / 2)
    steps = np.indices(shape).astype(np.float32)
    half = np.array(shape)[:, None, None, None] / 2
    head = np.sqrt((((steps - half + 0.5) / (0.95 * half)) ** 2).sum(0)) + 0.05 * _noise(rng, settings, 0.3)
    tissue = _noise(rng, settings, 0.25) > 0
    labels = np.zeros(shape, np.uint8)
    for _ in range(lesions):
        radius = rng.uniform(0.12, 0.28) * min(shape)
        centre = half + rng.uniform(-0.5, 0.5, (3, 1, 1, 1)) * half
        distance = np.sqrt(((steps - centre) ** 2).sum(0)) / radius + 0.12 * _noise(rng, settings, 0.3)
        for value, edge in ((2, 1.0), (4, 0.65), (1, 0.4 if radius > 5 else 0.0)):
            labels[(distance < edge) & (head < 0.9)] = value
    contrast = {"flair": (0.9, 1.6, 1.3), "t1c": (0.4, 0.7, 2.0)}  # of necrosis, oedema and rim
    images = {}
    for name, values in contrast.items():
        light = np.where(tissue, 1.0, 0.8)
        for value, level in zip((1, 2, 4), values, strict=True):
            light[labels == value] = level
        noisy = gaussian_filter(light.astype(np.float32), (0.6, 0.6, 0.6)) + rng.normal(0, 0.06, shape)
        images[name] = np.where(head < 1, np.maximum(600 * noisy, 1), 0).astype(np.float32)
    return images, labels


def _stain(distance: Image, envelope: float) -> Image:
    """Return the stain at a relative distance from the centre: of a ball, thin at the rim, or of its envelope."""
    if envelope > 0:
        return np.asarray(np.exp(-(((1 - distance) / envelope) ** 2)), np.float32)
    return np.asarray(np.sqrt(np.clip(1.3 - distance, 0, 1)), np.float32)


def _pack_spheres(rng: Generator, settings: StackSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres (n, 3) and radii (n,) in µm of as many nuclei as fit, some left out."""
    extent = np.array(settings.shape) * settings.spacing
    fit = int(np.prod(extent / settings.diameter + 1)) + 1
    centres, radii = np.zeros((0, 3)), np.zeros(0)
    for _ in range(_ATTEMPTS * fit):
        centre = rng.uniform(-settings.diameter / 4, extent + settings.diameter / 4)
        radius = 0.5 * settings.diameter * np.exp(rng.normal(0, settings.diameter_spread))
        distance = np.linalg.norm(centres - centre, axis=1)
        if (distance >= settings.closeness * (radii + radius)).all():
            centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
    chosen = rng.random(len(radii)) < settings.filling
    return centres[chosen], radii[chosen]


def _add_nucleus(
    nuclei: NDArray[np.int32],
    distance: Image,
    nucleus: tuple[int, NDArray[np.float64], float],
    waves: Image,
    rng: Generator,
    settings: StackSettings,
) -> None:
    """Add a nucleus where it is nearer, relative to its radii, than any other; `distance` is that of the nearest."""
    number, centre, radius = nucleus
    ratio = settings.elongation ** np.array([-0.5, rng.uniform(-0.5, 0.5), 0.5])
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] / (radius * ratio / np.cbrt(ratio.prod()))
    reach = 1.5 * radius * settings.elongation
    low = np.clip(np.floor((centre - reach) / settings.spacing), 0, settings.shape).astype(int)
    high = np.clip(np.ceil((centre + reach) / settings.spacing), 0, settings.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    if nuclei[box].size == 0:
        return
    offsets = np.indices(nuclei[box].shape).transpose(1, 2, 3, 0) + low
    offsets = offsets * settings.spacing + 0.5 * np.array(settings.spacing) - centre
    relative = np.linalg.norm(offsets @ axes, axis=-1).astype(np.float32) + settings.roughness * waves[box]
    nearest = relative < distance[box]
    nuclei[box][nearest] = number
    distance[box][nearest] = relative[nearest]


def _noise(rng: Generator, settings: StackSettings, grain: float) -> Image:
    """Return smooth noise, mean 0 and standard deviation 1, with grains of `grain` diameters."""
    size = grain * settings.diameter / 2
    sigma = (size / settings.spacing[0], size / settings.spacing[1], size / settings.spacing[2])
    noise = gaussian_filter(rng.standard_normal(settings.shape, np.float32), sigma)
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-9), np.float32)


def _acquire(light: Image, rng: Generator, settings: StackSettings) -> NDArray[np.uint16]:
    """Return the image of a microscope: blurred, dimmer with depth, with shot noise and read noise."""
    sigma = tuple(blur / step for blur, step in zip(settings.blur, settings.spacing, strict=True))
    haze = tuple(settings.diameter / step for step in settings.spacing)
    signal = gaussian_filter(light, sigma) + settings.haze * gaussian_filter(light, haze) + settings.background
    depth = np.arange(settings.shape[0]) * settings.spacing[0]
    signal *= np.exp(-settings.attenuation * depth)[:, None, None]
    electrons = rng.poisson(settings.photons * signal) + rng.normal(0, 3.0, settings.shape)
    return np.asarray(np.clip(np.rint(100 + 2000 * electrons / settings.photons), 0, 65535), np.uint16)
