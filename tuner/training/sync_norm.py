"""Batch norm synchronised across workers, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _Normalise(torch.autograd.Function):
    """Normalisation by the mean and variance over the clips of all workers, with its gradient.

    torch's single-worker kernels pass over the clips, in the clips' precision with sums in
    float32. Workers exchange two numbers per channel in the forward and in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``x[b, c, ...]`` normalised, and mean, variance and count of each channel.

        Means and variances of the workers are merged as in Chan, Golub and LeVeque, Updating
        formulae and a pairwise algorithm for computing sample variances, 1979.
        """
        c = x.shape[1]
        # With float32 arrays to update, the kernel returns float32 for bfloat16 clips too.
        unused = weight.new_zeros(c), weight.new_ones(c)
        mean, variance = torch.batch_norm_update_stats(x, *unused, 0.0)
        count = mean.new_full((1,), x.numel() // c)  # made on the device, to avoid a wait
        of_all = _gather(torch.cat([mean, variance, count]))
        means, variances, counts = of_all[:, :c], of_all[:, c : 2 * c], of_all[:, 2 * c :]
        number = counts.sum()
        share = counts / number
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        ctx.save_for_backward(x, weight, mean, variance, number)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, number)
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y, mean, variance, number

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """Return the gradients of clips, weight and bias; the last two for this worker's clips.

        The single-worker kernel uses sums ``s`` over its own ``n`` values instead of the sums
        ``S`` over all ``N``. Its result is linear in ``s / n``, so the missing term is the same
        normalisation with ``weight * (s / n - S / N) / std`` as the weight.
        """
        x, weight, mean, variance, number = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        answer: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
        answer = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        grad_x, grad_weight, grad_bias = answer
        own = torch.stack([grad_weight, grad_bias])
        whole = _gather(own).sum(0)
        scale, shift = (weight * inverse) * (own * (x.shape[1] / x.numel()) - whole / number)
        grad_x += F.batch_norm(x, mean, variance, scale, shift, training=False, eps=ctx.eps)
        return grad_x, grad_weight, grad_bias, None


def _gather(own: torch.Tensor) -> torch.Tensor:
    """Return the tensors of all workers, stacked by rank.

    Sums over them have the same bits on all workers, which an all-reduce does not guarantee.
    """
    of_all = own.new_empty(dist.get_world_size(), *own.shape)
    dist.all_gather(list(of_all), own)
    return of_all


class SyncBatchNorm(_BatchNorm):
    """Batch norm with the statistics of the whole batch.

    torch's SyncBatchNorm does not accept CPU tensors. With whole-batch statistics, two workers
    compute the same as one worker with the same batch, so ``resources.workers`` affects only the
    speed.
    """

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Accept any number of axes after batch and channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``float[b, c, ...]``, normalised per channel ``c``."""
        if not self.training:
            plain: torch.Tensor = super().forward(x)
            return plain
        y, mean, variance, number = _Normalise.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            rate = self.momentum if self.momentum is not None else 0.1
            assert self.running_mean is not None  # synchronise_norms selects norms that track
            assert self.running_var is not None
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * number / (number - 1).clamp_min(1), rate)
        return torch.as_tensor(y)


class SyncBatchNormAct(SyncBatchNorm):
    """Synchronised form of timm's norms, which include the activation that follows them."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``float[b, c, ...]``, normalised per channel, then activated."""
        activated: torch.Tensor = self.act(self.drop(super().forward(x)))
        return activated


def synchronise_norms(network: nn.Module) -> None:
    """Turn every batch norm of a network into a synchronised one, in place, with its state."""
    for module in network.modules():
        if not isinstance(module, _BatchNorm) or not module.track_running_stats:
            continue
        if isinstance(module, SyncBatchNorm):
            continue
        with_activation = hasattr(module, "act") and hasattr(module, "drop")
        module.__class__ = SyncBatchNormAct if with_activation else SyncBatchNorm
