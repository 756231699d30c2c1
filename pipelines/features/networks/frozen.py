"""Pretrained networks as a front end: several joined, on samples, without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import nn

from pipelines.features.networks.selection import parse_all
from pipelines.features.networks.store import load


class Frozen(nn.Module):
    """The chosen layers of several networks as one column of features; always in eval mode.

    Args:
        networks: The networks; equal sources share one.
        layers: Number of the network and name of each layer, in the order of the rows.
    """

    def __init__(self, networks: Sequence[nn.Module], layers: Sequence[tuple[int, str]]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.layers = tuple(layers)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever holds the module."""
        return super().train(False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] at the networks' sample rate to float32[n, f, 1]."""
        found = [network(samples) for network in self.networks]
        return torch.cat([found[number][layer] for number, layer in self.layers], dim=1)[
            :, :, None
        ]


def build_frozen(texts: Sequence[str], with_weights: bool) -> Frozen:
    """Build the front end for a choice of networks.

    Args:
        texts: The choice, see ``selection.parse``.
        with_weights: True for the published weights, which are fetched if they are not in the
            cache; False for random ones, when only shapes matter or a file of all weights follows.

    Raises:
        SpecError: The choice is impossible; says why.
        WeightsError: Weights are missing or damaged.
    """
    chosen = parse_all(texts)
    rows = {one.source: one.network for one in chosen}
    sources = list(rows)
    layers = [(sources.index(one.source), layer) for one in chosen for layer in one.layers]
    return Frozen([load(s) if with_weights else rows[s].build() for s in sources], layers)
