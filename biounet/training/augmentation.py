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
    """Turn, mirror and scale image and target about the centre of the patch, and cut the patch out.

    One factor for all axes, drawn evenly in its logarithm, keeps the shape of cells, and angles are those of the
    specimen where voxels are longer along one axis; MONAI's own ``RandAffined`` draws a factor for each axis and turns
    the lattice. A share of the patches is only mirrored and turned by quarters, which moves no voxel off the lattice:
    interpolation blurs, and the network must also see images as sharp as those it will be given.

    What lies outside the image is mirrored in the image and does not exist (weight 0) in the target. Only the part that
    the patch is made of is taken from either, so that large images, in float16, cost no more than small ones.

    Parameters
    ----------
    patch
        Shape of the patch, ``(y, x)`` or ``(z, y, x)``.
    settings
        Largest angles and factor, and the share of the patches that are turned and scaled freely.
    steps
        Length of a voxel along each axis, in any unit.
    owners
        For each value of the target the number of the weight that says where it exists; the weights come after them.
    """

    def __init__(
        self, patch: tuple[int, ...], settings: AugmentSettings, steps: tuple[float, ...], owners: Sequence[int]
    ) -> None:
        MapTransform.__init__(self, (IMAGE, TARGET))
        self.patch = patch
        self.owners = list(owners)
        self.settings = settings
        self.steps = np.array(steps)
        self.matrix = np.eye(len(patch))

    def randomize(self, data: Any = None) -> None:  # noqa: ANN401 - MONAI's signature
        """Draw angles, factor and mirrored axes."""
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
        self.matrix = turn * self.steps / self.steps[:, None] * sides / factor

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return image and target, both of the shape of the patch.

        ``data["centre"]`` is the centre of the patch, in voxels from the first one of the image.
        """
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
        """Return the part of the image that the patch reaches, also by reflection."""
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
            return _without_unlabelled(sample(target, grid, mode="nearest"), self.owners)
        masks = (target[len(self.owners) :] > 0).float()
        drawn = sample(torch.cat([_without_unlabelled(target, self.owners), masks]), grid, mode="bilinear")
        return _without_unknown(drawn, len(masks))


def _without_unlabelled(target: Tensor, owners: list[int]) -> Tensor:
    """Put 0 where a value does not exist: interpolation mixes in a trace of what stands beside a labelled voxel."""
    values, weights = target[: len(owners)], target[len(owners) :]
    return torch.cat([torch.where(weights[owners] > 0, values, 0.0), weights])


def _without_unknown(target: Tensor, weights: int) -> Tensor:
    """Remove what interpolation mixed with unlabelled voxels.

    Parameters
    ----------
    target
        Shape ``(k + weights, …)``: the last `weights` channels are masks, 1 where the weight channels before them
        exist, interpolated like everything else.

    Returns
    -------
    Shape ``(k, …)``: a weight is kept only where its mask is 1, that is where every voxel that it was made of exists.
    """
    values, masks = target[:-weights], target[-weights:]
    values[-weights:] = torch.where(masks > 0.999, values[-weights:], 0.0)
    return values


def _rotation(dims: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    matrix = np.eye(dims)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


class RandInvertd(Randomizable, MapTransform):  # type: ignore[misc]
    """Exchange dark and bright, so that stained and unstained objects look alike."""

    def __init__(self, prob: float) -> None:
        MapTransform.__init__(self, (IMAGE,))
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Return the data with the image mirrored at half intensity, or unchanged."""
        if self.R.random_sample() >= self.prob:
            return dict(data)
        return {**data, IMAGE: 1 - data[IMAGE]}


def augmentation(
    settings: AugmentSettings, patch: tuple[int, ...], steps: tuple[float, ...], owners: Sequence[int]
) -> Compose:
    """Chain of random changes that begins with an image and its target and ends in a patch (see `RandSimilarityd`).

    The chain is deterministic after ``set_random_state(seed)``.
    """
    intensity = [
        RandGaussianSmoothd(IMAGE, prob=0.2, **dict.fromkeys(_SIGMAS[: len(patch)], (0.25, settings.blur))),
        RandAdjustContrastd(IMAGE, prob=0.5, gamma=(1 / (1 + settings.gamma), 1 + settings.gamma)),
        RandScaleIntensityd(IMAGE, prob=0.8, factors=settings.contrast),
        RandShiftIntensityd(IMAGE, prob=0.8, offsets=settings.brightness),
        RandGaussianNoised(IMAGE, prob=0.3, std=settings.noise),
        RandInvertd(settings.invert),
    ]
    return Compose([RandSimilarityd(patch, settings, steps, owners), *intensity])


def seed_all(chain: Compose, seed: int) -> None:
    """Make the next draws of all transforms of a chain follow from one seed.

    One generator is shared, since ``Compose.set_random_state`` makes one for each transform at each call: 1.7 ms.
    """
    if not isinstance(chain.R, _Shared):
        shared = _Shared()
        chain.R = shared
        for transform in chain.transforms:
            transform.set_random_state(state=shared)
            for part in vars(transform).values():
                if isinstance(part, Randomizable):
                    part.set_random_state(state=shared)
    chain.R.seed(seed)


class _Shared(np.random.RandomState):
    """The generator that all transforms of one chain draw from."""


_SIGMAS = ("sigma_x", "sigma_y", "sigma_z")
