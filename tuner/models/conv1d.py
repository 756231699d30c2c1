"""Convolutions on the samples themselves, after M5 and M11 of Dai et al. 2016."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

# The first layer of the paper: 80 samples, which at its 8 kHz are 10 ms, every fourth sample.
FIRST_KERNEL, FIRST_STRIDE = 80, 4
# 8,000 values from 32,000 samples, as the paper's table has it.
FIRST_PADDING = (FIRST_KERNEL - FIRST_STRIDE) // 2
POOL = 4
MIN_SAMPLES = FIRST_STRIDE
"""Fewer give not one value behind the first layer; shorter clips are filled up with zeros."""
LAYERS: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((1, 1), (2, 1), (4, 1)),
    11: ((1, 2), (2, 2), (4, 3), (8, 2)),
}
"""What follows the first layer, by depth: ``(width as a multiple of the first layer's, layers)``.

The depth counts the first layer and the output as well. M5 is depth 5 with 128 channels
(128, 128, 256, 512); M11 is depth 11 with 64 channels (64, 2 x 64, 2 x 128, 3 x 256, 2 x 512).
"""


def _layer(c_in: int, c_out: int, kernel_size: int, stride: int, padding: int) -> list[nn.Module]:
    return [
        # The norm's shift replaces the convolution's bias.
        nn.Conv1d(c_in, c_out, kernel_size, stride, padding, bias=False),
        nn.BatchNorm1d(c_out),
        nn.ReLU(),
    ]


def _stage(c_in: int, c_out: int, num_layers: int) -> list[nn.Module]:
    """Convolutions over three values that keep the length."""
    widths = [c_in] + [c_out] * num_layers
    return [
        m for a, b in pairwise(widths) for m in _layer(a, b, kernel_size=3, stride=1, padding=1)
    ]


def _pool() -> nn.Module:
    # ceil_mode: four poolings of a short clip never reach zero values; the paper has 32 of 125.
    return nn.MaxPool1d(POOL, ceil_mode=True)


class TimeMean(nn.Module):
    """``[b, c, t]`` to ``[b, c]``: the global average pooling of the paper."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average over time."""
        return x.mean(2)


class WaveformCnn(nn.Module):
    """Very deep convolutional network for raw waveforms (Dai et al. 2016, arXiv 1610.00087).

    A wide first layer that acts as a filter bank, then layers of kernel 3 whose width grows after
    a pooling by 4, batch normalisation and ReLU after every convolution, an average over time,
    dropout (ours) and one linear layer. M5 pools after its last stage too, M11 does not.

    Args:
        num_labels: classes ``k``.
        depth: layers with weights, 5 or 11.
        channels: width of the first layer; the paper's M5 has 128, its M11 has 64.
        dropout: share of pooled features dropped in training.
    """

    def __init__(
        self,
        num_labels: int,
        *,
        depth: Literal[5, 11] = 5,
        channels: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        layers = _layer(1, channels, FIRST_KERNEL, FIRST_STRIDE, FIRST_PADDING)
        width = channels
        for multiple, num_layers in LAYERS[depth]:
            layers += [_pool(), *_stage(width, channels * multiple, num_layers)]
            width = channels * multiple
        if depth == 5:
            layers.append(_pool())
        self.body = nn.Sequential(*layers, TimeMean())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_labels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardised samples ``float[b, 1, 1, L]`` of any length to logits ``float[b, k]``."""
        samples = x.flatten(1, 2)
        missing = MIN_SAMPLES - samples.shape[-1]
        if missing > 0:
            samples = F.pad(samples, (0, missing))
        logits: torch.Tensor = self.head(self.body(samples))
        return logits
