"""Pooling of feature maps over frequency and time."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Pool = Literal["avg", "max", "concat"]


def pooled(x: torch.Tensor, kind: Pool) -> list[torch.Tensor]:
    """``[b, c, f, m]`` to one ``[b, c]`` for ``avg`` or ``max``, and to both for ``concat``."""
    parts = []
    if kind in ("avg", "concat"):
        parts.append(x.mean((2, 3)))
    if kind in ("max", "concat"):
        parts.append(x.amax((2, 3)))
    return parts


class GlobalPool(nn.Module):
    """``[b, c, f, m]`` to ``[b, c]`` by mean or maximum, or to ``[b, 2c]`` by both."""

    def __init__(self, kind: Pool) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool over frequency and time."""
        return torch.cat(pooled(x, self.kind), dim=1)
