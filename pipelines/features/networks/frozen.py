"""Pretrained networks as a front end: several joined, on samples, without gradients."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Self

import torch
import xxhash
from torch import nn

from pipelines.features.networks.selection import parse_all
from pipelines.features.networks.store import load

_RECENT: OrderedDict[tuple[str, bytes], dict[str, torch.Tensor]] = OrderedDict()
_MOST_RECENT = 64  # batches of clips, of a megabyte at most


class Frozen(nn.Module):
    """The chosen layers of several networks as one column of features; always in eval mode.

    Args:
        networks: The networks by source, which is a name or a file.
        layers: Number of the network and name of each layer, in the order of the rows.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], layers: Sequence[tuple[int, str]]
    ) -> None:
        super().__init__()
        self.sources = tuple(networks)
        self.networks = nn.ModuleList(networks.values())
        self.layers = tuple(layers)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever holds the module."""
        return super().train(False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Map float32[n, l] at the networks' sample rate to float32[n, f, 1]."""
        return self._joined([network(samples) for network in self.networks])

    def once(self, samples: torch.Tensor) -> torch.Tensor:
        """Do the same, but run a network once on samples that other choices ask it for as well.

        Only for networks with the weights of this node's cache: those of a source are the same.
        """
        digest = xxhash.xxh3_128_digest(samples.contiguous().numpy().data)
        device = next(self.parameters()).device
        found = []
        for source, network in zip(self.sources, self.networks, strict=True):
            if (activations := _RECENT.get((source, digest))) is None:
                activations = _RECENT[source, digest] = network(samples.to(device))
                if len(_RECENT) > _MOST_RECENT:
                    _RECENT.popitem(last=False)
            found.append(activations)
        return self._joined(found)

    def _joined(self, found: Sequence[Mapping[str, torch.Tensor]]) -> torch.Tensor:
        chosen = [found[number][layer] for number, layer in self.layers]
        return torch.cat(chosen, dim=1)[:, :, None]


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
    networks = {s: load(s) if with_weights else rows[s].build() for s in sources}
    return Frozen(networks, layers)
