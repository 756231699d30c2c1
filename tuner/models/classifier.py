"""Standardisation with the training set's statistics, then a network: features in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Below this spread (dB, or a share of 1 for a tempogram) a row is constant in the training set;
# dividing by less would only amplify noise.
MIN_STD = 1e-3


class Classifier(nn.Module):
    """Logits of feature clips.

    Args:
        network: ``float[b, 1, f, m] -> float[b, k]``.
        mean: mean of each row over the training clips, ``[f]``.
        std: standard deviation of each row, ``[f]``.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, network: nn.Module, mean: NDArray[np.float32], std: NDArray[np.float32]
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32)[:, None])
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32)[:, None])

    def standardise(self, x: torch.Tensor) -> torch.Tensor:
        """``float[b, f, m]`` to zero mean and unit spread per row: ``float[b, 1, f, m]``."""
        return ((x - self.mean) / self.std.clamp_min(MIN_STD))[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features ``float[b, f, m]`` to logits ``float[b, k]``."""
        logits: torch.Tensor = self.network(self.standardise(x))
        return logits
