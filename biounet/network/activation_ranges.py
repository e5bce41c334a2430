"""Minimum and maximum of every activation: the calibration that prediction in 8-bit integers needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from biounet.network.unet import UNet, UpBlock

ActivationRanges = Mapping[str, Tensor]
"""Minimum and maximum of each channel after a layer, ``(2, c)``, by the name of the layer."""


def calibrate_activations(network: UNet, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the ranges of all activations over some images.

    Parameters
    ----------
    network
        From `biounet.network.fold_batch_norms`.
    images
        Each ``(c, [z,] y, x)``, normalised, every axis a multiple of the network's stride.
    """
    ranges: dict[str, Tensor] = {}

    def observer(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def observe(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - torch's signature
            values = output[0].flatten(1)
            low, high = ranges.get(name, values[:, :1].T.expand(2, -1))
            ranges[name] = torch.stack([torch.minimum(low, values.amin(1)), torch.maximum(high, values.amax(1))])

        return observe

    hooks = [
        module.register_forward_hook(observer(name))
        for name, module in network.named_modules()
        if isinstance(module, (nn.ReLU, UpBlock)) or name.endswith(".project")
    ]
    with torch.no_grad():
        for image in images:
            network(image[None])
    for hook in hooks:
        hook.remove()
    return ranges


def calibrated_channels(network: UNet) -> dict[str, int]:
    """Return the number of channels after each layer that `calibrate_activations` observes."""
    channels: dict[str, int] = {}
    for n, width in enumerate(network.widths):
        names = [f"encoder.{n}"] if n == len(network.pools) else [f"encoder.{n}", f"decoder.{n}"]
        convolutions = len(network.encoder[n]) // 3  # type: ignore[arg-type]
        # Without batch norm, layers alternate between a convolution and its ReLU.
        channels |= {f"{name}.{2 * at + 1}": width for name in names for at in range(convolutions)}
    for n, width in enumerate(network.widths[:-1]):
        channels |= {f"up_blocks.{n}": width, f"up_blocks.{n}.project": width}
    return channels
