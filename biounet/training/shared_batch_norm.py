"""Batch norm with the statistics of the whole batch where processes hold parts of it, on any device.

PyTorch's ``SyncBatchNorm`` does the same on GPUs only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from biounet.network import UNet

Gather = Callable[[Tensor], Tensor]  # of a tensor of each process into one with a first axis for processes


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the parts of a batch, of any sizes; parameters and buffers are those of another batch norm."""

    def __init__(self, norm: _BatchNorm, gather: Gather) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.gather = gather

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(b, c, …)``, and update the running statistics, the same in all processes."""
        values = x.float()
        variance, mean = torch.var_mean(values, [0, *range(2, x.ndim)], correction=0)
        count = mean.new_full((1,), values.numel() / self.num_features)  # made on the device, not copied there
        parts = self.gather(torch.cat([count, mean, variance]))
        counts, means, variances = parts[:, :1], parts[:, 1 : 1 + len(mean)], parts[:, 1 + len(mean) :]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        # Parts combined as by Chan et al. 1983: the mean of squares minus the squared mean would lose digits.
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        self._update(mean.detach(), variance.detach() * (total / (total - 1).clamp(min=1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return torch.addcmul(shift.view(shape), values, scale.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
        self.running_var.lerp_(variance, self.momentum)  # type: ignore[union-attr, arg-type]
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]


def share_batch_norms(network: UNet, gather: Gather) -> None:
    """Replace, in place, each batch norm of a network."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d)):
                setattr(parent, name, SharedBatchNorm(child, gather))
