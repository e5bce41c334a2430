"""Time series of moving nuclei with exact labels and tracks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, shift, zoom

from biounet.synthetic.fields import FieldSettings, add_background, photograph
from biounet.synthetic.nuclei import Image, draw_nuclei

_SPARSE = 1e-4  # coverage that one nucleus reaches
_ROUNDS = 20  # in which nuclei that overlap are pushed apart
_DAUGHTER = 0.75  # diameter of a daughter relative to its mother


@dataclass(frozen=True)
class MovieSettings:
    """Motion of the nuclei of a time series, and their appearance.

    Attributes
    ----------
    field
        Of each frame; its coverage gives the number of nuclei.
    frames
        Number of frames.
    step
        Standard deviation of the motion along each axis from frame to frame, in diameters.
    divisions
        Probability that a nucleus divides between two frames.
    fading
        Share of the light that is left in the next frame, as by bleaching.
    """

    field: FieldSettings = field(default_factory=lambda: FieldSettings(elongation=1.2, diameter_spread=0.1))
    frames: int = 8
    step: float = 0.1
    divisions: float = 0.0
    fading: float = 1.0


@dataclass(frozen=True)
class _Nucleus:
    sprite: Image  # its light, in the middle of a square
    place: NDArray[np.float64]
    track: int


def make_movie(seed: int, settings: MovieSettings) -> tuple[NDArray[np.uint16], NDArray[np.int32], dict[int, int]]:
    """Make a time series of nuclei that move, push each other and divide; the seed decides everything.

    Returns
    -------
    Grey values (t, y, x); labels of the same shape, whose values are the tracks from 1; and the track that each track
    which begins with a division comes from.
    """
    rng, scene = np.random.default_rng(seed), settings.field
    number = max(1, round(scene.coverage * scene.shape[0] * scene.shape[1] / (0.785 * scene.diameter**2)))
    nuclei = [_Nucleus(_draw_sprite(rng, scene), rng.uniform((0, 0), scene.shape), n + 1) for n in range(number)]
    nuclei = _push_apart(nuclei, scene)
    grey = np.zeros((settings.frames, *scene.shape), np.uint16)
    labels = np.zeros(grey.shape, np.int32)
    parents: dict[int, int] = {}
    last = number
    for t in range(settings.frames):
        light, labels[t] = _draw_frame(nuclei, scene.shape)
        grey[t] = photograph(add_background(light, rng, scene) * np.float32(settings.fading**t), rng, scene)
        nuclei, daughters = _move(nuclei, rng, settings, last)
        parents |= daughters if t + 1 < settings.frames else {}
        last += len(daughters)
    return grey, labels, parents


def _draw_sprite(rng: Generator, scene: FieldSettings) -> Image:
    """Return the light of one nucleus, its centre of mass in the middle of a square."""
    edge = 2 * int(np.ceil(1.5 * scene.diameter)) + 1
    while True:
        canvas = draw_nuclei(rng, replace(scene, coverage=_SPARSE), (2 * edge, 2 * edge))
        lit = np.argwhere(canvas.light > 0)
        if lit.size and lit.min() > 0 and lit.max() < 2 * edge - 1:
            centre = np.array(center_of_mass(canvas.light))
            moved = shift(canvas.light, edge - 0.5 - centre, order=1)
            return np.asarray(moved[edge // 2 : edge // 2 + edge, edge // 2 : edge // 2 + edge])


def _draw_frame(nuclei: list[_Nucleus], shape: tuple[int, int]) -> tuple[Image, NDArray[np.int32]]:
    """Return the light of all nuclei and their labels, which end at half of the maximum."""
    light, highest = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.int32)
    for nucleus in nuclei:
        edge = len(nucleus.sprite)
        corner = np.floor(nucleus.place).astype(int) - edge // 2
        sprite = np.clip(shift(nucleus.sprite, nucleus.place % 1, order=1), 0, None)
        start, stop = np.clip(corner, 0, shape), np.clip(corner + edge, 0, shape)
        window = tuple(map(slice, start, stop))
        sprite = sprite[tuple(map(slice, start - corner, stop - corner))]
        light[window] += sprite
        profile = sprite / nucleus.sprite.max()
        on_top = (profile >= 0.5) & (profile > highest[window])
        labels[window][on_top] = nucleus.track
        highest[window] = np.maximum(highest[window], profile)
    return light, labels


def _move(
    nuclei: list[_Nucleus], rng: Generator, settings: MovieSettings, last: int
) -> tuple[list[_Nucleus], dict[int, int]]:
    """Return the nuclei of the next frame, and the parents of the tracks that begin there; `last` is the last track."""
    scene, parents = settings.field, dict[int, int]()
    moved = []
    for nucleus in nuclei:
        place = nucleus.place + rng.normal(0, settings.step * scene.diameter, 2)
        if rng.random() >= settings.divisions:
            moved.append(replace(nucleus, place=place))
            continue
        angle, half = rng.uniform(0, np.pi), 0.27 * scene.diameter
        for side in (-half, half):
            track = last + len(parents) + 1
            parents[track] = nucleus.track
            sprite = _shrink(nucleus.sprite)
            moved.append(_Nucleus(sprite, place + side * np.array([np.sin(angle), np.cos(angle)]), track))
    return _push_apart(moved, scene), parents


def _shrink(sprite: Image) -> Image:
    smaller = np.clip(zoom(sprite, _DAUGHTER, order=1), 0, None)
    before = (len(sprite) - len(smaller)) // 2
    after = len(sprite) - len(smaller) - before
    return np.asarray(np.pad(smaller, (before, after)))


def _push_apart(nuclei: list[_Nucleus], scene: FieldSettings) -> list[_Nucleus]:
    """Return the nuclei with pairs that overlap moved apart, as far as that is possible."""
    places = np.array([nucleus.place for nucleus in nuclei])
    reach = np.array([np.sqrt((n.sprite >= 0.5 * n.sprite.max()).sum() / np.pi) for n in nuclei])
    for _ in range(_ROUNDS):
        apart = places[:, None] - places[None]
        distance = np.linalg.norm(apart, axis=2) + np.where(np.eye(len(places)), np.inf, 0)
        overlap = np.clip(1.05 * (reach[:, None] + reach[None]) - distance, 0, None)
        places = places + 0.5 * (apart / np.maximum(distance, 1e-9)[..., None] * overlap[..., None]).sum(axis=1)
    return [replace(nucleus, place=place) for nucleus, place in zip(nuclei, places, strict=True)]
