"""Modules that networks share: standardisation, pooling, padding of samples, the two parts."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy as np

    from tuner.models.settings import Pool

# Below this spread (in dB, or as a share of 1 for a tempogram) a row is constant in the training
# set, and dividing by less would only amplify noise.
MIN_STD = 1e-3


class Classifier(nn.Module):
    """A network preceded by standardisation with training-set statistics.

    This is the module that is checkpointed, exported and served.

    Args:
        network: Maps ``float[b, 1, f, m]`` to ``float[b, k]``.
        mean: Mean of each row over the training clips, ``[f]``.
        std: Standard deviation of each row, ``[f]``.
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
        """Scale ``float[b, f, m]`` to zero mean and unit spread per row: ``float[b, 1, f, m]``."""
        return ((x - self.mean) / self.std.clamp_min(MIN_STD))[:, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features ``float[b, f, m]`` to logits ``float[b, k]``."""
        logits: torch.Tensor = self.network(self.standardise(x))
        return logits


def in_two_parts(body: nn.Module, head: nn.Module) -> nn.Module:
    """Chain a body (input to pooled features) and a head (features to logits) under these names.

    Optimizers, freezing and weight files distinguish the two parts by name.
    """
    return nn.Sequential(OrderedDict(body=body, head=head))


def pooled(x: torch.Tensor, kind: Pool) -> list[torch.Tensor]:
    """Pool ``[b, c, ...]`` to one ``[b, c]`` for ``avg`` or ``max``, to both for ``concat``."""
    axes = tuple(range(2, x.dim()))
    average = [x.mean(axes)] if kind != "max" else []
    maximum = [x.amax(axes)] if kind != "avg" else []
    return average + maximum


class GlobalPool(nn.Module):
    """Pooling of ``[b, c, ...]`` to ``[b, c]`` by mean or maximum, or to ``[b, 2c]`` by both."""

    def __init__(self, kind: Pool) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool over all axes after the channels."""
        return torch.cat(pooled(x, self.kind), dim=1)


def padded_samples(x: torch.Tensor, min_samples: int) -> torch.Tensor:
    """Return ``float[b, 1, 1, L]`` as ``float[b, 1, L]``, zero-padded to ``min_samples``."""
    samples = x.flatten(1, 2)
    missing = min_samples - samples.shape[-1]
    return F.pad(samples, (0, missing)) if missing > 0 else samples


class OnSamples(nn.Sequential):
    """Layers for ``float[b, 1, L]`` that take ``float[b, 1, 1, L]`` of any length.

    Args:
        layers: The layers, in order.
        min_samples: Length to which shorter clips are padded with zeros.
    """

    def __init__(self, *layers: nn.Module, min_samples: int) -> None:
        super().__init__(*layers)
        self.min_samples = min_samples

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, then run the layers."""
        y: torch.Tensor = super().forward(padded_samples(x, self.min_samples))  # type: ignore[no-untyped-call]
        return y
