"""Predict a block of an image: the device, the number type, and the network prepared for them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from biounet.core import PROBABILITY_MAX, MachineError, ModelError, Note, NoteCode, Region
from biounet.network.activation_ranges import ActivationRanges
from biounet.network.device_pipeline import CudaDevice, DevicePipeline
from biounet.network.int8 import Int8UNet
from biounet.network.model_file import Model
from biounet.network.onednn import conv_relu, cpu_supports, has_fast_int8, has_fused_relu
from biounet.network.quantization import Convolution, conv_geometry
from biounet.network.unet import Axes, UNet, fold_batch_norms, pixel_shuffle, replace_blocks

_LIVE_LAYERS = 6  # of the finest level of a network of floats: the skip, inputs, an output, work spaces

Arithmetic = Literal["int8", "bf16", "fp32"]
"""The numbers that a network computes in: labels of the same image differ a little between two of them."""


@dataclass(frozen=True)
class Predictor:
    """A network prepared for one device: batch norm folded, in the number type that is fastest there.

    Attributes
    ----------
    softmax
        Whether the output channels exclude each other.
    pipeline
        Of a GPU; None: blocks are computed in the thread that asks for them.
    crops
        Whether the network computes no more than it needs for the region to keep. Without, its layers have the same
        shapes for all images of a shape, and a GPU the same arithmetic.
    make_substitute
        Makes the predictor on the CPU, for images of which no block fits on the GPU.
    shortages
        Gets a note when the memory of the GPU ran out and the block was computed after all; see `watched`.
    """

    network: UNet | Int8UNet
    device: torch.device
    dtype: torch.dtype
    softmax: bool
    pipeline: DevicePipeline | None = None
    make_substitute: Callable[[], Predictor] | None = None
    crops: bool = True
    shortages: list[Note] = field(default_factory=list, compare=False, repr=False)

    @property
    def arithmetic(self) -> Arithmetic:
        """The numbers that the network computes in."""
        return "int8" if isinstance(self.network, Int8UNet) else "bf16" if self.dtype == torch.bfloat16 else "fp32"

    def watched(self) -> Predictor:
        """Return the same predictor, whose `shortages` are those of one image."""
        return replace(self, shortages=[])

    def __call__(self, image: NDArray[np.float32], keep: Region | None = None) -> NDArray[np.uint16]:
        """Map a normalised ``(c, [z,] y, x)``, each axis a multiple of the stride, to probabilities ``0 … 65535``.

        With `keep`, only those of a region of the image.

        These are integers, so that everything computed from them is exact in whatever order blocks arrive. An output of
        the network that is not finite raises `ModelError`.
        """
        factors = self.network.shuffle_factors
        blocks = _shuffled_region(keep, factors) if keep is not None and self.crops else None
        maps = self._on_device(image, blocks) if self.pipeline is not None else self._in_this_thread(image, blocks)
        if keep is None:
            return maps
        if blocks is None:
            return maps[(slice(None), *keep)]
        starts = (block.start * factor for block, factor in zip(blocks, factors, strict=True))
        inside = (slice(part.start - at, part.stop - at) for part, at in zip(keep, starts, strict=True))
        return maps[(slice(None), *inside)]

    def _in_this_thread(self, image: NDArray[np.float32], blocks: Region | None) -> NDArray[np.uint16]:
        tensor = torch.from_numpy(np.ascontiguousarray(image))
        with torch.inference_mode():
            logits = self._logits(tensor.to(self.device), blocks)
            _check_finite(bool(_is_finite(logits)))
            # Half as many bytes are left to `pixel_shuffle`.
            maps = _scaled_probabilities(logits, self._shuffled, self.softmax).cpu().to(torch.uint16)
            return pixel_shuffle(maps, self.network.shuffle_factors)[0].numpy()

    def _on_device(self, image: NDArray[np.float32], blocks: Region | None) -> NDArray[np.uint16]:
        """Return the maps of shuffled blocks, which other threads' blocks are computed beside."""

        def compute(tensor: Tensor) -> tuple[Tensor, Tensor]:
            logits = self._logits(tensor, blocks)
            # As int16 of the same bits, by a cast that wraps: few operators of a GPU know uint16.
            maps = _scaled_probabilities(logits, self._shuffled, self.softmax).to(torch.int32).to(torch.int16)
            return pixel_shuffle(maps, self.network.shuffle_factors)[0].contiguous(), _is_finite(logits)

        if self.pipeline is None:
            raise TypeError("no pipeline")
        (maps, is_finite), was_alone = self.pipeline.run(image, compute)
        if was_alone:
            text = "memory of the device ran out: one block at a time"
            self.shortages.append(Note(text, NoteCode.ONE_BLOCK_AT_A_TIME))
        _check_finite(bool(is_finite))
        return maps.view(np.uint16)

    @property
    def _shuffled(self) -> int:
        return math.prod(self.network.shuffle_factors)

    def _logits(self, image: Tensor, blocks: Region | None) -> Tensor:
        """Return the logits of an image ``(c, [z,] y, x)`` on the device before `pixel_shuffle`, float32."""
        layout = torch.channels_last if image.ndim == 3 else torch.channels_last_3d
        tensor = image[None].to(dtype=self.dtype).to(memory_format=layout)
        return self.network.shuffled_logits(tensor, blocks).float()


def _shuffled_region(region: Region, factors: Axes) -> Region:
    """Return the shuffled blocks that hold a region."""
    return tuple(
        slice(part.start // factor, -(-part.stop // factor)) for part, factor in zip(region, factors, strict=True)
    )


def model_predictor(model: Model, device: str = "auto") -> Predictor:
    """Prepare a model for prediction; errors as of `make_predictor`."""
    softmax = model.card.recipe.data.exclusive
    return make_predictor(model.network, device, softmax=softmax, activation_ranges=model.activation_ranges)


def make_predictor(
    network: UNet, device: str = "auto", *, softmax: bool = False, activation_ranges: ActivationRanges | None = None
) -> Predictor:
    """Prepare a copy of a network for prediction.

    Parameters
    ----------
    device
        ``auto``, ``cpu`` or ``cuda[:n]``; errors as of `pick_device`.
    softmax
        Whether the output channels exclude each other.
    activation_ranges
        From `calibrate_activations`. With them a CPU may compute in 8-bit integers: probabilities differ by less than
        0.001 on average.
    """
    target = pick_device(device)
    dtype = torch.bfloat16 if has_fast_bfloat16(target) else torch.float32
    folded = fold_batch_norms(network).to(target)
    if target.type == "cpu" and activation_ranges and has_fast_int8():
        return Predictor(Int8UNet(folded, activation_ranges, dtype), target, dtype, softmax)
    layout = torch.channels_last if network.dims == 2 else torch.channels_last_3d
    ready = folded.to(dtype=dtype).to(memory_format=layout)  # type: ignore[call-overload]
    if target.type == "cpu" and has_fused_relu():
        replace_blocks(ready, lambda layers: [_ConvRelu(layer) for layer in layers[::2]])
    # Objects are found by steepest ascent on the head's output, which bfloat16 would turn into steps.
    ready.head.float().register_forward_pre_hook(_cast_to_float32)
    if target.type == "cpu":
        return Predictor(ready, target, dtype, softmax)
    substitute = partial(make_predictor, network, "cpu", softmax=softmax, activation_ranges=activation_ranges)
    pipeline = DevicePipeline(CudaDevice(target))
    return Predictor(ready, target, dtype, softmax, pipeline, _once(substitute))


def bytes_per_feature(device: torch.device, *, in_8_bits: bool) -> int:
    """Return the bytes that a network takes at its peak for each value of its finest features.

    Parameters
    ----------
    in_8_bits
        Whether the model can be computed in 8-bit integers, as a CPU does that multiplies them fast.
    """
    itemsize = 2 if has_fast_bfloat16(device) else 4
    if in_8_bits and device.type == "cpu" and has_fast_int8():
        return itemsize + 1  # features of the first layer as floats, and as integers
    return itemsize * _LIVE_LAYERS


def _once(make: Callable[[], Predictor]) -> Callable[[], Predictor]:
    """Return a function that calls another once, whichever threads ask for what it returns."""
    made, making = cache(make), threading.Lock()

    def get() -> Predictor:
        with making:
            return made()

    return get


class _ConvRelu(nn.Module):
    """A convolution and its ReLU in one pass over memory."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.convolution, self.geometry = convolution, conv_geometry(convolution)

    def forward(self, x: Tensor) -> Tensor:
        return conv_relu(x, self.convolution.weight, self.convolution.bias, self.geometry)


def _cast_to_float32(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].float(),)


def _is_finite(logits: Tensor) -> Tensor:
    return logits.sum(dtype=torch.float64).isfinite()  # one pass; two infinities make a NaN


def _check_finite(is_finite: bool) -> None:
    if not is_finite:
        hint = "its weights are too large, or damaged: train again, or take an earlier copy"
        raise ModelError("what the model computes for this image is not finite", hint=hint)


def _scaled_probabilities(logits: Tensor, shuffled: int, softmax: bool) -> Tensor:
    """Return the probabilities of shuffled logits as whole numbers ``0 … 65535``, float32."""
    maps = logits.reshape(len(logits), -1, shuffled, *logits.shape[2:])
    probability = maps.softmax(1).reshape(logits.shape) if softmax else logits.sigmoid()
    return probability.mul_(PROBABILITY_MAX).round_()


def pick_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda[:n]`` means here; `MachineError` where it does not exist."""
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
        with torch.cuda.device(device):  # the current one is asked, which may be another
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (cpu_supports("amx_tile") or cpu_supports("avx512_bf16"))
