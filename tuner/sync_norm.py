"""Batch norm over the batches of all workers, on any device."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm with the statistics of the whole batch.

    torch's own SyncBatchNorm refuses CPU tensors. With statistics of the whole batch, two workers
    compute what one worker with the same batch computes, so `resources.workers` is a matter of
    speed and never of the result. The mean and variance come from sums that are added over the
    workers by an all-reduce that autograd follows.
    """

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Any number of axes after batch and channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, c, ...]``, normalised per channel ``c``."""
        if not self.training:
            plain: torch.Tensor = super().forward(x)
            return plain
        from torch.distributed.nn.functional import all_reduce

        wide = x.float()
        others = [axis for axis in range(wide.ndim) if axis != 1]
        count = wide.new_tensor([wide.numel() // wide.shape[1]])
        local = torch.cat([wide.sum(others), (wide * wide).sum(others), count])
        whole: torch.Tensor = all_reduce(local)  # type: ignore[no-untyped-call]
        c = x.shape[1]
        total, squares, number = whole[:c], whole[c : 2 * c], whole[2 * c :]
        mean = total / number
        variance = (squares / number - mean * mean).clamp_min(0.0)
        with torch.no_grad():
            rate = self.momentum if self.momentum is not None else 0.1
            assert self.running_mean is not None  # synchronise_norms takes only norms that track
            assert self.running_var is not None
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * number / (number - 1).clamp_min(1), rate)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        form = (1, c, *(1,) * (wide.ndim - 2))
        normalised = wide * scale.view(form) + shift.view(form)
        return torch.as_tensor(normalised.to(x.dtype))


class SyncBatchNormAct(SyncBatchNorm):
    """The same for timm's norms, which hold the activation that follows them."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, c, ...]``, normalised per channel, then activated."""
        activated: torch.Tensor = self.act(self.drop(super().forward(x)))
        return activated


def synchronise_norms(network: nn.Module) -> None:
    """Turn each batch norm of a network into a synchronised one, in place, state and all."""
    for module in network.modules():
        if not isinstance(module, _BatchNorm) or not module.track_running_stats:
            continue
        if isinstance(module, SyncBatchNorm):
            continue
        with_activation = hasattr(module, "act") and hasattr(module, "drop")
        module.__class__ = SyncBatchNormAct if with_activation else SyncBatchNorm
