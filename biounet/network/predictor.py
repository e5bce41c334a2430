"""A block of image becomes a block of probabilities."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from biounet.core import PROBABILITY_MAX, MachineError, ModelError
from biounet.network.activation_ranges import ActivationRanges
from biounet.network.int8 import IntegerUNet, has_fast_int8
from biounet.network.model_file import Model
from biounet.network.unet import Level, UNet, unfold_voxels


@dataclass(frozen=True)
class Predictor:
    """A network made ready for one device: batch norm folded, in the number type that is fastest there.

    Attributes
    ----------
    network
        The frozen network, of integers on a CPU that is fast with them, if the ranges of its features are known.
    device
        Where it runs.
    dtype
        What it takes: bfloat16 where the hardware multiplies it natively, else float32.
    softmax
        Whether the output channels exclude each other.
    """

    network: UNet | IntegerUNet
    device: torch.device
    dtype: torch.dtype
    softmax: bool

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Predict a block.

        Parameters
        ----------
        image
            Normalised, shape ``(c, [z,] y, x)``, each axis a multiple of the network's stride.

        Returns
        -------
        Probabilities ``0 … 65535``, shape ``(k, [z,] y, x)``. Integers, so that everything computed from them is exact
        in whatever order blocks arrive.

        Raises
        ------
        ModelError
            If what the network computes is not finite: from that no object can be told.
        """
        layout = torch.channels_last if image.ndim == 3 else torch.channels_last_3d
        tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
        tensor = tensor.to(device=self.device, dtype=self.dtype).to(memory_format=layout)
        with torch.inference_mode():
            maps = _quantise(self.network.folded(tensor), math.prod(self.network.fold), self.softmax)
            return unfold_voxels(maps, self.network.fold)[0].numpy()


def predictor_of(model: Model, device: str = "auto") -> Predictor:
    """Make a model ready for prediction; errors as of `make_predictor`."""
    return make_predictor(model.network, device, softmax=model.card.recipe.data.exclusive, ranges=model.ranges)


def make_predictor(
    network: UNet, device: str = "auto", *, softmax: bool = False, ranges: ActivationRanges | None = None
) -> Predictor:
    """Make a copy of a network ready for prediction.

    Parameters
    ----------
    network
        With running statistics of batch norm.
    device
        ``auto``, ``cpu`` or ``cuda[:n]``.
    softmax
        Whether the output channels exclude each other.
    ranges
        Of its features, so that it may compute in integers: the maps differ by less than 0.001 on average.

    Raises
    ------
    MachineError
        If the device does not exist here.
    """
    place = pick_device(device)
    dtype = torch.bfloat16 if has_fast_bfloat16(place) else torch.float32
    if place.type == "cpu" and ranges and has_fast_int8():
        return Predictor(IntegerUNet(fold_batch_norms(network), ranges, dtype), place, dtype, softmax)
    layout = torch.channels_last if network.dims == 2 else torch.channels_last_3d
    ready = fold_batch_norms(network).to(device=place, dtype=dtype)
    ready = ready.to(memory_format=layout)  # type: ignore[call-overload]
    if place.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        _fuse_relu(ready)
    # The head makes the surface that voxels climb: in bfloat16 that would be stairs.
    ready.head = _InFloat32(ready.head.float())
    return Predictor(ready, place, dtype, softmax)


def fold_batch_norms(network: UNet) -> UNet:
    """Return a copy for prediction in which each batch norm is part of the convolution before it."""
    folded = copy.deepcopy(network).eval()
    for level in [*folded.encoder, *folded.decoder]:
        layers = list(level.children())
        fused = [fuse_conv_bn_eval(conv, norm) for conv, norm in zip(layers[::3], layers[1::3], strict=True)]
        _replace(level, [layer for conv in fused for layer in (conv, nn.ReLU(inplace=True))])
    return folded.requires_grad_(False)


def _replace(level: Level, layers: Sequence[nn.Module]) -> None:
    for name in list(level._modules):
        del level._modules[name]
    for layer in layers:
        level.append(layer)


def _fuse_relu(network: UNet) -> None:
    for level in [*network.encoder, *network.decoder]:
        _replace(level, [_ConvolutionRelu(layer) for layer in list(level.children())[::2]])


class _ConvolutionRelu(nn.Module):
    """A convolution and its ReLU in one pass over memory, the same to the last bit and 5 % faster on a CPU.

    This is the operator that ``torch.compile`` emits; called by itself it needs no compiler and no warm-up.
    """

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        how = self.convolution
        size = (how.padding, how.stride, how.dilation, how.groups)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, how.weight, how.bias, *size, "relu", [], "")
        return result


class _InFloat32(nn.Module):
    """A layer that computes in float32 whatever it is given."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.float())
        return result


def _quantise(folded: Tensor, voxels: int, softmax: bool) -> Tensor:
    """Return probabilities, uint16, of logits with `voxels` folded into the channels.

    They are unfolded afterwards, since that moves half the bytes.
    """
    logits = folded.float()
    if not bool(logits.sum(dtype=torch.float64).isfinite()):  # one pass; two infinities make a NaN
        hint = "its weights are too large, or damaged: train again, or take an earlier copy"
        raise ModelError("what the model computes for this image is not finite", hint=hint)
    if softmax:
        shape = logits.shape
        probability = logits.reshape(1, shape[1] // voxels, voxels, *shape[2:]).softmax(1).reshape(shape)
    else:
        probability = logits.sigmoid()
    return probability.mul_(PROBABILITY_MAX).round_().cpu().to(torch.uint16)


def pick_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda[:n]`` means here.

    Raises
    ------
    MachineError
        If it was named and is not there.
    """
    if not isinstance(name, str) or name.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise MachineError(f"device {name!r} cannot be used", hint="auto, cpu, cuda or cuda:n")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MachineError(f"device '{name}' cannot be used", hint="try --device cpu") from error
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively; where it only emulates, float32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
