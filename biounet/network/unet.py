"""The U-Net, in two and three dimensions: encoder, bottleneck, decoder with skip connections.

Batch norm with running statistics is the only normalisation: it is a fixed map at prediction time, so that a voxel's
output depends on its neighbourhood alone and tiling stays invisible; and it folds into the convolution before it.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from biounet.core import NetworkSettings

Axes = tuple[int, ...]
"""One number for each spatial axis, ``([z,] y, x)``."""

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Level(nn.Sequential):
    """Some convolutions of one level, each followed by batch norm and ReLU; keeps the grid."""

    def __init__(self, kernel: Axes, inputs: int, outputs: int, convolutions: int) -> None:
        layers: list[nn.Module] = []
        dims, padding = len(kernel), tuple(size // 2 for size in kernel)
        for index in range(convolutions):
            before = inputs if index == 0 else outputs
            layers += [
                _CONVOLUTION[dims](before, outputs, kernel, padding=padding, bias=False),  # type: ignore[arg-type]
                _NORM[dims](outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Rise(nn.Module):
    """From a coarse level to the next finer one: project, repeat each voxel, add the skip connection."""

    def __init__(self, pool: Axes, inputs: int, outputs: int) -> None:
        super().__init__()
        # Projecting before repeating and adding instead of concatenating needs 3.5 w² instead of 4.5 w² operations a
        # level; the accuracy was the same.
        self.project = _CONVOLUTION[len(pool)](inputs, outputs, 1)
        self.repeat = nn.Upsample(scale_factor=tuple(map(float, pool)), mode="nearest")

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Return the sum, on the grid of `skip`."""
        rise: Tensor = self.repeat(self.project(coarse))
        return rise + skip


class UNet(nn.Module):
    """A U-Net whose output lies on the grid of its input.

    Parameters
    ----------
    dims
        2 for images, 3 for volumes.
    inputs, outputs
        Channels of the image and of the prediction.
    settings
        Widths and depth.

    Attributes
    ----------
    widths
        Channels of each level, finest first.
    stride
        Each axis of the input must be a multiple of its number here.
    reach
        Voxels farther than this along any axis from a voxel cannot change its output; one number for each axis.
    """

    def __init__(self, dims: int, inputs: int, outputs: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.widths = widths = settings.widths
        self.dims = dims
        self.fold = fold_of(settings, dims)
        pools, kernels = pools_of(settings, dims), kernels_of(settings, dims)
        folded = math.prod(self.fold)
        self.encoder = nn.ModuleList(
            Level(kernel, before, width, settings.convolutions)
            for kernel, before, width in zip(kernels, (inputs * folded, *widths), widths, strict=False)
        )
        self.pools = nn.ModuleList(_POOL[dims](pool) for pool in pools)
        self.rises = nn.ModuleList(
            Rise(pool, coarse, fine) for pool, (fine, coarse) in zip(pools, pairwise(widths), strict=True)
        )
        self.decoder = nn.ModuleList(
            Level(kernel, width, width, settings.convolutions)
            for kernel, width in zip(kernels, widths[:-1], strict=False)
        )
        self.head = _CONVOLUTION[dims](widths[0], outputs * folded, 1)
        self.stride = tuple(math.prod(factors) for factors in zip(self.fold, *pools, strict=True))
        self.reach = receptive_radius(settings, dims)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(b, inputs, [z,] y, x)`` to logits ``(b, outputs, [z,] y, x)``."""
        return unfold_voxels(self.folded(image), self.fold)

    def folded(self, image: Tensor) -> Tensor:
        """Return the logits of `forward` as they are before `unfold_voxels`."""
        x = fold_voxels(image, self.fold)
        skips: list[Tensor] = []
        for level, pool in zip(self.encoder, self.pools, strict=False):
            x = level(x)
            skips.append(x)
            x = pool(x)
        x = self.encoder[-1](x)
        for level, rise, skip in zip(reversed(self.decoder), reversed(self.rises), reversed(skips), strict=True):
            x = level(rise(x, skip))
        logits: Tensor = self.head(x)
        return logits


def fold_of(settings: NetworkSettings, dims: int) -> Axes:
    """Return how many voxels along each axis are folded into channels before the first level."""
    return settings.fold or (2 if settings.half_resolution else 1,) * dims


def pools_of(settings: NetworkSettings, dims: int) -> tuple[Axes, ...]:
    """Return the factor along each axis from each level to the next."""
    return settings.pools or ((2,) * dims,) * (len(settings.widths) - 1)


def kernels_of(settings: NetworkSettings, dims: int) -> tuple[Axes, ...]:
    """Return the size of the kernels of each level along each axis."""
    return settings.kernels or ((3,) * dims,) * len(settings.widths)


def receptive_radius(settings: NetworkSettings, dims: int) -> Axes:
    """Distance in voxels along each axis beyond which the input cannot change an output voxel.

    An upper bound: the sum over the longest path.
    """
    pools, kernels = pools_of(settings, dims), kernels_of(settings, dims)
    radii = []
    for axis, step in enumerate(fold_of(settings, dims)):
        radius = step - 1
        for level, kernel in enumerate(kernels):
            last = level == len(pools)
            radius += (1 if last else 2) * settings.convolutions * (kernel[axis] // 2) * step
            if not last:
                # Pooling reads, and repeating writes, up to this far beside the own voxel.
                radius += (pools[level][axis] - 1) * step
                step *= pools[level][axis]
        radii.append(radius)
    return tuple(radii)


def fold_voxels(image: Tensor, factors: Axes) -> Tensor:
    """Move blocks of ``factors`` voxels into channels (pixel unshuffle for any number of axes)."""
    if max(factors) == 1:
        return image
    batch, channels, *shape = image.shape
    split = image.reshape(batch, channels, *(n for size, f in zip(shape, factors, strict=True) for n in (size // f, f)))
    inner = [3 + 2 * axis for axis in range(len(shape))]
    outer = [2 + 2 * axis for axis in range(len(shape))]
    folded = split.permute(0, 1, *inner, *outer)  # (b, c, factors, [z,] y, x)
    return folded.reshape(batch, channels * math.prod(factors), *(s // f for s, f in zip(shape, factors, strict=True)))


def unfold_voxels(features: Tensor, factors: Axes) -> Tensor:
    """Undo `fold_voxels`."""
    if max(factors) == 1:
        return features
    batch, channels, *shape = features.shape
    dims = len(shape)
    outputs = channels // math.prod(factors)
    split = features.reshape(batch, outputs, *factors, *shape)
    order = [n for axis in range(dims) for n in (2 + dims + axis, 2 + axis)]
    return split.permute(0, 1, *order).reshape(batch, outputs, *(s * f for s, f in zip(shape, factors, strict=True)))


def initialise_weights(network: UNet, seed: int) -> None:
    """Draw all weights from a seed (He et al. 2015), independent of the global random state."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # A smaller head sends all voxels to the background first, and small classes are slow to leave it: after 250 steps
    # on the hippocampus Dice is 0 with 0.01, 0.82 with 0.1 and with 0.25.
    head = network.head.weight
    nn.init.normal_(head, std=0.1, generator=generator)
    # All voxels of a cell begin with the weights of its first one (ICNR, Aitken et al. 2017): drawn apart, they find
    # their own ways out of the random start, and results show the lattice for thousands of steps.
    folded = math.prod(network.fold)
    with torch.no_grad():
        head.copy_(head[::folded].repeat_interleave(folded, 0))
