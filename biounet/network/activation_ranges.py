"""Minimum and maximum of every activation: the calibration that prediction in 8-bit integers needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from biounet.network.unet import UNet, UpBlock

ActivationRanges = Mapping[str, Tensor]
"""Minimum and maximum of each channel after a layer, ``(2, c)``, by the name of the layer."""


def calibrate_activations(network: UNet, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the ranges of all activations of a network from `fold_batch_norms` over some images.

    Each is normalised, ``(c, [z,] y, x)``, with every axis a multiple of the network's stride.
    """
    ranges: dict[str, Tensor] = {}

    def observe(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - torch's signature
        values = output[0].flatten(1)
        low, high = ranges.get(name, values[:, :1].T.expand(2, -1))
        ranges[name] = torch.stack([torch.minimum(low, values.amin(1)), torch.maximum(high, values.amax(1))])

    hooks = [
        module.register_forward_hook(partial(observe, name))
        for name, module in network.named_modules()
        if isinstance(module, (nn.ReLU, UpBlock)) or name.endswith(".project")
    ]
    device = network.head.weight.device
    with torch.no_grad():
        for image in images:
            network(image[None].to(device))
    for hook in hooks:
        hook.remove()
    return {name: values.cpu() for name, values in ranges.items()}


def calibrated_channels(network: UNet) -> dict[str, int]:
    """Return the number of channels after each layer that `calibrate_activations` observes."""
    convolutions = len(network.encoder[0]) // 3  # type: ignore[arg-type]
    relus = [2 * at + 1 for at in range(convolutions)]  # without batch norm, every second layer is one
    channels = {f"encoder.{n}.{at}": width for n, width in enumerate(network.widths) for at in relus}
    for n, width in enumerate(network.widths[:-1]):
        names = f"up_blocks.{n}", f"up_blocks.{n}.project", *(f"decoder.{n}.{at}" for at in relus)
        channels |= dict.fromkeys(names, width)
    return channels
