"""Annotated images in memory, and the patches that training draws from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import set_track_meta
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from biounet.annotation import UNLABELLED, Annotation
from biounet.distances import signed_distance
from biounet.errors import InputError, SettingsError
from biounet.files import Pair, ReadOptions, read_annotation
from biounet.loss import boundary_regions
from biounet.normalise import normalise, rescale, rescale_labels, zoom_to
from biounet.prepare import IMAGE, SHIFT, TARGET, LoadVolumed, augmentation, seed_all, without_unknown
from biounet.recipe import Recipe
from biounet.targets import make_class_targets, make_targets
from biounet.volume import Grid, Volume

_LIMIT = 1e4  # of normalised intensities: beyond it a hot pixel would be infinite in float16


@dataclass(frozen=True)
class Case:
    """One annotated image on the working grid.

    Attributes
    ----------
    name
        For messages.
    image
        Normalised intensities, float16, shape ``(c, [z,] y, x)``.
    target
        Values and weights that the loss compares with, float16, shape ``(k, [z,] y, x)``; the weights come last.
    labels
        The annotation, int32, shape ``([z,] y, x)``.
    centres
        Flat indices of the labelled voxels; None where every voxel is labelled.
    foreground
        Flat indices of the voxels of objects and classes.
    grid
        Grid of the image in its file.
    """

    name: str
    image: Tensor
    target: Tensor
    labels: NDArray[np.int32]
    centres: NDArray[np.int32] | None
    foreground: NDArray[np.int32]
    grid: Grid

    @property
    def labelled(self) -> int:
        """Number of labelled voxels."""
        return self.labels.size if self.centres is None else len(self.centres)


def weights_in(recipe: Recipe) -> int:
    """Return how many of the last channels of a target are weights."""
    return (3 if recipe.data.kind == "instances" else 1) + boundary_regions(recipe)


def load_cases(pairs: Sequence[Pair], recipe: Recipe, options: ReadOptions | None = None) -> Iterator[Case]:
    """Read annotated images and make what the network learns from them.

    Raises
    ------
    InputError
        Naming the file that cannot be used.
    """
    options = options or ReadOptions(dims=recipe.data.dims)
    load = LoadVolumed(IMAGE, options)
    for pair in pairs:
        volume = load({IMAGE: pair.image})[f"{IMAGE}_volume"]
        yield make_case(volume, read_annotation(pair.label, recipe.data, volume.grid), recipe)


def make_case(volume: Volume, annotation: Annotation, recipe: Recipe) -> Case:
    """Bring an image and its annotation to the working grid and make the targets."""
    if volume.channels != len(recipe.data.channels):
        cause = f"{volume.channels} channels, the recipe expects {len(recipe.data.channels)}"
        raise InputError(cause, path=volume.source, hint="choose one with --channel")
    zoom = zoom_to(volume.grid, recipe.data.pixel_size_um)
    image = rescale(normalise(volume.array, recipe.normalise), zoom)
    labels = rescale_labels(annotation.labels, image.shape[1:])
    if (labels == UNLABELLED).all():
        raise InputError("nothing is labelled", path=annotation.source)
    steps = _steps(volume.grid, zoom, recipe)
    target = targets_of(Annotation(labels, annotation.kind, Grid(labels.shape)), recipe, steps)
    dense = bool((labels != UNLABELLED).all())
    return Case(
        name=str(volume.source or "array"),
        image=torch.from_numpy(image).clamp(-_LIMIT, _LIMIT).half(),
        target=torch.from_numpy(target),
        labels=labels,
        centres=None if dense else np.flatnonzero(labels != UNLABELLED).astype(np.int32),
        foreground=np.flatnonzero(labels > 0).astype(np.int32),
        grid=volume.grid,
    )


def targets_of(annotation: Annotation, recipe: Recipe, steps: tuple[float, ...]) -> NDArray[np.float16]:
    """Return what `biounet.loss.recipe_loss` compares with, float16, shape ``(k, [z,] y, x)``: weights come last."""
    values, weights = _values_and_weights(annotation, recipe, steps)
    regions = range(1, boundary_regions(recipe) + 1)
    away = [signed_distance(_region(annotation, number), annotation.labelled, steps) for number in regions]
    parts = [*values, *(distance for distance, _ in away), *weights, *(known for _, known in away)]
    return np.stack(parts).astype(np.float16)


def _region(annotation: Annotation, number: int) -> NDArray[np.bool_]:
    return annotation.labels > 0 if annotation.kind == "instances" else annotation.labels == number


def _values_and_weights(
    annotation: Annotation, recipe: Recipe, steps: tuple[float, ...]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    if recipe.data.kind == "instances":
        made = make_targets(annotation, recipe.targets, steps)
        values = [made.foreground, made.contour, made.distance]
        return values, [made.weight, made.contour_weight, made.distance_weight]
    classes, weight = make_class_targets(annotation)
    count = len([name for name in recipe.data.classes if name != "background"]) + 1
    return [(classes == k) & (weight > 0) for k in range(count)], [weight]


def _steps(grid: Grid, zoom: float, recipe: Recipe) -> tuple[float, ...]:
    if recipe.targets.unit == "px":
        return (1.0,) * grid.dims
    if grid.spacing is None:
        raise SettingsError("targets.unit = 'um' needs calibrated images", hint="set targets.unit = 'px' or --spacing")
    factor = 1e3 if grid.unit == "mm" else 1.0
    return tuple(step * factor / zoom for step in grid.spacing)


class Patches(Dataset[tuple[Tensor, Tensor, int]]):
    """Patches of cases; patch ``n`` depends on the seed and ``n`` alone, whoever makes it.

    Parameters
    ----------
    cases
        Where patches are drawn: a case with the square root of its labelled voxels; half of the centres near a voxel
        of an object, half near any labelled voxel.
    recipe
        Augmentation, patch and seed.
    """

    def __init__(self, cases: Sequence[Case], recipe: Recipe) -> None:
        set_track_meta(False)
        self.cases = cases
        self.recipe = recipe
        self.patch = (recipe.train.patch,) * recipe.data.dims
        self.weights = weights_in(recipe)
        self.augment = augmentation(recipe.augment, self.patch)
        # Half a diagonal of the patch at its smallest scale: farther voxels are never asked for.
        self.radius = int(np.ceil(recipe.train.patch * recipe.augment.scale * 0.5 * 2**0.5)) + 2
        shares = np.array([case.labelled for case in cases], np.float64) ** 0.5
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return image ``(c, …)``, target ``(k, …)`` and the number of the case."""
        draw = np.random.default_rng([self.recipe.train.seed, index])
        number = int(draw.choice(len(self.cases), p=self.shares))
        case = self.cases[number]
        centre = self._draw_centre(case, draw)
        window = tuple(
            slice(max(0, c - self.radius), min(size, c + self.radius))
            for c, size in zip(centre, case.labels.shape, strict=True)
        )
        # A patch of even size has its centre between voxels.
        half = 0.5 if self.patch[0] % 2 == 0 else 0.0
        shift = tuple(c - half - (w.start + w.stop - 1) / 2 for c, w in zip(centre, window, strict=True))
        target = case.target[(slice(None), *window)].float()
        masks = (target[-self.weights :] > 0).float()
        seed_all(self.augment, int(draw.integers(2**32)))
        image = case.image[(slice(None), *window)].float()
        drawn = self.augment({IMAGE: image, TARGET: torch.cat([target, masks]), SHIFT: shift})
        return drawn[IMAGE], without_unknown(drawn[TARGET], self.weights), number

    def _draw_centre(self, case: Case, draw: np.random.Generator) -> tuple[int, ...]:
        shape = case.labels.shape
        near = case.foreground if draw.random() < 0.5 and case.foreground.size else case.centres
        if near is None:
            return tuple(int(draw.integers(size)) for size in shape)
        voxel = np.unravel_index(near[draw.integers(near.size)], shape)
        reach = self.patch[0] // 3
        return tuple(
            int(np.clip(at + draw.integers(-reach, reach + 1), 0, size - 1))
            for at, size in zip(voxel, shape, strict=True)
        )


class Steps(Sampler[list[int]]):
    """Numbers of the patches of each batch from one step to another; the same wherever training was interrupted."""

    def __init__(self, first: int, last: int, batch: int) -> None:
        self.first, self.last, self.batch = first, last, batch

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            yield list(range(step * self.batch, (step + 1) * self.batch))

    def __len__(self) -> int:
        return max(0, self.last - self.first)


def fit_patch(recipe: Recipe, cases: Sequence[Case], stride: int) -> Recipe:
    """Shrink the patch to what is labelled, with more patches a batch: little work is spent on unlabelled voxels.

    The patch becomes the smallest multiple of the stride that holds the median extent of the labelled voxels and half
    as much again; never more than the recipe says, never less than 4 strides.
    """
    extents = [max(_extent(case)) for case in cases]
    wanted = int(np.ceil(1.5 * float(np.median(extents)) / stride)) * stride
    patch = min(recipe.train.patch // stride * stride or stride, max(wanted, 4 * stride))
    more = (recipe.train.patch / patch) ** recipe.data.dims
    return recipe.replace("train", patch=patch, batch=max(1, round(recipe.train.batch * min(more, 8.0))))


def _extent(case: Case) -> tuple[int, ...]:
    if case.centres is None:
        return case.labels.shape
    places = np.unravel_index(case.centres, case.labels.shape)
    return tuple(int(axis.max() - axis.min()) + 1 for axis in places)


def fingerprint(pairs: Sequence[Pair]) -> str:
    """Return the SHA-256 over the names and contents of the training files, in order of name."""
    digest = hashlib.sha256()
    for pair in sorted(pairs, key=lambda p: Path(p.image).name):
        for path in (pair.image, pair.label):
            digest.update(Path(path).name.encode())
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into those to train on and those to tune on; at least one to train on, drawn from the seed."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    held = min(round(share * len(pairs)), len(pairs) - 1) if share else 0
    if share and held == 0 and len(pairs) > 2:
        held = 1
    return [pairs[i] for i in sorted(order[held:])], [pairs[i] for i in sorted(order[:held])]
