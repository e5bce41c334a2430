"""MONAI transforms: random changes of training patches, drawn from a seed and applied to image and target alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    AffineGrid,
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resample,
)
from numpy.typing import NDArray
from torch import Tensor

from biounet.core import AugmentSettings

IMAGE, TARGET, CENTRE = "image", "target", "centre"


class RandSimilarityd(Randomizable, MapTransform):  # type: ignore[misc]
    """Rotate, flip and scale image and target about the centre of the patch, and crop the patch.

    One factor for all axes, drawn uniformly in its logarithm, keeps the shape of cells, and angles are those of the
    specimen also where voxels are anisotropic; MONAI's own ``RandAffined`` draws a factor for each axis and rotates the
    lattice. A share of the patches is only flipped and turned by quarters, which keeps voxels on the lattice:
    interpolation blurs, and the network must also see images as sharp as those in prediction.

    Beyond the border the image is mirrored, and the target does not exist (weight 0). Only the part of both that the
    patch needs is resampled, so that large images, in float16, cost no more than small ones. `weight_index` is that of
    `TargetLayout`; the voxel spacing may be in any unit.
    """

    def __init__(
        self, patch: tuple[int, ...], settings: AugmentSettings, spacing: tuple[float, ...], weight_index: Sequence[int]
    ) -> None:
        MapTransform.__init__(self, (IMAGE, TARGET))
        self.patch = patch
        self.weight_index = list(weight_index)
        self.settings = settings
        self.spacing = np.array(spacing)
        self.matrix = np.eye(len(patch))

    def randomize(self, data: Any = None) -> None:  # noqa: ANN401 - MONAI's signature
        """Draw angles, factor and flipped axes."""
        dims, limits = len(self.patch), self.settings
        angle = self.R.randint(4) * np.pi / 2 if limits.mirror else 0.0
        tilts, factor = (0.0,) * (dims - 2) * 2, 1.0
        if self.R.uniform() < limits.affine_fraction:
            angle += np.deg2rad(self.R.uniform(-limits.rotate, limits.rotate))
            factor = float(np.exp(self.R.uniform(-np.log(limits.scale), np.log(limits.scale))))
            tilts = tuple(np.deg2rad(self.R.uniform(-limits.tilt, limits.tilt)) for _ in tilts)
        sides = self.R.choice((-1, 1), dims) if limits.mirror else np.ones(dims)
        if limits.flip_x:
            sides[-1] *= self.R.choice((-1, 1))
        turn = _rotation(dims, dims - 2, dims - 1, angle)
        for axis, tilt in enumerate(tilts, 1):
            turn = turn @ _rotation(dims, 0, axis, tilt)
        self.matrix = turn * self.spacing / self.spacing[:, None] * sides / factor

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return image and target in the patch around ``data["centre"]``, in voxels from the first of the image."""
        self.randomize()
        dims, centre = len(self.patch), np.array(data[CENTRE])
        window = self._window(centre, data[IMAGE].shape[1:])
        shift = centre - [(part.start + part.stop - 1) / 2 for part in window]
        affine = np.eye(dims + 1)
        affine[:dims, :dims] = self.matrix
        grid = AffineGrid(affine=torch.from_numpy(affine).float(), dtype=torch.float32)(self.patch)[0]
        grid[:dims] += torch.as_tensor(shift, dtype=torch.float32).reshape(-1, *(1,) * dims)
        image, target = (data[key][(slice(None), *window)].float() for key in (IMAGE, TARGET))
        image = Resample(padding_mode="reflection", dtype=torch.float32)(image, grid)
        return {**data, IMAGE: image, TARGET: self._sample_target(target, grid)}

    def _window(self, centre: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the part of the image that the patch is resampled from, reflections included."""
        reach = np.abs(self.matrix) @ ((np.array(self.patch) - 1) / 2)
        window = []
        for low, high, size in zip(np.floor(centre - reach) - 1, np.ceil(centre + reach) + 2, shape, strict=True):
            beyond = (max(-low, 0), max(high - size, 0))
            first, last = min(low, size - beyond[1]), max(high, beyond[0])
            window.append(slice(max(int(first), 0), min(int(last), size)))
        return tuple(window)

    def _sample_target(self, target: Tensor, grid: Tensor) -> Tensor:
        # MONAI's default, float64, costs twice the time.
        sample = Resample(padding_mode="zeros", dtype=torch.float32)
        if len(self.patch) == 3:
            # Labelled planes of a volume are one voxel thick: nothing between two planes would exist.
            return _zero_unlabelled(sample(target, grid, mode="nearest"), self.weight_index)
        masks = (target[len(self.weight_index) :] > 0).float()
        resampled = sample(torch.cat([_zero_unlabelled(target, self.weight_index), masks]), grid, mode="bilinear")
        return _zero_partly_unlabelled(resampled, len(masks))


def _zero_unlabelled(target: Tensor, weight_index: list[int]) -> Tensor:
    """Set values of weight 0 to 0, so that interpolation mixes in nothing arbitrary from unlabelled neighbours."""
    values, weights = target[: len(weight_index)], target[len(weight_index) :]
    return torch.cat([torch.where(weights[weight_index] > 0, values, 0.0), weights])


def _zero_partly_unlabelled(target: Tensor, weights: int) -> Tensor:
    """Set weights to 0 where interpolation included unlabelled voxels; drop their masks, the last channels."""
    values, masks = target[:-weights], target[-weights:]
    values[-weights:] = torch.where(masks > 0.999, values[-weights:], 0.0)
    return values


def _rotation(dims: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    matrix = np.eye(dims)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


class RandInvertd(Randomizable, MapTransform):  # type: ignore[misc]
    """Invert the intensities, so that stained and unstained objects look alike."""

    def __init__(self, prob: float) -> None:
        MapTransform.__init__(self, (IMAGE,))
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Return the data with the image mirrored at half intensity, or unchanged."""
        if self.R.random_sample() >= self.prob:
            return dict(data)
        return {**data, IMAGE: 1 - data[IMAGE]}


def augmentation(
    settings: AugmentSettings, patch: tuple[int, ...], spacing: tuple[float, ...], weight_index: Sequence[int]
) -> Compose:
    """Return the transforms from an image and its target to a patch, deterministic after `seed_transforms`."""
    intensity = [
        RandGaussianSmoothd(
            IMAGE, prob=0.2, **{f"sigma_{axis}": (0.25, settings.blur) for axis in "xyz"[: len(patch)]}
        ),
        RandAdjustContrastd(IMAGE, prob=0.5, gamma=(1 / (1 + settings.gamma), 1 + settings.gamma)),
        RandScaleIntensityd(IMAGE, prob=0.8, factors=settings.contrast),
        RandShiftIntensityd(IMAGE, prob=0.8, offsets=settings.brightness),
        RandGaussianNoised(IMAGE, prob=0.3, std=settings.noise),
        RandInvertd(settings.invert),
    ]
    return Compose([RandSimilarityd(patch, settings, spacing, weight_index), *intensity])


def seed_transforms(chain: Compose, seed: int) -> None:
    """Seed all transforms of a chain.

    They share one generator, since ``Compose.set_random_state`` makes one for each transform at each call: 1.7 ms.
    """
    if not isinstance(chain.R, _SharedState):
        shared = _SharedState()
        chain.R = shared
        for transform in chain.transforms:
            transform.set_random_state(state=shared)
            for part in vars(transform).values():
                if isinstance(part, Randomizable):
                    part.set_random_state(state=shared)
    chain.R.seed(seed)


class _SharedState(np.random.RandomState):
    """The random generator that all transforms of a chain share."""
