"""A stack of convolution blocks in the manner of VGG, sized by hyperparameters."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import nn

Activation = Literal["relu", "gelu", "silu"]
Pool = Literal["avg", "max", "concat"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU,
}  # fmt: skip


class GlobalPool(nn.Module):
    """``[b, c, f, m]`` to ``[b, c]`` by mean or maximum, or to ``[b, 2c]`` by both."""

    def __init__(self, kind: Pool) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool over frequency and time."""
        if self.kind == "avg":
            return x.mean((2, 3))
        if self.kind == "max":
            return x.amax((2, 3))
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def _block(
    c_in: int, c_out: int, kernel_size: int, activation: Activation, batch_norm: bool
) -> nn.Module:
    layers: list[nn.Module] = [
        # The norm's shift replaces the convolution's bias.
        nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=not batch_norm),
        *([nn.BatchNorm2d(c_out)] if batch_norm else []),
        ACTIVATIONS[activation](),
        # ceil_mode: five halvings of a short clip never reach zero frames.
        nn.MaxPool2d(2, ceil_mode=True),
    ]
    return nn.Sequential(*layers)


class Cnn(nn.Module):
    """Convolution blocks that halve both axes and double the channels, pooling, a dense head.

    Args:
        num_labels: classes ``k``.
        blocks: number of convolution blocks.
        channels: channels of the first block; each next one has twice as many.
        kernel_size: side of the square kernels, odd.
        activation: after each convolution and dense layer.
        batch_norm: normalise each convolution's output.
        pool: how frequency and time are pooled before the head.
        dropout: share of pooled features dropped in training.
        hidden: width of a dense layer before the output; 0 for none.
    """

    def __init__(  # noqa: PLR0913 - the knobs of a model row are its arguments
        self,
        num_labels: int,
        *,
        blocks: int = 4,
        channels: int = 16,
        kernel_size: int = 3,
        activation: Activation = "relu",
        batch_norm: bool = True,
        pool: Pool = "avg",
        dropout: float = 0.2,
        hidden: int = 0,
    ) -> None:
        super().__init__()
        widths = [1, *(channels * 2**i for i in range(blocks))]
        self.body = nn.Sequential(
            *(
                _block(c_in, c_out, kernel_size, activation, batch_norm)
                for c_in, c_out in pairwise(widths)
            ),
            GlobalPool(pool),
        )
        width = widths[-1] * (2 if pool == "concat" else 1)
        dense: list[nn.Module] = [nn.Dropout(dropout)]
        if hidden:
            dense += [nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = hidden
        self.head = nn.Sequential(*dense, nn.Linear(width, num_labels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, 1, f, m]`` to logits ``float[b, k]``."""
        logits: torch.Tensor = self.head(self.body(x))
        return logits
