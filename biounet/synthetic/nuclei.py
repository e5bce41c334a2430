"""Synthetic nuclei in 2D: outlines, chromatin, and their arrangement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter, label

Image = NDArray[np.float32]

_MIN_BRIGHTNESS = 0.15  # relative to a typical nucleus: nobody outlines what is invisible
_ATTEMPTS = 12  # for each nucleus needed to reach the coverage; more help only in very crowded fields


@dataclass(frozen=True)
class NucleiSettings:
    """Appearance and arrangement of the nuclei of a field."""

    diameter: float = 20.0  # median, in pixels
    diameter_spread: float = 0.2  # standard deviation of its logarithm
    elongation: float = 1.35  # typical aspect ratio
    roughness: float = 0.06  # amplitude of the Fourier terms of the outline
    bend: float = 0.1  # of the long axis (kidney shape)
    coverage: float = 0.15  # fraction of the field that nuclei cover, at most about 0.6
    clustering: float = 0.3  # probability that a nucleus touches an earlier one
    overlap: float = 0.08  # largest fraction of a nucleus that may lie on others
    stacked: float = 0.3  # probability that it is visible there
    dome: float = 0.3  # 0 for flat nuclei of adherent cells, up to 1 for round ones, which are dimmer at the edge
    texture: float = 0.2  # strength of the fine chromatin texture
    spots: float = 0.3  # height of its spots: chromocentres above 0, nucleoli below
    brightness_spread: float = 0.35  # standard deviation of the logarithm of the brightness
    blur: float = 1.0  # standard deviation of the point spread function in pixels
    defocus: float = 0.05  # largest additional blur of a nucleus, relative to its diameter
    edge: float = 0.5  # fraction of the maximum of a blurred nucleus at which its label ends


class Canvas:
    """A field of nuclei, larger than the image so that nuclei can lie across its border."""

    def __init__(self, shape: tuple[int, int], chromatin: Image) -> None:
        self.light = np.zeros(shape, np.float32)  # sum of the blurred nuclei
        self.profile = np.zeros(shape, np.float32)  # largest intensity of any of them relative to its own maximum
        self.nuclei = np.zeros(shape, np.int32)  # number of that nucleus, 0 where it is below `NucleiSettings.edge`
        self.chromatin = chromatin  # mean 0 and standard deviation 1; each nucleus takes a random crop
        self.count = 0


def draw_nuclei(rng: Generator, settings: NucleiSettings, shape: tuple[int, int]) -> Canvas:
    """Return a canvas with nuclei up to the coverage, or as many as fit."""
    canvas = Canvas(shape, _draw_chromatin(rng, settings, shape))
    target_area = settings.coverage * canvas.light.size
    attempts = int(_ATTEMPTS * max(1.0, target_area / (0.7 * settings.diameter**2)))
    covered, placed = 0, list[tuple[NDArray[Any], float]]()
    for _ in range(attempts):
        if covered >= target_area:
            break
        radius = 0.5 * settings.diameter * float(np.exp(rng.normal(0, settings.diameter_spread)))
        centre = _draw_centre(rng, placed, radius, settings.clustering, shape)
        is_free = canvas.profile[tuple(centre.astype(int))] < 0.9
        area = _add_nucleus(canvas, rng, settings, centre, radius) if is_free else 0
        if area:
            covered += area
            placed.append((centre, radius))
    return canvas


def _draw_centre(
    rng: Generator, placed: list[tuple[NDArray[Any], float]], radius: float, clustering: float, shape: tuple[int, int]
) -> NDArray[Any]:
    """Return a point anywhere, or one at which a nucleus touches an earlier one."""
    if not placed or rng.random() >= clustering:
        return rng.uniform((0, 0), shape)
    other, other_radius = placed[rng.integers(len(placed))]
    angle = rng.uniform(0, 2 * np.pi)
    touching = other + (radius + other_radius) * rng.uniform(0.85, 1.15) * np.array([np.sin(angle), np.cos(angle)])
    return np.clip(touching, 0, np.subtract(shape, 1))


def _add_nucleus(canvas: Canvas, rng: Generator, settings: NucleiSettings, centre: NDArray[Any], radius: float) -> int:
    """Add a nucleus unless it overlaps others too much; return its area in pixels, 0 if it was not added."""
    outline = _draw_outline(rng, settings, radius)
    sigma = float(np.hypot(settings.blur, 2 * radius * settings.defocus * rng.random()))
    reach = int(np.ceil(outline.reach + 3 * sigma))
    corner = np.floor(centre).astype(int) - reach
    body = outline.draw(centre - corner, 2 * reach + 1, settings.dome)
    blurred = gaussian_filter(body, sigma)
    window, crop = _overlap(corner, 2 * reach + 1, canvas.light.shape)
    profile = (blurred / blurred.max())[crop]
    mask = profile >= settings.edge
    area = int(mask.sum())
    if area < 4 or np.count_nonzero(canvas.nuclei[window][mask]) > settings.overlap * area:
        return 0
    if rng.random() >= settings.stacked:
        body[crop] *= np.clip(2 - 2 * canvas.profile[window], 0, 1)
    stained = body * _draw_texture(rng, settings, canvas.chromatin, centre - corner, (2 * reach + 1, radius))
    canvas.light[window] += _draw_brightness(rng, settings, radius) * gaussian_filter(stained, sigma)[crop]
    on_top = mask & (profile > canvas.profile[window])
    canvas.count += 1
    canvas.nuclei[window][on_top] = canvas.count
    np.maximum(canvas.profile[window], profile, out=canvas.profile[window])
    return area


def _draw_outline(rng: Generator, settings: NucleiSettings, radius: float) -> _Outline:
    ratio = np.exp(np.abs(rng.normal(np.log(settings.elongation), 0.15)))
    amplitudes = rng.normal(0, settings.roughness, 5) / np.arange(1, 6)
    waves = np.abs(amplitudes) * np.exp(2j * np.pi * rng.random(5))
    axes = (radius * float(np.sqrt(ratio)), radius / float(np.sqrt(ratio)))
    bend = float(settings.bend * rng.normal() * np.sqrt(ratio))
    return _Outline(axes, rng.uniform(0, np.pi), bend, waves)


def _draw_brightness(rng: Generator, settings: NucleiSettings, radius: float) -> float:
    """Return a brightness; condensed nuclei are brighter, with the same DNA in less area."""
    condensed = (settings.diameter / (2 * radius)) ** 0.7
    return max(_MIN_BRIGHTNESS, float(condensed * np.exp(rng.normal(0, settings.brightness_spread))))


def _draw_chromatin(rng: Generator, settings: NucleiSettings, shape: tuple[int, int]) -> Image:
    """Return noise of two grain sizes, mean 0 and standard deviation 1."""
    noise = np.zeros(shape, np.float32)
    for grain, weight in ((0.03, 1.0), (0.1, 1.0)):
        layer = gaussian_filter(rng.standard_normal(shape, np.float32), max(0.5, grain * settings.diameter))
        noise += weight * layer / layer.std()
    return np.asarray(noise / noise.std())


def _draw_texture(
    rng: Generator, settings: NucleiSettings, chromatin: Image, centre: NDArray[Any], size: tuple[int, float]
) -> Image:
    """Return factors for the stain of one nucleus: fine texture, and spots within half of its radius."""
    edge, radius = size
    y, x = (rng.integers(0, max(1, n - edge)) for n in chromatin.shape)
    texture = np.ones((edge, edge), np.float32)
    crop = chromatin[y : y + edge, x : x + edge]
    texture[: crop.shape[0], : crop.shape[1]] += settings.texture * crop
    for _ in range(rng.integers(1, 6)):
        spot = centre + rng.uniform(-0.5, 0.5, 2) * radius
        sigma = rng.uniform(0.08, 0.2) * radius
        squares = [((np.arange(edge) - c) / sigma) ** 2 for c in spot]
        texture += settings.spots * rng.random() * np.exp(-0.5 * np.add.outer(*squares)).astype(np.float32)
    return np.clip(texture, 0.2, None)


@dataclass(frozen=True)
class _Outline:
    """A closed curve: an ellipse with Fourier terms, bent along its long axis."""

    axes: tuple[float, float]
    angle: float
    bend: float
    waves: NDArray[np.complex128]  # amplitude and phase of the Fourier terms of order 2, 3, …

    @property
    def reach(self) -> float:
        """Upper bound of the distance of the curve from its centre."""
        bent = float(np.hypot(self.axes[0], self.axes[1] * (1 + self.bend)))
        return bent * float(np.exp(np.abs(self.waves).sum()))

    def draw(self, centre: NDArray[Any], edge: int, dome: float) -> Image:
        """Return the thickness of the nucleus, at most 1, in a square of `edge` pixels."""
        y, x = (np.arange(edge)[:, None] - centre[0], np.arange(edge)[None, :] - centre[1])
        along = (x * np.cos(self.angle) + y * np.sin(self.angle)) / self.axes[0]
        across = (y * np.cos(self.angle) - x * np.sin(self.angle)) / self.axes[1] + self.bend * (along**2 - 0.25)
        radius = np.hypot(along, across)
        phase = (along + 1j * across) / np.maximum(radius, 1e-9)  # exp(i angle), whose powers are the terms
        wave = np.polyval([*self.waves[::-1], 0, 0], phase).real
        distance = radius * np.exp(-wave)  # 1 on the curve
        coverage = np.clip((1 - distance) * min(self.axes) + 0.5, 0, 1)
        thickness = np.clip(1 - distance**2, 0.01, 1) ** (0.5 * dome)
        return np.asarray(coverage * thickness, np.float32)


def _overlap(corner: NDArray[Any], edge: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of the canvas that a square lies on, and that part of the square."""
    start = np.clip(corner, 0, shape)
    stop = np.clip(corner + edge, 0, shape)
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    crop = tuple(slice(a, b) for a, b in zip(start - corner, stop - corner, strict=True))
    return window, crop


def label_largest_pieces(nuclei: NDArray[np.int32], min_sizes: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
    """Return labels 1..N, each the largest connected piece of a nucleus of at least `min_sizes[number]` voxels."""
    labels, count = np.zeros_like(nuclei), 0
    for nucleus, box in enumerate(find_objects(nuclei), 1):
        if box is None:
            continue
        pieces, _ = label(nuclei[box] == nucleus)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= min_sizes[nucleus]:
            count += 1
            labels[box][pieces == 1 + sizes.argmax()] = count
    return labels
