"""Nuclei without a microscope: outlines, chromatin, and how they lie beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]

_LEAST_BRIGHTNESS = 0.15  # of the typical nucleus: nobody outlines what nobody sees
_TRIES = 12  # per nucleus that would cover the field; more only pays where nuclei jam


@dataclass(frozen=True)
class NucleiSettings:
    """What the nuclei of a field look like.

    Attributes
    ----------
    diameter, diameter_spread
        Median diameter in pixels, and the standard deviation of its logarithm.
    elongation, roughness, bend
        Typical ratio of the axes; amplitude of the Fourier terms of the outline; bend of the long axis (kidney shape).
    coverage
        Share of the field that nuclei cover; above about 0.6 no more fit.
    clustering
        Chance that a nucleus is put against one that is there already.
    overlap, stacked
        Largest share of a nucleus that may lie on others; chance that it shines through there instead of giving way.
    dome
        0 for flat nuclei of adherent cells, towards 1 for round ones, which are dimmer at the edge.
    texture, spots
        Strength of the fine chromatin texture; height of its spots: chromocentres above 0, nucleoli below.
    brightness_spread
        Standard deviation of the logarithm of the brightness; the typical nucleus has 1.
    blur, defocus
        Standard deviation of the point spread function in pixels; largest further blur of single nuclei, relative to
        their diameter.
    edge
        Share of its own maximum at which the label of a blurred nucleus ends.
    """

    diameter: float = 20.0
    diameter_spread: float = 0.2
    elongation: float = 1.35
    roughness: float = 0.06
    bend: float = 0.1
    coverage: float = 0.15
    clustering: float = 0.3
    overlap: float = 0.08
    stacked: float = 0.3
    dome: float = 0.3
    texture: float = 0.2
    spots: float = 0.3
    brightness_spread: float = 0.35
    blur: float = 1.0
    defocus: float = 0.05
    edge: float = 0.5


class Canvas:
    """The field as it fills up, with a margin around the image so that nuclei can lie across its border.

    Attributes
    ----------
    light
        Sum of the blurred nuclei.
    share
        Largest share of its own maximum that any blurred nucleus has.
    owner
        The nucleus with that share where it reaches the edge, else 0.
    chromatin
        Texture, mean 0 and standard deviation 1, of which each nucleus takes a piece at random.
    count
        Number of nuclei.
    """

    def __init__(self, shape: tuple[int, int], chromatin: Image) -> None:
        self.light = np.zeros(shape, np.float32)
        self.share = np.zeros(shape, np.float32)
        self.owner = np.zeros(shape, np.int32)
        self.chromatin = chromatin
        self.count = 0


def draw_nuclei(rng: Generator, settings: NucleiSettings, shape: tuple[int, int]) -> Canvas:
    """Put nuclei on an empty canvas until it is covered as wished, or no more fit."""
    canvas = Canvas(shape, _chromatin(rng, settings, shape))
    wanted = settings.coverage * canvas.light.size
    tries = int(_TRIES * max(1.0, wanted / (0.7 * settings.diameter**2)))
    covered, places = 0, list[tuple[NDArray[Any], float]]()
    for _ in range(tries):
        if covered >= wanted:
            break
        radius = 0.5 * settings.diameter * float(np.exp(rng.normal(0, settings.diameter_spread)))
        centre = _choose_centre(rng, places, radius, settings.clustering, shape)
        free = canvas.share[tuple(centre.astype(int))] < 0.9
        area = _put(canvas, rng, settings, centre, radius) if free else 0
        if area:
            covered += area
            places.append((centre, radius))
    return canvas


def _choose_centre(
    rng: Generator, places: list[tuple[NDArray[Any], float]], radius: float, clustering: float, shape: tuple[int, int]
) -> NDArray[Any]:
    """Return a place anywhere, or against a nucleus that is there already."""
    if not places or rng.random() >= clustering:
        return rng.uniform((0, 0), shape)
    other, size = places[rng.integers(len(places))]
    angle = rng.uniform(0, 2 * np.pi)
    against = other + (radius + size) * rng.uniform(0.85, 1.15) * np.array([np.sin(angle), np.cos(angle)])
    return np.clip(against, 0, np.subtract(shape, 1))


def _put(canvas: Canvas, rng: Generator, settings: NucleiSettings, centre: NDArray[Any], radius: float) -> int:
    """Add a nucleus unless it lies on others too much; return the pixels that it covers, 0 if it was not added."""
    from scipy.ndimage import gaussian_filter

    outline = _draw_outline(rng, settings, radius)
    sigma = float(np.hypot(settings.blur, 2 * radius * settings.defocus * rng.random()))
    reach = int(np.ceil(outline.reach + 3 * sigma))
    corner = np.floor(centre).astype(int) - reach
    body = outline.body(centre - corner, 2 * reach + 1, settings.dome)
    blurred = gaussian_filter(body, sigma)
    window, part = _common(corner, 2 * reach + 1, canvas.light.shape)
    share = (blurred / blurred.max())[part]
    mask = share >= settings.edge
    area = int(mask.sum())
    if area < 4 or np.count_nonzero(canvas.owner[window][mask]) > settings.overlap * area:
        return 0
    if rng.random() >= settings.stacked:
        body[part] *= np.clip(2 - 2 * canvas.share[window], 0, 1)
    stained = body * _texture(rng, settings, canvas.chromatin, centre - corner, (2 * reach + 1, radius))
    canvas.light[window] += _draw_brightness(rng, settings, radius) * gaussian_filter(stained, sigma)[part]
    wins = mask & (share > canvas.share[window])
    canvas.count += 1
    canvas.owner[window][wins] = canvas.count
    np.maximum(canvas.share[window], share, out=canvas.share[window])
    return area


def _draw_outline(rng: Generator, settings: NucleiSettings, radius: float) -> _Outline:
    ratio = np.exp(np.abs(rng.normal(np.log(settings.elongation), 0.15)))
    amplitudes = rng.normal(0, settings.roughness, 5) / np.arange(1, 6)
    waves = np.abs(amplitudes) * np.exp(2j * np.pi * rng.random(5))
    axes = (radius * float(np.sqrt(ratio)), radius / float(np.sqrt(ratio)))
    bend = float(settings.bend * rng.normal() * np.sqrt(ratio))
    return _Outline(axes, rng.uniform(0, np.pi), bend, waves)


def _draw_brightness(rng: Generator, settings: NucleiSettings, radius: float) -> float:
    """Condensed nuclei are brighter: the same DNA in less area."""
    condensed = (settings.diameter / (2 * radius)) ** 0.7
    return max(_LEAST_BRIGHTNESS, float(condensed * np.exp(rng.normal(0, settings.brightness_spread))))


def _chromatin(rng: Generator, settings: NucleiSettings, shape: tuple[int, int]) -> Image:
    """Noise of two grain sizes, mean 0 and standard deviation 1."""
    from scipy.ndimage import gaussian_filter

    noise = np.zeros(shape, np.float32)
    for grain, weight in ((0.03, 1.0), (0.1, 1.0)):
        layer = gaussian_filter(rng.standard_normal(shape, np.float32), max(0.5, grain * settings.diameter))
        noise += weight * layer / layer.std()
    return np.asarray(noise / noise.std())


def _texture(
    rng: Generator, settings: NucleiSettings, chromatin: Image, centre: NDArray[Any], size: tuple[int, float]
) -> Image:
    """Return factors for the thickness of one nucleus: fine texture, and spots inside half of its radius."""
    edge, radius = size
    y, x = (rng.integers(0, max(1, n - edge)) for n in chromatin.shape)
    texture = np.ones((edge, edge), np.float32)
    piece = chromatin[y : y + edge, x : x + edge]
    texture[: piece.shape[0], : piece.shape[1]] += settings.texture * piece
    for _ in range(rng.integers(1, 6)):
        away = centre + rng.uniform(-0.5, 0.5, 2) * radius
        sigma = rng.uniform(0.08, 0.2) * radius
        squares = [((np.arange(edge) - c) / sigma) ** 2 for c in away]
        texture += settings.spots * rng.random() * np.exp(-0.5 * np.add.outer(*squares)).astype(np.float32)
    return np.clip(texture, 0.2, None)


@dataclass(frozen=True)
class _Outline:
    """A closed curve: an ellipse, waved by Fourier terms and bent along its long axis."""

    axes: tuple[float, float]
    angle: float
    bend: float
    waves: NDArray[np.complex128]  # amplitude and phase of the terms of order 2, 3, …

    @property
    def reach(self) -> float:
        """Largest distance from the centre that the curve can have."""
        bent = float(np.hypot(self.axes[0], self.axes[1] * (1 + self.bend)))
        return bent * float(np.exp(np.abs(self.waves).sum()))

    def body(self, centre: NDArray[Any], edge: int, dome: float) -> Image:
        """Draw the thickness of the nucleus, largest value 1, into a square of `edge` pixels around `centre`."""
        y, x = (np.arange(edge)[:, None] - centre[0], np.arange(edge)[None, :] - centre[1])
        along = (x * np.cos(self.angle) + y * np.sin(self.angle)) / self.axes[0]
        across = (y * np.cos(self.angle) - x * np.sin(self.angle)) / self.axes[1] + self.bend * (along**2 - 0.25)
        from_centre = np.hypot(along, across)
        turn = (along + 1j * across) / np.maximum(from_centre, 1e-9)  # exp(i angle), whose powers are the terms
        wave = np.polyval([*self.waves[::-1], 0, 0], turn).real
        distance = from_centre * np.exp(-wave)  # 1 on the curve
        edge_of_pixel = np.clip((1 - distance) * min(self.axes) + 0.5, 0, 1)
        thickness = np.clip(1 - distance**2, 0.01, 1) ** (0.5 * dome)
        return np.asarray(edge_of_pixel * thickness, np.float32)


def _common(corner: NDArray[Any], edge: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a square lies on the canvas, and which part of the square that is."""
    start = np.clip(corner, 0, shape)
    stop = np.clip(corner + edge, 0, shape)
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    part = tuple(slice(a, b) for a, b in zip(start - corner, stop - corner, strict=True))
    return window, part
