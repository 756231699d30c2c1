"""A stack of convolution blocks in the manner of VGG, sized by hyperparameters."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from tuner.models.pooling import GlobalPool, Pool

Activation = Literal["relu", "gelu", "silu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU,
}  # fmt: skip


def _convolution(
    c_in: int, c_out: int, kernel_size: int, activation: Activation, batch_norm: bool
) -> list[nn.Module]:
    return [
        # The norm's shift replaces the convolution's bias.
        nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2, bias=not batch_norm),
        *([nn.BatchNorm2d(c_out)] if batch_norm else []),
        ACTIVATIONS[activation](),
    ]


class Cnn(nn.Module):
    """Convolution blocks that halve both axes and double the channels, pooling, a dense head.

    Args:
        num_labels: classes ``k``.
        blocks: number of convolution blocks.
        convolutions: convolutions of each block.
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
        convolutions: int = 1,
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
        stack: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            block: list[nn.Module] = []
            for before in (c_in, *[c_out] * (convolutions - 1)):
                block += _convolution(before, c_out, kernel_size, activation, batch_norm)
            # ceil_mode: five halvings of a short clip never reach zero frames.
            stack.append(nn.Sequential(*block, nn.MaxPool2d(2, ceil_mode=True)))
        self.body = nn.Sequential(*stack, GlobalPool(pool))
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
