"""Optimizers by name and learning rates as pure functions of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import nn

OptimizerName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["constant", "cosine", "one_cycle"]

# Smith & Topin 2018 (arXiv 1708.07120) with the constants of torch's OneCycleLR: rise over 30 % of
# the steps from 1/25 of the peak, fall to 1/25 of 1e-4 of it.
RISE_SHARE = 0.3
START_DIVISOR = 25.0
FINAL_DIVISOR = 1e4


def _cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine as ``share`` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def learning_rate(schedule: ScheduleName, peak: float, step: int, total_steps: int) -> float:
    """The learning rate of ``step`` (from 0) out of ``total_steps``.

    A function of the step alone: a resumed run needs no scheduler state to go on exactly.
    """
    last = max(total_steps - 1, 1)
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return _cosine(peak, 0.0, min(step / last, 1.0))
    rise_end = RISE_SHARE * total_steps - 1
    if step <= rise_end:
        return _cosine(peak / START_DIVISOR, peak, step / rise_end)
    fallen = min((step - rise_end) / max(last - rise_end, 1.0), 1.0)
    return _cosine(peak, peak / START_DIVISOR / FINAL_DIVISOR, fallen)


def build_optimizer(
    network: nn.Module, name: OptimizerName, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """The named optimizer over two groups: kernels decay, norms and biases (one axis) do not.

    The learning rate is set before each step from `learning_rate`.
    """
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0)
    if name == "adam":
        return torch.optim.Adam(groups, lr=0.0)
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0)
