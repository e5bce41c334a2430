"""The U-Net in integers of 8 bits, for CPUs that multiply those twice as fast as bfloat16 (AVX-512 VNNI, AMX).

Features are integers 0..255, each channel in a unit of its own, which follows from the largest values observed after
the training. Weights are integers -127..127, each output channel in a unit of its own. The units of the features are
multiplied into the weights, so that all that is left to do between two convolutions is to cut off at 0 and 255; the cut
at 0 is the ReLU. Sums of integers are exact in any order, so that blocks agree to the bit. What comes in and what goes
out stays real: images have more than 256 levels, and voxels climb on the surface that comes out.

Jacob et al. 2018 (arXiv:1712.05877) describe this arithmetic. The operators are those that ``torch.compile`` emits;
called by themselves they need no compiler and no warm-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from biounet.core import compiled
from biounet.network.activation_ranges import ActivationRanges
from biounet.network.unet import Axes, UNet, fold_voxels

_TOP = 255  # the largest integer of a feature
_HALF = 127  # the largest of a weight, and of what is projected to a finer level
_ZEROS = range(0, 136, 8)  # integers that may stand for 0 in the sums of the decoder

_Layer = Any  # a ``Conv2d`` or a ``Conv3d``, which have no class in common that is of use


def has_fast_int8() -> bool:
    """Whether this CPU multiplies integers of 8 bits natively, without cutting off their sums."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(there and torch.cpu._is_vnni_supported())


class IntegerUNet:
    """A U-Net for prediction on a CPU.

    Parameters
    ----------
    network
        From `biounet.network.fold_batch_norms`.
    ranges
        From `biounet.network.calibrate_activations`.
    real
        Number type of the first convolution, and of the image.

    Attributes
    ----------
    fold, stride, reach
        As of `biounet.network.UNet`.
    """

    def __init__(self, network: UNet, ranges: ActivationRanges, real: torch.dtype) -> None:
        self.stride, self.reach = network.stride, network.reach
        self.fold = network.fold
        self.pools: list[Any] = [pool.kernel_size for pool in network.pools]
        units, self.zeros = _units(network, ranges)
        self.first = _FirstConvolution(network.encoder[0][0], units["encoder.0.1"], real)  # type: ignore[index]
        inputs = [units["encoder.0.1"], *(units[_last(network, f"encoder.{n}")] for n in range(len(self.zeros)))]
        self.encoder = [_level(network, f"encoder.{n}", units, unit) for n, unit in enumerate(inputs)]
        self.decoder = [
            _level(network, f"decoder.{n}", units, units[f"rises.{n}"], zero) for n, zero in enumerate(self.zeros)
        ]
        depth = len(self.zeros)
        rising = [units[_last(network, name)] for name in (*(f"decoder.{n}" for n in range(depth)), f"encoder.{depth}")]
        self.projects = [
            _Convolution(rise.project, rising[n + 1], units[f"rises.{n}"], out=torch.int8)
            for n, rise in enumerate(network.rises)
        ]
        self.head = _Convolution(network.head, rising[0], None, out=torch.float32)

    def folded(self, image: Tensor) -> Tensor:
        """Map an image ``(1, inputs, [z,] y, x)`` of real numbers to logits, float32, as `UNet.folded` does."""
        x = self.first(fold_voxels(image, self.fold))
        skips: list[Tensor] = []
        for level, pool in zip(self.encoder, [*self.pools, None], strict=True):
            for convolution in level:
                x = convolution(x)
            if pool is not None:
                skips.append(x)
                x = _largest(x, pool)
        steps = zip(self.decoder, self.projects, self.pools, self.zeros, strict=True)
        for (level, project, pool, zero), skip in zip(reversed(list(steps)), reversed(skips), strict=True):
            x = _sum(project(x), skip, pool, zero)
            for convolution in level:
                x = convolution(x)
        return self.head(x)


class _Convolution:
    """A convolution of integers.

    Parameters
    ----------
    layer
        The convolution of real numbers.
    unit
        Of each input channel.
    result
        Unit of each output channel; None where the output is real.
    zero
        The integer that stands for 0 in the input.
    out
        Number type of the output: cut off at its bounds.
    """

    def __init__(
        self, layer: _Layer, unit: Tensor, result: Tensor | None, zero: int = 0, out: torch.dtype = torch.uint8
    ) -> None:
        weight, self.bias = _in_units(layer, unit, result)
        self.scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / _HALF
        rounded = (weight / self.scale.reshape(-1, *(1,) * (weight.ndim - 1))).round().to(torch.int8)
        self.shape = _shape_of(layer)
        self.weight = torch.ops.onednn.qconv_prepack(rounded, self.scale, 1.0, zero, *self.shape, 1)
        self.none = torch.zeros(len(weight), dtype=torch.int32)
        self.zero, self.out = zero, out
        onednn = torch.ops.onednn
        self.operator = onednn.qconv2d_pointwise if weight.ndim == 4 else onednn.qconv3d_pointwise

    def __call__(self, x: Tensor) -> Tensor:
        weights = (self.weight, self.scale, self.none, self.bias)
        result: Tensor = self.operator(
            x, 1.0, self.zero, *weights, *self.shape, 1, 1.0, 0, self.out, "none", [], ""
        )  # the scales 1.0 and the 0 are those of input and output, which are in `weights` already
        return result


class _FirstConvolution:
    """A convolution of real numbers and its ReLU, whose output is integers in units of `result`."""

    def __init__(self, layer: _Layer, result: Tensor, real: torch.dtype) -> None:
        weight, bias = _in_units(layer, torch.ones(layer.weight.shape[1]), result)
        self.layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
        self.weight, self.bias = weight.to(real).contiguous(memory_format=self.layout), bias.to(real)
        self.stride, self.padding, self.dilation = _shape_of(layer)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=self.layout)
        size = (self.padding, self.stride, self.dilation, 1)
        real = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *size, "relu", [], "")
        result: Tensor = real.clamp_(max=_TOP).round_().to(torch.uint8)
        return result


def _in_units(layer: _Layer, unit: Tensor, result: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution between channels in these units."""
    spread = (1,) * (layer.weight.ndim - 2)
    weight, bias = layer.weight.float() * unit.reshape(-1, *spread), layer.bias.float()
    return (weight, bias) if result is None else (weight / result.reshape(-1, 1, *spread), bias / result)


def _shape_of(layer: _Layer) -> tuple[list[int], list[int], list[int]]:
    """Return stride, padding and dilation."""
    return list(layer.stride), list(layer.padding), list(layer.dilation)


def _last(network: UNet, level: str) -> str:
    """Return the name of the last layer of a level."""
    return f"{level}.{len(_layers(network, level)) - 1}"


def _layers(network: UNet, level: str) -> list[_Layer]:
    return list(network.get_submodule(level).children())


def _level(network: UNet, name: str, units: ActivationRanges, unit: Tensor, zero: int = 0) -> list[_Convolution]:
    """Return the convolutions of integers of a level whose input is in `unit`."""
    convolutions = []
    for at, layer in enumerate(_layers(network, name)):
        if isinstance(layer, nn.ReLU) or (name, at) == ("encoder.0", 0):
            continue
        result = units[f"{name}.{at + 1}"]
        convolutions.append(_Convolution(layer, unit, result, zero))
        unit, zero = result, 0
    return convolutions


def _units(network: UNet, ranges: ActivationRanges) -> tuple[dict[str, Tensor], list[int]]:
    """Return the units of the channels behind each layer, and what stands for 0 in the sum of each level.

    A skip connection and the sum that it is part of have one unit, so that adding is all there is to do.
    """
    units = {name: _positive(values[1] / _TOP) for name, values in ranges.items()}
    zeros = []
    for n in range(len(network.rises)):
        skip, rise = _last(network, f"encoder.{n}"), f"rises.{n}"
        units[skip], zero = _unit_of_sum(ranges[skip], ranges[rise], ranges[f"{rise}.project"])
        units[rise] = units[skip]
        zeros.append(zero)
    return units, zeros


def _unit_of_sum(skip: Tensor, total: Tensor, coarse: Tensor) -> tuple[Tensor, int]:
    """Return the finest unit in which both parts of a sum, and the sum around some zero, fit between the bounds."""
    parts = torch.maximum(skip[1] / _TOP, coarse.abs().amax(0) / _HALF)
    choices = []
    for zero in _ZEROS:
        above, below = total[1] / (_TOP - zero), -total[0] / max(zero, 0.5)
        choices.append((_positive(torch.maximum(parts, torch.maximum(above, below))), zero))
    return min(choices, key=lambda choice: float(choice[0].log().sum()))


def _positive(unit: Tensor) -> Tensor:
    """Give channels that were always 0 the largest unit of the others."""
    return torch.where(unit > 0, unit, unit.max().clamp(min=1e-6))


def _largest(x: Tensor, pool: int | Axes) -> Tensor:
    """Return the largest value of each cell of `pool` voxels."""
    return _as_features(_pool_cells(_as_volume(x), _factors(x, pool)), x.ndim)


def _sum(coarse: Tensor, skip: Tensor, pool: int | Axes, zero: int) -> Tensor:
    """Return `skip` plus `coarse`, each of whose voxels is repeated `pool` times, plus `zero`; `skip` is used up."""
    _add_repeated(_as_volume(coarse), _as_volume(skip), _factors(skip, pool), np.int16(zero))
    return skip


def _factors(x: Tensor, pool: int | Axes) -> tuple[int, int, int]:
    factors = (pool,) * (x.ndim - 2) if isinstance(pool, int) else tuple(pool)
    return (1, *factors)[-3:]  # type: ignore[return-value]


def _as_volume(x: Tensor) -> NDArray[Any]:
    """Return features ``(1, c, [z,] y, x)``, channels last in memory, as ``(z, y, x, c)`` over the same bytes."""
    array: NDArray[Any] = x[0].movedim(0, -1).numpy()
    return array if array.ndim == 4 else array[None]


def _as_features(array: NDArray[Any], ndim: int) -> Tensor:
    """Undo `_as_volume`."""
    return torch.from_numpy(array if ndim == 5 else array[0]).movedim(-1, 0)[None]


@compiled
def _pool_cells(x, pool):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    depth, height, width, channels = x.shape
    out = np.zeros((depth // pool[0], height // pool[1], width // pool[2], channels), np.uint8)
    for z in range(out.shape[0] * pool[0]):
        for y in range(out.shape[1] * pool[1]):
            line, cells = x[z, y], out[z // pool[0], y // pool[1]]
            for cell in range(out.shape[2]):
                for at in range(cell * pool[2], (cell + 1) * pool[2]):
                    for c in range(channels):
                        cells[cell, c] = max(cells[cell, c], line[at, c])
    return out


@compiled
def _add_repeated(coarse, skip, pool, zero):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    depth, height, width, channels = skip.shape
    for z in range(depth):
        for y in range(height):
            cells, line = coarse[z // pool[0], y // pool[1]], skip[z, y]
            for cell in range(width // pool[2]):
                for at in range(cell * pool[2], (cell + 1) * pool[2]):
                    for c in range(channels):
                        total = np.int16(cells[cell, c]) + np.int16(line[at, c]) + zero
                        line[at, c] = np.uint8(min(max(total, np.int16(0)), np.int16(_TOP)))
