"""Pretrained networks as a front end: the activations of one or several, side by side."""

from __future__ import annotations

import torch
from torch import nn

from pipelines.features.networks import store
from pipelines.features.networks.selection import Selected, select


class Frozen(nn.Module):
    """Samples to the activations of pretrained networks.

    Args:
        selected: The networks, all for one sample rate.
        modules: Their modules, from samples float32[n, l] to their layers float32[n, w].
    """

    def __init__(self, selected: tuple[Selected, ...], modules: list[nn.Module]) -> None:
        super().__init__()
        self.layers = [one.layers for one in selected]
        self.networks = nn.ModuleList(modules)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] to float32[n, f, 1]."""
        found = []
        for layers, network in zip(self.layers, self.networks, strict=True):
            activations = network(samples)
            found += [activations[layer] for layer in layers]
        return torch.cat(found, dim=1)[:, :, None]


def build_frozen(text: str, *, with_weights: bool) -> Frozen:
    """Build the networks of a selection, in eval mode and without gradients.

    Args:
        text: The selection; see ``selection.select``.
        with_weights: True for the published weights, which are fetched if this node does not have
            them; False for a module that waits for a state.

    Raises:
        SpecError: The selection has a fault.
        WeightsError: Weights are missing, damaged, or of something else.
    """
    selected = select(text)
    modules = [store.load(one.source) if with_weights else one.network.build() for one in selected]
    return Frozen(selected, modules).eval().requires_grad_(False)
