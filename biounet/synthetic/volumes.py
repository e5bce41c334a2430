"""Stacks of stained nuclei and heads with tumours that nobody had to image or outline, with exact truth.

Nuclei are rough ellipsoids that press against each other, stained unevenly, blurred more along the optical axis than
across it, dimmer with depth, and counted by a camera. Heads are ellipsoids of two tissues with tumours in layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]
Axes = tuple[float, float, float]

_LEAST_SHARE = 0.1  # of the voxels of a typical nucleus: less is no nucleus that anybody would outline
_TRIES = 30  # per nucleus that would fit


@dataclass(frozen=True)
class StackSettings:
    """What a stack of nuclei and its recording look like; lengths in µm.

    Attributes
    ----------
    shape, spacing
        Voxels and their size, ``(z, y, x)``.
    diameter, diameter_spread, elongation
        Median diameter, standard deviation of its logarithm, typical ratio of the longest to the shortest axis.
    closeness
        Distance of the centres of neighbours in sums of their radii: below 1 they flatten each other.
    filling
        Share of the places that would fit which are taken.
    envelope
        Thickness of the stained nuclear envelope relative to the radius; 0 stains the whole nucleus.
    roughness, texture, brightness_spread
        Amplitude of the outline's waves relative to the radius; of the chromatin; spread of the brightness.
    blur
        Standard deviation of the point spread function, ``(z, y, x)``.
    attenuation
        Light lost per µm of depth.
    background, haze, photons
        Light without nuclei, light from far out of focus, and photons per voxel of a typical nucleus.
    """

    shape: tuple[int, int, int] = (32, 96, 96)
    spacing: Axes = (1.0, 0.5, 0.5)
    diameter: float = 9.0
    diameter_spread: float = 0.15
    elongation: float = 1.3
    closeness: float = 0.95
    filling: float = 0.6
    envelope: float = 0.0
    roughness: float = 0.12
    texture: float = 0.25
    brightness_spread: float = 0.25
    blur: Axes = (0.9, 0.3, 0.3)
    attenuation: float = 0.01
    background: float = 0.08
    haze: float = 0.2
    photons: float = 150.0


def make_stack(seed: int, settings: StackSettings) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Make a stack of nuclei and its labels.

    Returns
    -------
    Grey values, and labels 0 background and 1..N, both of shape `settings.shape`. Each label is one component
    connected across faces.
    """
    rng = np.random.default_rng(seed)
    centres, radii = _place(rng, settings)
    waves = _noise(rng, settings, 0.5)
    owner, depth = np.zeros(settings.shape, np.int32), np.full(settings.shape, 1.0, np.float32)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        _put(owner, depth, (number, centre, radius), waves, rng, settings)
    labels, kept = _tidy(owner, settings)
    brightness = np.exp(rng.normal(0, settings.brightness_spread, len(centres) + 1)).astype(np.float32)
    brightness[0] = 0
    light = brightness[np.where(kept, owner, 0)] * _profile(depth, settings.envelope)
    light *= np.clip(1 + settings.texture * _noise(rng, settings, 0.12), 0.2, None)
    return _record(light, rng, settings), labels


def draw_stack_settings(seed: int, shape: tuple[int, int, int] = (32, 96, 96)) -> StackSettings:
    """Draw settings that span what confocal and light-sheet microscopes show, in sizes, crowding, noise and steps."""
    rng = np.random.default_rng(seed)
    across, ratio = rng.uniform(0.3, 0.8), rng.choice((1.0, 1.5, 2.0, 2.5, 3.5, 5.0))
    diameter = across * rng.uniform(9, 28)
    along = float(min(across * ratio, diameter / 4))
    return StackSettings(
        shape=shape,
        spacing=(along, across, across),
        diameter=diameter,
        diameter_spread=rng.uniform(0.08, 0.3),
        elongation=rng.uniform(1.05, 1.7),
        closeness=rng.uniform(0.8, 1.15),
        filling=rng.uniform(0.15, 1.0),
        roughness=rng.uniform(0.03, 0.2),
        texture=rng.uniform(0.05, 0.4),
        brightness_spread=rng.uniform(0.1, 0.5),
        blur=(rng.uniform(0.04, 0.16) * diameter, *(rng.uniform(0.015, 0.05) * diameter,) * 2),
        attenuation=rng.uniform(0.0, 0.5) / (shape[0] * along),
        background=rng.uniform(0.01, 0.3),
        haze=rng.uniform(0.05, 0.6),
        photons=float(np.exp(rng.uniform(np.log(15), np.log(1000)))),
    )


def make_head(
    seed: int, shape: tuple[int, int, int] = (40, 48, 44), lesions: int = 2
) -> tuple[dict[str, Image], NDArray[np.uint8]]:
    """Make a head in two MRI contrasts, ``flair`` and ``t1c``, and its tumours.

    Returns
    -------
    Intensities by contrast, 0 around the head, and labels as BRATS has them, 0 rest, 1 necrosis, 2 oedema, 4 enhancing
    rim, all of shape `shape`. The layers of a tumour lie in each other; small ones have no necrosis.
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
        away = np.sqrt(((steps - centre) ** 2).sum(0)) / radius + 0.12 * _noise(rng, settings, 0.3)
        for value, edge in ((2, 1.0), (4, 0.65), (1, 0.4 if radius > 5 else 0.0)):
            labels[(away < edge) & (head < 0.9)] = value
    contrast = {"flair": (0.9, 1.6, 1.3), "t1c": (0.4, 0.7, 2.0)}  # of necrosis, oedema and rim
    images = {}
    for name, values in contrast.items():
        light = np.where(tissue, 1.0, 0.8)
        for value, level in zip((1, 2, 4), values, strict=True):
            light[labels == value] = level
        noisy = _blurred(light.astype(np.float32), (0.6, 0.6, 0.6)) + rng.normal(0, 0.06, shape)
        images[name] = np.where(head < 1, np.maximum(600 * noisy, 1), 0).astype(np.float32)
    return images, labels


def _profile(depth: Image, envelope: float) -> Image:
    """Return the stain at each relative distance from the centre: of a round body, thin at the rim, or of its rim."""
    if envelope > 0:
        return np.asarray(np.exp(-(((1 - depth) / envelope) ** 2)), np.float32)
    return np.asarray(np.sqrt(np.clip(1.3 - depth, 0, 1)), np.float32)


def _place(rng: Generator, settings: StackSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres in µm and radii of nuclei that press against each other, as many as fit, some left out."""
    extent = np.array(settings.shape) * settings.spacing
    fit = int(np.prod(extent / settings.diameter + 1)) + 1
    centres, radii = np.zeros((0, 3)), np.zeros(0)
    for _ in range(_TRIES * fit):
        centre = rng.uniform(-settings.diameter / 4, extent + settings.diameter / 4)
        radius = 0.5 * settings.diameter * np.exp(rng.normal(0, settings.diameter_spread))
        distance = np.linalg.norm(centres - centre, axis=1)
        if (distance >= settings.closeness * (radii + radius)).all():
            centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
    kept = rng.random(len(radii)) < settings.filling
    return centres[kept], radii[kept]


def _put(
    owner: NDArray[np.int32],
    depth: Image,
    nucleus: tuple[int, NDArray[np.float64], float],
    waves: Image,
    rng: Generator,
    settings: StackSettings,
) -> None:
    """Give a nucleus the voxels that lie deeper in it than in any other."""
    number, centre, radius = nucleus
    ratio = settings.elongation ** np.array([-0.5, rng.uniform(-0.5, 0.5), 0.5])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] / (radius * ratio / np.cbrt(ratio.prod()))
    reach = 1.5 * radius * settings.elongation
    low = np.clip(np.floor((centre - reach) / settings.spacing), 0, settings.shape).astype(int)
    high = np.clip(np.ceil((centre + reach) / settings.spacing), 0, settings.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    if owner[box].size == 0:
        return
    offsets = np.indices(owner[box].shape).transpose(1, 2, 3, 0) + low
    offsets = offsets * settings.spacing + 0.5 * np.array(settings.spacing) - centre
    distance = np.linalg.norm(offsets @ turn, axis=-1).astype(np.float32) + settings.roughness * waves[box]
    wins = distance < depth[box]
    owner[box][wins] = number
    depth[box][wins] = distance[wins]


def _tidy(owner: NDArray[np.int32], settings: StackSettings) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Keep the largest piece of each nucleus, number them 1..N, and return which voxels were kept."""
    from scipy.ndimage import find_objects
    from scipy.ndimage import label as components

    least = _LEAST_SHARE * np.pi / 6 * settings.diameter**3 / np.prod(settings.spacing)
    labels, count = np.zeros_like(owner), 0
    for nucleus, box in enumerate(find_objects(owner), 1):
        if box is None:
            continue
        pieces, _ = components(owner[box] == nucleus)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= least:
            count += 1
            labels[box][pieces == 1 + sizes.argmax()] = count
    return labels, labels > 0


def _noise(rng: Generator, settings: StackSettings, grain: float) -> Image:
    """Return smooth noise, mean 0 and standard deviation 1, with grains of that share of the diameter."""
    size = grain * settings.diameter / 2
    sigma = (size / settings.spacing[0], size / settings.spacing[1], size / settings.spacing[2])
    noise = _blurred(rng.standard_normal(settings.shape, np.float32), sigma)
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-9), np.float32)


def _record(light: Image, rng: Generator, settings: StackSettings) -> NDArray[np.uint16]:
    sigma = tuple(blur / step for blur, step in zip(settings.blur, settings.spacing, strict=True))
    far = tuple(settings.diameter / step for step in settings.spacing)
    seen = _blurred(light, sigma) + settings.haze * _blurred(light, far) + settings.background  # type: ignore[arg-type]
    depth = np.arange(settings.shape[0]) * settings.spacing[0]
    seen *= np.exp(-settings.attenuation * depth)[:, None, None]
    electrons = rng.poisson(settings.photons * seen) + rng.normal(0, 3.0, settings.shape)
    return np.asarray(np.clip(np.rint(100 + 2000 * electrons / settings.photons), 0, 65535), np.uint16)


def _blurred(image: Image, sigma: Axes) -> Image:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma), np.float32)
