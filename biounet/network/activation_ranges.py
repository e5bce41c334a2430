"""Which values the features of a network take: what `biounet.network` makes its units of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from biounet.network.unet import Rise, UNet

ActivationRanges = Mapping[str, Tensor]
"""The smallest and the largest value of each channel behind a layer, ``(2, c)``, by the name of the layer."""


def calibrate_activations(network: UNet, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the ranges of all features over some images.

    Parameters
    ----------
    network
        From `biounet.network.fold_batch_norms`.
    images
        Each ``(c, [z,] y, x)``, normalised, every axis a multiple of the network's stride.
    """
    ranges: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401 - torch's signature
            values = output[0].flatten(1)
            lowest, highest = ranges.get(name, values[:, :1].T.expand(2, -1))
            lowest, highest = torch.minimum(lowest, values.amin(1)), torch.maximum(highest, values.amax(1))
            ranges[name] = torch.stack([lowest, highest])

        return note

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in network.named_modules()
        if isinstance(module, (nn.ReLU, Rise)) or name.endswith(".project")
    ]
    with torch.no_grad():
        for image in images:
            network(image[None])
    for hook in hooks:
        hook.remove()
    return ranges


def channels_observed(network: UNet) -> dict[str, int]:
    """Return the number of channels behind each layer of a network, by the names that `calibrate_activations` gives."""
    levels = {f"{name}.{n}": level for name in ("encoder", "decoder") for n, level in enumerate(getattr(network, name))}
    names: dict[str, int] = {}
    for name, level in levels.items():
        widths = [layer.out_channels for layer in level.children() if isinstance(layer, (nn.Conv2d, nn.Conv3d))]
        names |= {f"{name}.{2 * at + 1}": width for at, width in enumerate(widths)}  # a convolution, and its ReLU
    for n, width in enumerate(network.widths[:-1]):
        names |= {f"rises.{n}": width, f"rises.{n}.project": width}
    return names
